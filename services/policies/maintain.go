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
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
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

// who is the person a change is about.
type who struct {
	subject string
	// enrolled: there is a stream of the person.
	enrolled bool
	// first and born found the person; they differ from the change's where
	// those correct them.
	first, born string
}

// find names the person: by card, birth date and first name as they are sent;
// by those recorded wrongly before; or, where no birth date is sent, by first
// name and relationship within the family.
func (b *maintenanceBatch) find(ctx context.Context, c *policiesv1.EnrollmentChange, card string) (who, error) {
	tries := [][2]string{{c.GetFirstName(), c.GetBirthDate()}}
	if c.GetPreviousFirstName() != "" || c.GetPreviousBirthDate() != "" {
		first, born := c.GetPreviousFirstName(), c.GetPreviousBirthDate()
		if first == "" {
			first = c.GetFirstName()
		}
		if born == "" {
			born = c.GetBirthDate()
		}
		tries = append([][2]string{{first, born}}, tries...)
	}
	for _, try := range tries {
		if try[1] == "" {
			continue
		}
		subject := b.h.Index.Person(b.payer, c.GetMemberId(), try[1], try[0])
		m, err := b.h.member(ctx, subject)
		if err != nil {
			return who{}, err
		}
		if m.AliasOf != "" {
			subject = m.AliasOf
			if m, err = b.h.member(ctx, subject); err != nil {
				return who{}, err
			}
		}
		if m.Revision >= 0 {
			return who{subject: subject, enrolled: true, first: try[0], born: try[1]}, nil
		}
	}
	if c.GetMaintenanceType() == policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD {
		return who{subject: b.h.Index.Person(b.payer, c.GetMemberId(), c.GetBirthDate(), c.GetFirstName()), first: c.GetFirstName(), born: c.GetBirthDate()}, nil
	}
	if c.GetBirthDate() != "" {
		return who{}, unknownMember()
	}
	return b.byName(ctx, c, card)
}

func unknownMember() error {
	return problem.New(problem.NotFound, problem.Problem{RuleID: "member.unknown", FieldPath: "member_id",
		Message: "nobody of this card, birth date and first name is enrolled", Fix: "check them against the card; send an addition if the person is new"})
}

// byName opens the sealed details of the family's members. Whom it finds must
// have the first name: ending the wrong person's cover would be worse than asking again.
func (b *maintenanceBatch) byName(ctx context.Context, c *policiesv1.EnrollmentChange, card string) (who, error) {
	var found []who
	for _, m := range b.h.Directory.Family(card) {
		last, ok := lastSpan(m)
		if !ok || last.Relationship != c.GetRelationshipCode() {
			continue
		}
		events, err := b.h.Store.Read(ctx, Log, MemberStream(m.Subject), MemberStream(m.Subject), 0)
		if err != nil {
			return who{}, err
		}
		details, err := b.h.details(ctx, b.payer, m.Subject, events)
		if err != nil {
			return who{}, err
		}
		if keys.Fold(details.GetFirstName()) == keys.Fold(c.GetFirstName()) {
			found = append(found, who{subject: m.Subject, enrolled: true, first: details.GetFirstName(), born: details.GetBirthDate()})
		}
	}
	switch len(found) {
	case 0:
		return who{}, unknownMember()
	case 1:
		return found[0], nil
	}
	return who{}, problem.New(problem.Conflict, problem.Problem{RuleID: "member.ambiguous", FieldPath: "birth_date",
		Message: "several persons of the family have this first name and relationship", Fix: "send the birth date (DMG02)"})
}

// member folds a person's stream.
func (h *Handler) member(ctx context.Context, subject string) (Member, error) {
	events, err := h.Store.Read(ctx, Log, MemberStream(subject), MemberStream(subject), 0)
	if err != nil {
		return Member{}, err
	}
	return foldMember(events), nil
}

