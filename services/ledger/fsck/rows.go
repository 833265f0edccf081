package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path"
	"strconv"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// shard is what was learned of a shard.
type shard struct {
	id    shardID
	tree  *tree
	index roots // over index rows, as heads seal it
	state *replica.ShardState

	term     uint64
	outset   uint64 // commits below it are held as index rows alone
	indexed  uint64 // commits that the index has; the newest wait in memory
	requests uint64 // rows that those need
	extents  uint64
	found    struct{ requests, extents uint64 }

	// A stream's extents follow each other.
	stream string
	next   uint64
	at     uint64

	sealed []sealed
	kept   [][]byte // the stored compact range over index rows
	// blocks and policies are how far the rows were found among the commits.
	blocks, policies uint64
}

// sealed is a head that a block names.
type sealed struct {
	height uint64
	head   receipt.Head
}

// rows goes through the store once, in the order of its keys.
func (c *checker) rows(ctx context.Context) error {
	c.blocks = c.openTree(path.Join("tiles", replica.BlockLog))
	inBlocks := true
	var err error
	rowsErr := c.stored.Rows(func(r replica.Row) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		switch r.Kind {
		case replica.RowBlock:
			c.block(r)
			return nil
		case replica.RowCursor:
			c.cursor = r
			c.cursor.Key, c.cursor.Value = nil, nil
			return nil
		case replica.RowPolicy:
			c.policyRow(r)
			return nil
		case replica.RowFinal:
			c.final = bytes.Clone(r.Value)
			return nil
		case replica.RowStates:
			for _, st := range r.States {
				s := c.shardOf(shardID{st.Log, st.Shard})
				s.index.keep, s.kept = st.Size, st.Nodes
			}
			return nil
		case replica.RowEvidence:
			c.evidence = append(c.evidence, bytes.Clone(r.Value))
			return nil
		case replica.RowFormat:
			c.formatted = true
			return nil
		case replica.RowUnknown:
			c.fault("store", fmt.Sprintf("row %x", r.Key), "no row that a node writes")
			return nil
		}
		if inBlocks {
			inBlocks = false
			c.sealBlocks()
			if err := c.commits(ctx); err != nil {
				return err
			}
		}
		id := shardID{r.Log, r.Shard}
		if c.current == nil || c.current.id != id {
			c.endIndex()
			c.current = c.shardOf(id)
		}
		c.row(r)
		return nil
	})
	if inBlocks && rowsErr == nil {
		c.sealBlocks()
		rowsErr = c.commits(ctx)
	}
	c.endIndex()
	if !c.formatted {
		c.fault("store", "row format", "the store does not say that it is of this layout")
	}
	for _, s := range c.shards {
		c.endShard(s)
	}
	c.blocks.finish(c.below(replica.BlockLog)...)
	return errors.Join(err, rowsErr)
}

// below are the folders of a log's own shards, which the tree of blocks has
// beside its tiles.
func (c *checker) below(log string) []string {
	var out []string
	for id := range c.shards {
		if id.log == log {
			out = append(out, strconv.Itoa(int(id.shard)))
		}
	}
	return out
}

// block checks one block against the one below it.
func (c *checker) block(r replica.Row) {
	place := fmt.Sprintf("height %d", r.Height)
	var below uint64
	if c.last != nil {
		below = c.last.Height
	}
	if r.Height != below+1 {
		c.fault("blocks", place, "it follows height %d", below)
	}
	c.report.Blocks++
	b, err := receipt.ParseBlock(r.Value)
	if err != nil {
		c.fault("blocks", place, "%v", err)
		c.blocks.append(r.Value) // so that what follows keeps its place
		return
	}
	policy := c.policyAt(b.Policy.Sequence)
	if b.Height != r.Height {
		c.fault("blocks", place, "it is the block of height %d", b.Height)
	} else if err := core.CheckBlock(policy, c.last, b); err != nil {
		c.fault("blocks", place, "%v", err)
	}
	if c.last != nil && b.Policy.Sequence < c.last.Policy.Sequence {
		c.fault("blocks", place, "it names policy %d after %d", b.Policy.Sequence, c.last.Policy.Sequence)
	}
	for _, h := range b.Heads {
		if c.last != nil {
			if before, ok := c.last.Head(h.Log, h.Shard); ok && before == h {
				continue
			}
		}
		id := shardID{h.Log, h.Shard}
		s := c.shardOf(id)
		s.sealed = append(s.sealed, sealed{r.Height, h})
		s.tree.want(h.Size)
		s.index.want(h.Size)
	}
	c.last = b
	c.blocks.want(c.blocks.size + 1)
	header := b.Header()
	c.blocks.append(header.Marshal())
}

