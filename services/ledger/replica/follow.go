package replica

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Run follows the topic until ctx ends, which is no error, or the shard halts.
func (s *Shard) Run(ctx context.Context) error {
	delay := retryFirst
	for ctx.Err() == nil {
		s.await(ctx)
		err := s.Step(ctx, time.Now())
		switch {
		case err == nil:
			delay = retryFirst
			continue
		case ctx.Err() != nil:
			return nil
		case s.Halted() != nil:
			return err
		case !errors.Is(err, ErrOutOfRange):
			s.cfg.Logger.Warn("following failed, trying again", "error", err)
		}
		select {
		case <-time.After(delay):
		case <-ctx.Done():
		}
		delay = min(2*delay, retryMost)
	}
	return nil
}

// Step fetches once and applies what came; it waits for nothing but the
// Source. After a failure it first reads the last followed record again. An
// error means that nothing was applied and a later Step may succeed, unless
// the shard is Halted: then it is the halt and no Step does anything more.
func (s *Shard) Step(ctx context.Context, now time.Time) error {
	if err := s.Halted(); err != nil {
		return err
	}
	var err error
	switch {
	case s.anchor != nil:
		err = s.compare(ctx, now)
	case s.checked:
		err = s.next(ctx)
	default:
		if err = s.checkTail(ctx); err == nil {
			s.knows(true)
			err = s.next(ctx)
		}
	}
	var v *core.Violation
	switch {
	case err == nil:
		s.lostFrom = time.Time{}
		return nil
	case s.Halted() != nil:
		return s.Halted()
	case errors.As(err, &v):
		return s.halt(v.Rule, v.What, nil)
	case isDamage(err):
		return s.sound(err)
	case errors.Is(err, errOtherTopic) && ctx.Err() == nil:
		s.cfg.Logger.Warn("the topic is not the one followed before: comparing it from its start", "index", s.Head().Next)
		s.anchor = &anchor{since: now}
	case errors.Is(err, ErrOutOfRange) && ctx.Err() == nil:
		// A clock that was ahead for a while must not have the shard wait until
		// it is as late again.
		if s.lostFrom.IsZero() || now.Before(s.lostFrom) {
			s.lostFrom = now
		}
		switch {
		case s.anchor != nil:
			if now.Before(s.anchor.since) {
				s.anchor.since = now
			}
			if now.Sub(s.anchor.since) >= s.cfg.Grace {
				return s.halt("ledger.topic.truncated", fmt.Sprintf("the topic ends after %d of the commits read from it before", s.anchor.index), nil)
			}
		case now.Sub(s.lostFrom) >= s.cfg.Grace:
			s.anchor = &anchor{since: now}
		}
	}
	s.knows(false)
	return err
}

// checkTail reads the last followed record again: a topic that was cut and
// written anew, or deleted and made again, reads back differently.
func (s *Shard) checkTail(ctx context.Context) error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	if st.Offset == 0 {
		return nil
	}
	got, err := s.cfg.Source.Fetch(ctx, st.Offset-1)
	if err != nil {
		return err
	}
	if len(got.Records) == 0 {
		return ErrOutOfRange
	}
	first := got.Records[0]
	if sum := sha256.Sum256(first.Value); first.Offset != st.Offset-1 || !bytes.Equal(sum[:], st.Last) {
		return errOtherTopic
	}
	return nil
}

// step fetches once and applies what came.
func (s *Shard) step(ctx context.Context) error {
	s.mu.RLock()
	next := s.st.Offset
	s.mu.RUnlock()
	got, err := s.cfg.Source.Fetch(ctx, next)
	if err != nil {
		return err
	}
	if len(got.Records) == 0 {
		s.mu.Lock()
		first := s.end < 0
		s.end = got.End
		s.mu.Unlock()
		if first {
			s.broadcast()
		}
		if got.End < next {
			return ErrOutOfRange
		}
		return nil
	}
	return s.apply(got)
}

// What is judged and stored at once: it stays in the processor's cache on its
// way from the hash to the file.
const (
	portionRecords = 512
	portionBytes   = 256 << 10
)

// portion returns how many of the records are taken in at once.
func portion(records []Record) int {
	n, size := 0, 0
	for n < len(records) && n < portionRecords && (n == 0 || size+len(records[n].Value) <= portionBytes) {
		size += len(records[n].Value)
		n++
	}
	return n
}

// apply judges fetched records and stores the valid ones. On a broken rule it
// keeps the records before it.
func (s *Shard) apply(got Fetched) error {
	if err := s.known.load(s.index.rows); err != nil {
		return err
	}
	if ahead := got.End - got.Records[0].Offset; ahead >= farBehind {
		s.known.expect(2 * ahead) // a request and a stream each, or so
	}
	for len(got.Records) > 0 {
		n := portion(got.Records)
		if err := s.applySome(got.Records[:n], got.End); err != nil {
			return err
		}
		got.Records = got.Records[n:]
	}
	return nil
}

