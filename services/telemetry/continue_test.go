package telemetry

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/trace"
	"pgregory.net/rapid"
)

// Whatever stands in an event, where Continue finds a trace that is recorded
// Sampled says so, and of a sound traceparent they say the same.
func TestSampledMissesNothing(t *testing.T) {
	hex := func(n int) *rapid.Generator[string] {
		return rapid.StringOfN(rapid.RuneFrom([]rune("0123456789abcdef")), n, n, n)
	}
	rapid.Check(t, func(t *rapid.T) {
		sound := "00-" + hex(32).Draw(t, "trace") + "-" + hex(16).Draw(t, "span") + "-" + hex(2).Draw(t, "flags")
		text := sound + rapid.SampledFrom([]string{"", "-x", "0"}).Draw(t, "rest")
		if rapid.Bool().Draw(t, "cut") {
			text = text[:rapid.IntRange(0, len(text)).Draw(t, "length")]
		}
		span := trace.SpanContextFromContext(Continue(context.Background(), text))
		if span.IsSampled() {
			require.True(t, Sampled(text), text)
		}
		if span.IsValid() {
			require.Equal(t, span.IsSampled(), Sampled(text), text)
		}
	})
	require.True(t, Sampled("00-"+strings.Repeat("a", 32)+"-"+strings.Repeat("b", 16)+"-01"))
	require.False(t, Sampled("00-"+strings.Repeat("a", 32)+"-"+strings.Repeat("b", 16)+"-00"))
	require.False(t, Sampled(""))
}