// details opens what was sealed last of a person: nil where nothing was.
func (h *Handler) details(ctx context.Context, payer, subject string, events []eventstore.Recorded) (*policiesv1.Enrollment, error) {
	for _, r := range slices.Backward(events) {
		box := sealedEnrollment(r.Event)
		if box == nil {
			continue
		}
		opened, err := h.Sealer.Open(ctx, keys.Place{Tenant: payer, Stream: MemberStream(subject), Revision: r.Revision, Field: EnrollmentField}, box)
		if err != nil {
			return nil, sealing(err)
		}
		out := &policiesv1.Enrollment{}
		if err := proto.Unmarshal(opened, out); err != nil {
			return nil, problem.As(err)
		}
		return out, nil
	}
	return nil, nil
}

// command makes the decider's command of a change.
func (b *maintenanceBatch) command(ctx context.Context, c *policiesv1.EnrollmentChange, card string, w who) (amendment, error) {
	born := c.GetBirthDate()
	if born == "" {
		born = w.born
	}
	cmd := amendment{
		kind: c.GetMaintenanceType(), batchID: b.id,
		coverageSaid: c.GetInsuranceLine() != "" || c.GetPolicyId() != "",
		enrol: enrol{
			subject: w.subject, subscriber: card, coverage: Period{Start: c.GetStartDate(), End: c.GetEndDate()},
			relationship: c.GetRelationshipCode(), otherPayerPrimary: c.GetOtherPayerPrimary(),
			birthIndex:  b.h.Index.BirthIndex(b.payer, c.GetMemberId(), born),
			personIndex: b.h.Index.PersonIndex(b.payer, c.GetMemberId(), born, c.GetFirstName()),
		},
	}
	if own := c.GetOwnMemberId(); own != "" && c.GetRelationshipCode() != "18" {
		if hash := b.h.Index.Subscriber(b.payer, own); hash != card {
			cmd.ownCard = hash
		}
	}
	if w.enrolled {
		cmd.previousBirth = b.h.Index.BirthIndex(b.payer, c.GetMemberId(), w.born)
		cmd.previousPerson = b.h.Index.PersonIndex(b.payer, c.GetMemberId(), w.born, w.first)
	}
	switch cmd.kind {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		return cmd, nil
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE, policiesv1.MaintenanceType_MAINTENANCE_TYPE_AUDIT:
		if !cmd.coverageSaid {
			return cmd, nil
		}
	}
	policy, err := b.policyFor(ctx, c, w)
	if err != nil {
		return amendment{}, err
	}
	cmd.policy = policy
	if cmd.relationship != "19" || c.GetDisabled() || cmd.coverage.Start == "" {
		return cmd, nil
	}
	limit, err := b.ageLimit(ctx, policy, cmd.coverage.Start)
	if err != nil {
		return amendment{}, err
	}
	cut, left := agedOut(limit, born, cmd.coverage)
	if !left {
		return amendment{}, invalid([]problem.Problem{agedOutProblem()})
	}
	cmd.coverage = cut
	return cmd, nil
}

func agedOutProblem() problem.Problem {
	return problem.Problem{RuleID: "member.dependent.aged-out", FieldPath: "start_date",
		Message: "the child is past the plan's age limit on the first day", Fix: "send the disability indicator if the person is disabled, or cover the person on a card of its own"}
}

// mayDepend refuses dependants that nobody can depend on.
func (b *maintenanceBatch) mayDepend(c *policiesv1.EnrollmentChange, card string, cmd amendment) error {
	if cmd.kind != policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD {
		return nil
	}
	if c.GetRelationshipCode() == "18" {
		return nil
	}
	rule, message := dependsOn(card, cmd.ownCard, func(at string) (string, bool) {
		if up, ok := b.own[at]; ok {
			return up, true
		}
		return b.h.Directory.DependsOn(at)
	})
	if rule != "" {
		return problem.New(problem.Conflict, problem.Problem{RuleID: rule, FieldPath: "member_id", Message: message,
			Fix: "send the subscriber's own number (REF*0F) for every member of the family"})
	}
	b.mu.Lock()
	known := b.subscribers[card]
	b.mu.Unlock()
	if known || slices.ContainsFunc(b.h.Directory.Family(card), Member.Subscribes) {
		return nil
	}
	return problem.New(problem.Conflict, problem.Problem{RuleID: "member.dependent.no-subscriber", FieldPath: "member_id",
		Message: "no subscriber is enrolled under this card", Fix: "send the subscriber's addition before the dependants'"})
}

