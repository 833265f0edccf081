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

// Sampled tells whether the trace of a traceparent is recorded: the last bit
// of its flags (W3C Trace Context, section 3.2.2.5.1). It says yes of some that
// Continue finds malformed, and never no of one that it doesn't.
func Sampled(traceparent string) bool {
	const flags = len("00-00000000000000000000000000000000-0000000000000000-0")
	if len(traceparent) <= flags {
		return false
	}
	switch traceparent[flags] {
	case '1', '3', '5', '7', '9', 'b', 'd', 'f':
		return true
	}
	return false
}
