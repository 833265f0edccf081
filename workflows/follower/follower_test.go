package follower_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
	"pgregory.net/rapid"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/hook"
)

// ledger serves one log of two shards and then waits live. It may break its
// streams after so many batches.
type ledger struct {
	ledgerv1connect.UnimplementedLedgerServiceHandler
	mu         sync.Mutex
	shards     [2][]*ledgerv1.RecordedEvent // guarded by mu
	grew       chan struct{}                // guarded by mu; closed and replaced when an event is added
	breakAfter int                          // guarded by mu; batches until a stream breaks; 0 is never
	asked      [][]*ledgerv1.ShardIndex     // guarded by mu
	batch      int                          // events a batch; 1 lets faults fall anywhere
	quiet      bool                         // guarded by mu; streams aren't told of what is added
}

func newLedger() *ledger { return &ledger{grew: make(chan struct{}), batch: 1} }

func (l *ledger) add(shard int, stream string, revision uint64, event proto.Message) {
	payload, _ := proto.Marshal(event)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shards[shard] = append(l.shards[shard], &ledgerv1.RecordedEvent{
		Stream: stream, Revision: revision,
		Position: &ledgerv1.Position{Log: follower.Log, Shard: uint32(shard), Index: uint64(len(l.shards[shard]))},
		Event:    &ledgerv1.Event{Type: string(proto.MessageName(event)), Payload: payload}, RecordedTime: timestamppb.New(recorded),
	})
	if !l.quiet {
		close(l.grew)
		l.grew = make(chan struct{})
	}
}

// together adds events that one batch then holds.
func (l *ledger) together(add ...func()) {
	l.setQuiet(true)
	for _, a := range add[:len(add)-1] {
		a()
	}
	l.setQuiet(false)
	add[len(add)-1]()
}

func (l *ledger) setQuiet(quiet bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.quiet = quiet
}

func (l *ledger) file(id string) {
	l.add(0, "file-"+id, 0, &eventsv1.FileReceived{File: &claimsv1.File{FileId: id, State: claimsv1.FileState_FILE_STATE_PROCESSING}})
}
func (l *ledger) complete(id string) { l.add(0, "file-"+id, 2, &eventsv1.FileCompleted{}) }
func (l *ledger) decided(id string, revision uint64, status claimsv1.ClaimStatus) {
	l.add(1, "claim-"+id, revision, &eventsv1.ClaimDecided{ClaimId: id, Status: status, PromptPayDueDate: "2026-12-21"})
}

// recorded is when every event of the tests was written.
var recorded = time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)

const (
	pended = claimsv1.ClaimStatus_CLAIM_STATUS_PENDED
	paid   = claimsv1.ClaimStatus_CLAIM_STATUS_PAID
)

