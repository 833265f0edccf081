package telemetry

import (
	"context"

	"go.opentelemetry.io/otel/propagation"
)

// Continue returns ctx with the trace that a ledger event carries as its
// parent: what a follower does because of an event belongs to the trace of
// the request that wrote it. An empty or malformed traceparent changes nothing.
func Continue(ctx context.Context, traceparent string) context.Context {
	if traceparent == "" {
		return ctx
	}
	return propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{"traceparent": traceparent})
}
