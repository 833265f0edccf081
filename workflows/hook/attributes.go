package hook

import (
	"time"

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
