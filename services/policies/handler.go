package policies

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// People turns a card into the opaque ids and keyed hashes by which a person
// is found; keys.Index is the real one.
type People interface {
	Subscriber(payerID, memberID string) string
	Person(payerID, memberID, birthDate, firstName string) string
	BirthIndex(payerID, memberID, birthDate string) []byte
	PersonIndex(payerID, memberID, birthDate, firstName string) []byte
}

// Numbers hashes authorisation numbers; keys.Index is the real one.
type Numbers interface {
	Authorization(payerID, number string) []byte
}

// Index is both.
type Index interface {
	People
	Numbers
}

// Authorizer says whether the caller in ctx may do an action, an RPC's name;
// identity.Authorizer is the real one.
type Authorizer interface {
	Authorize(ctx context.Context, action string, resource identity.Resource) error
}

// Directory answers across streams: which plans there are, who holds a card.
// It follows the log and may lag; no rule rests on it. book.Book is the real one.
type Directory interface {
	// Plans returns the newest versions of plans whose id is after the given
	// one, by id, at most limit.
	Plans(after string, limit int) []PlanVersion
	// MembersByBirth returns the persons of one card and birth date.
	MembersByBirth(birthIndex []byte) []Member
	// Knows tells whether the person has ever been enrolled.
	Knows(subject string) bool
	// Family returns the persons ever enrolled under a card, by subject.
	Family(subscriber string) []Member
	// DependsOn returns the card that the holder of a dependant's own card
	// depends on; false for any other card. Both are hashed.
	DependsOn(ownCard string) (subscriber string, dependent bool)
	// PoliciesOf returns a payer's policies of a group, by id; of all groups when it is empty.
	PoliciesOf(payerID, groupNumber string) []*policiesv1.Policy
	// ContractsListing returns the versions in force of a payer's contracts that list an NPI.
	ContractsListing(payerID, npi string) []*policiesv1.ProviderContract
	// EditTables returns the versions of a payer's tables of claim edits.
	EditTables(payerID string) []*policiesv1.EditTableVersion
	// Affected counts the persons, and their families, who are covered under
	// the plan on any day of a period.
	Affected(planID string, period Period) (persons, families int)
	// WaitFor returns once the commits named by the token are applied, or when ctx ends.
	WaitFor(ctx context.Context, token string) error
}

// PlanVersion is one version of a plan.
type PlanVersion struct {
	Plan    *policiesv1.PlanDocument
	Version uint32
}

// Deps are what a Handler works with; all are needed.
type Deps struct {
	Store      eventstore.Store
	Directory  Directory
	Sealer     keys.Sealer
	Index      Index
	Authorizer Authorizer
}

// Handler serves probity.policies.v1.PoliciesService. Every error is a
// *problem.Error. It keeps no state but the positions of its own latest
// writes, so any number may run beside each other.
type Handler struct {
	Deps
	policiesv1connect.UnimplementedPoliciesServiceHandler

	mu      sync.Mutex                     // guards written
	written map[uint32]eventstore.Position // highest commit of ours, a shard: what lookups wait for
}

// NewHandler makes a handler.
func NewHandler(d Deps) *Handler {
	return &Handler{Deps: d, written: map[uint32]eventstore.Position{}}
}

// LintDocument implements the RPC. What is wrong with the document is the
// answer, not an error.
func (h *Handler) LintDocument(ctx context.Context, req *policiesv1.LintDocumentRequest) (*policiesv1.LintDocumentResponse, error) {
	var parse func([]byte) error
	var resource string
	switch req.GetKind() {
	case "plan":
		resource, parse = identity.Plan, func(b []byte) error { _, err := ParsePlan(b); return err }
	case "fee_schedule":
		resource, parse = identity.FeeSchedule, func(b []byte) error { _, err := ParseFeeSchedule(b); return err }
	case "contract":
		resource, parse = identity.Contract, func(b []byte) error { _, err := ParseContract(b); return err }
	case "network":
		resource, parse = identity.Network, func(b []byte) error { _, err := ParseNetwork(b); return err }
	default:
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "document.kind", FieldPath: "kind",
			Message: "no such kind of document", Fix: `write "plan", "fee_schedule", "contract" or "network"`})
	}
	if err := h.Authorizer.Authorize(ctx, "LintDocument", identity.Resource{Type: resource}); err != nil {
		return nil, err
	}
	if err := parse([]byte(req.GetDocument())); err != nil {
		return &policiesv1.LintDocumentResponse{Problems: problemProtos(err, "", "")}, nil
	}
	return &policiesv1.LintDocumentResponse{}, nil
}

