package replica

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Feed is a peer that a replica catches up from. Nothing it says is believed
// before a quorum's cosignatures cover it.
type Feed interface {
	// Notes returns the peer's checkpoints with their cosignatures.
	Notes(ctx context.Context) ([][]byte, error)
	// Rows returns index rows of a shard from an index on, like Commits.
	Rows(ctx context.Context, log string, shard uint32, from uint64) (rows [][]byte, offset int64, err error)
	// Commits returns record values of a shard from an index on, none at its
	// end, and the Kafka offset the peer reads next.
	Commits(ctx context.Context, log string, shard uint32, from uint64) (values [][]byte, offset int64, err error)
}

// ErrFeed says that what a peer fed is not what a quorum cosigned. The data
// directory holds it and must be deleted before anything else is done.
var ErrFeed = errors.New("replica: what a peer fed does not lead to the checkpoint a quorum cosigned")

// ahead is a Feed that keeps what it was given beyond what a block seals, for
// the next block.
type ahead struct {
	Feed
	runs map[string]run
}

// run is an answer of a feed and where it begins.
type run struct {
	from   uint64
	values [][]byte
	offset int64
}

// Commits implements Feed.
func (a *ahead) Commits(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	return a.next(ctx, fmt.Sprintf("commits %s/%d", log, shard), a.Feed.Commits, log, shard, from)
}

// Rows implements Feed.
func (a *ahead) Rows(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	return a.next(ctx, fmt.Sprintf("rows %s/%d", log, shard), a.Feed.Rows, log, shard, from)
}

func (a *ahead) next(ctx context.Context, of string, fetch func(context.Context, string, uint32, uint64) ([][]byte, int64, error),
	log string, shard uint32, from uint64,
) ([][]byte, int64, error) {
	r := a.runs[of]
	if from < r.from || from >= r.from+uint64(len(r.values)) {
		values, offset, err := fetch(ctx, log, shard, from)
		if err != nil {
			return nil, 0, err
		}
		r = run{from, values, offset}
		a.runs[of] = r
	}
	return r.values[from-r.from:], r.offset, nil
}

// ErrFeedShort is the ErrFeed of a peer that knows more to be final than it
// holds: it may lie, or be behind.
var ErrFeedShort = fmt.Errorf("%w: it ends before", ErrFeed)

// Empty tells whether this replica holds nothing yet.
func (b *Blocks) Empty() bool {
	for _, s := range b.cfg.Shards {
		if s.Head().Next > 0 {
			return false
		}
	}
	return b.cfg.Log.Head().Next == 0
}

// CatchUp fills an empty replica from a peer, as far as the newest checkpoint
// of the peer's that a quorum cosigned, without Kafka: the block log up to
// that block, and of every shard what each block on the way seals, re-checked
// like records of a topic. At the end the block log's root is the cosigned
// one, so that every head and every commit under it is what the quorum saw.
// It returns the height reached, 0 when the peer has nothing final. With an
// error that is ErrFeed, or any other after the first commit, the data
// directory must be deleted. CatchUp must run before Run.
//
// With rows it takes the shards' index rows in place of their commits, which
// every block on the way seals by a root of its own: the replica then holds the
// state without the bodies. The block log's records it takes whole.
func (b *Blocks) CatchUp(ctx context.Context, feed Feed, rows bool) (height uint64, err error) {
	if !b.Empty() {
		return 0, errors.New("replica: only an empty replica catches up from a peer")
	}
	feed = &ahead{Feed: feed, runs: map[string]run{}}
	notes, err := feed.Notes(ctx)
	if err != nil {
		return 0, err
	}
	target := b.greatest(notes)
	if target.Size == 0 {
		return 0, nil
	}
	var last uint64
	for last < target.Size {
		done, err := b.feedLog(ctx, feed, target.Size)
		if err != nil {
			return 0, err
		}
		if err := b.drain(ctx, feed, rows); err != nil {
			return 0, err
		}
		if block, _ := b.Last(); block != nil {
			last = block.Height
		}
		if done && last < target.Size {
			return 0, fmt.Errorf("%w: its block log ends at block %d of %d", ErrFeedShort, last, target.Size)
		}
	}
	root, err := b.tree.Root(target.Size)
	if err != nil {
		return 0, err
	}
	// The policy that governs the checkpoint came from the peer as well, each
	// version signed under the one before, back to the root of trust.
	if err := b.Hear("", notes); err != nil {
		return 0, errors.Join(ErrFeed, err)
	}
	if _, final := b.Final(); root != target.Root || final == nil || final.Height < target.Size {
		return 0, ErrFeed
	}
	if rows {
		for _, s := range b.cfg.Shards {
			if err := s.Begin(); err != nil {
				return 0, err
			}
		}
	}
	return last, b.cfg.Store.Sync()
}

