package hook

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
)

// The search attributes of Probity's workflows. Temporal keeps them in clear,
// so each is a code or a date that says nothing of a patient. Package setup
// makes them known to a server; another one is a constant here and a line
// there.
var (
	// Payer id of the claim or payment.
	Payer = temporal.NewSearchAttributeKeyKeyword("ProbityPayer")
	// DueDate is when somebody must have acted, midnight UTC of the day.
	DueDate = temporal.NewSearchAttributeKeyTime("ProbityDueDate")
)

// Attributes are a workflow's; an empty payer or a date that is none is left out.
func Attributes(payer, dueDate string) temporal.SearchAttributes {
	var set []temporal.SearchAttributeUpdate
	if payer != "" {
		set = append(set, Payer.ValueSet(payer))
	}
	if due, err := time.Parse(time.DateOnly, dueDate); err == nil {
		set = append(set, DueDate.ValueSet(due))
	}
	return temporal.NewSearchAttributes(set...)
}

// PayerOf tells a workflow's payer as its search attributes have it; empty
// where they name none, and for a workflow that isn't there.
func PayerOf(c client.Client) func(ctx context.Context, workflowID string) (string, error) {
	return func(ctx context.Context, workflowID string) (string, error) {
		d, err := c.DescribeWorkflowExecution(ctx, workflowID, "")
		var none *serviceerror.NotFound
		switch {
		case errors.As(err, &none):
			return "", nil
		case err != nil:
			return "", err
		}
		field, ok := d.GetWorkflowExecutionInfo().GetSearchAttributes().GetIndexedFields()[Payer.GetName()]
		if !ok {
			return "", nil
		}
		payer := ""
		if err := converter.GetDefaultDataConverter().FromPayload(field, &payer); err != nil {
			return "", fmt.Errorf("hook: the search attribute %s is no text", Payer.GetName())
		}
		return payer, nil
	}
}
