package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
)

// What this node's own owner wrote need not be read from the broker before it
// is taken in: the owner hands it over once the broker acknowledged it, with
// the offset the broker gave it. It is stored by the same rules, and only where
// it goes on exactly where the replica stands; across anything else, a barrier,
// another session's record, an outcome that nobody knows, the topic is read.
//
// What reading protected, a topic that holds something else than was written,
// is found behind: Audit reads the topic where nothing was read and compares
// every record with what is stored. What is handed over and not audited is
// bounded and part of the shard's mark, so that a restart forgets none of it.

// Bounds of what was handed over and is not audited. Beyond them the replica
// reads in line until the audit has come within three quarters.
const (
	mostUnread      = 1 << 20
	mostUnreadBytes = 1 << 30
	// mostSpans bounds the mark.
	mostSpans = 16
	// lingers is how long Run waits for what its owner writes before it looks
	// into the topic.
	lingers = 200 * time.Millisecond
	// auditShare is what part of what is written an audit reads that is not
	// behind; what it is behind, as a part of the most, is added.
	auditShare = 1.0 / 16
	// auditTick is how often an audit that is behind looks whether it is to go
	// on, auditQuiet how many looks show that nothing is written.
	auditTick  = 10 * time.Millisecond
	auditQuiet = 4
)

// span is consecutive records, each the commit of the next index.
type span struct {
	offset int64
	index  uint64
	count  int64
}

// joins tells whether o goes on where e ends.
func (e span) joins(o span) bool {
	return e.offset+e.count == o.offset && e.index+uint64(e.count) == o.index
}

// handing is what passes between a shard's owner, its follower and its audit.
// Safe for concurrent use.
type handing struct {
	// Both have room for one: the follower waits for what is to be taken in,
	// the audit for what is to be compared.
	bell, filled chan struct{}

	mu      sync.Mutex // guards what follows
	active  bool       // the owner is writing: the next comes from it
	landed  []span     // acknowledged and not taken in; the oldest first
	unread  []span     // taken in and not audited; the oldest first
	held    int64      // records of unread
	bytes   int64      // of those taken in by this process
	taken   int64      // records ever taken in
	audited int64      // records ever audited
	inline  bool       // too much is unread
	epoch   int        // counts clear
	doubt   *core.Violation
	absent  time.Time // since when the audit finds nothing; zero if it does
}

func ring(bell chan struct{}) {
	select {
	case bell <- struct{}{}:
	default:
	}
}

// expects notes that the owner writes: what comes next is handed over.
func (h *handing) expects() {
	h.mu.Lock()
	h.active = true
	h.mu.Unlock()
}

// Landed tells that the broker acknowledged commits that were expected: count
// of them from index first on, as the records from offset on.
func (s *Shard) Landed(offset int64, first uint64, count int) {
	if s.cfg.Audit == nil {
		return
	}
	h := &s.handing
	h.mu.Lock()
	h.active = true
	h.landed = append(h.landed, span{offset, first, int64(count)})
	h.mu.Unlock()
	ring(h.bell)
}

// Left tells that the owner's session ended: what comes next is in the topic.
func (s *Shard) Left() {
	h := &s.handing
	h.mu.Lock()
	h.active = false
	h.mu.Unlock()
	ring(h.bell)
}

// await returns when there is something to take in or to look for in the
// topic: at once unless the owner is writing.
func (s *Shard) await(ctx context.Context) {
	h := &s.handing
	var patience *time.Timer
	for {
		s.mu.RLock()
		offset, next := s.st.Offset, s.st.Next
		s.mu.RUnlock()
		h.mu.Lock()
		// What was read from the topic meanwhile is not handed over any more.
		n := 0
		for n < len(h.landed) && h.landed[n].offset+h.landed[n].count <= offset && h.landed[n].index+uint64(h.landed[n].count) <= next {
			n++
		}
		h.landed = slices.Delete(h.landed, 0, n)
		wait := h.active && !h.inline && len(h.landed) == 0 && h.doubt == nil
		h.mu.Unlock()
		if !wait {
			return
		}
		if patience == nil {
			patience = time.NewTimer(lingers)
			defer patience.Stop()
		}
		select {
		case <-h.bell:
		case <-patience.C:
			h.mu.Lock()
			h.active = len(h.landed) > 0
			h.mu.Unlock()
			return
		case <-ctx.Done():
			return
		}
	}
}

// next takes in what was handed over, or else what one fetch brings.
func (s *Shard) next(ctx context.Context) error {
	if s.cfg.Audit == nil {
		return s.step(ctx)
	}
	h := &s.handing
	h.mu.Lock()
	doubt := h.doubt
	h.mu.Unlock()
	if doubt != nil {
		// Unless the topic was made anew, and is compared as a whole.
		if err := s.checkTail(ctx); err != nil {
			return err
		}
		return doubt
	}
	took, err := s.takeLanded()
	if took || err != nil {
		return err
	}
	return s.step(ctx)
}