// Compare compares the block log with its topic as far as a peer fed it. A
// quorum's signatures cover what its blocks say, and not who wrote them when:
// a peer that lied about that alone is found out here. The error is an ErrFeed,
// or why the topic could not be read; then following compares it later, and
// halts where it differs. Compare follows CatchUp, and must run before Run.
func (b *Blocks) Compare(ctx context.Context, now func() time.Time) error {
	s := b.cfg.Log
	for s.anchor != nil {
		err := s.Step(ctx, now())
		switch {
		case s.Halted() != nil:
			return errors.Join(ErrFeed, err)
		case err != nil:
			return err
		}
	}
	return nil
}

// greatest returns the largest checkpoint among notes, unverified: it only
// says how far to read.
func (b *Blocks) greatest(notes [][]byte) (out receipt.Checkpoint) {
	for _, n := range notes[:min(len(notes), heardNotes)] {
		c, err := receipt.UnverifiedCheckpoint(n)
		// Enough signature lines for a quorum of the first version; whether
		// they are one is decided at the end.
		lines := bytes.Count(n, []byte("\n\u2014 "))
		if err == nil && c.Origin == b.cfg.Root.Origin && c.Size > out.Size && lines >= b.cfg.Root.Quorum {
			out = c
		}
	}
	return out
}

// feedLog takes commits of the block log in, up to the one that holds the
// block of the height; done tells that there are no more.
func (b *Blocks) feedLog(ctx context.Context, feed Feed, height uint64) (done bool, err error) {
	// Without the peer's offset: no block seals the block log's own records, so
	// they are compared with the topic from its start.
	values, _, err := feed.Commits(ctx, BlockLog, 0, b.cfg.Log.Head().Next)
	if err != nil || len(values) == 0 {
		return true, err
	}
	for i, v := range values {
		if holdsBlock(v, height) {
			return true, b.cfg.Log.absorb(values[:i+1], 0)
		}
	}
	return false, b.cfg.Log.absorb(values, 0)
}

func holdsBlock(value []byte, height uint64) bool {
	c := &ledgerv1.Commit{}
	if proto.Unmarshal(value, c) != nil {
		return false
	}
	for _, w := range c.Writes {
		for _, e := range w.Events {
			if e.Type != BlockType {
				continue
			}
			if block, err := receipt.ParseBlock(e.Payload); err == nil && block.Height == height {
				return true
			}
		}
	}
	return false
}

// drain takes the blocks in that the block log holds, feeding each shard what
// the next of them seals.
func (b *Blocks) drain(ctx context.Context, feed Feed, rows bool) error {
	for {
		moved, err := b.follow()
		var wait *waitingFor
		switch {
		case errors.As(err, &wait):
			if err := b.feedShard(ctx, feed, wait, rows); err != nil {
				return err
			}
		case err != nil:
			return errors.Join(ErrFeed, err)
		case !moved:
			return nil
		}
	}
}

// feedShard takes commits of a shard in, or their rows, up to the size a block
// seals.
func (b *Blocks) feedShard(ctx context.Context, feed Feed, wait *waitingFor, rows bool) error {
	s := b.shard(wait.log, wait.shard)
	fetch, take := feed.Commits, s.absorb
	if rows {
		fetch, take = feed.Rows, s.TakeRows
	}
	for next := s.Head().Next; next < wait.size; next = s.Head().Next {
		values, offset, err := fetch(ctx, wait.log, wait.shard, next)
		if err != nil {
			return err
		}
		if len(values) == 0 {
			return fmt.Errorf("%w: it has %d commits of %s/%d where block %d seals %d", ErrFeedShort, next, wait.log, wait.shard, wait.height, wait.size)
		}
		if over := next + uint64(len(values)); over > wait.size {
			values = values[:wait.size-next]
		}
		if err := take(values, offset); err != nil {
			return err
		}
	}
	return nil
}

// absorb judges and stores commits that came without a topic. Barriers are no
// commits, so a commit's own term is what reigns.
func (s *Shard) absorb(values [][]byte, hint int64) error {
	s.mu.RLock()
	st, end := s.st, s.end
	s.mu.RUnlock()
	head := core.Head{Log: s.cfg.Log, Shard: s.cfg.Shard, Next: st.Next, Term: st.Term, Owner: st.Owner}
	if err := s.known.load(s.index.rows); err != nil {
		return err
	}
	batch := &s.batch
	batch.begin()
	var j core.Judged
	for i, value := range values {
		c := &ledgerv1.Commit{}
		if proto.Unmarshal(value, c) == nil {
			head.Term = max(head.Term, c.Term)
		}
		err := batch.judge(&j, head, i, value)
		if err == nil && j.Verdict != core.Accepted {
			err = &core.Violation{Rule: "ledger.commit.term", What: fmt.Sprintf("index %d is void or no commit", head.Next)}
		}
		if err != nil {
			return errors.Join(ErrFeed, err)
		}
		batch.add(&j, i, value)
		head = j.Head
	}
	st.Next, st.Term, st.Owner, st.Hint = head.Next, head.Term, "", hint
	if err := s.keep(st, end); err != nil {
		return err
	}
	s.anchor = &anchor{hint: hint}
	if err := s.flushSome(); err != nil {
		return err
	}
	return s.publishSome()
}