// policyRow takes the next version of the policy.
func (c *checker) policyRow(r replica.Row) {
	place := fmt.Sprintf("policy %d", r.Policies)
	root := c.opts.Policy.First()
	if root == nil {
		c.notice("the stored policy was believed: no policy file was given")
		if first, err := receipt.ParsePolicy(r.Value); err == nil {
			root = first.First()
		}
	}
	next, err := core.TakePolicy(c.policy, root, 0, r.Value)
	if err != nil {
		c.fault("blocks", place, "%v", err)
		return
	}
	if got := next.Last().Sequence; got != r.Policies {
		c.fault("blocks", place, "it is version %d", got)
	}
	if !bytes.Equal(next.Note(next.Last().Sequence), r.Value) {
		c.fault("blocks", place, "it is not in canonical form")
	}
	c.policy = next
}

// policyAt returns the policy as far as a version.
func (c *checker) policyAt(sequence uint64) receipt.Policy {
	if last := c.policy.Last(); last == nil || last.Sequence == sequence {
		return c.policy
	}
	p, err := receipt.ParsePolicy(c.policy.Upto(sequence))
	if err != nil {
		return receipt.Policy{}
	}
	return p
}

// sealBlocks compares the number of blocks with what the cursor says.
func (c *checker) sealBlocks() {
	if c.cursor.Kind == replica.RowUnknown && c.report.Blocks > 0 || c.cursor.Height != c.report.Blocks {
		c.fault("blocks", "cursor", "it says %d blocks and the store holds %d", c.cursor.Height, c.report.Blocks)
	}
	var policies uint64
	if last := c.policy.Last(); last != nil {
		policies = last.Sequence
	}
	if c.cursor.Policies != policies {
		c.fault("blocks", "cursor", "it says %d versions of the policy and the store holds %d", c.cursor.Policies, policies)
	}
}

func (c *checker) shardOf(id shardID) *shard {
	s, ok := c.shards[id]
	if !ok {
		s = &shard{id: id, index: newRoots(), tree: c.openTree(path.Join("tiles", id.log, strconv.Itoa(int(id.shard)))), blocks: 1, policies: 1}
		c.shards[id] = s
	}
	return s
}

// commits goes through every shard's commits: their files first, then what
// they say.
func (c *checker) commits(ctx context.Context) error {
	names, strange, err := c.stored.Shards()
	if err != nil {
		return err
	}
	for _, n := range strange {
		c.fault("commits", path.Join(replica.CommitsDir, n), "no shard's folder")
	}
	for _, n := range names {
		id := shardID{n.Log, n.Shard}
		dir := path.Join(replica.CommitsDir, n.Log, strconv.Itoa(int(n.Shard)))
		faults, err := c.stored.CheckCommits(n.Log, n.Shard)
		if err != nil {
			return err
		}
		for _, f := range faults {
			place := path.Join(dir, f.File)
			if f.Offset >= 0 {
				place = fmt.Sprintf("%s@%d", place, f.Offset)
			}
			c.fault("commits", place, "%s", f.What)
		}
		s := c.shardOf(id)
		if s.indexed, err = c.stored.Indexed(n.Log, n.Shard); err != nil {
			c.fault("index", id.String(), "%v", err)
		}
		if s.state, err = c.stored.State(n.Log, n.Shard); err != nil {
			c.fault("commits", dir, "%v", err)
			continue
		}
		if s.outset, err = c.stored.Outset(n.Log, n.Shard); err != nil {
			c.fault("index", id.String(), "%v", err)
		}
		err = c.stored.IndexRows(n.Log, n.Shard, func(index uint64, row core.Row) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.indexRow(s, index, row)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.fault("index", id.String(), "%v", err)
			continue
		}
		err = c.stored.Commits(n.Log, n.Shard, func(index uint64, value []byte) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			return c.body(s, index, value)
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			c.fault("commits", dir, "%v", err)
		}
	}
	return nil
}