func (l *ledger) Subscribe(ctx context.Context, q *ledgerv1.SubscribeRequest, out *connect.ServerStream[ledgerv1.SubscribeResponse]) error {
	at := [2]uint64{}
	for _, from := range q.GetFrom() {
		at[from.GetShard()] = from.GetIndex()
	}
	l.mu.Lock()
	l.asked = append(l.asked, q.GetFrom())
	left := l.breakAfter
	l.mu.Unlock()
	for {
		l.mu.Lock()
		grew := l.grew
		batch := &ledgerv1.SubscribeResponse{}
		for shard := range at {
			for at[shard] < uint64(len(l.shards[shard])) && len(batch.GetEvents()) < l.batch {
				n := at[shard]
				if slices.Contains(q.GetTypes(), l.shards[shard][n].GetEvent().GetType()) {
					batch.Events = append(batch.Events, l.shards[shard][n])
				}
				at[shard]++
			}
			batch.Next = append(batch.Next, &ledgerv1.ShardIndex{Shard: uint32(shard), Index: at[shard]})
		}
		batch.CaughtUp = at[0] == uint64(len(l.shards[0])) && at[1] == uint64(len(l.shards[1]))
		l.mu.Unlock()
		if err := out.Send(batch); err != nil {
			return err
		}
		if left--; left == 0 {
			return connect.NewError(connect.CodeUnavailable, errors.New("a replica restarts"))
		}
		if batch.GetCaughtUp() {
			select {
			case <-grew:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// starter is Temporal, counting; fail is asked before each call takes effect.
type starter struct {
	mu      sync.Mutex
	calls   int
	started map[string]int
	order   []string
	fail    func(call int) error
}

func newStarter() *starter { return &starter{started: map[string]int{}} }

func (s *starter) call(what string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls++
	if s.fail != nil {
		if err := s.fail(s.calls); err != nil {
			return err
		}
	}
	s.started[what]++
	s.order = append(s.order, what)
	return nil
}

func (s *starter) Start(_ context.Context, w hook.Start) error {
	if in, ok := w.Input.(claim.Input); ok && !in.First.Time.IsZero() {
		return s.call("claim " + in.ClaimID + " waits for " + in.First.Kind)
	} else if ok {
		return s.call("claim " + in.ClaimID + " due " + in.DueDate)
	}
	return s.call("file " + w.Input.(claimfile.Input).FileID)
}
func (s *starter) Tell(_ context.Context, t hook.Tell) error {
	return s.call(t.Signal + " " + strings.TrimPrefix(t.ID, "claim:"))
}

func (s *starter) has(want ...string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range want {
		if s.started[w] == 0 {
			return false
		}
	}
	return true
}

func (s *starter) all() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.started))
}

type memory struct {
	mu    sync.Mutex
	next  map[uint32]uint64
	saves int
	check func(next map[uint32]uint64) // asked at every save
}

func (m *memory) Load(context.Context) (map[uint32]uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.next), nil
}

func (m *memory) Save(_ context.Context, next map[uint32]uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.next, m.saves = next, m.saves+1
	if m.check != nil {
		m.check(next)
	}
	return nil
}

func client(t testing.TB, l *ledger) ledgerv1connect.LedgerServiceClient {
	_, handler := ledgerv1connect.NewLedgerServiceHandler(l)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	return ledgerv1connect.NewLedgerServiceClient(srv.Client(), srv.URL)
}

