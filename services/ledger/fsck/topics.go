package fsck

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// topics compares every shard with its partition, record by record.
func (c *checker) topics(ctx context.Context) error {
	var all []*shard
	for _, s := range c.shards {
		if s.state != nil {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b *shard) int {
		return cmp.Or(cmp.Compare(a.id.log, b.id.log), cmp.Compare(a.id.shard, b.id.shard))
	})
	for _, s := range all {
		if err := c.topic(ctx, s, c.opts.Topics(s.id.log, s.id.shard)); err != nil {
			return err
		}
	}
	return nil
}

// maxEmpty bounds how often a fetch may bring nothing where records must be.
const maxEmpty = 10

func (c *checker) topic(ctx context.Context, s *shard, source replica.Source) error {
	head := core.Head{Log: s.id.log, Shard: s.id.shard}
	empty := 0
	for offset := int64(0); offset < s.state.Offset; {
		place := fmt.Sprintf("%s@%d", s.id, offset)
		c.tell("topic of %s: offset %d of %d", s.id, offset, s.state.Offset)
		got, err := source.Fetch(ctx, offset)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, replica.ErrOutOfRange):
			c.fault("topic", place, "the topic does not hold this offset")
			return nil
		case err != nil:
			c.fault("topic", place, "it cannot be read: %v", err)
			return nil
		case len(got.Records) == 0:
			if empty++; got.End <= offset || empty > maxEmpty {
				c.fault("topic", place, "the topic ends here, and the replica followed it to %d", s.state.Offset)
				return nil
			}
			continue
		}
		empty = 0
		for _, r := range got.Records {
			if r.Offset >= s.state.Offset {
				break
			}
			if r.Offset != offset {
				c.fault("topic", place, "the next record has offset %d", r.Offset)
				return nil
			}
			if head, err = c.record(s, head, r); err != nil {
				return err
			}
			offset++
		}
	}
	if head.Next != s.tree.size {
		c.fault("topic", fmt.Sprintf("%s@%d", s.id, s.state.Offset), "the topic has %d commits up to here and the store %d", head.Next, s.tree.size)
	}
	return nil
}

// record judges one record of a topic and compares it with the store.
func (c *checker) record(s *shard, head core.Head, r replica.Record) (core.Head, error) {
	place := fmt.Sprintf("%s@%d", s.id, r.Offset)
	c.report.Records++
	if r.Offset == s.state.Offset-1 {
		if sum := sha256.Sum256(r.Value); !bytes.Equal(sum[:], s.state.Last) {
			c.fault("topic", place, "it is not the record that the replica followed last")
		}
	}
	commit := &ledgerv1.Commit{}
	if proto.Unmarshal(r.Value, commit) != nil {
		c.fault("topic", place, "it is no commit")
		return head, nil
	}
	body, err := c.stored.Body(s.id.log, s.id.shard, head.Next)
	if err != nil {
		return head, err
	}
	if row, ok, err := c.stored.IndexRow(s.id.log, s.id.shard, head.Next); err != nil {
		return head, err
	} else if ok && bytes.Equal(row.Entry, receipt.Entry(r.Value)) {
		body = r.Value // it has the hash that is held of it
	}
	got, err := core.Judge(head, claimed{commit}, r.Value)
	switch {
	case err == nil && got.Verdict == core.Accepted:
		if at := differs(r.Value, body); at >= 0 {
			c.fault("topic", place, "byte %d differs from the stored commit %d", at, head.Next)
		}
		return got.Head, nil
	case err == nil && (commit.Barrier || !c.sameRequest(commit, body)):
		return got.Head, nil // a barrier, or rightly void
	case err == nil:
		err = fmt.Errorf("its term %d is below %d, and the replica holds it as commit %d", commit.Term, head.Term, head.Next)
	}
	c.fault("topic", place, "%v", err)
	if commit.Barrier {
		return head, nil
	}
	// Go on from what the replica holds, to name the next fault by itself.
	stored := &ledgerv1.Commit{}
	if body != nil && proto.Unmarshal(body, stored) == nil {
		head.Next, head.Term = head.Next+1, stored.Term
	}
	return head, nil
}

// sameRequest tells whether a record is, or was, the stored commit.
func (c *checker) sameRequest(commit *ledgerv1.Commit, body []byte) bool {
	stored := &ledgerv1.Commit{}
	return body != nil && proto.Unmarshal(body, stored) == nil && (stored.RequestId == commit.RequestId || stored.Index == commit.Index && stored.Term == commit.Term)
}
