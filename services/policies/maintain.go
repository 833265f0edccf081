package policies

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// ChangeField is where an EnrollmentChange is sealed.
const ChangeField = "change"

// ApplyEnrollmentChanges implements the RPC. Families are applied side by
// side, a family's changes one after the other. What became of them is
// recorded as one event, so that a batch sent again is answered and not
// applied again; one that stopped half way goes on where it stopped, because
// each change has a request id of its own.
func (h *Handler) ApplyEnrollmentChanges(ctx context.Context, req *policiesv1.ApplyEnrollmentChangesRequest) (*policiesv1.ApplyEnrollmentChangesResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "ApplyEnrollmentChanges", identity.Resource{Type: identity.Member, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	if n := len(req.GetChanges()); n == 0 || n > maxEnrollments || req.GetRequestId() == "" || req.GetPayerId() == "" {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "enrollment.batch", FieldPath: "changes",
			Message: fmt.Sprintf("a batch has a request_id, a payer_id and between 1 and %d changes", maxEnrollments), Fix: "split the batch"})
	}
	digest, err := changesDigest(req)
	if err != nil {
		return nil, err
	}
	b := &maintenanceBatch{
		h: h, id: batchID(req.GetPayerId(), req.GetRequestId()), payer: req.GetPayerId(), digest: digest, source: req.GetSource(),
		changes: req.GetChanges(), outcomes: make([]*policiesv1.EnrollmentOutcome, len(req.GetChanges())),
		policies: map[string]*policiesv1.Policy{}, ageLimits: map[string]uint32{}, own: map[string]string{}, subscribers: map[string]bool{},
		latest: map[uint32]eventstore.Position{},
	}
	if before, err := b.before(ctx); before != nil || err != nil {
		return before, err
	}
	if err := h.awaitOwnWrites(ctx); err != nil {
		return nil, err
	}
	if err := b.apply(ctx); err != nil {
		return nil, err
	}
	return b.record(ctx)
}

// maintenanceBatch is one ApplyEnrollmentChanges call.
type maintenanceBatch struct {
	h         *Handler
	id, payer string
	digest    []byte
	source    *policiesv1.EnrollmentSource
	changes   []*policiesv1.EnrollmentChange
	outcomes  []*policiesv1.EnrollmentOutcome
	// own maps a dependant's own card to the card it depends on, both hashed,
	// as this batch declares them; the directory knows the others.
	own map[string]string

	mu          sync.Mutex                    // guards what is below: families run side by side
	policies    map[string]*policiesv1.Policy // by group, plan, day
	ageLimits   map[string]uint32             // dependent_age_limit by policy and day
	subscribers map[string]bool               // families whose subscriber this batch has covered
	latest      map[uint32]eventstore.Position
}

func batchID(payer, requestID string) string {
	sum := sha256.Sum256([]byte("enrollment batch\x00" + payer + "\x00" + requestID))
	return "enb_" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(sum[:]))[:26]
}

func batchStream(id string) string { return "enrollment-" + id }

// changesDigest tells one batch from another under the same request id.
func changesDigest(req *policiesv1.ApplyEnrollmentChangesRequest) ([]byte, error) {
	content := proto.CloneOf(req)
	content.RequestId = ""
	b, err := plain(content)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(b)
	return sum[:], nil
}

// before answers from what the batch came to when it was first applied.
func (b *maintenanceBatch) before(ctx context.Context) (*policiesv1.ApplyEnrollmentChangesResponse, error) {
	stream := batchStream(b.id)
	events, err := b.h.Store.Read(ctx, Log, stream, stream, 0)
	if err != nil || len(events) == 0 {
		return nil, err
	}
	e, ok := events[0].Event.(*eventsv1.EnrollmentBatchApplied)
	if !ok || !bytes.Equal(e.GetChangesSha256(), b.keyed()) {
		return nil, requestReused()
	}
	return &policiesv1.ApplyEnrollmentChangesResponse{Outcomes: e.GetOutcomes(), Duplicate: true, Token: events[0].Position.Token()}, nil
}

