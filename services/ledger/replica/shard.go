package replica

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strconv"
	"sync"
	"time"

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
	// behindMost is how many times what is written at once may wait while the
	// disk is busy with what came before.
	behindMost = 8
	// farBehind is how many records behind its topic's end a follower reads a
	// long history, and prefers what costs least for all of it.
	farBehind = 1 << 14
	// leaveAt is how many bytes of such a history are made durable at once.
	leaveAt    = 8 << 20
	retryFirst = 20 * time.Millisecond
	retryMost  = 2 * time.Second
)

// ShardConfig is what a Shard is made of.
type ShardConfig struct {
	Log    string
	Shard  uint32
	Store  *Store
	Dir    string // of the tiles; the shard makes <log>/<shard> below it
	Source Source
	// Audit reads the same topic for Audit, beside Source. Without it nothing
	// is taken in that Source has not brought.
	Audit  Source
	Logger *slog.Logger
	// Signals are broadcast, besides the shard's own, at every change.
	Signals []*Signal
	// Grace is how long an offset may be out of range; 0 is 10 s.
	Grace time.Duration
	// FlushAt is how many commits' index stays in memory only; 0 is 8,192.
	FlushAt int
	// TableAt is from how many commits on what is written of the index at once
	// is handed to the store as a sorted table; 0 is 32,768.
	TableAt int
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
	// tail spares subscriptions decoding what another has decoded just before.
	tail tail
	// Changed is broadcast when commits were applied or the shard halted.
	Changed Signal

	mu     sync.RWMutex // guards what follows
	st     state
	states stateTree // over the index rows, as far as st
	end    int64     // the topic's end as last seen; -1 before the first fetch
	same   bool      // the topic is the one followed before, as far as is known
	halted error

	expectedMu sync.Mutex     // guards what follows
	expected   []core.Written // by this node's own owner; indexes rise
	judged     int            // how many of them were read since

	handing handing // what the owner hands over, and what of it is not audited

	// Only Step touches these.
	handed   bool     // what is being taken in was handed over
	records  []Record // room for it
	reader   core.Reader
	batch    batch
	flushing behind    // the index set apart
	unsaved  uint64    // what the index set apart leads up to and is not known to be written; 0 is none
	tiling   behind    // the tiles
	leaving  behind    // commits of a long history
	unleft   int       // bytes of commits since the last that leave
	checked  bool      // the topic's tail was compared since the last failure
	lostFrom time.Time // since when the next offset is out of range; zero if it isn't
	anchor   *anchor   // comparing a topic made anew; nil otherwise
}

// OpenShard opens a shard's local data and brings its index and its tree level
// with its commits.
func OpenShard(cfg ShardConfig) (*Shard, error) {
	rows := cfg.Store.rows(cfg.Log, cfg.Shard)
	s := &Shard{cfg: cfg, index: newIndex(rows, cfg.Store, cmp.Or(cfg.TableAt, tableAt)), end: -1}
	s.known, s.batch.shard = newKnown(s.index.hashes), s
	s.cfg.Logger = cfg.Logger.With("log", cfg.Log, "shard", cfg.Shard)
	s.cfg.FlushAt = cmp.Or(cfg.FlushAt, flushAt)
	if s.cfg.Grace == 0 {
		s.cfg.Grace = truncationGrace
	}
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
		if s.st, ok = parseState(mark); !ok || s.st.Next != s.commits.Count() || !s.st.holds(s.st.Unread) {
			return nil, fmt.Errorf("%w: the mark of %s/%d is not of its commits", errDamaged, cfg.Log, cfg.Shard)
		}
	}
	s.handing.recall(s.st.Unread)
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
			row, err := rowOf(value)
			if err != nil {
				return false, err
			}
			one := []stored{s.index.hashes.stored(at, row)}
			s.known.announce(one)
			s.index.add(one)
		}
		if at >= s.tree.Size() {
			s.tree.Append(receipt.Entry(value))
			return true, s.publishSome()
		}
		return true, nil
	})
	if err != nil {
		return nil, sound(errors.Join(err, s.tiling.wait()))
	}
	cfg.Store.mu.Lock()
	defer cfg.Store.mu.Unlock()
	cfg.Store.flushes = append(cfg.Store.flushes, s.flush)
	return s, nil
}

