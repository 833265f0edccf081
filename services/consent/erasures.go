package consent

import (
	"context"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
)

// FollowErasures calls each for every subject whose key was destroyed, from
// the log's beginning on and then live, until ctx ends or each fails. A
// subject may come more than once.
//
// Every service that caches keys follows with its sealer's Forget, or an
// erased subject's key stays in its memory until the cache's time is up. The
// consent service follows with KeyStore.Destroy: a tombstone whose destruction
// a crash prevented is a promise, and this keeps it.
func FollowErasures(ctx context.Context, store eventstore.Store, each func(ctx context.Context, subject string) error) error {
	types := []string{eventstore.TypeOf(&eventsv1.SubjectKeyDestroyed{})}
	return store.Follow(ctx, Log, nil, types, func(ctx context.Context, b eventstore.Batch) error {
		for _, r := range b.Events {
			if e, ok := r.Event.(*eventsv1.SubjectKeyDestroyed); ok {
				if err := each(ctx, e.GetSubject()); err != nil {
					return err
				}
			}
		}
		return nil
	})
}
