package replica

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
	"github.com/probity-health/probity/services/problem"
)

const (
	// truncationGrace is how long an offset may be out of range before it
	// counts as truncation: a new leader's high watermark lags for a moment.
	truncationGrace = 10 * time.Second
	// unpublished bounds the leaves a tree keeps in memory only.
	unpublished = 1 << 16
	retryFirst  = 20 * time.Millisecond
	retryMost   = 2 * time.Second
)

// ShardConfig is what a Shard is made of.
type ShardConfig struct {
	Log    string
	Shard  uint32
	Store  *Store
	Dir    string // of the tiles; the shard makes <log>/<shard> below it
	Source Source
	Logger *slog.Logger
	// Signals are broadcast, besides the shard's own, at every change.
	Signals []*Signal
	// Grace is how long an offset may be out of range; 0 is 10 s.
	Grace time.Duration
	// FlushAt is how many commits' index stays in memory only; 0 is 8,192.
	FlushAt int
}

// Shard follows one partition. Run, or Step, must have one caller; all else is
// safe for concurrent use.
type Shard struct {
	cfg     ShardConfig
	commits *segments.Log
	index   *index
	tree    *tiles.Tree
	// outset is the index of the first commit whose body is held. Only Begin
	// and what comes before it changes it.
	outset uint64
	// known answers most look-ups without the store.
	known *known
	// Changed is broadcast when commits were applied or the shard halted.
	Changed Signal

	mu     sync.RWMutex // guards what follows
	st     state
	states stateTree // over the index rows, as far as st
	end    int64     // the topic's end as last seen; -1 before the first fetch
	same   bool      // the topic is the one followed before, as far as is known
	halted error

	expectedMu sync.Mutex     // guards expected
	expected   []core.Written // by this node's own owner, on their way; indexes rise

	// Only Step touches these.
	batch    *core.Overlay // of the records being applied, where there are many
	checked  bool          // the topic's tail was compared since the last failure
	lostFrom time.Time     // since when the next offset is out of range; zero if it isn't
	anchor   *anchor       // comparing a topic made anew; nil otherwise
}

// OpenShard opens a shard's local data and brings its index and its tree level
// with its commits.
func OpenShard(cfg ShardConfig) (*Shard, error) {
	rows := cfg.Store.rows(cfg.Log, cfg.Shard)
	s := &Shard{cfg: cfg, index: newIndex(rows), known: newKnown(), end: -1}
	s.cfg.Logger = cfg.Logger.With("log", cfg.Log, "shard", cfg.Shard)
	s.cfg.FlushAt = cmp.Or(cfg.FlushAt, flushAt)
	if s.cfg.Grace == 0 {
		s.cfg.Grace = truncationGrace
	}
	s.batch = core.NewOverlay(s)
	var err error
	if s.outset, err = rows.outset(); err != nil {
		return nil, err
	}
	if s.commits, err = cfg.Store.commits(cfg.Log, cfg.Shard, s.outset); err != nil {
		return nil, err
	}
	if cut := s.commits.Cut(); cut > 0 {
		s.cfg.Logger.Warn("left out the end of the commits, which was not written whole", "bytes", cut, "index", s.commits.Count())
	}
	if mark := s.commits.Mark(); mark != nil {
		var ok bool
		if s.st, ok = parseState(mark); !ok || s.st.Next != s.commits.Count() {
			return nil, fmt.Errorf("%w: the mark of %s/%d is not of its commits", errDamaged, cfg.Log, cfg.Shard)
		}
	}
	if s.st.Next < s.outset {
		return nil, fmt.Errorf("%w: %s/%d lost the mark of where its commits begin", errDamaged, cfg.Log, cfg.Shard)
	}
	indexed, err := rows.indexed()
	if err != nil {
		return nil, err
	}
	if indexed > s.st.Next || indexed < s.outset {
		return nil, fmt.Errorf("%w: the index has %d commits of %s/%d and there are %d", errDamaged, indexed, cfg.Log, cfg.Shard, s.st.Next)
	}
	if s.st.Offset == 0 && s.st.Next > 0 {
		// The commits came from a peer: find them in the topic first.
		s.anchor = &anchor{hint: s.st.Hint}
	}
	dir := filepath.Join(cfg.Dir, cfg.Log, strconv.Itoa(int(cfg.Shard)))
	s.tree, err = cfg.Store.disk.OpenTree(dir)
	if errors.Is(err, tiles.ErrDamaged) || (err == nil && s.tree.Size() > s.st.Next) {
		// The bodies are the truth the tiles derive from. Blocks compares
		// the outcome with what was sealed.
		s.cfg.Logger.Warn("rebuilding the tiles from the stored commits", "cause", err)
		if err := cfg.Store.disk.ResetTree(dir); err != nil {
			return nil, err
		}
		s.tree, err = cfg.Store.disk.OpenTree(dir)
	}
	if err != nil {
		return nil, err
	}
	for at := s.tree.Size(); at < s.outset; at++ {
		row, err := rows.row(at)
		if err != nil {
			return nil, err
		}
		s.tree.Append(row.Entry)
	}
	err = s.commits.Each(max(s.outset, min(indexed, s.tree.Size())), s.st.Next, func(at uint64, value []byte) (bool, error) {
		if at >= indexed {
			c, err := decode(value)
			if err != nil {
				return false, err
			}
			seen := core.Seen{Index: at}
			for _, w := range c.Writes {
				seen.Revisions = append(seen.Revisions, w.FirstRevision+uint64(len(w.Events))-1)
			}
			entries := []stored{{c, seen}}
			s.known.announce(entries)
			s.index.add(entries)
		}
		if at >= s.tree.Size() {
			s.tree.Append(receipt.Entry(value))
			return true, s.publishSome()
		}
		return true, nil
	})
	if err != nil {
		return nil, sound(err)
	}
	cfg.Store.mu.Lock()
	defer cfg.Store.mu.Unlock()
	cfg.Store.flushes = append(cfg.Store.flushes, s.flush)
	return s, nil
}