// claimed is the view that a commit itself claims to be decided on. What it
// claims is compared with the index.
type claimed struct{ commit *ledgerv1.Commit }

func (v claimed) LastRevision(stream string) (int64, error) {
	for _, w := range v.commit.Writes {
		if w.Stream == stream {
			return int64(w.FirstRevision) - 1, nil
		}
	}
	return core.NoStream, nil
}

func (claimed) Request(string) (core.Seen, bool, error) { return core.Seen{}, false, nil }

// row checks one row of the current shard's index.
func (c *checker) row(r replica.Row) {
	s := c.current
	switch r.Kind {
	case replica.RowRequest:
		s.found.requests++
		if r.Index >= s.indexed {
			c.fault("index", s.id.String(), "a request id names index %d of %d", r.Index, s.indexed)
		}
	case replica.RowOutset, replica.RowCommit:
		// Each row up to the outset was read in order before; this is one more.
		if at := r.Index; r.Kind == replica.RowCommit && at >= s.outset {
			c.fault("index", fmt.Sprintf("%s/%d", s.id, at), "an index row stands beside its commit")
		}
	case replica.RowExtent:
		s.found.extents++
		c.extent(s, r)
	}
}

// body checks one commit.
func (c *checker) body(s *shard, index uint64, value []byte) error {
	place := fmt.Sprintf("%s/%d", s.id, index)
	c.tell("commits of %s: %d", s.id, s.tree.size)
	c.report.Commits++
	s.tree.append(receipt.Entry(value))
	commit := &ledgerv1.Commit{}
	if proto.Unmarshal(value, commit) != nil {
		c.fault("shard", place, "it is no commit")
		return nil
	}
	if commit.Term < s.term {
		c.fault("shard", place, "its term %d is below %d", commit.Term, s.term)
	}
	s.term = max(s.term, commit.Term)
	got, err := core.Judge(core.Head{Log: s.id.log, Shard: s.id.shard, Next: index, Term: commit.Term}, claimed{commit}, value)
	if err != nil || got.Verdict != core.Accepted {
		c.fault("shard", place, "no replica would accept it: %v", err)
		return nil
	}
	row := core.RowOf(commit, got.Seen.Entry)
	s.index.add(row.Leaf())
	if s.id.log == replica.BlockLog {
		for _, w := range commit.Writes {
			for _, event := range w.Events {
				if err := c.derived(s, index, event); err != nil {
					return err
				}
			}
		}
	}
	return c.found(s, index, row)
}

// indexRow checks one row that stands in place of a commit.
func (c *checker) indexRow(s *shard, index uint64, row core.Row) error {
	place := fmt.Sprintf("%s/%d", s.id, index)
	c.tell("index rows of %s: %d", s.id, s.tree.size)
	c.report.Rows++
	s.tree.append(row.Entry)
	if row.Term < s.term {
		c.fault("shard", place, "its term %d is below %d", row.Term, s.term)
	}
	s.term = max(s.term, row.Term)
	s.index.add(row.Leaf())
	return c.found(s, index, row)
}

// found checks that the index leads to a commit.
func (c *checker) found(s *shard, index uint64, row core.Row) error {
	if index >= s.indexed {
		return nil
	}
	place := fmt.Sprintf("%s/%d", s.id, index)
	s.requests++
	q, err := c.stored.RequestRow(s.id.log, s.id.shard, row.RequestID)
	switch {
	case err != nil:
		return err
	case q.Kind == replica.RowUnknown:
		c.fault("index", place, "its request id is not in the index")
	case q.Index != index:
		c.fault("index", place, "its request id is in the index as that of %d", q.Index)
	}
	for i, w := range row.Writes {
		s.extents++
		e, err := c.stored.ExtentRow(s.id.log, s.id.shard, w.Stream, w.First)
		switch {
		case err != nil:
			return err
		case e.Kind == replica.RowUnknown:
			c.fault("index", place, "its write %d is not in the index", i)
		case e.Index != index || e.Write != i || e.Count != int(w.Count):
			c.fault("index", place, "its write %d is in the index as index %d, write %d, %d events", i, e.Index, e.Write, e.Count)
		}
	}
	return nil
}

