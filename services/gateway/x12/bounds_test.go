package x12_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
)

// A claim of a thousand lines, where the guide allows fifty, is rejected and
// told why once.
func TestAThousandLinesAreToldOnce(t *testing.T) {
	b := x12test.Professional(2, func(i int, segments []string) []string {
		if i != 0 {
			return segments
		}
		var head, line, out []string
		for _, s := range segments {
			if strings.HasPrefix(s, "LX") || len(line) > 0 {
				line = append(line, s)
			} else {
				head = append(head, s)
			}
		}
		out = append(out, head...)
		for n := 1; n <= 1000; n++ {
			out = append(append(out, fmt.Sprintf("LX*%d", n)), line[1:]...)
		}
		return out
	})
	f := parse(t, b)
	if f.RejectedClaims != 1 {
		t.Errorf("%d claims are rejected", f.RejectedClaims)
	}
	told := 0
	for _, r := range rules(f) {
		if r == "x12.loop.repeated" {
			told++
		}
	}
	if told != 1 {
		t.Errorf("told %d times", told)
	}
}

// A segment of the envelope that says more than X12 defines is refused like
// any other: what follows the envelope can't be trusted to be where it seems.
func TestTheEnvelopeSaysNoMoreThanItMay(t *testing.T) {
	good := string(x12test.Professional(1, nil))
	for _, id := range []string{"GS", "ST", "SE", "GE", "IEA"} {
		t.Run(id, func(t *testing.T) {
			at := strings.Index(good, id+"*")
			end := at + strings.Index(good[at:], "~")
			f := parse(t, []byte(good[:end]+"*ZQ*ZQ"+good[end:]))
			if !has(rules(f), "x12.element.too-many") {
				t.Errorf("told: %v", rules(f))
			}
			trailing := parse(t, []byte(good[:end]+"**"+good[end:]))
			if has(rules(trailing), "x12.element.too-many") {
				t.Error("empty elements say nothing")
			}
		})
	}
}

// What a fault would say is formed for faults only: every element of every
// claim is checked, and words for each were most of what reading a file cost.
func TestASoundClaimCostsNoWords(t *testing.T) {
	const claims = 500
	file := x12test.Professional(claims, nil)
	allocations := testing.AllocsPerRun(3, func() {
		parsed, err := x12.ParseFile(bytes.NewReader(file), x12.Limits{})
		require.NoError(t, err)
		require.Equal(t, claims, parsed.ClaimCount)
	})
	require.Less(t, allocations/claims, 100.0)
}