// run follows until done holds, and fails the test if that takes too long.
func run(t require.TestingT, c follower.Ledger, s *starter, m follower.Cursor, done func(f *follower.Follower) bool) {
	// A clock that leaps makes every batch store the cursor. The follower and
	// whoever asks for its lag both look at it.
	began := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	var minutes atomic.Int64
	f := follower.New(follower.Deps{
		Ledger: c, Starter: s, Cursor: m,
		Now:   func() time.Time { return began.Add(time.Duration(minutes.Add(1)) * time.Minute) },
		Pause: func(ctx context.Context, _ time.Duration) {},
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	require.Eventually(t, func() bool { return done(f) }, 15*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func ready(f *follower.Follower) bool { return f.Ready() == nil }

func TestCatchingUpStartsOnlyWhatIsStillOpen(t *testing.T) {
	l := newLedger()
	l.file("old")
	l.file("open")
	l.complete("old")
	l.add(0, "file-refused", 0, &eventsv1.FileReceived{File: &claimsv1.File{FileId: "refused", State: claimsv1.FileState_FILE_STATE_REFUSED}})
	l.decided("clean", 1, paid)
	l.decided("waiting", 1, pended)
	l.decided("reviewed", 1, pended)
	l.decided("reviewed", 3, paid)

	s := newStarter()
	run(t, client(t, l), s, follower.FromStart{}, ready)
	require.Equal(t, []string{"claim waiting due 2026-12-21", "file open"}, s.all())
}

// A claim's decision says what its case first waits for. Read live that is so;
// read long after, something may have changed since that the follower, having
// started nothing yet, tells nobody.
func TestWhatADecisionSaysOfTheCaseCountsOnlyWhileItIsNew(t *testing.T) {
	l, s := newLedger(), newStarter()
	waits := func(id string) {
		l.add(1, "claim-"+id, 1, &eventsv1.ClaimDecided{
			ClaimId: id, Status: pended, PromptPayDueDate: "2026-12-21",
			FirstDeadline: &claimsv1.Deadline{Kind: "escalation", Time: timestamppb.New(recorded.AddDate(0, 0, 25))},
		})
	}
	waits("old")
	l.add(1, "claim-old", 2, &eventsv1.TaskClaimed{ClaimId: "old"})
	step := 0
	run(t, client(t, l), s, follower.FromStart{}, func(f *follower.Follower) bool {
		if step == 0 && ready(f) {
			step = 1
			waits("new")
			l.add(1, "claim-new", 2, &eventsv1.TaskClaimed{ClaimId: "new"})
		}
		return s.has("changed new")
	})
	require.Equal(t, []string{"changed new", "claim new waits for escalation", "claim old due 2026-12-21"}, s.all())
}

func TestWhatComesLiveIsStartedAndToldAtOnce(t *testing.T) {
	l, s := newLedger(), newStarter()
	c := client(t, l)
	step := 0
	run(t, c, s, follower.FromStart{}, func(f *follower.Follower) bool {
		if step == 0 && ready(f) {
			step = 1
			l.file("one")
			l.decided("a", 1, pended)
			l.decided("b", 1, paid)
			l.decided("a", 3, paid)
		}
		return s.has("decided a", "file one")
	})
	require.Equal(t, []string{"claim a due 2026-12-21", "decided a", "file one"}, s.all(), "a straight-through claim costs nothing")
}

func TestAClaimsWorkflowIsStartedBeforeItIsTold(t *testing.T) {
	l, s := newLedger(), newStarter()
	l.batch = 100
	c := client(t, l)
	told := false
	run(t, c, s, follower.FromStart{}, func(f *follower.Follower) bool {
		if !told && ready(f) {
			told = true
			l.together(func() { l.decided("a", 1, pended) }, func() { l.decided("b", 1, pended) }, func() { l.decided("a", 3, paid) })
		}
		return s.has("decided a")
	})
	require.Equal(t, "decided a", s.order[2], "after both starts of its batch: %v", s.order)
}

func TestAFollowerContinuesFromItsCursor(t *testing.T) {
	l, s, m := newLedger(), newStarter(), &memory{}
	c := client(t, l)
	l.file("one")
	run(t, c, s, m, func(f *follower.Follower) bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return ready(f) && m.saves > 0
	})
	l.file("two")
	s2 := newStarter()
	run(t, c, s2, m, func(*follower.Follower) bool { return s2.has("file two") })
	require.Equal(t, []string{"file two"}, s2.all())
}

func TestWhileTemporalIsAwayTheCursorStaysAndReadyTells(t *testing.T) {
	l, s, m := newLedger(), newStarter(), &memory{}
	l.file("one")
	s.fail = func(int) error { return errors.New("away") }
	run(t, client(t, l), s, m, func(f *follower.Follower) bool {
		err := f.Ready()
		return err != nil && strings.HasPrefix(err.Error(), "follower: Temporal can't start a workflow of type claimfile; behind for ")
	})
	require.Zero(t, m.saves)

	s.fail = nil
	run(t, client(t, l), s, m, func(*follower.Follower) bool { return s.has("file one") })
}

func TestALiveFactIsNotPassedWhileItCantBeStarted(t *testing.T) {
	// Given a follower that has caught up when Temporal goes away.
	l, s, m := newLedger(), newStarter(), &memory{}
	c := client(t, l)
	l.complete("old")
	added := false
	run(t, c, s, m, func(f *follower.Follower) bool {
		if !added && ready(f) {
			added = true
			s.mu.Lock()
			s.fail = func(int) error { return errors.New("away") }
			s.mu.Unlock()
			l.file("one")
			l.complete("another")
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.calls > 20
	})
	// Then the cursor stands before what could not be started.
	require.LessOrEqual(t, m.next[0], uint64(1))
}

func TestFollowingTheSameLogTwiceAsksForTheSameIdsOnly(t *testing.T) {
	// Given a log that one follower has read whole, live and late.
	l, s := newLedger(), newStarter()
	c := client(t, l)
	l.file("one")
	step := false
	run(t, c, s, follower.FromStart{}, func(f *follower.Follower) bool {
		if !step && ready(f) {
			step = true
			l.decided("a", 1, pended)
			l.file("two")
			l.decided("b", 1, pended)
			l.decided("b", 3, paid)
		}
		return s.has("decided b")
	})
	first := s.all()
	require.Equal(t, []string{"claim a due 2026-12-21", "claim b due 2026-12-21", "decided b", "file one", "file two"}, first)

	// When another reads it again from its beginning, then it asks for nothing
	// new, and for nothing that has ended meanwhile.
	again := newStarter()
	run(t, c, again, follower.FromStart{}, ready)
	require.Equal(t, []string{"claim a due 2026-12-21", "file one", "file two"}, again.all())
}

func TestAnotherServicesFactsAreARowAndNothingElse(t *testing.T) {
	// Given two workflows of another log that both care about one fact, one of
	// which a second fact ends.
	begin := func(kind string) hook.Fact {
		return hook.On(func(e *eventsv1.FileReceived, _ hook.Place) []hook.Ask {
			return []hook.Ask{hook.Start{ID: kind + ":" + e.GetFile().GetFileId(), Type: kind, Input: claimfile.Input{FileID: kind + " " + e.GetFile().GetFileId()}}}
		})
	}
	rows := []hook.Workflow{
		{Type: "renewal", Log: "prescriptions", Facts: []hook.Fact{begin("renewal"), hook.On(func(_ *eventsv1.FileCompleted, at hook.Place) []hook.Ask {
			return []hook.Ask{hook.Tell{ID: "renewal:" + strings.TrimPrefix(at.Stream, "file-"), Signal: "dispensed", Ends: true}}
		})}},
		{Type: "reminder", Log: "prescriptions", Facts: []hook.Fact{begin("reminder")}},
		{Type: "of another log", Log: "claims", Facts: []hook.Fact{begin("never")}},
	}
	require.Equal(t, []string{"claims", "prescriptions"}, hook.Logs(rows))
	l, s := newLedger(), newStarter()
	l.file("ended")
	l.complete("ended")
	l.file("open")
	f := follower.New(follower.Deps{Log: "prescriptions", Workflows: rows, Ledger: client(t, l), Starter: s, Cursor: follower.FromStart{}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	require.Eventually(t, func() bool { return ready(f) }, 15*time.Second, time.Millisecond)
	// What ended while it caught up was never started; what ends now is told.
	require.Equal(t, []string{"file reminder ended", "file reminder open", "file renewal open"}, s.all())
	l.complete("open")
	require.Eventually(t, func() bool { return s.has("dispensed renewal:open") }, 15*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestTheLagIsTheAgeOfTheOldestFactThatWaits(t *testing.T) {
	// Given a follower that has caught up, and Temporal that goes away.
	l, s := newLedger(), newStarter()
	var mu sync.Mutex
	now := recorded
	tel, err := telemetry.Setup(t.Context(), telemetry.Config{LogOutput: io.Discard})
	require.NoError(t, err)
	away := true
	s.fail = func(int) error {
		mu.Lock()
		defer mu.Unlock()
		if away {
			return errors.New("away")
		}
		return nil
	}
	f := follower.New(follower.Deps{
		Ledger: client(t, l), Starter: s, Cursor: follower.FromStart{}, Meter: tel.Meter,
		Now: func() time.Time { mu.Lock(); defer mu.Unlock(); return now },
		Pause: func(ctx context.Context, _ time.Duration) {
			select {
			case <-ctx.Done():
			case <-time.After(time.Millisecond):
			}
		},
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.Run(ctx) }()
	require.Eventually(t, func() bool { return ready(f) }, 15*time.Second, time.Millisecond)
	require.Zero(t, f.Lag())

	// When a fact has waited for an hour, then metric and readiness say so.
	l.file("one")
	mu.Lock()
	now = recorded.Add(time.Hour)
	mu.Unlock()
	require.Eventually(t, func() bool { return f.Lag() == time.Hour }, 15*time.Second, time.Millisecond)
	require.EqualError(t, f.Ready(), "follower: Temporal can't start a workflow of type claimfile; behind for 1h0m0s")
	scraped := httptest.NewRecorder()
	tel.Metrics.ServeHTTP(scraped, httptest.NewRequest("GET", "/metrics", nil))
	require.Regexp(t, `probity_follower_lag_seconds\{[^}]*log="claims"[^}]*\} 3600\n`, scraped.Body.String())

	// And when Temporal is back it is started and the lag is gone.
	mu.Lock()
	away = false
	mu.Unlock()
	require.Eventually(t, func() bool { return s.has("file one") && f.Lag() == 0 && ready(f) }, 15*time.Second, time.Millisecond)
	cancel()
	require.ErrorIs(t, <-ended, context.Canceled)
}

func TestAnEventThatCantBeReadIsNotSkipped(t *testing.T) {
	l, s := newLedger(), newStarter()
	l.file("one")
	l.mu.Lock()
	l.shards[0][0].Event.Payload = []byte{0xff}
	l.mu.Unlock()
	l.file("two")
	run(t, client(t, l), s, follower.FromStart{}, func(f *follower.Follower) bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		return f.Ready() != nil && len(l.asked) > 3
	})
	require.Empty(t, s.all())
}

func TestNothingIsLostWhateverBreaksAndStops(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		// Given any log, streams that break and starts that fail at any point,
		// and a follower that is stopped and begun anew now and then.
		l, s, m := newLedger(), newStarter(), &memory{}
		c := client(t, l)
		l.breakAfter = rapid.IntRange(1, 5).Draw(rt, "break after")
		faults := rapid.SliceOfN(rapid.IntRange(1, 30), 0, 8).Draw(rt, "failing starts")
		s.fail = func(call int) error {
			if slices.Contains(faults, call) {
				return errors.New("away")
			}
			return nil
		}
		// And at every save, what is open before the cursor must have been started.
		type place struct {
			shard uint32
			index int
		}
		want, places, early := []string{}, map[string]place{}, []string{}
		m.check = func(next map[uint32]uint64) {
			for w, at := range places {
				if uint64(at.index) < next[at.shard] && !s.has(w) {
					early = append(early, w)
				}
			}
		}
		open := func(w string, shard uint32) {
			want, places[w] = append(want, w), place{shard, len(l.shards[shard]) - 1}
		}
		for part := range rapid.IntRange(1, 3).Draw(rt, "restarts") {
			for i := range rapid.IntRange(0, 6).Draw(rt, "events") {
				id := fmt.Sprintf("%d-%d", part, i)
				switch rapid.IntRange(0, 3).Draw(rt, "kind") {
				case 0:
					l.file(id)
					open("file "+id, 0)
				case 1:
					l.decided(id, 1, pended)
					open("claim "+id+" due 2026-12-21", 1)
				case 2:
					l.file(id)
					l.complete(id)
				case 3:
					l.decided(id, 1, pended)
					l.decided(id, 3, paid)
				}
			}
			// Stopped early, after anything between nothing and all.
			stopAt := rapid.IntRange(0, len(want)).Draw(rt, "stopped after starts")
			run(rt, c, s, m, func(f *follower.Follower) bool { return ready(f) || len(s.all()) >= stopAt })
		}
		// Then the last follower, left alone, has all that is open started.
		run(rt, c, s, m, func(*follower.Follower) bool { return s.has(want...) })
		require.Empty(rt, early, "the cursor was stored past what had not been started")
	})
}

func TestACursorIsOfOneNamespace(t *testing.T) {
	ctx := t.Context()
	id := "first"
	c := follower.File{Path: filepath.Join(t.TempDir(), "cursor.json"), Namespace: func(context.Context) (string, error) { return id, nil }}
	next, err := c.Load(ctx)
	require.NoError(t, err)
	require.Nil(t, next)

	require.NoError(t, c.Save(ctx, map[uint32]uint64{0: 7, 3: 9}))
	next, err = c.Load(ctx)
	require.NoError(t, err)
	require.Equal(t, map[uint32]uint64{0: 7, 3: 9}, next)

	id = "a new database"
	next, err = c.Load(ctx)
	require.NoError(t, err)
	require.Nil(t, next, "its workflows aren't there, so neither is its cursor")
}
