package follower_test

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/workflows/follower"
)

// clock is told the time.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

// waits is a decision after which a claim waits for people, for so long.
func (l *ledger) waits(id string, until time.Duration) {
	l.add(1, "claim-"+id, 1, &eventsv1.ClaimDecided{
		ClaimId: id, Status: pended, PromptPayDueDate: "2026-12-21",
		FirstDeadline: &claimsv1.Deadline{Kind: "escalation", Time: timestamppb.New(recorded.Add(until))},
	})
}

// many are claims of a file, decided straight through.
func (l *ledger) many(n int) (add []func()) {
	for i := range n {
		add = append(add, func() { l.decided(strconv.Itoa(i), 1, paid) })
	}
	return add
}

type pressed struct {
	l *ledger
	s *starter
	m *memory
	c *clock
	f *follower.Follower
}

// underAFile is a follower that has caught up, to which a file's claims have
// just come in one batch with those that more adds.
func underAFile(t *testing.T, more ...func(l *ledger)) *pressed {
	p := &pressed{l: newLedger(), s: newStarter(), m: &memory{}, c: &clock{now: recorded}}
	p.l.batch = 5000
	p.f = follower.New(follower.Deps{Ledger: client(t, p.l), Starter: p.s, Cursor: p.m, Now: p.c.Now})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.f.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-ended, context.Canceled)
	})
	p.await(t, func() bool { return ready(p.f) })
	add := p.l.many(2000)
	for _, m := range more {
		add = append(add, func() { m(p.l) })
	}
	p.l.together(append(add, func() { p.l.file("seen") })...)
	p.await(t, func() bool { return p.s.has("file seen") })
	return p
}

func (p *pressed) await(t *testing.T, done func() bool) {
	require.Eventually(t, done, 15*time.Second, time.Millisecond)
}

func (p *pressed) saved() uint64 {
	p.m.mu.Lock()
	defer p.m.mu.Unlock()
	return p.m.next[1]
}

func TestAnAlarmClockIsSetWhenTheFileIsThrough(t *testing.T) {
	// Given a file under decision, of which one claim waits for people for
	// days and one for a deadline within the hour.
	p := underAFile(t, func(l *ledger) { l.waits("days", 25*24*time.Hour) }, func(l *ledger) { l.waits("soon", 50*time.Minute) })
	// Then what is pressing has started, and the other has not.
	p.await(t, func() bool { return p.s.has("claim soon waits for escalation") })
	require.Equal(t, []string{"claim soon waits for escalation", "file seen"}, p.s.all())

	// And what is stored meanwhile lies before it: who begins anew finds it.
	p.c.pass(6 * time.Second)
	p.l.together(append(p.l.many(2000), func() { p.l.file("more") })...)
	p.await(t, func() bool { return p.s.has("file more") && p.saved() > 0 })
	require.Equal(t, []string{"claim soon waits for escalation", "file more", "file seen"}, p.s.all())
	require.EqualValues(t, 2000, p.saved(), "the place of the claim that waits for days")
	require.Equal(t, 6*time.Second, p.f.Lag(), "it is seen that something waits")

	// When nothing more comes, then it starts, and nothing waits any more.
	p.c.pass(2 * time.Second)
	p.await(t, func() bool { return p.s.has("claim days waits for escalation") && p.f.Lag() == 0 })
}

func TestNothingGivesWayForLong(t *testing.T) {
	p := underAFile(t, func(l *ledger) { l.waits("days", 25*24*time.Hour) })
	// Given files that don't end.
	second := func(n int) {
		p.c.pass(time.Second)
		file := "of second " + strconv.Itoa(n)
		p.l.together(append(p.l.many(2000), func() { p.l.file(file) })...)
		p.await(t, func() bool { return p.s.has("file " + file) })
	}
	for n := range 44 {
		second(n)
		require.NotContains(t, p.s.all(), "claim days waits for escalation")
	}
	// Then it starts all the same.
	second(44)
	p.await(t, func() bool { return p.s.has("claim days waits for escalation") })
}

func TestWhatIsToBeToldStartsFirst(t *testing.T) {
	p := underAFile(t, func(l *ledger) { l.waits("days", 25*24*time.Hour) })
	p.l.add(1, "claim-days", 2, &eventsv1.TaskClaimed{ClaimId: "days"})
	p.await(t, func() bool { return p.s.has("changed days") })
	require.Equal(t, []string{"file seen", "claim days waits for escalation", "changed days"}, p.s.order)
}
