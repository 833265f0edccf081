package generate_test

import (
	"bytes"
	"maps"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/generate"
	"github.com/probity-health/probity/services/policies"
)

var noon = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)

func world(t testing.TB, seed uint64, claims int) *generate.World {
	t.Helper()
	w, err := generate.New(generate.Options{Seed: seed, Claims: claims, AsOf: noon})
	require.NoError(t, err)
	return w
}

// files writes both interchanges.
func files(t testing.TB, w *generate.World) (professional, institutional []byte, kinds map[string]int) {
	t.Helper()
	var p, i bytes.Buffer
	pw, iw := w.NewWriter(&p, "P"), w.NewWriter(&i, "I")
	kinds = map[string]int{}
	for f := range w.Families() {
		for j := range f.Professional {
			kinds[f.Professional[j].Kind]++
			require.NoError(t, pw.Claim(&f.Professional[j]))
		}
		for j := range f.Institutional {
			kinds[f.Institutional[j].Kind]++
			require.NoError(t, iw.Claim(&f.Institutional[j]))
		}
	}
	require.NoError(t, pw.Close())
	require.NoError(t, iw.Close())
	return p.Bytes(), i.Bytes(), kinds
}

func TestTheSameSeedGivesTheSameBytes(t *testing.T) {
	p1, i1, _ := files(t, world(t, 7, 500))
	p2, i2, _ := files(t, world(t, 7, 500))
	require.True(t, bytes.Equal(p1, p2) && bytes.Equal(i1, i2))
	other, _, _ := files(t, world(t, 8, 500))
	require.False(t, bytes.Equal(p1, other))
}

// The gateway's reader finds every claim, and in error only those that are
// meant to be.
func TestTheFilesAreReadAsMeant(t *testing.T) {
	w := world(t, 3, 4000)
	p, i, kinds := files(t, w)
	found, refused := 0, 0
	for _, file := range [][]byte{p, i} {
		read, err := x12.ParseFile(bytes.NewReader(file), x12.Limits{})
		require.NoError(t, err)
		require.Zero(t, read.LostClaims)
		for c, err := range read.Claims(bytes.NewReader(file), 0, read.ClaimCount) {
			require.NoError(t, err)
			found++
			if len(c.Problems) > 0 {
				refused++
				require.Contains(t, []string{"x12.npi.check-digit", "x12.claim.out-of-balance"}, c.Problems[0].RuleID, "%v", c.Problems)
			}
		}
	}
	require.Equal(t, 4000, found)
	require.Positive(t, refused)
	t.Log(kinds)
	for _, kind := range []string{"clean", "duplicate", "suspected duplicate", "late", "secondary", "no primary decision", "out of network", "unknown member", "after the end of cover", "no authorization", "modifiers contradict", "accident", "capitated",
		"stay by the day", "stay by group", "stay without admission", "stay of too many days", "stay that goes on", "tertiary", "tertiary, decided as a whole", "secondary, decided as a whole",
		"part of the day's whole", "whole after its part", "more units of the day"} {
		require.Positive(t, kinds[kind], kind)
	}
}

// A family's claims of one file never stand on both sides of a run's border.
func TestAFamilyStandsInOneRun(t *testing.T) {
	var at [2]int
	for f := range world(t, 5, 5000).Families() {
		for k, list := range [][]generate.Claim{f.Professional, f.Institutional} {
			if len(list) > 0 {
				require.Equal(t, at[k]/250, (at[k]+len(list)-1)/250)
				at[k] += len(list)
			}
		}
	}
	require.Equal(t, 5000, at[0]+at[1])
}

func TestEveryDocumentIsSound(t *testing.T) {
	d := world(t, 1, 1).Documents()
	for _, x := range d.Plans {
		require.Empty(t, policies.Validate(x))
		require.Empty(t, policies.LintPlan(x), x.GetPlanId())
	}
	for _, x := range d.FeeSchedules {
		require.Empty(t, policies.Validate(x))
		require.Empty(t, policies.LintFeeSchedule(x), x.GetFeeScheduleId())
	}
	for _, x := range d.Networks {
		require.Empty(t, policies.Validate(x))
		require.Empty(t, policies.LintNetwork(x), x.GetNetworkId())
	}
	for _, x := range d.Contracts {
		require.Empty(t, policies.Validate(x))
		require.Empty(t, policies.LintContract(x), x.GetContractId())
	}
	for _, x := range d.Policies {
		require.Empty(t, policies.Validate(x))
	}
}

// Memory in use is the same after a thousand claims and after forty thousand.
func TestMemoryDoesNotGrowWithTheClaims(t *testing.T) {
	w := world(t, 2, 40_000)
	out := w.NewWriter(discard{}, "P")
	n, early := 0, uint64(0)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for f := range w.Families() {
		for j := range f.Professional {
			require.NoError(t, out.Claim(&f.Professional[j]))
			if n++; n == 1000 {
				early = heap()
			}
		}
	}
	require.Less(t, heap(), early+4<<20)
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func TestOptionsThatMakeNoSenseAreRefused(t *testing.T) {
	for _, o := range []generate.Options{{AsOf: noon}, {Claims: 1}, {Claims: 1, AsOf: noon, Control: -1}} {
		_, err := generate.New(o)
		require.Error(t, err)
	}
}

// What a payer would doubt is made on purpose or not at all: a large world has
// as many anaesthetists as its minutes need.
func TestNobodyWorksMoreThanADay(t *testing.T) {
	for _, claims := range []int{7_000, 45_000, 100_000} {
		for seed := range uint64(3) {
			w, err := generate.New(generate.Options{Seed: seed, Claims: claims, AsOf: noon})
			require.NoError(t, err)
			type day struct{ npi, date string }
			minutes := map[day]int64{}
			for f := range w.Families() {
				for _, c := range f.Professional {
					at := c.RenderingNPI
					if at == "" {
						at = c.BillingNPI
					}
					for _, l := range c.Lines {
						if l.Unit == "MJ" {
							minutes[day{at, l.Date}] += l.Quantity / 1000
						}
					}
				}
			}
			require.NotEmpty(t, minutes)
			require.LessOrEqual(t, slices.Max(slices.Collect(maps.Values(minutes))), int64(24*60), "%d claims, seed %d", claims, seed)
		}
	}
}
