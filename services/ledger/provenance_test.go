package ledger_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	"go.opentelemetry.io/otel/trace"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/ledger/ledgertest"
)

// The commit says who acted and in which trace; neither the log nor the
// metrics say anything of what was written.
func TestProvenanceIsKeptAndContentIsNot(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	var log bytes.Buffer
	w.Config.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	reader := metric.NewManualReader()
	w.Config.Meters = metric.NewMeterProvider(metric.WithReader(reader))
	n := w.Open(t, w.Config)

	id, err := trace.TraceIDFromHex("0af7651916cd43dd8448eb211c80319c")
	require.NoError(t, err)
	span, err := trace.SpanIDFromHex("b7ad6b7169203331")
	require.NoError(t, err)
	ctx := identity.WithPrincipal(within(t), identity.Principal{Subject: "svc-claims"})
	ctx = trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled}))
	r := &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "SECRETKEY", RequestId: "r1", Causation: "cause",
		Writes: []*ledgerv1.StreamWrite{{Stream: "claim-SECRETSTREAM", ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "t", Payload: []byte("SECRETPAYLOAD")}}}},
	}
	res, err := n.Handler().Append(ctx, r)
	require.NoError(t, err)
	got, err := n.Handler().ReadStream(ctx, &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "SECRETKEY", Stream: "claim-SECRETSTREAM", MinToken: res.Token})
	require.NoError(t, err)
	e := got.Events[0]
	require.Equal(t, "svc-claims", e.Actor)
	require.Equal(t, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", e.Traceparent)
	require.Equal(t, "cause", e.Causation)
	require.Equal(t, "r1", e.RequestId)

	r.Writes[0].Events[0].Payload = []byte("SECRETOTHER")
	_, err = n.Handler().Append(ctx, r)
	require.NotContains(t, err.Error(), "SECRET")

	var data metricdata.ResourceMetrics
	require.NoError(t, reader.Collect(context.Background(), &data))
	names := map[string]bool{}
	for _, s := range data.ScopeMetrics {
		for _, m := range s.Metrics {
			names[m.Name] = true
		}
	}
	for _, want := range []string{"probity.ledger.appends", "probity.ledger.append.duration", "probity.ledger.shard.owned", "probity.ledger.replica.lag", "probity.ledger.replica.unaudited"} {
		require.True(t, names[want], want)
	}
	require.NoError(t, n.Close(within(t)))
	require.NotContains(t, log.String(), "SECRET")
	require.NotContains(t, strings.ToLower(log.String()), "private+key")
}