func (s *Shard) applySome(records []Record, end int64) error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	head := core.Head{Log: s.cfg.Log, Shard: s.cfg.Shard, Next: st.Next, Term: st.Term, Owner: st.Owner}
	batch := &s.batch
	batch.begin()
	expecting := s.expecting()
	if !expecting {
		batch.reading.look(s, records)
	}
	var broken error
	var j core.Judged
	other := -1 // the last record, where it is no commit
	for i, rec := range records {
		if rec.Offset != st.Offset {
			broken = &core.Violation{Rule: "ledger.topic.gap", What: fmt.Sprintf("expected offset %d, found %d", st.Offset, rec.Offset)}
			break
		}
		own := false
		if expecting {
			j, own = s.own(head, rec.Value)
		}
		if !own {
			err := batch.judge(&j, head, i, rec.Value)
			if err == nil && expecting {
				err = s.denied(head, j)
			}
			if err != nil {
				broken = err
				break
			}
		}
		other = -1
		switch j.Verdict {
		case core.Accepted:
			batch.add(&j, i, rec.Value)
		case core.Raised:
			other = i
			s.cfg.Logger.Info("term raised", "term", j.Head.Term, "index", head.Next)
		case core.Void:
			other = i
			s.cfg.Logger.Warn("ignored a record of a deposed owner", "offset", rec.Offset, "term", j.Term, "reigning", head.Term)
		default:
			other = i
		}
		head, st.Offset = j.Head, rec.Offset+1
	}
	switch {
	case other >= 0:
		sum := sha256.Sum256(records[other].Value)
		st.Last = sum[:]
	case len(batch.entries) > 0:
		st.Last = bytes.Clone(batch.entries[len(batch.entries)-1][1:]) // the same hash
	}
	first := st.Next
	st.Next, st.Term, st.Owner = head.Next, head.Term, head.Owner
	st.Unread = s.unreadWith(first, st)
	if err := s.keep(st, end); err != nil {
		return err
	}
	s.took(first, st, batch.size)
	if broken != nil {
		return broken
	}
	if err := s.flushSome(); err != nil {
		return err
	}
	if err := s.leaveSome(batch.size); err != nil {
		return err
	}
	return s.publishSome()
}

// keep stores the batch and where the shard stands after it. end is the
// topic's.
func (s *Shard) keep(st state, end int64) error {
	batch := &s.batch
	if err := s.commits.Append(batch.values, st.marshal()); err != nil {
		return sound(err)
	}
	s.known.announce(batch.accepted)
	s.index.add(batch.accepted)
	s.tree.Append(batch.entries...)
	s.mu.Lock()
	s.st, s.end = st, end
	for _, l := range batch.leaves {
		s.states.append(l)
	}
	s.mu.Unlock()
	s.broadcast()
	return nil
}

// batch is what was accepted of the records being taken in and is not stored
// yet. It is the View they are judged in: the shard's, with them on top.
type batch struct {
	shard    *Shard
	accepted []stored
	values   [][]byte
	size     int // of the values
	entries  [][]byte
	leaves   []receipt.Hash // of the index rows
	requests names
	streams  names
	last     []int64 // revision of each stream

	reading reading
	keys    []key // of the record being judged, as far as they were not asked for
}

// begin empties the batch and keeps its room.
func (b *batch) begin() {
	b.shard.reader.Release()
	b.reading.begin()
	b.keys = nil
	clear(b.accepted)
	clear(b.values)
	clear(b.entries)
	b.accepted, b.values, b.entries = b.accepted[:0], b.values[:0], b.entries[:0]
	b.leaves, b.last, b.size = b.leaves[:0], b.last[:0], 0
	b.requests.reset()
	b.streams.reset()
}

// judge judges the i-th record in the batch.
func (b *batch) judge(out *core.Judged, head core.Head, i int, value []byte) (err error) {
	s, a := b.shard, &b.reading
	if i < len(a.read) && a.read[i] {
		b.keys = a.keys[a.first[i]:]
		return s.reader.JudgeRead(out, head, b, &a.records[i], value)
	}
	b.keys = nil
	*out, err = s.reader.Judge(head, b, value)
	return err
}