// policyFor finds the policy a change means.
func (b *maintenanceBatch) policyFor(ctx context.Context, c *policiesv1.EnrollmentChange, w who) (*policiesv1.Policy, error) {
	unknown := func(message, fix string) error {
		return problem.New(problem.NotFound, problem.Problem{RuleID: "member.policy.unknown", FieldPath: "group_number", Message: message, Fix: fix})
	}
	if id := c.GetPolicyId(); id != "" {
		policy, err := b.h.policy(ctx, id)
		if err == nil && policy.GetPayerId() != b.payer { // also when there is none
			err = unknown("the payer has no such policy", "create the policy first, or correct its id")
		}
		return policy, err
	}
	if c.GetGroupNumber() == "" && c.GetMaintenanceType() != policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD && w.enrolled {
		m, err := b.h.member(ctx, w.subject)
		if err != nil {
			return nil, err
		}
		if last, ok := lastSpan(m); ok {
			return b.h.policy(ctx, last.PolicyID)
		}
	}
	var fit []*policiesv1.Policy
	for _, p := range b.h.Directory.PoliciesOf(b.payer, c.GetGroupNumber()) {
		if day := c.GetStartDate(); day == "" || PeriodOf(p.GetEffective()).Contains(day) {
			fit = append(fit, p)
		}
	}
	if named := slices.DeleteFunc(slices.Clone(fit), func(p *policiesv1.Policy) bool {
		return p.GetPlanId() != c.GetPlanId() && p.GetPolicyId() != c.GetPlanId()
	}); len(named) > 0 {
		fit = named
	}
	switch len(fit) {
	case 0:
		return nil, unknown("the payer has no policy of this group on the first day", "create the policy first, or correct REF*1L and the day")
	case 1:
		return fit[0], nil
	}
	return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.policy.ambiguous", FieldPath: "plan_id",
		Message: "the group has several policies on this day, and the plan named is none of theirs", Fix: "name the plan or policy id in HD04"})
}

// ageLimit is the plan's, as in force on a day.
func (b *maintenanceBatch) ageLimit(ctx context.Context, policy *policiesv1.Policy, day string) (uint32, error) {
	key := policy.GetPlanId() + "@" + day
	b.mu.Lock()
	limit, ok := b.ageLimits[key]
	b.mu.Unlock()
	if ok {
		return limit, nil
	}
	limit, err := b.h.ageLimit(ctx, policy, day)
	if err != nil {
		return 0, err
	}
	b.mu.Lock()
	b.ageLimits[key] = limit
	b.mu.Unlock()
	return limit, nil
}

func (h *Handler) ageLimit(ctx context.Context, policy *policiesv1.Policy, day string) (uint32, error) {
	plan, err := history(ctx, h.Store, planKind(), policy.GetPlanId())
	if err != nil {
		return 0, err
	}
	doc, _ := plan.InForce(day)
	return doc.GetDependentAgeLimit(), nil
}

// run decides and appends, and ends a subscriber's dependants with the subscriber.
func (b *maintenanceBatch) run(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, w who, out *policiesv1.EnrollmentOutcome) error {
	if err := b.alias(ctx, c, cmd, w); err != nil {
		return err
	}
	got, done, err := b.amend(ctx, c, cmd, out.GetOrdinal())
	if err != nil {
		return err
	}
	switch {
	case len(got.differs) > 0:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_DIFFERS
		out.Problems = problemProtos(&problem.Error{Kind: problem.Conflict, Problems: got.differs}, "", "")
	case done.unchanged && !done.answered:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_UNCHANGED
	default:
		out.Result = policiesv1.EnrollmentOutcome_RESULT_APPLIED
		if got.touched.Start != "" {
			out.Touched = got.touched.proto()
		}
	}
	if cmd.relationship != "18" {
		return nil
	}
	switch cmd.kind {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD, policiesv1.MaintenanceType_MAINTENANCE_TYPE_REINSTATE:
		b.mu.Lock()
		b.subscribers[cmd.subscriber] = true
		b.mu.Unlock()
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		return b.endDependants(ctx, c, cmd, out.GetOrdinal())
	}
	return nil
}