// publishSome keeps the unpublished part of the tree bounded.
func (s *Shard) publishSome() error {
	if done, _ := s.tree.Published(); s.tree.Size()-done < unpublished {
		return nil
	}
	if err := s.commits.Sync(); err != nil {
		return err
	}
	return s.tree.Publish(s.tree.Size())
}

// flushSome keeps the part of the index bounded that is in memory only.
func (s *Shard) flushSome() error {
	if s.index.fresh.commits < s.cfg.FlushAt {
		return nil
	}
	return s.flush()
}

// flush brings the store level with the commits.
func (s *Shard) flush() error {
	if s.index.fresh.commits == 0 {
		return nil
	}
	if err := s.commits.Sync(); err != nil {
		return err
	}
	return s.index.flush(s.commits.Count())
}

// Head returns where the shard stands.
func (s *Shard) Head() core.Head {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return core.Head{Log: s.cfg.Log, Shard: s.cfg.Shard, Next: s.st.Next, Term: s.st.Term, Owner: s.st.Owner}
}

// StateRoot returns the root over the index rows of the commits below a size,
// which must not be below the newest block's.
func (s *Shard) StateRoot(size uint64) (receipt.Hash, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.states.rootAt(size)
}

// loadState takes up the compact range of the rows below the newest block's
// size and reads those since from the stored commits.
func (s *Shard) loadState(base uint64, nodes [][]byte) error {
	tree := stateTree{base: base, nodes: nodes}
	err := s.eachRow(base, s.st.Next, func(_ uint64, row core.Row) (bool, error) {
		tree.append(row.Leaf())
		return true, nil
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states = tree
	return nil
}

// rowOf returns the index row of a stored commit.
func rowOf(value []byte) (core.Row, error) {
	c, err := decode(value)
	if err != nil {
		return core.Row{}, err
	}
	return core.RowOf(c, core.Seen{Entry: receipt.Entry(value), Digest: core.Digest(c.Writes)}), nil
}

// Tree returns the shard's tree. Its size may be past Head's for a moment.
func (s *Shard) Tree() *tiles.Tree { return s.tree }

// LastRevision implements core.View.
func (s *Shard) LastRevision(stream string) (int64, error) {
	if revision, ok := s.index.last(stream); ok {
		return revision, nil
	}
	if s.known.noStream(stream) {
		return core.NoStream, nil
	}
	last, err := s.index.lastRevision(stream)
	return last, s.sound(err)
}

// Request implements core.View. What it finds is answered with a promise, so it
// is compared with the tree first: the shard halts when its stored bytes are
// no longer those that were followed.
func (s *Shard) Request(id string) (core.Seen, bool, error) {
	if s.known.noRequest(id) {
		return core.Seen{}, false, nil
	}
	at, ok, err := s.index.request(id)
	if err != nil || !ok {
		return core.Seen{}, false, s.sound(err)
	}
	seen, err := s.seen(at, id)
	if err != nil {
		return core.Seen{}, false, s.sound(err)
	}
	// A commit being applied is stored a moment before it is in the tree.
	if at < s.tree.Size() {
		leaf, err := s.tree.Leaf(at)
		if err != nil {
			return core.Seen{}, false, err
		}
		if leaf != receipt.LeafHash(seen.Entry) {
			return core.Seen{}, false, s.sound(fmt.Errorf("%w: index %d", errDamaged, at))
		}
	}
	return seen, true, nil
}

// seen reads what a request id named.
func (s *Shard) seen(at uint64, id string) (core.Seen, error) {
	if at < s.outset {
		row, err := s.index.rows.row(at)
		if err != nil || row.RequestID != id {
			return core.Seen{}, errors.Join(errDamaged, err)
		}
		// Without the time, which only the body has.
		seen := core.Seen{Index: at, Digest: row.Digest, Entry: row.Entry}
		for _, w := range row.Writes {
			seen.Revisions = append(seen.Revisions, w.First+w.Count-1)
		}
		return seen, nil
	}
	value, err := s.Commit(at)
	if err != nil {
		return core.Seen{}, err
	}
	c, err := decode(value)
	if err != nil || c.RequestId != id {
		return core.Seen{}, errDamaged
	}
	seen := core.Seen{Index: at, Digest: core.Digest(c.Writes), Entry: receipt.Entry(value), Recorded: c.RecordedTime.AsTime()}
	for _, w := range c.Writes {
		seen.Revisions = append(seen.Revisions, w.FirstRevision+uint64(len(w.Events))-1)
	}
	return seen, nil
}

// eachCommit is the commits' Each.
func (s *Shard) eachCommit(from, to uint64, visit func(index uint64, value []byte) (more bool, err error)) error {
	if from < min(to, s.outset) {
		return s.noBody(from)
	}
	return sound(s.commits.Each(from, to, visit))
}

// sound halts the shard when err says that its store is damaged: to try again
// would find the same.
func (s *Shard) sound(err error) error {
	if isDamage(err) && s.Halted() == nil {
		return s.halt("ledger.store.damaged", "a stored commit is not the one followed before", err)
	}
	return err
}

// Expect tells what this node's owner of the shard is about to write, so that
// it need not be judged twice: a record that reads back with the hash it was
// written with is what was decided. Anything else is judged as anybody's.
func (s *Shard) Expect(commits []core.Written) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	// What an earlier session expected at these places never came to be.
	n := len(s.expected)
	for n > 0 && s.expected[n-1].Seen.Index >= commits[0].Seen.Index {
		n--
	}
	s.expected = append(s.expected[:n:n], commits...)
}

// own returns the judgement on a record that the node's own owner wrote.
func (s *Shard) own(head core.Head, value []byte) (core.Judged, bool) {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	for len(s.expected) > 0 && s.expected[0].Seen.Index < head.Next {
		s.expected = s.expected[1:]
	}
	if len(s.expected) == 0 || s.expected[0].Seen.Index != head.Next {
		return core.Judged{}, false
	}
	w := s.expected[0]
	if !w.Is(head, receipt.Entry(value)) {
		return core.Judged{}, false
	}
	head.Next++
	return core.Judged{Verdict: core.Accepted, Commit: w.Commit, Seen: w.Seen, Head: head}, true
}

// denied compares a record that is not what this node's own owner wrote at its
// place, though valid: the owner would answer, and promise, from it.
func (s *Shard) denied(head core.Head, j core.Judged) error {
	s.expectedMu.Lock()
	defer s.expectedMu.Unlock()
	if j.Verdict == core.Accepted && len(s.expected) > 0 && s.expected[0].Denies(head, j.Seen.Entry) {
		return &core.Violation{Rule: "ledger.topic.altered", What: fmt.Sprintf("the record at index %d is not the one that this node wrote", head.Next)}
	}
	return nil
}

// stored is a commit that was accepted.
type stored struct {
	commit *ledgerv1.Commit
	seen   core.Seen
}

// Halted returns why the shard stopped following, nil while it follows.
func (s *Shard) Halted() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.halted
}