// add puts an accepted commit on top, the i-th record of the batch.
func (b *batch) add(j *core.Judged, i int, value []byte) {
	a, n := &b.reading, 1+len(j.Row.Writes)
	at := len(a.keys)
	if i < len(a.read) && a.read[i] {
		at = a.first[i]
	} else {
		a.keys = b.shard.index.hashes.keysOf(a.keys, j.Row.RequestID, j.Row.Writes)
	}
	keys := a.keys[at:][:n:n]
	b.accepted = append(b.accepted, stored{j.Seen.Index, j.Row, keys})
	b.values, b.entries = append(b.values, value), append(b.entries, j.Row.Entry)
	b.size += len(value)
	b.leaves = append(b.leaves, j.Row.Leaf())
	b.requests.add(keys[0].hash, j.Row.RequestID)
	for k := range j.Row.Writes {
		w := &j.Row.Writes[k]
		n, fresh := b.streams.add(keys[1+k].hash, w.Stream)
		if fresh {
			b.last = append(b.last, 0)
		}
		b.last[n] = int64(w.Last())
	}
}

// next returns the key of a name that the record being judged uses. The rules
// ask for them in their order.
func (b *batch) next(name string, hash func(string) uint64) key {
	if len(b.keys) > 0 && b.keys[0].name == name {
		k := b.keys[0]
		b.keys = b.keys[1:]
		return k
	}
	h := hash(name)
	return key{name: name, hash: h, absent: b.shard.known.absent(h)}
}

// LastRevision implements core.View. Like Request it takes no lock to look at
// what its own goroutine alone changes.
func (b *batch) LastRevision(stream string) (int64, error) {
	s := b.shard
	k := b.next(stream, s.index.hashes.stream)
	// What is in the batch is not announced yet.
	if n, ok := b.streams.find(k.hash, stream); ok {
		return b.last[n], nil
	}
	if k.absent {
		return core.NoStream, nil
	}
	if last, ok := s.index.held(k.hash, stream); ok {
		return last, nil
	}
	last, err := s.index.rows.lastRevision(stream)
	return last, s.sound(err)
}

// Request implements core.View.
func (b *batch) Request(id string) (core.Seen, bool, error) {
	k := b.next(id, b.shard.index.hashes.request)
	if n, ok := b.requests.find(k.hash, id); ok {
		return core.Seen{Index: b.accepted[n].index}, true, nil
	}
	if k.absent {
		return core.Seen{}, false, nil
	}
	return b.shard.Request(id)
}

// Expect tells what this node's owner of the shard is about to write, so that
// it need not be judged twice: a record that reads back byte for byte as it
// was written is what was decided. Anything else is judged as anybody's.
func (s *Shard) Expect(commits []core.Written) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	// What an earlier session expected at these places never came to be.
	n := len(s.expected)
	for n > s.judged && s.expected[n-1].Seen.Index >= commits[0].Seen.Index {
		n--
	}
	s.expected = append(s.expected[:n], commits...)
	if s.cfg.Audit != nil {
		s.handing.expects()
	}
	// What was judged makes room for what comes.
	if s.judged > len(s.expected)/2 {
		n := copy(s.expected, s.expected[s.judged:])
		clear(s.expected[n:])
		s.expected, s.judged = s.expected[:n], 0
	}
}

// expecting tells whether this node's own owner wrote something that was not
// read yet. It says so before it writes, so what was fetched while nothing is
// expected is none of its.
func (s *Shard) expecting() bool {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	return s.judged < len(s.expected)
}

// expectedAt returns what is expected at an index and forgets what was before
// it. The caller holds expectedMu.
func (s *Shard) expectedAt(index uint64) *core.Written {
	for s.judged < len(s.expected) && s.expected[s.judged].Seen.Index < index {
		s.expected[s.judged] = core.Written{}
		s.judged++
	}
	switch {
	case s.judged == len(s.expected):
		s.expected, s.judged = s.expected[:0], 0
	case s.expected[s.judged].Seen.Index == index:
		return &s.expected[s.judged]
	}
	return nil
}

// own returns the judgement on a record that the node's own owner wrote.
func (s *Shard) own(head core.Head, value []byte) (core.Judged, bool) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	w := s.expectedAt(head.Next)
	if w == nil || !w.Is(head, value) {
		return core.Judged{}, false
	}
	head.Next++
	return core.Judged{Verdict: core.Accepted, Term: head.Term, Commit: w.Commit, Seen: w.Seen, Row: core.RowOf(w.Commit, w.Seen.Entry), Head: head}, true
}

// denied compares a record that is not what this node's own owner wrote at its
// place, though valid: the owner would answer, and promise, from it.
func (s *Shard) denied(head core.Head, j core.Judged) error {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	if w := s.expectedAt(head.Next); j.Verdict == core.Accepted && w != nil && w.Denies(head, j.Seen.Entry) {
		return &core.Violation{Rule: "ledger.topic.altered", What: fmt.Sprintf("the record at index %d is not the one that this node wrote", head.Next)}
	}
	return nil
}
