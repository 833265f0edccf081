package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/telemetry"
)

const secret = "ZEBRAWOOD"

// Every message of claims.v1, filled with a marker wherever a string fits, is
// logged in every way slog has; the marker must never come out.
func TestNoClaimsMessageReachesTheLog(t *testing.T) {
	var seen int
	protoregistry.GlobalTypes.RangeMessages(func(kind protoreflect.MessageType) bool {
		if kind.Descriptor().ParentFile().Package() != "probity.claims.v1" || kind.Descriptor().IsMapEntry() {
			return true
		}
		seen++
		message := kind.New().Interface()
		mark(message.ProtoReflect(), 4)
		var out bytes.Buffer
		log := slog.New(telemetry.NewHandler(slog.NewJSONHandler(&out, nil)))
		log.Info("direct", "m", message)
		log.Info("list", "m", []proto.Message{message})
		log.Info("map", "m", map[string]any{"m": message})
		log.Info("struct", "m", struct{ M proto.Message }{message})
		log.Info("group", slog.Group("g", slog.Any("m", message)))
		log.Info("valuer", "m", valuer{message})
		log.With("m", message).WithGroup("g").With("m", message).Info("with")
		require.NotContains(t, out.String(), secret, kind.Descriptor().FullName())
		require.Contains(t, out.String(), "withheld", kind.Descriptor().FullName())
		return true
	})
	require.Greater(t, seen, 40, "claims.v1 must be linked into this test")
}

type valuer struct{ m proto.Message }

func (v valuer) LogValue() slog.Value { return slog.AnyValue(v.m) }

func mark(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		switch {
		case f.IsMap():
			if f.MapValue().Kind() == protoreflect.StringKind {
				m.Mutable(f).Map().Set(protoreflect.ValueOfString(secret).MapKey(), protoreflect.ValueOfString(secret))
			}
		case f.IsList() && f.Kind() == protoreflect.StringKind:
			m.Mutable(f).List().Append(protoreflect.ValueOfString(secret))
		case f.IsList() && f.Kind() == protoreflect.MessageKind && depth > 0:
			mark(m.Mutable(f).List().AppendMutable().Message(), depth-1)
		case f.IsList():
		case f.Kind() == protoreflect.StringKind:
			m.Set(f, protoreflect.ValueOfString(secret))
		case f.Kind() == protoreflect.MessageKind && depth > 0:
			mark(m.Mutable(f).Message(), depth-1)
		}
	}
}

func TestTheMarkerIsReallyInTheMessages(t *testing.T) {
	claim := &claimsv1.Claim{}
	mark(claim.ProtoReflect(), 4)
	require.Equal(t, secret, claim.GetSubscriber().GetLastName())
}

func TestHarmlessValuesPassAndIdsAreAdded(t *testing.T) {
	// Given a process that records no spans but follows trace context
	var out bytes.Buffer
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{Service: "claims", LogOutput: &out})
	require.NoError(t, err)
	defer func() { require.NoError(t, tel.Shutdown(context.Background())) }()

	// When a request that carries a traceparent logs
	header := http.Header{"Traceparent": {"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}}
	ctx := tel.Propagator.Extract(telemetry.WithRequestID(context.Background(), "r-1"), headerCarrier(header))
	ctx, span := tel.Tracer.Tracer("test").Start(ctx, "work")
	defer span.End()
	tel.Log.InfoContext(ctx, "decided", "count", 3, "err", errors.New("away"), "names", []string{"a", "b"})

	// Then the line can be joined with the trace and the request
	var line map[string]any
	require.NoError(t, json.Unmarshal(out.Bytes(), &line))
	require.Equal(t, "4bf92f3577b34da6a3ce929d0e0e4736", line["trace_id"])
	require.Equal(t, span.SpanContext().SpanID().String(), line["span_id"])
	require.Equal(t, "r-1", line["request_id"])
	require.Equal(t, "claims", line["service"])
	require.EqualValues(t, 3, line["count"])
	require.Equal(t, "away", line["err"])
	require.Equal(t, []any{"a", "b"}, line["names"])
}

type headerCarrier http.Header

func (h headerCarrier) Get(key string) string { return http.Header(h).Get(key) }
func (h headerCarrier) Set(key, value string) { http.Header(h).Set(key, value) }
func (h headerCarrier) Keys() []string        { return nil }

func TestMetricsAreScraped(t *testing.T) {
	tel, err := telemetry.Setup(context.Background(), telemetry.Config{LogOutput: &bytes.Buffer{}})
	require.NoError(t, err)
	counter, err := tel.Meter.Meter("test").Int64Counter("claims_decided")
	require.NoError(t, err)
	counter.Add(context.Background(), 2)
	w := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	require.Contains(t, w.Body.String(), "claims_decided_total")
	require.True(t, strings.Contains(w.Body.String(), "go_goroutines"))
	require.NoError(t, tel.Shutdown(context.Background()))
}

func TestAWrongConfigurationIsRefused(t *testing.T) {
	for name, cfg := range map[string]telemetry.Config{
		"level":  {LogLevel: "loud"},
		"format": {LogFormat: "xml"},
		"ratio":  {SampleRatio: 2},
	} {
		_, err := telemetry.Setup(context.Background(), cfg)
		require.Error(t, err, name)
	}
}