// PublishPlan implements the RPC.
func (h *Handler) PublishPlan(ctx context.Context, req *policiesv1.PublishPlanRequest) (*policiesv1.PublishPlanResponse, error) {
	doc, err := given(req.GetPlan(), req.GetYaml(), ParsePlan, planKind())
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, "PublishPlan", identity.Resource{Type: identity.Plan, ID: doc.GetPlanId(), Payer: doc.GetPayerId()}); err != nil {
		return nil, err
	}
	refs, err := h.references(ctx, doc.GetFeeScheduleId(), nil)
	if err != nil {
		return nil, err
	}
	if refs.Networks, err = h.networks(ctx, doc); err != nil {
		return nil, err
	}
	done, err := publish(ctx, h, planKind(), req.GetRequestId(), req.GetEtag(), doc, namedByPlan(doc, refs))
	if err != nil {
		return nil, err
	}
	return &policiesv1.PublishPlanResponse{PlanId: doc.GetPlanId(), Version: uint32(done.revision + 1), Token: done.token, Etag: etagOf(doc, uint32(done.revision+1))}, nil
}

// PublishFeeSchedule implements the RPC.
func (h *Handler) PublishFeeSchedule(ctx context.Context, req *policiesv1.PublishFeeScheduleRequest) (*policiesv1.PublishFeeScheduleResponse, error) {
	doc, err := given(req.GetFeeSchedule(), req.GetYaml(), ParseFeeSchedule, feeScheduleKind())
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, "PublishFeeSchedule", identity.Resource{Type: identity.FeeSchedule, ID: doc.GetFeeScheduleId(), Payer: doc.GetPayerId()}); err != nil {
		return nil, err
	}
	done, err := publish(ctx, h, feeScheduleKind(), req.GetRequestId(), req.GetEtag(), doc, nil)
	if err != nil {
		return nil, err
	}
	return &policiesv1.PublishFeeScheduleResponse{FeeScheduleId: doc.GetFeeScheduleId(), Version: uint32(done.revision + 1), Token: done.token, Etag: etagOf(doc, uint32(done.revision+1))}, nil
}

// PublishContract implements the RPC.
func (h *Handler) PublishContract(ctx context.Context, req *policiesv1.PublishContractRequest) (*policiesv1.PublishContractResponse, error) {
	doc, err := given(req.GetContract(), req.GetYaml(), ParseContract, contractKind())
	if err != nil {
		return nil, err
	}
	if err := h.Authorizer.Authorize(ctx, "PublishContract", identity.Resource{Type: identity.Contract, ID: doc.GetContractId(), Payer: doc.GetPayerId()}); err != nil {
		return nil, err
	}
	refs, err := h.references(ctx, doc.GetFeeScheduleId(), doc.GetPlanIds())
	if err != nil {
		return nil, err
	}
	rivals, err := h.rivals(ctx, doc)
	if err != nil {
		return nil, err
	}
	done, err := publish(ctx, h, contractKind(), req.GetRequestId(), req.GetEtag(), doc, append(namedByContract(doc, refs), rivals...))
	if err != nil {
		return nil, err
	}
	return &policiesv1.PublishContractResponse{ContractId: doc.GetContractId(), Version: uint32(done.revision + 1), Token: done.token, Etag: etagOf(doc, uint32(done.revision+1))}, nil
}

// rivals finds contracts that would stand beside a new one with nothing to
// choose between them: of the provider's contracts one that names the plan
// comes first and then the later begun, so two that begin on one day for the
// same plans would be told apart by their ids alone. It asks the directory,
// so a rival published in the same moment can be missed.
func (h *Handler) rivals(ctx context.Context, doc *policiesv1.ProviderContract) ([]problem.Problem, error) {
	if err := h.awaitOwnWrites(ctx); err != nil {
		return nil, err
	}
	var f finding
	for i, npi := range doc.GetNpis() {
		for _, other := range h.Directory.ContractsListing(doc.GetPayerId(), npi) {
			if other.GetContractId() != doc.GetContractId() && other.GetEffective().GetStartDate() == doc.GetEffective().GetStartDate() && samePlans(doc, other) {
				f.add("contract.overlap", fmt.Sprintf("npis[%d]", i), "the contract "+other.GetContractId()+" begins on the same day for this provider and the same plans",
					"leave the provider to one of them, or name plans or another first day")
				break
			}
		}
	}
	return bounded(f.problems), nil
}

// samePlans tells whether two contracts name a plan in common, or both none.
func samePlans(a, b *policiesv1.ProviderContract) bool {
	if len(a.GetPlanIds()) == 0 || len(b.GetPlanIds()) == 0 {
		return len(a.GetPlanIds()) == len(b.GetPlanIds())
	}
	return slices.ContainsFunc(a.GetPlanIds(), func(id string) bool { return slices.Contains(b.GetPlanIds(), id) })
}

