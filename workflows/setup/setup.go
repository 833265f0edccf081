// Package setup makes a Temporal server ready for Probity's workflows: a
// namespace, its retention, and the search attributes that lists are filtered
// by. It may be run again at any time and says what it changed. What it can't
// make without breaking something it refuses before it changes anything.
package setup

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	namespacepb "go.temporal.io/api/namespace/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/probity-health/probity/workflows/hook"
)

// DefaultRetention keeps ended workflows long enough to look back at a
// quarter's files. Nothing rests on it: the ledger's request ids are the guard
// against doing a thing twice.
const DefaultRetention = 90 * 24 * time.Hour

// settled bounds the wait for a new namespace to be known to all of a
// server's parts; a server's own refresh takes up to ten seconds.
const settled = 30 * time.Second

// Want is the state to reach. Namespace is needed; the other zero values are
// DefaultRetention and Attributes().
type Want struct {
	Namespace  string
	Retention  time.Duration
	Attributes map[string]enumspb.IndexedValueType
}

// Attributes are the search attributes that the workflows set, with their types.
func Attributes() map[string]enumspb.IndexedValueType {
	return map[string]enumspb.IndexedValueType{
		hook.Payer.GetName():   hook.Payer.GetValueType(),
		hook.DueDate.GetName(): hook.DueDate.GetValueType(),
	}
}

// Apply brings the server to what is wanted and returns a line for each thing
// it changed; none when all was as wanted. A retention that is longer than
// wanted stays, since shortening it deletes histories. Errors say what to do:
// an attribute that is there with another type can't be changed in place.
func Apply(ctx context.Context, c client.Client, w Want) ([]string, error) {
	if w.Retention == 0 {
		w.Retention = DefaultRetention
	}
	if w.Attributes == nil {
		w.Attributes = Attributes()
	}
	if w.Retention < 24*time.Hour {
		return nil, errors.New("setup: a retention of less than a day is refused by Temporal")
	}
	var changed []string
	made, err := namespace(ctx, c, w)
	changed = append(changed, made...)
	if err != nil {
		return changed, err
	}
	made, err = attributes(ctx, c, w)
	return append(changed, made...), err
}

func namespace(ctx context.Context, c client.Client, w Want) ([]string, error) {
	there, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: w.Namespace})
	var absent *serviceerror.NamespaceNotFound
	var missing *serviceerror.NotFound
	switch {
	case errors.As(err, &absent), errors.As(err, &missing):
		_, err := c.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
			Namespace: w.Namespace, WorkflowExecutionRetentionPeriod: durationpb.New(w.Retention),
			Description: "Probity's workflows; payloads are sealed",
		})
		if err != nil {
			return nil, advise("make the namespace "+w.Namespace, err)
		}
		return []string{fmt.Sprintf("made the namespace %s with a retention of %s", w.Namespace, days(w.Retention))}, nil
	case err != nil:
		return nil, advise("read the namespace "+w.Namespace, err)
	}
	// A conflict further on must leave this unchanged too.
	if err := conflicts(ctx, c, w); err != nil {
		return nil, err
	}
	have := there.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration()
	if have >= w.Retention {
		return nil, nil
	}
	_, err = c.WorkflowService().UpdateNamespace(ctx, &workflowservice.UpdateNamespaceRequest{
		Namespace: w.Namespace, Config: &namespacepb.NamespaceConfig{WorkflowExecutionRetentionTtl: durationpb.New(w.Retention)},
	})
	if err != nil {
		return nil, advise("lengthen the retention of "+w.Namespace, err)
	}
	return []string{fmt.Sprintf("lengthened the retention of %s from %s to %s", w.Namespace, days(have), days(w.Retention))}, nil
}

// conflicts refuses attributes that are there with another type.
func conflicts(ctx context.Context, c client.Client, w Want) error {
	have, err := list(ctx, c, w.Namespace)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(w.Attributes)) {
		if got, there := have[name]; there && got != w.Attributes[name] {
			return fmt.Errorf("setup: the search attribute %s of %s is %s and has to be %s: Temporal can't change a type in place; "+
				"remove it if nothing else uses it (temporal operator search-attribute remove --name %s), or choose another namespace",
				name, w.Namespace, got, w.Attributes[name], name)
		}
	}
	return nil
}

func attributes(ctx context.Context, c client.Client, w Want) ([]string, error) {
	var have map[string]enumspb.IndexedValueType
	err := eventually(ctx, func() (err error) {
		have, err = list(ctx, c, w.Namespace)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := conflicts(ctx, c, w); err != nil {
		return nil, err
	}
	missing := map[string]enumspb.IndexedValueType{}
	for name, kind := range w.Attributes {
		if _, there := have[name]; !there {
			missing[name] = kind
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	err = eventually(ctx, func() error {
		_, err := c.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{Namespace: w.Namespace, SearchAttributes: missing})
		return err
	})
	if err != nil {
		return nil, advise("add search attributes to "+w.Namespace, err)
	}
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		changed = append(changed, fmt.Sprintf("added the search attribute %s of type %s", name, missing[name]))
	}
	return changed, nil
}

func list(ctx context.Context, c client.Client, namespace string) (map[string]enumspb.IndexedValueType, error) {
	r, err := c.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, advise("list the search attributes of "+namespace, err)
	}
	return r.GetCustomAttributes(), nil
}

// eventually repeats what fails because a namespace just made isn't known everywhere yet.
func eventually(ctx context.Context, do func() error) error {
	ctx, cancel := context.WithTimeout(ctx, settled)
	defer cancel()
	for {
		err := do()
		var absent *serviceerror.NamespaceNotFound
		var missing *serviceerror.NotFound
		if err == nil || (!errors.As(err, &absent) && !errors.As(err, &missing)) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// advise adds what a person can do.
func advise(what string, err error) error {
	var denied *serviceerror.PermissionDenied
	var unknown *serviceerror.Unimplemented
	switch {
	case errors.As(err, &denied), errors.As(err, &unknown):
		return fmt.Errorf("setup: this server does not let the worker %s: %w; let somebody who may do it by hand: %s", what, err, byHand())
	}
	return fmt.Errorf("setup: can't %s: %w", what, err)
}

func byHand() string {
	var parts []string
	all := Attributes()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		parts = append(parts, fmt.Sprintf("search attribute %s of type %s", name, all[name]))
	}
	return strings.Join(parts, ", ")
}

func days(d time.Duration) string { return fmt.Sprintf("%d days", int(d.Hours()/24)) }