// derived counts the stored blocks and versions of the policy that the block
// log's commits say.
func (c *checker) derived(s *shard, index uint64, event *ledgerv1.Event) error {
	if index >= c.cursor.Next {
		return nil
	}
	switch event.Type {
	case replica.BlockType:
		text, err := c.stored.Block(s.blocks)
		if err != nil {
			return err
		}
		if text != nil && bytes.Equal(text, event.Payload) {
			s.blocks++
		}
	case replica.PolicyType:
		if note := c.policy.Note(s.policies); note != nil && bytes.Equal(note, event.Payload) {
			s.policies++
		}
	}
	return nil
}

// extent checks that a stream's extents are in order and without a gap.
func (c *checker) extent(s *shard, r replica.Row) {
	if r.Stream != s.stream {
		c.endStream(s)
		s.stream, s.next = r.Stream, 0
	} else if r.Index <= s.at {
		c.fault("index", fmt.Sprintf("%s/%d", s.id, r.Index), "a stream's later revisions are in no later commit")
	}
	if r.Revision != s.next {
		c.fault("index", fmt.Sprintf("%s/%d", s.id, r.Index), "a stream goes on at revision %d where %d was due", r.Revision, s.next)
	}
	s.next, s.at = r.Revision+uint64(r.Count), r.Index
}

// endStream checks that a stream's extents go as far as the stream does.
func (c *checker) endStream(s *shard) {
	if s.stream != "" && s.at >= s.indexed {
		c.fault("index", fmt.Sprintf("%s/%d", s.id, s.at), "a stream goes on beyond the %d commits of the index", s.indexed)
	}
	s.stream = ""
}

// endIndex checks what shows at the end of a shard's index.
func (c *checker) endIndex() {
	s := c.current
	if s == nil {
		return
	}
	c.current = nil
	c.endStream(s)
}

// endShard checks what shows at the end of a shard.
func (c *checker) endShard(s *shard) {
	place := s.id.String()
	if s.found.requests != s.requests {
		c.fault("index", place, "%d request ids are in the index and %d in the commits", s.found.requests, s.requests)
	}
	if s.found.extents != s.extents {
		c.fault("index", place, "%d writes are in the index and %d in the commits", s.found.extents, s.extents)
	}
	if s.indexed > s.tree.size {
		c.fault("index", place, "it is of %d commits and there are %d", s.indexed, s.tree.size)
	}
	switch {
	case s.state == nil:
		c.fault("shard", place, "its state is missing")
	case s.state.Next != s.tree.size:
		c.fault("shard", place, "its state says %d commits and there are %d", s.state.Next, s.tree.size)
	case s.state.Term < s.term:
		c.fault("shard", place, "its state says term %d and a commit has %d", s.state.Term, s.term)
	}
	if s.id.log == replica.BlockLog && s.blocks != c.report.Blocks+1 {
		c.fault("blocks", fmt.Sprintf("height %d", s.blocks), "it is not what the block log says")
	}
	if s.id.log == replica.BlockLog && s.policies != c.cursor.Policies+1 {
		c.fault("blocks", fmt.Sprintf("policy %d", s.policies), "it is not what the block log says")
	}
	s.tree.finish()
}

// checkBlocks compares the heads in blocks with the trees.
func (c *checker) checkBlocks() {
	for _, s := range c.shards {
		same := len(s.kept) == len(s.index.kept)
		for i := 0; same && i < len(s.kept); i++ {
			same = bytes.Equal(s.kept[i], s.index.kept[i].hash[:])
		}
		if !same {
			c.fault("index", s.id.String(), "the compact range over its rows at %d is not that of the commits", s.index.keep)
		}
		for _, at := range s.sealed {
			place := fmt.Sprintf("height %d", at.height)
			switch {
			case at.head.Size > s.tree.size:
				c.fault("blocks", place, "it seals %d commits of %s and the store holds %d", at.head.Size, s.id, s.tree.size)
			case s.tree.rootAt(at.head.Size) != at.head.Root:
				c.fault("blocks", place, "its root of %s at %d is not that of the commits", s.id, at.head.Size)
			case s.index.rootAt(at.head.Size) != at.head.State:
				c.fault("blocks", place, "its state of %s at %d is not that of the commits", s.id, at.head.Size)
			}
		}
	}
}