// keyed is the digest under the index key: a plain hash of guessable health
// data could be found by trial.
func (b *maintenanceBatch) keyed() []byte {
	return b.h.Index.Authorization("enrollment batch", fmt.Sprintf("%x", b.digest))
}

func (b *maintenanceBatch) record(ctx context.Context) (*policiesv1.ApplyEnrollmentChangesResponse, error) {
	stream := batchStream(b.id)
	commit := commitOf(ctx, commitID("applied", stream), stream, 0, []proto.Message{&eventsv1.EnrollmentBatchApplied{
		BatchId: b.id, PayerId: b.payer, FileSha256: b.source.GetFileSha256(), ChangesSha256: b.keyed(), Outcomes: b.outcomes,
	}})
	a, err := b.h.Store.Append(ctx, commit)
	if eventstore.IsConflict(err) || isReused(err) { // the same batch beside this one was first
		return b.before(ctx)
	}
	if err != nil {
		return nil, err
	}
	b.wrote(a.Position)
	return &policiesv1.ApplyEnrollmentChangesResponse{Outcomes: b.outcomes, Token: joinTokens(b.latest)}, nil
}

func (b *maintenanceBatch) wrote(p eventstore.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, ok := b.latest[p.Shard]; !ok || p.Index > have.Index {
		b.latest[p.Shard] = p
	}
	b.h.wrote(p)
}

// apply applies the changes, family by family. The error is for the whole
// call: a store is away, and the caller sends the batch again.
func (b *maintenanceBatch) apply(ctx context.Context) error {
	families := map[string][]int{}
	var order []string
	var subjects []string
	for i, c := range b.changes {
		card := b.h.Index.Subscriber(b.payer, c.GetMemberId())
		if own := c.GetOwnMemberId(); own != "" && c.GetRelationshipCode() != "18" {
			if hash := b.h.Index.Subscriber(b.payer, own); hash != card {
				b.own[hash] = card
			}
		}
		if families[card] == nil {
			order = append(order, card)
		}
		families[card] = append(families[card], i)
		if c.GetBirthDate() != "" && c.GetMaintenanceType() == policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD {
			subjects = append(subjects, b.h.Index.Person(b.payer, c.GetMemberId(), c.GetBirthDate(), c.GetFirstName()))
		}
	}
	if len(subjects) > 0 {
		slices.Sort(subjects)
		if err := b.h.Sealer.Prefetch(ctx, slices.Compact(subjects)); err != nil {
			return sealing(err)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(enrolReads)
	for _, card := range order {
		g.Go(func() error {
			for _, i := range families[card] {
				if err := b.one(ctx, i, card); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return g.Wait()
}

// one applies a change and notes its outcome.
func (b *maintenanceBatch) one(ctx context.Context, i int, card string) error {
	out := &policiesv1.EnrollmentOutcome{Ordinal: b.source.GetFirstOrdinal() + uint32(i)}
	b.outcomes[i] = out
	err := b.change(ctx, b.changes[i], card, out)
	if err == nil {
		return nil
	}
	if p := problem.As(err); p.Kind == problem.Unavailable || p.Kind == problem.Internal || p.Kind == problem.Exhausted {
		return p
	}
	out.Result = policiesv1.EnrollmentOutcome_RESULT_REFUSED
	out.Problems = problemProtos(err, "changes["+strconv.Itoa(i)+"]", "")
	return nil
}

func (b *maintenanceBatch) change(ctx context.Context, c *policiesv1.EnrollmentChange, card string, out *policiesv1.EnrollmentOutcome) error {
	if ps := check(c, lintChange); len(ps) > 0 {
		return invalid(ps)
	}
	if !isMedical(c.GetInsuranceLine()) {
		out.Result = policiesv1.EnrollmentOutcome_RESULT_SKIPPED
		return nil
	}
	who, err := b.find(ctx, c, card)
	if err != nil {
		return err
	}
	out.Subject = who.subject
	cmd, err := b.command(ctx, c, card, who)
	if err != nil {
		return err
	}
	if err := b.mayDepend(c, card, cmd); err != nil {
		return err
	}
	return b.run(ctx, c, cmd, who, out)
}