// Lag returns how many records the topic holds that were not applied, and
// false before the topic was reached for the first time.
func (s *Shard) Lag() (int64, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return max(0, s.end-s.st.Offset), s.end >= 0
}

// Reached tells whether the record at a Kafka offset was judged. It is false
// while this replica doesn't know that the topic is the one it followed: an
// owner must not write to a topic that lost what was acknowledged.
func (s *Shard) Reached(offset int64) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.same && s.st.Offset > offset
}

// knows records whether the topic is the one that was followed.
func (s *Shard) knows(same bool) {
	s.mu.Lock()
	changed := s.same != same
	s.same = same
	s.mu.Unlock()
	s.checked = same
	if changed && same {
		s.broadcast()
	}
}

// WaitOffset waits until the record at a Kafka offset was judged.
func (s *Shard) WaitOffset(ctx context.Context, offset int64) error {
	return s.wait(ctx, func(st state) bool { return st.Offset > offset })
}

// WaitIndex waits until the commit at an index is readable.
func (s *Shard) WaitIndex(ctx context.Context, index uint64) error {
	return s.wait(ctx, func(st state) bool { return st.Next > index })
}

func (s *Shard) wait(ctx context.Context, reached func(state) bool) error {
	for {
		changed := s.Changed.Wait()
		s.mu.RLock()
		ok, halted := reached(s.st), s.halted
		s.mu.RUnlock()
		switch {
		case ok:
			return nil
		case halted != nil:
			return halted
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *Shard) halt(rule, what string, cause error) error {
	err := problem.New(problem.Unavailable, problem.Problem{
		RuleID:  rule,
		Message: fmt.Sprintf("shard %s/%d is halted at index %d: %s", s.cfg.Log, s.cfg.Shard, s.Head().Next, what),
		Fix:     "what was sealed stays readable; compare the topic with another replica before anything is deleted",
	}).Because(cause)
	s.cfg.Logger.Error("REPLICA HALTED: the topic and this replica disagree", "rule", rule, "what", what, "cause", cause)
	s.mu.Lock()
	s.halted = err
	s.mu.Unlock()
	s.broadcast()
	return err
}

func (s *Shard) broadcast() {
	s.Changed.Broadcast()
	for _, sig := range s.cfg.Signals {
		sig.Broadcast()
	}
}

// Run follows the topic until ctx ends, which is no error, or the shard halts.
func (s *Shard) Run(ctx context.Context) error {
	delay := retryFirst
	for ctx.Err() == nil {
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
		err = s.step(ctx)
	default:
		if err = s.checkTail(ctx); err == nil {
			s.knows(true)
			err = s.step(ctx)
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
		if s.lostFrom.IsZero() {
			s.lostFrom = now
		}
		switch {
		case s.anchor != nil:
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

// worthKeeping is of how many records on the room of a batch's overlay is kept:
// to empty it costs as much as the largest batch needed.
const worthKeeping = 64

// apply judges fetched records and stores the valid ones. On a broken rule it
// keeps the records before it.
func (s *Shard) apply(got Fetched) error {
	s.mu.RLock()
	st := s.st
	s.mu.RUnlock()
	head := core.Head{Log: s.cfg.Log, Shard: s.cfg.Shard, Next: st.Next, Term: st.Term, Owner: st.Owner}
	if err := s.known.load(s.index.rows); err != nil {
		return err
	}
	view := s.batch
	if len(got.Records) < worthKeeping {
		view = core.NewOverlay(s)
	}
	view.Reset()
	accepted, values := make([]stored, 0, len(got.Records)), make([][]byte, 0, len(got.Records))
	leaves := make([]receipt.Hash, 0, len(got.Records)) // of the index rows
	var broken error
	for _, rec := range got.Records {
		if rec.Offset != st.Offset {
			broken = &core.Violation{Rule: "ledger.topic.gap", What: fmt.Sprintf("expected offset %d, found %d", st.Offset, rec.Offset)}
			break
		}
		j, own := s.own(head, rec.Value)
		if !own {
			var err error
			if j, err = core.Judge(head, view, rec.Value); err == nil {
				err = s.denied(head, j)
			}
			if err != nil {
				broken = err
				break
			}
		}
		switch j.Verdict {
		case core.Accepted:
			view.Add(j.Commit, j.Seen)
			accepted, values = append(accepted, stored{j.Commit, j.Seen}), append(values, rec.Value)
			row := core.RowOf(j.Commit, j.Seen)
			leaves = append(leaves, row.Leaf())
		case core.Raised:
			s.cfg.Logger.Info("term raised", "term", j.Head.Term, "index", head.Next)
		case core.Void:
			s.cfg.Logger.Warn("ignored a record of a deposed owner", "offset", rec.Offset, "term", j.Commit.Term, "reigning", head.Term)
		}
		head = j.Head
		if st.Offset = rec.Offset + 1; j.Verdict == core.Accepted {
			st.Last = j.Seen.Entry[1:] // the same hash
		} else {
			sum := sha256.Sum256(rec.Value)
			st.Last = sum[:]
		}
	}
	st.Next, st.Term, st.Owner = head.Next, head.Term, head.Owner
	// A filter that learned of keys after the index would deny them for a moment.
	s.known.announce(accepted)
	if err := s.commits.Append(values, st.marshal()); err != nil {
		return sound(err)
	}
	s.index.add(accepted)
	for _, a := range accepted {
		s.tree.Append(a.seen.Entry)
	}
	s.mu.Lock()
	s.st, s.end = st, got.End
	for _, l := range leaves {
		s.states.append(l)
	}
	s.mu.Unlock()
	s.broadcast()
	if broken != nil {
		return broken
	}
	if err := s.flushSome(); err != nil {
		return err
	}
	return s.publishSome()
}

// Commit returns a commit's record value.
func (s *Shard) Commit(index uint64) ([]byte, error) {
	if index < s.outset {
		return nil, s.noBody(index)
	}
	value, err := s.commits.Commit(index)
	return value, sound(err)
}

// Commits calls visit with the decoded commits from an index on, in order,
// up to where the shard stands; it returns the index to go on from.
func (s *Shard) Commits(from uint64, visit func(c *ledgerv1.Commit) (more bool)) (uint64, error) {
	to := s.Head().Next
	if from >= to {
		return from, nil
	}
	err := s.eachCommit(from, to, func(index uint64, value []byte) (bool, error) {
		c, err := decode(value)
		if err != nil {
			return false, err
		}
		from = index + 1
		return visit(c), nil
	})
	return from, err
}

// Stream calls visit with a stream's events from a revision on, oldest first.
func (s *Shard) Stream(stream string, from uint64, visit func(*ledgerv1.RecordedEvent) (more bool)) error {
	return s.index.eachExtent(stream, from, func(e extent) (bool, error) {
		if e.last() < int64(from) {
			return true, nil
		}
		value, err := s.Commit(e.index)
		if err != nil {
			return false, err
		}
		c, err := decode(value)
		if err != nil {
			return false, err
		}
		if e.write >= len(c.Writes) || len(c.Writes[e.write].Events) != e.count {
			return false, errDamaged
		}
		for i := range c.Writes[e.write].Events {
			if e.first+uint64(i) < from {
				continue
			}
			if !visit(Recorded(c, e.write, i)) {
				return false, nil
			}
		}
		return true, nil
	})
}

// Recorded returns one event of a commit as readers see it.
func Recorded(c *ledgerv1.Commit, write, event int) *ledgerv1.RecordedEvent {
	w := c.Writes[write]
	return &ledgerv1.RecordedEvent{
		Position: &ledgerv1.Position{Log: c.Log, Shard: c.Shard, Index: c.Index},
		Stream:   w.Stream, Revision: w.FirstRevision + uint64(event), Event: w.Events[event],
		RecordedTime: c.RecordedTime, Actor: c.Actor, RequestId: c.RequestId,
		Traceparent: c.Traceparent, Causation: c.Causation,
	}
}
