package claims

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
)

// job is one submission of the property below: a claim of a small world.
type job struct {
	request string
	family  int
	day     int
	spouse  bool
	large   bool
}

func (j job) claim() *claimsv1.Claim {
	c := visit(j.family, fmt.Sprintf("2026-02-%02d", j.day))
	if j.spouse {
		spouse(c)
	}
	if j.large {
		charged(600000)(c)
	}
	return c
}

// Two processes take the same submissions at the same time, in any order and
// grouping, each repeated, while appends fail with and without being recorded.
// Then every claim is decided exactly once, the accumulators are the sums of
// the decisions' postings and within the plan's limits, every decision but a
// pended one was made on the accumulators as they stood, and the snapshots
// that the processes keep agree with the ledger.
func TestEveryClaimIsDecidedOnceInAnyInterleaving(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const familyCount = 3
		w := newWorld(t, familyCount)
		defer w.stop()
		second := w.start(w.index)
		jobs := rapid.SliceOfNDistinct(rapid.Custom(func(rt *rapid.T) job {
			return job{
				family: rapid.IntRange(0, familyCount-1).Draw(rt, "family"), day: rapid.IntRange(1, 9).Draw(rt, "day"),
				spouse: rapid.Bool().Draw(rt, "spouse"), large: rapid.IntRange(0, 9).Draw(rt, "large") == 0,
			}
		}), 1, 14, rapid.ID).Draw(rt, "jobs")
		for i := range jobs {
			jobs[i].request = fmt.Sprintf("r%d", i)
		}
		faults := rapid.SliceOfN(rapid.SampledFrom([]eventstore.Fault{eventstore.FaultRefused, eventstore.FaultLostAck}), 0, 6).Draw(rt, "faults")
		chunk := rapid.IntRange(1, 5).Draw(rt, "chunk")
		orders := [][]job{rapid.Permutation(jobs).Draw(rt, "first order"), rapid.Permutation(jobs).Draw(rt, "second order")}

		w.memory.Inject(faults...)
		var wg sync.WaitGroup
		for n, s := range []*Service{w.Service, second} {
			wg.Go(func() { submitAll(s, orders[n], chunk) })
		}
		wg.Wait()
		// whatever failed for the moment is sent again, until the faults are used up
		for range len(faults) + 1 {
			submitAll(w.Service, jobs, 3)
		}

		decided, lastStatus := map[string]int{}, map[string]claimsv1.ClaimStatus{}
		for _, r := range w.events() {
			if e, ok := r.Event.(*eventsv1.ClaimDecided); ok {
				decided[e.GetClaimId()]++
				lastStatus[e.GetClaimId()] = e.GetStatus()
			}
		}
		require.Len(rt, decided, len(jobs), "each submission is a claim")
		for id, n := range decided {
			require.Equal(rt, 1, n, "%s", id)
			require.NotEqual(rt, denied, lastStatus[id], "no two of the jobs are one service: nothing is a duplicate of itself")
		}
		for family := range familyCount {
			checkFamily(rt, w, second, family)
		}
	})
}

// submitAll sends jobs in chunks, each twice.
func submitAll(s *Service, jobs []job, chunk int) {
	for len(jobs) > 0 {
		n := min(chunk, len(jobs))
		req := &claimsv1.SubmitClaimsRequest{}
		for _, j := range jobs[:n] {
			req.Claims = append(req.Claims, &claimsv1.SubmitClaimRequest{RequestId: j.request, Claim: j.claim()})
		}
		for range 2 {
			// What fails for the moment is sent again at the end.
			_, _ = s.SubmitClaims(lakeside(), req)
		}
		jobs = jobs[n:]
	}
}