// publishSome keeps the unpublished part of the tree bounded.
func (s *Shard) publishSome() error {
	done, _ := s.tree.Published()
	if ahead := s.tree.Size() - done; ahead < unpublished || s.tiling.busy() && ahead < behindMost*unpublished {
		return nil
	}
	if err := s.tiling.wait(); err != nil {
		return err
	}
	size := tiles.Whole(s.tree.Size())
	return s.tiling.start(s.cfg.Store.disk, func() error {
		if err := s.commits.Sync(); err != nil {
			return err
		}
		return s.tree.Publish(size)
	})
}

// far tells whether the topic's end, as last seen, is far away. Only Step may
// ask.
func (s *Shard) far() bool { return s.end-s.st.Offset >= farBehind }

// leaveSome makes the commits of a long history durable as they come and has
// the system forget them. The pages that were theirs then take the next ones:
// to make new pages costs several times what copying a commit into one does.
func (s *Shard) leaveSome(size int) error {
	if s.unleft += size; !s.far() || s.unleft < leaveAt || s.leaving.busy() && s.unleft < behindMost*leaveAt {
		return nil
	}
	if err := s.leaving.wait(); err != nil {
		return err
	}
	s.unleft = 0
	return s.leaving.start(s.cfg.Store.disk, s.commits.SyncAndLeave)
}

// flushSome keeps the part of the index bounded that is in memory only. Of a
// long history it is written in larger parts, each of which the store takes as
// a sorted table of its own.
func (s *Shard) flushSome() error {
	n, least := s.index.fresh.commits, s.cfg.FlushAt
	if s.flushing.busy() || s.far() {
		least *= behindMost
	}
	if n < least {
		return nil
	}
	if err := s.flushed(); err != nil {
		return err
	}
	s.index.roll()
	s.unsaved = s.commits.Count()
	err := s.flushing.start(s.cfg.Store.disk, s.save(s.unsaved))
	if err == nil && s.cfg.Store.disk.Serial {
		s.unsaved = 0
	}
	return err
}

// save writes the index set apart, which leads to the commits below next,
// once those are durable.
func (s *Shard) save(next uint64) func() error {
	return func() error {
		if err := s.commits.Sync(); err != nil {
			return err
		}
		return s.index.write(next)
	}
}

// flushed returns when the index set apart is in the store.
func (s *Shard) flushed() error {
	err := s.flushing.wait()
	if s.unsaved > 0 && (err != nil || s.cfg.Store.disk.Serial) {
		err = s.save(s.unsaved)()
	}
	if err == nil {
		s.unsaved = 0
	}
	return err
}

// flush brings the store level with the commits and ends what is under way.
func (s *Shard) flush() error {
	err := s.flushed()
	if err == nil && s.index.fresh.commits > 0 {
		s.index.roll()
		s.unsaved = s.commits.Count()
		if err = s.save(s.unsaved)(); err == nil {
			s.unsaved = 0
		}
	}
	return errors.Join(err, s.tiling.wait(), s.leaving.wait())
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
	return core.RowOf(c, receipt.Entry(value)), nil
}

// Tree returns the shard's tree. Its size may be past Head's for a moment.
func (s *Shard) Tree() *tiles.Tree { return s.tree }

// LastRevision implements core.View.
func (s *Shard) LastRevision(stream string) (int64, error) {
	// A new stream's commit is announced before it is in the index.
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
		seen := core.Seen{Index: at, Entry: row.Entry, Recorded: row.Recorded(), Row: &row}
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
	seen := core.Seen{Index: at, Entry: receipt.Entry(value), Recorded: c.RecordedTime.AsTime(), Commit: c}
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
