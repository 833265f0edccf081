package views

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// Audit computes a view's tables anew, shard by shard, from a log's commits,
// and compares what the store holds. It writes nothing, and trusts nothing in
// it but how far the view has come and which commits it parked.
//
//	Next, then for each shard: Begin, Take its commits in order, Compare.
type Audit struct {
	view  *View
	codec eventstore.Codec
	wants []string // event types; empty is all

	build  Build
	next   uint64
	parked map[uint64]bool
	tables map[string]*Table
}

// NewAudit returns an audit of a view whose events codec reads.
func NewAudit(v *View, codec eventstore.Codec) *Audit {
	return &Audit{view: v, codec: codec, wants: codec.Sources(v.projection.Types)}
}

// Name returns the view's name.
func (a *Audit) Name() string { return a.view.projection.Name }

// Log returns the log that the view follows.
func (a *Audit) Log() string { return a.view.projection.Log }

// Next returns, for each shard, the index after the last commit that the view
// has taken in.
func (a *Audit) Next(ctx context.Context) (map[uint32]uint64, error) {
	shards, err := a.view.knownShards(ctx)
	if err != nil {
		return nil, err
	}
	out := map[uint32]uint64{}
	for _, shard := range shards {
		if err := a.Begin(ctx, shard); err != nil {
			return nil, err
		}
		out[shard] = a.next
	}
	return out, nil
}

// Begin turns to a shard.
func (a *Audit) Begin(ctx context.Context, shard uint32) error {
	builds, err := a.view.builds(ctx, []uint32{shard})
	if err != nil {
		return err
	}
	a.build, a.tables, a.parked = builds[0], map[string]*Table{}, map[uint64]bool{}
	switch a.build.Version {
	case a.view.projection.Version:
	case 0:
		return building()
	default:
		return fmt.Errorf("views: readers use version %d of %s and this program computes version %d", a.build.Version, a.Name(), a.view.projection.Version)
	}
	offsets, err := a.view.store.Offsets(ctx, a.build)
	if err != nil {
		return err
	}
	a.next = offsets[0]
	marks, err := a.view.store.Parked(ctx, a.build)
	if err != nil {
		return err
	}
	for index, reason := range marks {
		if strings.HasPrefix(reason, PartlyApplied) {
			return fmt.Errorf("views: %s/%d has a commit that was applied in part: only building it anew tells what it should hold", a.Name(), shard)
		}
		a.parked[index] = true
	}
	return nil
}

// Take adds a commit's events, in order; what the view has not come to yet is
// left out.
func (a *Audit) Take(index uint64, events []*ledgerv1.RecordedEvent) error {
	if index >= a.next || a.parked[index] {
		return nil
	}
	for _, e := range events {
		if len(a.view.projection.Types) > 0 && !slices.Contains(a.wants, e.GetEvent().GetType()) {
			continue
		}
		recorded, err := a.codec.Recorded(e)
		if err != nil {
			return err
		}
		ops, err := a.view.projection.Apply(nil, recorded)
		if err != nil {
			return fmt.Errorf("views: the projection %s refuses commit %d, and has not parked it", a.Name(), index)
		}
		for _, o := range ops {
			if err := a.apply(o); err != nil {
				return err
			}
		}
	}
	return nil
}

// apply does what a store does, in the plainest way.
func (a *Audit) apply(o Op) error {
	if o.Command == DEL {
		delete(a.tables, o.Key)
		return nil
	}
	t := a.tables[o.Key]
	if t == nil {
		t = &Table{Kind: o.Command.Kind(), Hash: map[string]string{}, Scores: map[string]int64{}}
		a.tables[o.Key] = t
	}
	if t.Kind != o.Command.Kind() {
		return fmt.Errorf("views: %s is a %s and %s needs a %s", o.Key, t.Kind, o.Command, o.Command.Kind())
	}
	var err error
	switch o.Command {
	case HSET:
		o.Each(func(field, value string) { t.Hash[field] = value })
	case HDEL:
		o.Each(func(field, _ string) { delete(t.Hash, field) })
	case HINCRBY:
		t.Hash[o.Name], err = Add(t.Hash[o.Name], o.N)
	case ZADD:
		t.Scores[o.Name] = o.N
	case SADD:
		o.Each(func(member, _ string) { t.Scores[member] = 0 })
	case ZREM, SREM:
		o.Each(func(member, _ string) { delete(t.Scores, member) })
	case SET:
		t.Text = o.Value
	case INCRBY:
		t.Text, err = Add(t.Text, o.N)
	default:
		err = fmt.Errorf("views: %s is no command of a projection", o.Command)
	}
	if t.Kind != String && len(t.Hash)+len(t.Scores) == 0 {
		delete(a.tables, o.Key) // nothing empty is kept
	}
	return err
}

// Add is what HINCRBY and INCRBY make of a stored value, which starts at 0:
// an error where it is no integer or the sum overflows.
func Add(have string, by int64) (string, error) {
	if have == "" {
		have = "0"
	}
	n, err := strconv.ParseInt(have, 10, 64)
	if err != nil {
		return "", errors.New("views: what is added to is no integer")
	}
	if sum := n + by; (sum > n) == (by > 0) || by == 0 {
		return strconv.FormatInt(sum, 10), nil
	}
	return "", errors.New("views: the sum overflows")
}

// Compare calls differs with each key of the shard that holds something other
// than its commits say. It names no values.
func (a *Audit) Compare(ctx context.Context, differs func(key, what string)) error {
	found := map[string]bool{}
	err := a.view.store.Tables(ctx, a.build, func(key string, have Table) error {
		if found[key] {
			return nil // it may come by twice
		}
		found[key] = true
		want := a.tables[key]
		if want == nil {
			differs(key, "no commit says so")
		} else if what := want.differs(have); what != "" {
			differs(key, what)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(a.tables)) {
		if !found[key] {
			differs(key, "it is missing")
		}
	}
	offsets, err := a.view.store.Offsets(ctx, a.build)
	if err != nil {
		return err
	}
	if offsets[0] != a.next {
		return fmt.Errorf("views: %s moved on while it was compared: stop the service that writes it", a.Name())
	}
	return nil
}

// differs says what is wrong with what a store holds; empty is nothing.
func (t *Table) differs(have Table) string {
	if have.Kind != t.Kind {
		return "it is of another type"
	}
	switch t.Kind {
	case Hash:
		for _, f := range slices.Sorted(maps.Keys(t.Hash)) {
			if v, ok := have.Hash[f]; !ok || v != t.Hash[f] {
				return "field " + f + " is not what the commits say"
			}
		}
		if len(have.Hash) != len(t.Hash) {
			return "it has fields that no commit gave it"
		}
	case SortedSet, MemberSet:
		for member, score := range have.Scores {
			switch want, ok := t.Scores[member]; {
			case ok && want == score:
			case t.Kind == MemberSet:
				return "a member is there that no commit put"
			default:
				return "a member is not where the commits say"
			}
		}
		if len(have.Scores) != len(t.Scores) {
			return "members are missing"
		}
	case String:
		if have.Text != t.Text {
			return "it is not what the commits say"
		}
	}
	return ""
}
