package claims

import (
	"context"
	"errors"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
)

// past is the reference data as it was: a book of its own that applies the
// policies log only as far as it is asked to. It goes forward at the cost of
// what it applies, and back by starting over; a log is replayed in its order,
// in which decisions read ever more. Whoever has taken it from Service.pasts
// uses it alone.
type past struct {
	service *Service

	reference *reference
	at        map[uint32]uint64 // what reference's book has applied
	// unread are events that were delivered and lie beyond at, in order within
	// each shard; read is the index after the last one delivered, a shard.
	unread []eventstore.Recorded
	read   map[uint32]uint64
}

func newPast(s *Service) *past {
	p := &past{service: s}
	p.restart()
	return p
}

func (p *past) restart() {
	s := p.service
	p.reference = &reference{book: book.New(), index: s.index, sealer: s.sealer, log: s.log}
	p.at, p.read, p.unread = map[uint32]uint64{}, map[uint32]uint64{}, nil
}

// lookup is reference.lookup with the reference data as of a state. Where
// nothing was published since, the live book answers.
func (p *past) lookup(ctx context.Context, asOf string, claim *claimsv1.Claim, subscriber string, received adjudication.Date) (adjudication.Input, error) {
	in, err := p.service.reference.lookup(ctx, claim, subscriber, received)
	if err != nil || in.Versions.Reference == asOf {
		return in, err
	}
	if err := p.reach(ctx, book.AsOf(asOf)); err != nil {
		return adjudication.Input{}, err
	}
	if in, err = p.reference.lookup(ctx, claim, subscriber, received); err != nil {
		return in, err
	}
	if in.Versions.Reference != asOf {
		return in, defect("claims.replay.reference", "the reference data could not be brought to where the decision read it")
	}
	return in, nil
}

// reach brings the book to exactly the commits that asOf names. A replica
// that doesn't have them yet is waited for, as long as ctx lasts.
func (p *past) reach(ctx context.Context, asOf book.AsOf) error {
	want, err := asOf.Next()
	if err != nil {
		return err
	}
	for shard, index := range p.at {
		if index > want[shard] {
			p.restart()
			break
		}
	}
	if err := p.deliver(ctx, want); err != nil {
		return err
	}
	batch := eventstore.Batch{Next: want}
	var rest []eventstore.Recorded
	for _, e := range p.unread {
		if e.Position.Index < want[e.Position.Shard] {
			batch.Events = append(batch.Events, e)
		} else {
			rest = append(rest, e)
		}
	}
	if err := p.reference.book.Apply(batch); err != nil {
		p.restart()
		return err
	}
	p.at, p.unread = want, rest
	return nil
}

var errReached = errors.New("far enough")

// deliver reads the policies log on until everything wanted has been read.
func (p *past) deliver(ctx context.Context, want map[uint32]uint64) error {
	enough := func() bool {
		for shard, index := range want {
			if p.read[shard] < index {
				return false
			}
		}
		return true
	}
	if enough() {
		return nil
	}
	err := p.service.store.Follow(ctx, policies.Log, p.read, nil, func(_ context.Context, b eventstore.Batch) error {
		p.unread = append(p.unread, b.Events...)
		p.read = b.Next
		if enough() {
			return errReached
		}
		return nil
	})
	switch {
	case errors.Is(err, errReached):
		return nil
	case ctx.Err() != nil:
		return busy(ctx.Err())
	}
	return err
}