// endDependants ends the coverage of all who depend on a subscriber whose
// coverage ended: nobody is covered through a person who isn't.
func (b *maintenanceBatch) endDependants(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, ordinal uint32) error {
	for _, m := range b.h.Directory.Family(cmd.subscriber) {
		if m.Subject == cmd.subject || !slices.ContainsFunc(m.Spans, func(s Span) bool { return s.Period.End == "" || s.Period.End > cmd.coverage.End }) {
			continue
		}
		one := cmd
		one.subject = m.Subject
		if _, _, err := b.amend(ctx, c, one, ordinal); err != nil {
			return err
		}
	}
	return nil
}

// amend runs one command on one person's stream.
func (b *maintenanceBatch) amend(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, ordinal uint32) (amended, recorded, error) {
	var got amended
	done, err := b.h.record(ctx, work{
		requestID: fmt.Sprintf("%s/%d", b.id, ordinal),
		stream:    MemberStream(cmd.subject),
		decide: func(ctx context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			m := foldMember(events)
			details, err := b.merged(ctx, c, cmd.subject, events)
			if err != nil {
				return nil, err
			}
			run := cmd
			run.detailsChanged = details.changed && details.had
			run.corrected = run.kind == policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD && details.changed
			if got, err = decideAmendment(m, run); err != nil {
				return nil, err
			}
			return b.seal(ctx, c, cmd, details.enrollment, got.events, len(events))
		},
		// The id stands for this batch and ordinal, and the batch's content is compared as a whole.
		says: func(context.Context, eventstore.Recorded) (bool, error) { return true, nil },
	})
	if err == nil && !done.unchanged {
		b.note(done)
	}
	return got, done, err
}

func (b *maintenanceBatch) note(done recorded) {
	if p, ok, err := eventstore.ParseToken(done.token); err == nil && ok {
		b.wrote(p)
	}
}

// merged is what is known of a person with what a change says of it.
type merged struct {
	enrollment   *policiesv1.Enrollment
	had, changed bool
}

func (b *maintenanceBatch) merged(ctx context.Context, c *policiesv1.EnrollmentChange, subject string, events []eventstore.Recorded) (merged, error) {
	known, err := b.h.details(ctx, b.payer, subject, events)
	if err != nil {
		return merged{}, err
	}
	out := merged{had: known != nil, enrollment: &policiesv1.Enrollment{Sex: "U"}}
	if known != nil {
		out.enrollment = proto.CloneOf(known)
	}
	for _, f := range []struct {
		to   *string
		said string
	}{
		{&out.enrollment.MemberId, c.GetMemberId()}, {&out.enrollment.LastName, c.GetLastName()}, {&out.enrollment.FirstName, c.GetFirstName()},
		{&out.enrollment.BirthDate, c.GetBirthDate()}, {&out.enrollment.Sex, c.GetSex()},
	} {
		if f.said != "" {
			*f.to = f.said
		}
	}
	out.changed = known == nil || !proto.Equal(known, out.enrollment)
	return out, nil
}

// seal gives events what is sealed: the details as now known, or the change
// as it was sent.
func (b *maintenanceBatch) seal(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, details *policiesv1.Enrollment, events []proto.Message, have int) ([]proto.Message, error) {
	change, err := plain(c)
	if err != nil {
		return nil, err
	}
	for i, event := range events {
		place := keys.Place{Tenant: b.payer, Stream: MemberStream(cmd.subject), Revision: uint64(have + i), Field: ChangeField}
		text := change
		if e, ok := event.(*eventsv1.MemberEnrolled); ok {
			details = proto.CloneOf(details)
			details.PolicyId, details.RelationshipCode, details.Coverage, details.OtherPayerPrimary = e.GetPolicyId(), e.GetRelationshipCode(), e.GetCoverage(), e.GetOtherPayerPrimary()
		}
		switch event.(type) {
		case *eventsv1.MemberEnrolled, *eventsv1.MemberChanged:
			place.Field = EnrollmentField
			if text, err = plain(details); err != nil {
				return nil, err
			}
		}
		box, err := b.h.Sealer.Seal(ctx, cmd.subject, place, text)
		if err != nil {
			return nil, sealing(err)
		}
		switch e := event.(type) {
		case *eventsv1.MemberEnrolled:
			e.Enrollment = box
		case *eventsv1.MemberChanged:
			e.Enrollment = box
		case *eventsv1.MemberTerminated:
			e.Change = box
		case *eventsv1.MemberReinstated:
			e.Change = box
		}
	}
	return events, nil
}