// takeLanded takes in what was handed over and goes on where the shard stands.
// Whatever doesn't is left to the topic.
func (s *Shard) takeLanded() (took bool, err error) {
	h := &s.handing
	for {
		e, ok := s.joined()
		if !ok {
			return took, nil
		}
		if s.records, ok = s.written(s.records[:0], e); !ok {
			return took, nil
		}
		s.handed = true
		err := s.apply(Fetched{Records: s.records, End: e.offset + e.count})
		s.handed = false
		clear(s.records)
		if err != nil {
			return true, err
		}
		took = true
		h.mu.Lock()
		h.active = true
		h.mu.Unlock()
	}
}

// joined takes the next of what landed, without what was read already.
func (s *Shard) joined() (span, bool) {
	s.mu.RLock()
	offset, next := s.st.Offset, s.st.Next
	s.mu.RUnlock()
	h := &s.handing
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.landed) == 0 {
		return span{}, false
	}
	e := h.landed[0]
	if skip := offset - e.offset; skip > 0 && skip < e.count {
		e = span{offset, e.index + uint64(skip), e.count - skip}
	}
	if e.offset != offset || e.index != next || h.inline || !h.fits(e) {
		// The follower reads what is between, and these with it.
		h.landed = h.landed[:0]
		return span{}, false
	}
	h.landed = slices.Delete(h.landed, 0, 1)
	return e, true
}

// fits tells whether the mark has room for an span. The caller holds mu.
func (h *handing) fits(e span) bool {
	n := len(h.unread)
	return n < mostSpans || h.unread[n-1].joins(e)
}

// written appends the records that the owner wrote in an span, as long as
// they are what it expects there.
func (s *Shard) written(to []Record, e span) ([]Record, bool) {
	s.mu.RLock()
	term := s.st.Term
	s.mu.RUnlock()
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	if s.expectedAt(e.index) == nil || int64(len(s.expected)-s.judged) < e.count {
		return to, false
	}
	for i := range e.count {
		w := &s.expected[s.judged+int(i)]
		if w.Seen.Index != e.index+uint64(i) || w.Commit.Term != term {
			return to, false
		}
		to = append(to, Record{Offset: e.offset + i, Value: w.Value})
	}
	return to, true
}

// unreadWith returns what is not audited once the shard stands at st, with
// what is being taken in from index first on if that was handed over.
func (s *Shard) unreadWith(first uint64, st state) []span {
	h := &s.handing
	h.mu.Lock()
	defer h.mu.Unlock()
	unread := slices.Clone(h.unread)
	if s.handed && st.Next > first {
		unread = with(unread, since(first, st))
	}
	return unread
}

// took notes that it is stored.
func (s *Shard) took(first uint64, st state, size int) {
	if !s.handed || st.Next == first {
		return
	}
	h := &s.handing
	h.mu.Lock()
	defer h.mu.Unlock()
	e := since(first, st)
	if len(h.unread) == 0 {
		ring(h.filled)
	}
	h.unread = with(h.unread, e)
	h.held, h.taken, h.bytes = h.held+e.count, h.taken+e.count, h.bytes+int64(size)
	h.bound()
}

// since is what was handed over from index first on: every record is a commit.
func since(first uint64, st state) span {
	n := int64(st.Next - first)
	return span{st.Offset - n, first, n}
}

// with appends a span, to the last one where it goes on from it.
func with(all []span, e span) []span {
	if n := len(all); n > 0 && all[n-1].joins(e) {
		all[n-1].count += e.count
		return all
	}
	return append(all, e)
}

// bound decides whether to read in line. The caller holds mu.
func (h *handing) bound() {
	most, mostBytes := int64(mostUnread), int64(mostUnreadBytes)
	if h.inline {
		most, mostBytes = most/4*3, mostBytes/4*3
	}
	h.inline = h.held >= most || h.bytes >= mostBytes
}

// holds tells whether spans are, in order, of what was followed.
func (st state) holds(spans []span) bool {
	var offset int64
	var index uint64
	for _, e := range spans {
		if e.count <= 0 || e.offset < offset || e.index < index || e.count > st.Offset-e.offset || uint64(e.count) > st.Next-min(e.index, st.Next) {
			return false
		}
		offset, index = e.offset+e.count, e.index+uint64(e.count)
	}
	return true
}

// recall takes up what a process before did not audit.
func (h *handing) recall(unread []span) {
	h.bell, h.filled = make(chan struct{}, 1), make(chan struct{}, 1)
	h.unread = slices.Clone(unread)
	for _, e := range unread {
		h.held += e.count
	}
	h.bound()
}

// clear forgets all: the topic was compared from its start.
func (h *handing) clear() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.landed, h.unread, h.held, h.bytes, h.doubt, h.absent = nil, nil, 0, 0, nil, time.Time{}
	h.epoch++
	h.bound()
}