func checkFamily(t require.TestingT, w *world, second *Service, family int) {
	sums, posted := w.sums(family)
	subscriber := w.index.Subscriber(payer, memberID(family))
	for _, s := range []*Service{w.Service, second} {
		held, err := s.families.hold(context.Background(), subscriber)
		require.NoError(t, err)
		snapshot, err := s.families.load(context.Background(), held, payer, int64(posted-1))
		require.NoError(t, err)
		require.EqualValues(t, posted-1, snapshot.Revision)
		require.Equal(t, len(sums), len(snapshot.Sums))
		for k, v := range sums {
			require.Equal(t, v, snapshot.Sums[k])
		}
		require.Len(t, snapshot.History, posted, "one line a posted claim")
		s.families.release(held)
	}
	for k, v := range sums {
		switch {
		case k.Kind == adjudication.Deductible && k.Scope == adjudication.Individual:
			require.LessOrEqual(t, v, int64(10000))
		case k.Kind == adjudication.Deductible:
			require.LessOrEqual(t, v, int64(15000), "two claims were never decided on the same remainder")
		case k.Kind == adjudication.OutOfPocket:
			require.LessOrEqual(t, v, int64(80000))
		}
	}
}

func TestASnapshotNeverSeesAnothersLines(t *testing.T) {
	// given two snapshots grown from one
	line := func(id string) *eventsv1.ServiceHistory {
		return &eventsv1.ServiceHistory{Lines: []*eventsv1.HistoryLine{{ClaimId: id, ServiceDate: "2026-02-10"}}}
	}
	root, err := nothingLedgered().post(0, &eventsv1.AccumulatorsPosted{ClaimId: "a"}, line("a"))
	require.NoError(t, err)
	left, err := root.post(1, &eventsv1.AccumulatorsPosted{ClaimId: "b"}, line("b"))
	require.NoError(t, err)
	right, err := root.post(1, &eventsv1.AccumulatorsPosted{ClaimId: "c"}, line("c"))
	require.NoError(t, err)
	require.Equal(t, "b", left.History[1].ClaimID)
	require.Equal(t, "c", right.History[1].ClaimID)
	require.Len(t, root.History, 1)
}

func TestAPostingThatNoEngineWroteStopsDeciding(t *testing.T) {
	for _, p := range []*claimsv1.AccumulatorPosting{
		{Scope: "person", Kind: "deductible", Network: "in", PlanYear: "2026-01-01"},
		{Scope: "family", Kind: "deductible", Network: "in", PlanYear: "2026-02-30"},
		{Scope: "family", Kind: "generosity", Network: "in", PlanYear: "2026-01-01"},
	} {
		_, err := nothingLedgered().post(0, &eventsv1.AccumulatorsPosted{ClaimId: "a", Postings: []*claimsv1.AccumulatorPosting{p}}, nil)
		require.Error(t, err)
	}
}

func TestAShelfKeepsWhatIsHeldAndForgetsTheRest(t *testing.T) {
	s := newShelf[int](2)
	held, err := s.hold(context.Background(), "a")
	require.NoError(t, err)
	held.value = 7
	for i := range 10 {
		e, err := s.hold(context.Background(), fmt.Sprint(i))
		require.NoError(t, err)
		s.release(e)
	}
	require.LessOrEqual(t, len(s.byKey), 3)
	waiting, cancel := context.WithCancel(context.Background())
	cancel()
	_, err = s.hold(waiting, "a")
	require.Error(t, err, "one holder at a time")
	s.release(held)
	again, err := s.hold(context.Background(), "a")
	require.NoError(t, err)
	require.Equal(t, 7, again.value)
}

// BenchmarkSubmitClaims measures decided claims a second: 500 a call, each of
// another family, sealed, decided and appended to a ledger in memory.
func BenchmarkSubmitClaims(b *testing.B) {
	const batch = 500
	w := newWorld(b, batch)
	n := 0
	for b.Loop() {
		req := &claimsv1.SubmitClaimsRequest{}
		for i := range batch {
			c := visit(i, fmt.Sprintf("2026-02-%02d", 1+n%28))
			c.Lines[0].Modifiers = []string{fmt.Sprintf("%02d", n/28%90+10)} // not a duplicate
			req.Claims = append(req.Claims, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprintf("%d/%d", n, i), Claim: c})
		}
		res, err := w.SubmitClaims(lakeside(), req)
		if err != nil || len(res.Results[0].Problems) > 0 {
			b.Fatal(err, res.GetResults()[0].GetProblems())
		}
		n++
	}
	b.ReportMetric(float64(n*batch)/b.Elapsed().Seconds(), "claims/s")
}
