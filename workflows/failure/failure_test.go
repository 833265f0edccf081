package failure_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
)

// crossed is err as it looks on the other side of Temporal.
func crossed(err error) error {
	c := temporal.NewDefaultFailureConverter(temporal.DefaultFailureConverterOptions{DataConverter: converter.GetDefaultDataConverter()})
	return c.FailureToError(c.ErrorToFailure(err))
}

func TestARefusalCrossesTemporalWhole(t *testing.T) {
	want := &problem.Error{Kind: problem.Conflict, Cause: errors.New("SECRET cause"), Problems: []problem.Problem{
		{RuleID: "claims.not-pended", FieldPath: "claim_id", Code: "16", Message: "it isn't pended", Fix: "read it"},
		{RuleID: "second", X12Path: "ST0001", Message: "and more"},
	}}
	for name, err := range map[string]error{
		"at once":   failure.FromRPC(want),
		"and back":  crossed(failure.FromRPC(want)),
		"on a wire": crossed(failure.FromRPC(fmt.Errorf("calling: %w", want))),
	} {
		got := failure.ToProblem(err)
		require.Equal(t, want.Kind, got.Kind, name)
		require.Equal(t, want.Problems, got.Problems, name)
		require.NotContains(t, err.Error(), "SECRET", name)
		require.True(t, failure.IsKind(err, problem.Invalid, problem.Conflict), name)
		require.False(t, failure.IsKind(err, problem.Invalid), name)
	}
}

func TestAPeersCodeBecomesItsKindAndUnknownTextStaysHere(t *testing.T) {
	require.Equal(t, problem.Unavailable, failure.ToProblem(failure.FromRPC(connect.NewError(connect.CodeUnavailable, errors.New("x")))).Kind)
	unknown := failure.FromRPC(errors.New("SECRET"))
	require.Equal(t, problem.Internal, failure.ToProblem(unknown).Kind)
	require.NotContains(t, crossed(unknown).Error(), "SECRET")
}

func TestCancellationStaysCancellation(t *testing.T) {
	require.ErrorIs(t, failure.FromRPC(context.Canceled), context.Canceled)
	require.NoError(t, failure.FromRPC(nil))
}

func TestTemporalOutOfReachIsRetryable(t *testing.T) {
	for _, err := range []error{
		serviceerror.NewUnavailable("SECRET"), serviceerror.NewDeadlineExceeded("SECRET"), context.DeadlineExceeded,
		serviceerror.NewResourceExhausted(0, "SECRET"),
	} {
		p := failure.ToProblem(err)
		require.True(t, p.Retryable())
		require.NotContains(t, p.Error(), "SECRET")
	}
	require.Equal(t, problem.Internal, failure.ToProblem(errors.New("SECRET")).Kind)
}