// given returns the request's document, whichever way it was sent, checked.
func given[D Document](doc D, text string, parse func([]byte) (D, error), k kind[D]) (D, error) {
	var none D
	switch sent := doc.ProtoReflect().IsValid(); {
	case sent == (text != ""):
		return none, problem.New(problem.Invalid, problem.Problem{RuleID: "document.once", FieldPath: "yaml",
			Message: "the request must hold the document once", Fix: "give it either as " + k.name + " or as yaml"})
	case !sent:
		return parse([]byte(text))
	}
	if ps := check(doc, k.lint); len(ps) > 0 {
		return none, invalid(ps)
	}
	return doc, nil
}

// references loads what a document names. Each version of a document is one
// event of its stream.
func (h *Handler) references(ctx context.Context, feeScheduleID string, planIDs []string) (References, error) {
	refs := References{Plans: map[string]History[*policiesv1.PlanDocument]{}}
	if feeScheduleID != "" {
		found, err := history(ctx, h.Store, feeScheduleKind(), feeScheduleID)
		if err != nil {
			return References{}, err
		}
		refs.FeeSchedule = found
	}
	for _, id := range planIDs {
		found, err := history(ctx, h.Store, planKind(), id)
		if err != nil {
			return References{}, err
		}
		refs.Plans[id] = found
	}
	return refs, nil
}

func history[D Document](ctx context.Context, s eventstore.Store, k kind[D], id string) (History[D], error) {
	stream := k.stream(id)
	events, err := s.Read(ctx, Log, stream, stream, 0)
	if err != nil {
		return nil, err
	}
	return fold(k, events), nil
}

func fold[D Document](k kind[D], events []eventstore.Recorded) History[D] {
	out := make(History[D], 0, len(events))
	for _, r := range events {
		if doc, ok := k.document(r.Event); ok {
			out = append(out, doc)
		}
	}
	return out
}

// publish publishes doc as the next version. With an etag the newest version
// must be the one it names: whoever corrects a version has seen it.
func publish[D Document](ctx context.Context, h *Handler, k kind[D], requestID, etag string, doc D, named []problem.Problem) (recorded, error) {
	return h.record(ctx, work{
		requestID: requestID,
		stream:    k.stream(k.id(doc)),
		decide: func(_ context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			h := fold(k, events)
			if newest, version := h.Newest(); etag != "" && etag != etagOf(newest, version) && (version == 0 || !proto.Equal(newest, doc)) {
				return nil, problem.New(problem.Conflict, problem.Problem{RuleID: k.name + ".etag", FieldPath: "etag",
					Message: "the newest version is another than the etag's", Fix: "read the newest version, make the change in it, and send its etag"})
			}
			return decidePublish(k, h, doc, named)
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) {
			have, ok := k.document(r.Event)
			return ok && proto.Equal(have, doc), nil
		},
	})
}

// etagOf names a version by its number and content (AIP-154); version 0, none, has the empty one's.
func etagOf(doc proto.Message, version uint32) string {
	b, err := plain(doc)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return fmt.Sprintf("v%d-%x", version, sum[:8])
}

// GetPlan implements the RPC.
func (h *Handler) GetPlan(ctx context.Context, req *policiesv1.GetPlanRequest) (*policiesv1.GetPlanResponse, error) {
	absent := problem.New(problem.NotFound, problem.Problem{RuleID: "plan.unknown", FieldPath: "plan_id",
		Message: "no such plan or version", Fix: "list the plans there are with ListPlans"})
	found, err := History[*policiesv1.PlanDocument](nil), error(nil)
	if planIDPattern.MatchString(req.GetPlanId()) {
		if found, err = history(ctx, h.Store, planKind(), req.GetPlanId()); err != nil {
			return nil, err
		}
	}
	plan, version := found.Newest()
	if version == 0 {
		// Whoever may not even list plans learns nothing about which exist.
		if err := h.Authorizer.Authorize(ctx, "ListPlans", identity.Resource{Type: identity.Plan}); err != nil {
			return nil, err
		}
		return nil, absent
	}
	if err := h.Authorizer.Authorize(ctx, "GetPlan", identity.Resource{Type: identity.Plan, ID: plan.GetPlanId(), Payer: plan.GetPayerId()}); err != nil {
		return nil, err
	}
	if v := req.GetVersion(); v > version {
		return nil, absent
	} else if v > 0 {
		plan, version = found[v-1], v
	}
	return &policiesv1.GetPlanResponse{Plan: plan, Version: version, Etag: etagOf(plan, version)}, nil
}