// Unaudited returns how many records were taken in from this node's owner and
// not compared with the topic yet.
func (s *Shard) Unaudited() int64 {
	s.handing.mu.Lock()
	defer s.handing.mu.Unlock()
	return s.handing.held
}

// Audit compares what was handed over with the topic until ctx ends or the
// shard halts. While the shard is written it reads a share of what is written,
// from a sixteenth to all of it the further it is behind; otherwise it reads
// until it is level.
func (s *Shard) Audit(ctx context.Context) {
	if s.cfg.Audit == nil {
		return
	}
	h, delay := &s.handing, retryFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	var due, last int64 // how much must have been taken in for the next step, and had been at the last look
	quiet := 0          // looks since more was taken in
	for ctx.Err() == nil {
		if h.level() {
			select {
			case <-h.filled:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		taken, audited, share := h.progress()
		if quiet++; taken != last {
			last, quiet = taken, 0
		}
		if taken < due && quiet < auditQuiet {
			timer.Reset(auditTick)
			continue
		}
		moved, err := s.AuditStep(ctx, time.Now())
		switch {
		case s.Halted() != nil:
			return
		case err != nil:
			if ctx.Err() == nil {
				s.cfg.Logger.Warn("the audit of the topic failed, trying again", "error", err)
			}
			timer.Reset(delay)
			delay = min(2*delay, retryMost)
			continue
		case moved && quiet >= auditQuiet:
			timer.Reset(0)
		case moved:
			_, now, _ := h.progress()
			due = taken + int64(float64(now-audited)/share)
			timer.Reset(auditTick)
		default:
			timer.Reset(auditTick)
		}
		delay = retryFirst
	}
}

// level tells whether all that was handed over was audited.
func (h *handing) level() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held == 0
}

// progress returns how many records were ever taken in and audited, and which
// share of what is written the audit is to read.
func (h *handing) progress() (taken, audited int64, share float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	behind := max(float64(h.held)/mostUnread, float64(h.bytes)/mostUnreadBytes)
	return h.taken, h.audited, min(1, auditShare+behind)
}

// AuditStep fetches once what was handed over and compares it with what is
// stored. What differs, or is not there for as long as a topic may lag, is
// told to the follower, which halts unless the topic was made anew. It has one
// caller, beside that of Step.
func (s *Shard) AuditStep(ctx context.Context, now time.Time) (moved bool, err error) {
	s.mu.RLock()
	same := s.same && s.halted == nil
	s.mu.RUnlock()
	h := &s.handing
	h.mu.Lock()
	epoch, idle := h.epoch, !same || h.doubt != nil || len(h.unread) == 0
	var e span
	if !idle {
		e = h.unread[0]
	}
	h.mu.Unlock()
	if idle {
		return false, nil
	}
	got, err := s.cfg.Audit.Fetch(ctx, e.offset)
	if err != nil && !errors.Is(err, ErrOutOfRange) {
		return false, err
	}
	records := got.Records[:min(int64(len(got.Records)), e.count)]
	var found *core.Violation
	size, n := int64(0), int64(0)
	err = s.eachCommit(e.index, e.index+uint64(len(records)), func(_ uint64, stored []byte) (bool, error) {
		switch r := records[n]; {
		case r.Offset != e.offset+n:
			found = &core.Violation{Rule: "ledger.topic.gap", What: fmt.Sprintf("expected offset %d, found %d", e.offset+n, r.Offset)}
		case !bytes.Equal(r.Value, stored):
			found = &core.Violation{Rule: "ledger.topic.altered", What: fmt.Sprintf("the record at offset %d, index %d, is not the one that this node wrote", r.Offset, e.index+uint64(n))}
		default:
			size += int64(len(stored))
			n++
			return true, nil
		}
		return false, nil
	})
	if err != nil {
		return false, s.sound(err)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.epoch != epoch {
		return true, nil // the topic was compared meanwhile
	}
	h.passed(n, size)
	switch {
	case found != nil:
		h.doubt = found
	case n > 0:
		h.absent = time.Time{}
		return true, nil
	case h.absent.IsZero() || now.Before(h.absent):
		h.absent = now
		return false, nil
	case now.Sub(h.absent) < s.cfg.Grace:
		return false, nil
	default:
		h.doubt = &core.Violation{Rule: "ledger.topic.truncated", What: fmt.Sprintf("the topic doesn't hold offset %d, which was acknowledged", e.offset)}
	}
	ring(h.bell)
	return true, nil
}

// passed notes that records were compared. The caller holds mu.
func (h *handing) passed(n, size int64) {
	if n == 0 {
		return
	}
	e := &h.unread[0]
	e.offset, e.index, e.count = e.offset+n, e.index+uint64(n), e.count-n
	if e.count == 0 {
		h.unread = slices.Delete(h.unread, 0, 1)
	}
	h.held, h.audited = h.held-n, h.audited+n
	// What another process took in was not counted.
	if h.bytes = max(0, h.bytes-size); h.held == 0 {
		h.bytes = 0
	}
	h.bound()
}