// alias makes sure that the name and birth date a change corrects to lead to
// the person, before they do: the id they give gets a stream that says whose
// it is. Should somebody else be enrolled under them, the change is refused.
func (b *maintenanceBatch) alias(ctx context.Context, c *policiesv1.EnrollmentChange, cmd amendment, w who) error {
	if !w.enrolled || cmd.kind != policiesv1.MaintenanceType_MAINTENANCE_TYPE_CHANGE || bytes.Equal(cmd.personIndex, cmd.previousPerson) {
		return nil
	}
	born := c.GetBirthDate()
	if born == "" {
		born = w.born
	}
	derived := b.h.Index.Person(b.payer, c.GetMemberId(), born, c.GetFirstName())
	if derived == w.subject {
		return nil
	}
	done, err := b.h.record(ctx, work{
		requestID: "alias",
		stream:    MemberStream(derived),
		decide: func(_ context.Context, events []eventstore.Recorded) ([]proto.Message, error) {
			if len(events) == 0 {
				return []proto.Message{&eventsv1.MemberAliased{Subject: derived, AliasOf: w.subject}}, nil
			}
			if foldMember(events).AliasOf == w.subject {
				return nil, nil
			}
			return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "member.identity.taken", FieldPath: "birth_date",
				Message: "another person of the card is enrolled with this birth date and first name", Fix: "find out who is who before correcting either"})
		},
		says: func(_ context.Context, r eventstore.Recorded) (bool, error) {
			e, ok := r.Event.(*eventsv1.MemberAliased)
			return ok && e.GetAliasOf() == w.subject, nil
		},
	})
	if err == nil && !done.unchanged {
		b.note(done)
	}
	return err
}

// lintChange finds what a valid change lacks for what it asks.
func lintChange(c *policiesv1.EnrollmentChange) []problem.Problem {
	var f finding
	for _, d := range []struct{ day, path string }{
		{c.GetBirthDate(), "birth_date"}, {c.GetPreviousBirthDate(), "previous_birth_date"}, {c.GetStartDate(), "start_date"}, {c.GetEndDate(), "end_date"},
	} {
		if d.day != "" {
			f.date(d.day, d.path)
		}
	}
	need := func(value, path, fix string) {
		if value == "" {
			f.add("enrollment.required", path, path+" is needed for this maintenance type", fix)
		}
	}
	switch c.GetMaintenanceType() {
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_ADD:
		need(c.GetBirthDate(), "birth_date", "send DMG02")
		need(c.GetLastName(), "last_name", "send NM103")
		need(c.GetStartDate(), "start_date", "send the benefit's first day (DTP*348)")
		if c.GetBirthDate() != "" && c.GetStartDate() != "" && c.GetStartDate() < c.GetBirthDate() {
			f.add("member.coverage.before-birth", "start_date", "coverage starts before the birth date", "correct the birth date, or start coverage on or after it")
		}
	case policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE:
		need(c.GetEndDate(), "end_date", "send the last covered day (DTP*349 or DTP*357)")
	}
	if start, end := c.GetStartDate(), c.GetEndDate(); start != "" && end != "" && end < start && c.GetMaintenanceType() != policiesv1.MaintenanceType_MAINTENANCE_TYPE_TERMINATE {
		f.add("period.reversed", "end_date", "the period ends before it starts", "swap the dates, or leave end_date empty for an open period")
	}
	return f.problems
}

// sealedEnrollment is the box of an event that holds a person's details.
func sealedEnrollment(event proto.Message) *typev1.Sealed {
	switch e := event.(type) {
	case *eventsv1.MemberEnrolled:
		return e.GetEnrollment()
	case *eventsv1.MemberChanged:
		return e.GetEnrollment()
	}
	return nil
}