// ListPlans implements the RPC: the newest versions of the plans the caller may see.
func (h *Handler) ListPlans(ctx context.Context, req *policiesv1.ListPlansRequest) (*policiesv1.ListPlansResponse, error) {
	if err := h.Authorizer.Authorize(ctx, "ListPlans", identity.Resource{Type: identity.Plan}); err != nil {
		return nil, err
	}
	after, err := planAfter(req.GetPageToken())
	if err != nil {
		return nil, err
	}
	if err := h.awaitOwnWrites(ctx); err != nil {
		return nil, err
	}
	size := int(req.GetPageSize())
	if size == 0 {
		size = 50
	}
	out := &policiesv1.ListPlansResponse{}
	for {
		page := h.Directory.Plans(after, size+1)
		for _, p := range page {
			err := h.Authorizer.Authorize(ctx, "ListPlans", identity.Resource{Type: identity.Plan, ID: p.Plan.GetPlanId(), Payer: p.Plan.GetPayerId()})
			switch {
			case problem.Is(err, problem.Forbidden):
			case err != nil:
				return nil, err
			case len(out.Plans) == size:
				out.NextPageToken = pageToken(out.Plans[size-1].GetPlan().GetPlanId())
				return out, nil
			default:
				out.Plans = append(out.Plans, &policiesv1.GetPlanResponse{Plan: p.Plan, Version: p.Version, Etag: etagOf(p.Plan, p.Version)})
			}
		}
		if len(page) <= size {
			return out, nil
		}
		after = page[len(page)-1].Plan.GetPlanId()
	}
}

const pageTokenPrefix = "plans:"

func pageToken(lastID string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(pageTokenPrefix + lastID))
}

func planAfter(token string) (string, error) {
	if token == "" {
		return "", nil
	}
	raw, err := base64.RawURLEncoding.DecodeString(token)
	id, ok := strings.CutPrefix(string(raw), pageTokenPrefix)
	if err != nil || !ok || !planIDPattern.MatchString(id) {
		return "", problem.New(problem.Invalid, problem.Problem{RuleID: "page_token.malformed", FieldPath: "page_token",
			Message: "not a page token of this list", Fix: "pass next_page_token of the last answer unchanged, or none"})
	}
	return id, nil
}

// CreatePolicy implements the RPC.
func (h *Handler) CreatePolicy(ctx context.Context, req *policiesv1.CreatePolicyRequest) (*policiesv1.CreatePolicyResponse, error) {
	want := req.GetPolicy()
	if want == nil {
		return nil, missing("policy")
	}
	if ps := check(want, lintPolicy); len(ps) > 0 {
		return nil, under("policy", invalid(ps))
	}
	if err := h.Authorizer.Authorize(ctx, "CreatePolicy", identity.Resource{Type: identity.Policy, ID: want.GetPolicyId(), Payer: want.GetPayerId()}); err != nil {
		return nil, err
	}
	plan, err := history(ctx, h.Store, planKind(), want.GetPlanId())
	if err != nil {
		return nil, err
	}
	done, err := h.record(ctx, work{
		requestID: req.GetRequestId(),
		stream:    policyStream(want.GetPolicyId()),
		decide: func(_ context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			return decidePolicy(policyOf(events), want, plan)
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) {
			return proto.Equal(policyOf([]eventstore.Recorded{r}), want), nil
		},
	})
	if err != nil {
		return nil, err
	}
	return &policiesv1.CreatePolicyResponse{PolicyId: want.GetPolicyId(), Token: done.token}, nil
}

func policyOf(events []eventstore.Recorded) *policiesv1.Policy {
	for _, r := range events {
		if e, ok := r.Event.(*eventsv1.PolicyCreated); ok {
			return e.GetPolicy()
		}
	}
	return nil
}

// policy loads a policy; nil when there is none.
func (h *Handler) policy(ctx context.Context, id string) (*policiesv1.Policy, error) {
	stream := policyStream(id)
	events, err := h.Store.Read(ctx, Log, stream, stream, 0)
	if err != nil {
		return nil, err
	}
	return policyOf(events), nil
}

// ownWritesWait bounds how long a lookup waits for the directory to apply
// what this handler has written.
const ownWritesWait = 5 * time.Second

// wrote remembers a commit for awaitOwnWrites.
func (h *Handler) wrote(p eventstore.Position) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if have, ok := h.written[p.Shard]; !ok || p.Index > have.Index {
		h.written[p.Shard] = p
	}
}

// awaitOwnWrites waits until the directory shows everything this handler has
// written, so that an enrolment is found by the lookup that follows it.
func (h *Handler) awaitOwnWrites(ctx context.Context) error {
	h.mu.Lock()
	token := joinTokens(h.written)
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ownWritesWait)
	defer cancel()
	return h.Directory.WaitFor(ctx, token)
}

// joinTokens makes one token of several commits, comma separated in order of
// shard; book.Book waits for all of them.
func joinTokens(latest map[uint32]eventstore.Position) string {
	tokens := make([]string, 0, len(latest))
	for _, p := range latest {
		tokens = append(tokens, p.Token())
	}
	slices.Sort(tokens)
	return strings.Join(tokens, ",")
}
