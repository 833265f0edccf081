package consent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	consentv1 "github.com/probity-health/probity/proto/probity/consent/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// Log is the consent service's log.
const Log = "consent"

// Authorizer says whether the caller may do an action; identity.Authorizer is the real one.
type Authorizer interface {
	Authorize(ctx context.Context, action string, resource identity.Resource) error
}

// KeyHandler serves probity.consent.v1.KeyService over a KeyStore.
type KeyHandler struct {
	keys  *KeyStore
	store eventstore.Store
	auth  Authorizer
	now   func() time.Time
}

// NewKeyHandler makes a handler; now is the clock of tombstones, nil is time.Now.
func NewKeyHandler(k *KeyStore, store eventstore.Store, auth Authorizer, now func() time.Time) *KeyHandler {
	if now == nil {
		now = time.Now
	}
	return &KeyHandler{keys: k, store: store, auth: auth, now: now}
}

// GetSubjectKeys implements the RPC. Destroyed subjects are answered as such,
// beside the living ones: one erased person must not hide a family's others.
func (h *KeyHandler) GetSubjectKeys(ctx context.Context, req *consentv1.GetSubjectKeysRequest) (*consentv1.GetSubjectKeysResponse, error) {
	if err := h.auth.Authorize(ctx, "GetSubjectKeys", identity.Resource{Type: identity.SubjectKey}); err != nil {
		return nil, err
	}
	found, err := h.keys.SubjectKeys(ctx, req.GetSubjects(), req.GetCreate())
	gone := map[string]bool{}
	var destroyed *keys.DestroyedError
	if errors.As(err, &destroyed) {
		for _, subject := range destroyed.Subjects {
			gone[subject] = true
		}
	} else if err != nil {
		return nil, orAway(err)
	}
	answer := &consentv1.GetSubjectKeysResponse{}
	for _, subject := range req.GetSubjects() {
		if gone[subject] {
			answer.Keys = append(answer.Keys, &consentv1.SubjectKey{Subject: subject, Destroyed: true})
			continue
		}
		if key, ok := found[subject]; ok {
			answer.Keys = append(answer.Keys, &consentv1.SubjectKey{Subject: subject, Version: key.Version, Key: key.Key[:]})
		}
	}
	return answer, nil
}

// DestroySubjectKey implements the RPC. The tombstone is on the ledger before
// the key is gone: a crash between the two leaves a promise to keep, and the
// repeated request keeps it.
func (h *KeyHandler) DestroySubjectKey(ctx context.Context, req *consentv1.DestroySubjectKeyRequest) (*consentv1.DestroySubjectKeyResponse, error) {
	if err := h.auth.Authorize(ctx, "DestroySubjectKey", identity.Resource{Type: identity.SubjectKey, ID: req.GetSubject()}); err != nil {
		return nil, err
	}
	stream, at := "subject-"+req.GetSubject(), h.now()
	// The time is part of the id: two who destroy at once are two requests, and
	// the second finds the first one's tombstone instead of being refused for
	// using its id with another time in it.
	request := fmt.Sprintf("destroy/%s/%d", req.GetSubject(), at.UnixNano())
	_, err := eventstore.Decide(ctx, h.store, 0, func(ctx context.Context) (eventstore.Commit, error) {
		events, err := h.store.Read(ctx, Log, req.GetSubject(), stream, 0)
		if err != nil {
			return eventstore.Commit{}, err
		}
		if len(events) > 0 {
			return eventstore.Commit{}, nil // the tombstone is there
		}
		return eventstore.Commit{
			Log: Log, RoutingKey: req.GetSubject(), RequestID: request,
			Writes: []eventstore.Write{{Stream: stream, Expected: eventstore.NoStream, Events: []proto.Message{
				&eventsv1.SubjectKeyDestroyed{
					Subject: req.GetSubject(), Reason: req.GetReason(), DestroyedTime: timestamppb.New(at),
				},
			}}},
		}, nil
	})
	if err != nil {
		return nil, err
	}
	if err := h.keys.Destroy(ctx, req.GetSubject()); err != nil {
		return nil, orAway(err)
	}
	return &consentv1.DestroySubjectKeyResponse{}, nil
}

// orAway passes a problem on and takes anything else for the store's trouble.
func orAway(cause error) error {
	if p, ok := errors.AsType[*problem.Error](cause); ok {
		return p
	}
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID: "consent.key-store", Message: "the key store doesn't answer", Fix: "send the same request again in a moment",
	}).Because(cause)
}
