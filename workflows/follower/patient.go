package follower

import (
	"context"
	"maps"
	"slices"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/workflows/hook"
)

const (
	// patience is how long a start gives way at most, less than the minute of
	// lag that operators are told to be alarmed by.
	patience = 45 * time.Second
	// pressing is how many facts within two seconds say that much is being
	// decided: a file's claims come in thousands a second, others mostly don't.
	pressing = 1000
	// idleFor is how long a workflow must have nothing to do for its start to
	// give way at all, or to be delayed; far more than patience, for clocks
	// differ.
	idleFor = time.Hour
	// maxPatient bounds what is held back; beyond it starts go at once.
	maxPatient = 10_000
	// patientLook is how often it is asked whose turn has come.
	patientLook = 100 * time.Millisecond
)

// patient are starts that give way to what presses. Run's goroutine owns it;
// the zero value holds nothing.
//
// A claim that waits for people is listed as soon as it is decided, whether or
// not its workflow has started; a review starts it, and what it is to be told
// of starts it first. So what a held start delays is an alarm clock that is
// set for days later.
type patient struct {
	held []heldStart // in the order of their facts

	second   time.Time // when the count began
	now, was int       // facts since then, and in the second before
}

// heldStart is a start with what is known of the fact that asks for it.
type heldStart struct {
	start       hook.Start
	traceparent string
	at          *ledgerv1.Position
	recorded    time.Time
	since       time.Time
}

// pass counts facts.
func (p *patient) pass(now time.Time, facts int) {
	p.count(now)
	p.now += facts
}

func (p *patient) count(now time.Time) {
	switch passed := now.Sub(p.second); {
	case passed < 0 || passed >= 2*time.Second:
		p.second, p.now, p.was = now, 0, 0
	case passed >= time.Second:
		p.second, p.now, p.was = now, 0, p.now
	}
}

func (p *patient) presses(now time.Time) bool {
	p.count(now)
	return p.now+p.was >= pressing
}

// hold keeps a start back, if it may give way and something presses.
func (p *patient) hold(now time.Time, s hook.Start, fact *ledgerv1.RecordedEvent) bool {
	if s.Idle.Sub(now) < idleFor || len(p.held) >= maxPatient || !p.presses(now) {
		return false
	}
	// A batch that broke off comes again.
	if slices.ContainsFunc(p.held, func(h heldStart) bool { return h.start.ID == s.ID }) {
		return true
	}
	p.held = append(p.held, heldStart{s, fact.GetTraceparent(), fact.GetPosition(), fact.GetRecordedTime().AsTime(), now})
	return true
}

// take hands out a held start before its turn.
func (p *patient) take(id string) (heldStart, bool) {
	i := slices.IndexFunc(p.held, func(h heldStart) bool { return h.start.ID == id })
	if i < 0 {
		return heldStart{}, false
	}
	h := p.held[i]
	p.held = slices.Delete(p.held, i, i+1)
	return h, true
}

// due is how many of the held, from the first, have their turn: some when
// nothing presses, and those that have given way for long enough.
func (p *patient) due(now time.Time) int {
	pressed := p.presses(now)
	n := 0
	for n < min(len(p.held), parallel) && (!pressed || now.Sub(p.held[n].since) >= patience) {
		n++
	}
	return n
}

// turn fires when it is time to look whose turn it is; nil while none is held.
func (p *patient) turn(now time.Time) <-chan time.Time {
	switch {
	case len(p.held) == 0:
		return nil
	case p.due(now) > 0:
		return time.After(0)
	}
	return time.After(patientLook)
}

// oldest is when the first fact was recorded whose start is held; zero for none.
func (p *patient) oldest() time.Time {
	if len(p.held) == 0 {
		return time.Time{}
	}
	return p.held[0].recorded
}

// before is next, moved back to before every fact whose start is held.
func (p *patient) before(next map[uint32]uint64) map[uint32]uint64 {
	out := maps.Clone(next)
	for _, h := range p.held {
		out[h.at.GetShard()] = min(out[h.at.GetShard()], h.at.GetIndex())
	}
	return out
}

// startPatient starts those whose turn has come.
func (f *Follower) startPatient(ctx context.Context) error {
	return f.startHeld(ctx, f.patient.due(f.deps.Now()))
}

// startHeld starts the first n of the held. They stay held until all of them
// have started, and the cursor before them.
func (f *Follower) startHeld(ctx context.Context, n int) error {
	if n == 0 {
		return nil
	}
	for _, h := range f.patient.held[:n] {
		f.start(h.start, h.traceparent)
	}
	f.flush(ctx)
	if err := ctx.Err(); err != nil {
		return err
	}
	f.patient.held = slices.Delete(f.patient.held, 0, n)
	f.mu.Lock()
	if f.trouble = ""; f.caughtUp {
		f.behind = f.patient.oldest()
	}
	f.mu.Unlock()
	f.save(ctx)
	return nil
}
