package claims

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// deadlineActor is who acts where nobody did in time.
const deadlineActor = "deadline"

func (s *Service) caseNow() casework.Now { return casework.Now{Time: s.now(), Zone: s.zone} }

func (s *Service) caseOf(state State) *claimsv1.Case {
	return state.Case.Case(s.caseNow(), s.config.Casework)
}

// worker reads a claim for one who may do action to it. Who may not see it at
// all is told that it isn't there.
func (s *Service) worker(ctx context.Context, action, id string) (State, identity.Principal, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return State{}, caller, err
	}
	state, _, err := s.visible(ctx, "GetCase", id)
	if err != nil {
		return state, caller, err
	}
	return state, caller, s.auth.Authorize(ctx, action, claimResource(state))
}

// GetCase implements claimsv1connect.CaseServiceHandler.
func (s *Service) GetCase(ctx context.Context, req *claimsv1.GetCaseRequest) (*claimsv1.GetCaseResponse, error) {
	state, _, err := s.visible(ctx, "GetCase", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	return &claimsv1.GetCaseResponse{Case: s.caseOf(state)}, nil
}

// work is one change to the work on a claim that no decision follows from.
type work struct {
	claim, actor, request string
	// decide is asked again where the claim has changed meanwhile; no events is
	// nothing to do.
	decide func(context.Context, State) ([]proto.Message, error)
}

// do records work and returns the claim after it. Under a request id that was
// recorded before it returns the claim as it stands.
func (s *Service) do(ctx context.Context, w work) (State, string, error) {
	atLeast := eventstore.NoStream
	for range decideAttempts {
		state, _, err := s.readClaim(ctx, w.claim, atLeast)
		if err != nil {
			return state, "", err
		}
		if state.Handled[w.request] {
			return state, "", nil
		}
		events, err := w.decide(ctx, state)
		if err != nil || len(events) == 0 {
			return state, "", err
		}
		done, err := s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: claimKey(w.claim), RequestID: w.request, Causation: w.claim, Actor: w.actor,
			Writes: []eventstore.Write{{Stream: claimStream(w.claim), Expected: state.Revision, Events: events}},
		})
		if moved, ok := asMoved(err, claimStream(w.claim), state.Revision+1); ok {
			atLeast = moved.Actual
			continue
		}
		if err != nil {
			return state, "", err
		}
		if done.Replayed {
			atLeast = state.Revision + 1
			continue
		}
		for _, e := range events {
			state = Evolve(state, eventstore.Recorded{
				Position: done.Position, Revision: uint64(state.Revision + 1), Event: e, RecordedTime: done.RecordedTime, RequestID: w.request,
			})
		}
		s.watch.tell(w.claim)
		return state, done.Token, nil
	}
	return State{}, "", busy(nil)
}

// workID is a request's name in the ledger: one a caller, verb and claim.
func (s *Service) workID(verb, claim string, caller identity.Principal, request string) string {
	return s.index.ID("cas", verb, claim, caller.Org, caller.Subject, request)
}

func requestNeeded(id string) error {
	if id == "" {
		return problem.Invalidf("claims.request.missing", "request_id", "a request id is needed")
	}
	return nil
}

// change is the common course of a person's change to the work.
func (s *Service) change(ctx context.Context, action, claim, request string, decide func(identity.Principal, State) ([]proto.Message, error)) (*claimsv1.Case, string, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, "", err
	}
	defer leave()
	_, caller, err := s.worker(ctx, action, claim)
	if err != nil {
		return nil, "", err
	}
	if err := requestNeeded(request); err != nil {
		return nil, "", err
	}
	state, token, err := s.do(ctx, work{
		claim: claim, actor: caller.Subject, request: s.workID(action, claim, caller, request),
		decide: func(_ context.Context, st State) ([]proto.Message, error) { return decide(caller, st) },
	})
	if err != nil {
		return nil, "", err
	}
	return s.caseOf(state), token, nil
}

// ClaimTask implements claimsv1connect.CaseServiceHandler.
func (s *Service) ClaimTask(ctx context.Context, req *claimsv1.ClaimTaskRequest) (*claimsv1.ClaimTaskResponse, error) {
	c, token, err := s.change(ctx, "ClaimTask", req.GetClaimId(), req.GetRequestId(), func(caller identity.Principal, st State) ([]proto.Message, error) {
		return st.Case.Claim(caller.Subject, "", s.caseNow(), s.config.Casework)
	})
	return &claimsv1.ClaimTaskResponse{Case: c, Token: token}, err
}

// ReleaseTask implements claimsv1connect.CaseServiceHandler.
func (s *Service) ReleaseTask(ctx context.Context, req *claimsv1.ReleaseTaskRequest) (*claimsv1.ReleaseTaskResponse, error) {
	c, token, err := s.change(ctx, "ReleaseTask", req.GetClaimId(), req.GetRequestId(), func(caller identity.Principal, st State) ([]proto.Message, error) {
		return st.Case.Release(caller.Subject)
	})
	return &claimsv1.ReleaseTaskResponse{Case: c, Token: token}, err
}

// ReassignTask implements claimsv1connect.CaseServiceHandler.
func (s *Service) ReassignTask(ctx context.Context, req *claimsv1.ReassignTaskRequest) (*claimsv1.ReassignTaskResponse, error) {
	if req.GetAssignee() == "" {
		return nil, problem.Invalidf("claims.task.assignee", "assignee", "a reviewer's id is needed")
	}
	c, token, err := s.change(ctx, "ReassignTask", req.GetClaimId(), req.GetRequestId(), func(caller identity.Principal, st State) ([]proto.Message, error) {
		return st.Case.Claim(req.GetAssignee(), caller.Subject, s.caseNow(), s.config.Casework)
	})
	return &claimsv1.ReassignTaskResponse{Case: c, Token: token}, err
}

// EscalateTask implements claimsv1connect.CaseServiceHandler.
func (s *Service) EscalateTask(ctx context.Context, req *claimsv1.EscalateTaskRequest) (*claimsv1.EscalateTaskResponse, error) {
	c, token, err := s.change(ctx, "EscalateTask", req.GetClaimId(), req.GetRequestId(), func(_ identity.Principal, st State) ([]proto.Message, error) {
		return st.Case.Escalate()
	})
	return &claimsv1.EscalateTaskResponse{Case: c, Token: token}, err
}

// SetEscalation implements claimsv1connect.CaseServiceHandler.
func (s *Service) SetEscalation(ctx context.Context, req *claimsv1.SetEscalationRequest) (*claimsv1.SetEscalationResponse, error) {
	c, token, err := s.change(ctx, "SetEscalation", req.GetClaimId(), req.GetRequestId(), func(_ identity.Principal, st State) ([]proto.Message, error) {
		return st.Case.SetEscalation(req.GetLevel())
	})
	return &claimsv1.SetEscalationResponse{Case: c, Token: token}, err
}

// RequestInformation implements claimsv1connect.CaseServiceHandler.
func (s *Service) RequestInformation(ctx context.Context, req *claimsv1.RequestInformationRequest) (*claimsv1.RequestInformationResponse, error) {
	if err := knownKind(req.GetKind()); err != nil {
		return nil, err
	}
	c, token, err := s.change(ctx, "RequestInformation", req.GetClaimId(), req.GetRequestId(), func(caller identity.Principal, st State) ([]proto.Message, error) {
		id := s.informationID(req.GetClaimId(), req.GetKind(), st)
		return st.Case.Request(id, req.GetKind(), req.GetUrgent(), caller.Subject, s.caseNow(), s.config.Casework)
	})
	return &claimsv1.RequestInformationResponse{Case: c, Token: token}, err
}

// informationID names the claim's next request of a kind.
func (s *Service) informationID(claim string, kind claimsv1.InformationKind, st State) string {
	return s.index.ID("inf", claim, kind.String(), itoa(uint32(len(st.Case.Requests)))) //nolint:gosec // a handful
}

func knownKind(k claimsv1.InformationKind) error {
	if k <= claimsv1.InformationKind_INFORMATION_KIND_UNSPECIFIED || k > claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION {
		return problem.Invalidf("claims.information.kind", "kind", "say what is meant: a document, another payer's decision or a prior authorisation")
	}
	return nil
}

// ReceiveInformation implements claimsv1connect.CaseServiceHandler. A document
// is for a person to read; what the engine can read it decides with at once.
func (s *Service) ReceiveInformation(ctx context.Context, req *claimsv1.ReceiveInformationRequest) (*claimsv1.ReceiveInformationResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	state, caller, err := s.worker(ctx, "ReceiveInformation", req.GetClaimId())
	if err == nil {
		err = s.checkAnswer(caller, req)
	}
	if err == nil {
		err = s.Ready(ctx)
	}
	if err != nil {
		return nil, err
	}
	key := s.workID("ReceiveInformation", req.GetClaimId(), caller, req.GetRequestId())
	facts := func(ctx context.Context, st State) ([]proto.Message, error) {
		return s.receivedFacts(ctx, st, req, key)
	}
	token := ""
	switch readable := req.GetKind() != claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT && !req.GetRefused(); {
	case state.Handled[key]:
	case readable && !s.pendedAdjustment(ctx, state):
		cause := cause{reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED, run: s.index.ID("rpr", key), word: causeOf(req.GetKind())}
		err = s.decideWith(ctx, caller, state, &lead{claim: req.GetClaimId(), facts: facts}, cause)
	default:
		_, token, err = s.do(ctx, work{claim: req.GetClaimId(), actor: caller.Subject, request: key, decide: facts})
		if err == nil {
			err = s.lapse(ctx, req.GetClaimId())
		}
	}
	if err != nil {
		return nil, err
	}
	if state, _, err = s.readClaim(ctx, req.GetClaimId(), eventstore.NoStream); err != nil {
		return nil, err
	}
	return &claimsv1.ReceiveInformationResponse{Case: s.caseOf(state), Token: token}, nil
}

func causeOf(k claimsv1.InformationKind) string {
	if k == claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER {
		return "other-payer"
	}
	return "prior-authorization"
}

func (s *Service) checkAnswer(caller identity.Principal, req *claimsv1.ReceiveInformationRequest) error {
	if err := knownKind(req.GetKind()); err != nil {
		return err
	}
	if err := requestNeeded(req.GetRequestId()); err != nil {
		return err
	}
	a, missing := req.GetAnswer(), ""
	switch req.GetKind() {
	case claimsv1.InformationKind_INFORMATION_KIND_DOCUMENT:
		if a.GetDocumentReference() == "" {
			missing = "document_reference"
		}
	case claimsv1.InformationKind_INFORMATION_KIND_OTHER_PAYER:
		if len(a.GetOtherPayers()) == 0 {
			missing = "other_payers"
		}
		for _, p := range a.GetOtherPayers() {
			if p.GetPayer().GetId() == "" || !p.GetAdjudicated() {
				missing = "other_payers"
			}
		}
	case claimsv1.InformationKind_INFORMATION_KIND_PRIOR_AUTHORIZATION:
		// The payer answers its own question: a provider can't authorise itself.
		if !caller.Has(identity.RoleAdjudicator) && !caller.Has(identity.RoleService) {
			return problem.New(problem.Forbidden, problem.Problem{
				RuleID: "claims.information.payers", FieldPath: "kind", Message: "a prior authorisation is the payer's to answer", Fix: "wait for the payer's answer",
			})
		}
		if a.GetPriorAuthorizationNumber() == "" {
			missing = "prior_authorization_number"
		}
	}
	if missing != "" && !req.GetRefused() {
		return problem.Invalidf("claims.information.answer", "answer."+missing, "the answer doesn't hold what was asked for")
	}
	return nil
}

// receivedFacts is the event of an answer, sealed for its place.
func (s *Service) receivedFacts(ctx context.Context, st State, req *claimsv1.ReceiveInformationRequest, key string) ([]proto.Message, error) {
	asked, err := st.Case.Answers(req.GetKind())
	if err != nil {
		return nil, err
	}
	e := &eventsv1.InformationReceived{Kind: req.GetKind(), Refused: req.GetRefused(), RequestKey: key}
	st.Case.Received(e, asked, s.caseNow())
	if req.GetAnswer() != nil && !req.GetRefused() {
		plain, err := encode(req.GetAnswer())
		if err != nil {
			return nil, err
		}
		if e.Answer, err = s.sealFor(ctx, st, uint64(st.Revision+1), fieldAnswer, plain); err != nil {
			return nil, err
		}
	}
	return []proto.Message{e}, nil
}

// sealFor seals what is added to a claim's stream, under the patient's key.
func (s *Service) sealFor(ctx context.Context, st State, revision uint64, field string, plain []byte) (*typev1.Sealed, error) {
	box, err := s.sealer.Seal(ctx, st.Received.GetSubject(), keys.Place{
		Tenant: st.Received.GetPayerId(), Stream: claimStream(st.Received.GetClaimId()), Revision: revision, Field: field,
	}, plain)
	if err != nil {
		return nil, sealProblem(err)
	}
	return box, nil
}

// pendedAdjustment tells whether the claim waits and takes another's place:
// deciding it would take the other back, which only a review does.
func (s *Service) pendedAdjustment(ctx context.Context, state State) bool {
	if !state.Case.Pended() {
		return false
	}
	claim, err := s.openClaim(ctx, state)
	return err != nil || claim.GetFrequencyCode() != "1"
}

// decideWith decides one claim again after a lead's facts, and with it the
// later claims of its family that move.
func (s *Service) decideWith(ctx context.Context, caller identity.Principal, state State, l *lead, why cause) error {
	r := reprocessing{service: s, subscriber: state.Received.GetSubscriber(), actor: caller.Subject, cause: why, lead: l}
	return r.run(ctx, []State{state}, &claimsv1.ReprocessClaimsResponse{})
}

// lapse denies a claim for which everything that was asked for was asked in
// vain: with the codes of what is missing, as a refusing reviewer would.
func (s *Service) lapse(ctx context.Context, claim string) error {
	atLeast := eventstore.NoStream
	for range decideAttempts {
		state, _, err := s.readClaim(ctx, claim, atLeast)
		if err != nil || !state.Case.Lapsed() {
			return err
		}
		revision := itoa(uint32(state.Revision)) //nolint:gosec // far below 2³²
		_, _, err = s.resolve(ctx, resolving{
			claim: claim, resolution: "deny", reason: "what was asked for was refused or did not come in time",
			actor: deadlineActor, reviewer: deadlineActor, request: s.index.ID("lps", claim, revision), system: true,
		}, state)
		var moved *eventstore.ConflictError
		if errors.As(err, &moved) {
			if moved.Stream == claimStream(claim) {
				atLeast = moved.Actual
			}
			continue
		}
		if err != nil {
			return err
		}
		s.watch.tell(claim)
		return nil
	}
	return busy(nil)
}

// AdvanceCase implements claimsv1connect.CaseServiceHandler. The service's own
// clock judges what is due: a workflow only wakes it.
func (s *Service) AdvanceCase(ctx context.Context, req *claimsv1.AdvanceCaseRequest) (*claimsv1.AdvanceCaseResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	_, caller, err := s.worker(ctx, "AdvanceCase", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	now := s.caseNow()
	state, _, err := s.readClaim(ctx, req.GetClaimId(), eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	for range decideAttempts {
		due := func(st State) []proto.Message {
			return st.Case.Due(now, s.config.Casework, func(k claimsv1.InformationKind) string { return s.informationID(req.GetClaimId(), k, st) })
		}
		if len(due(state)) == 0 {
			break
		}
		state, _, err = s.do(ctx, work{
			claim: req.GetClaimId(), actor: caller.Subject, request: s.index.ID("adv", req.GetClaimId(), itoa(uint32(state.Revision))), //nolint:gosec // far below 2³²
			decide: func(_ context.Context, st State) ([]proto.Message, error) { return due(st), nil },
		})
		if err != nil {
			return nil, err
		}
	}
	if state.Case.Lapsed() {
		if err := s.Ready(ctx); err != nil {
			return nil, err
		}
		if err := s.lapse(ctx, req.GetClaimId()); err != nil {
			return nil, err
		}
		if state, _, err = s.readClaim(ctx, req.GetClaimId(), state.Revision); err != nil {
			return nil, err
		}
	}
	return &claimsv1.AdvanceCaseResponse{Case: s.caseOf(state), Now: timestamppb.New(s.now())}, nil
}

// FileAppeal implements claimsv1connect.CaseServiceHandler.
func (s *Service) FileAppeal(ctx context.Context, req *claimsv1.FileAppealRequest) (*claimsv1.FileAppealResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	_, caller, err := s.worker(ctx, "FileAppeal", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	if req.GetGrounds() == "" || req.GetRequestId() == "" {
		return nil, problem.Invalidf("claims.appeal.grounds", "grounds", "an appeal has a request id and says why the decision is wrong")
	}
	id := s.index.ID("apl", req.GetClaimId(), caller.Org, req.GetRequestId())
	state, token, err := s.do(ctx, work{
		claim: req.GetClaimId(), actor: caller.Subject, request: s.workID("FileAppeal", req.GetClaimId(), caller, req.GetRequestId()),
		decide: func(ctx context.Context, st State) ([]proto.Message, error) {
			if st.Case.Appeal(id) != nil {
				return nil, nil
			}
			appeal, err := st.Case.File(id, caller.Subject, req.GetExpedited(), s.caseNow(), s.config.Casework)
			if err != nil {
				return nil, err
			}
			box, err := s.sealFor(ctx, st, uint64(st.Revision+1), fieldGrounds, []byte(req.GetGrounds()))
			if err != nil {
				return nil, err
			}
			return []proto.Message{&eventsv1.AppealFiled{
				ClaimId: req.GetClaimId(), PayerId: st.Received.GetPayerId(), SubmitterOrg: st.Received.GetSubmitterOrg(), Appeal: appeal, Grounds: box,
			}}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	return &claimsv1.FileAppealResponse{Appeal: state.Case.Appeal(id), Token: token}, nil
}

// DecideAppeal implements claimsv1connect.CaseServiceHandler. An appeal that
// overturns is one commit: its decision, the reversal of the old one, the new
// one, and what of the family's later claims moves with it.
func (s *Service) DecideAppeal(ctx context.Context, req *claimsv1.DecideAppealRequest) (*claimsv1.DecideAppealResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	state, caller, err := s.worker(ctx, "DecideAppeal", req.GetClaimId())
	if err == nil {
		err = s.Ready(ctx)
	}
	if err != nil {
		return nil, err
	}
	overturns := req.GetOutcome() == casework.Overturned
	switch {
	case req.GetReason() == "" || req.GetRequestId() == "":
		return nil, problem.Invalidf("claims.appeal.reason", "reason", "a decision on an appeal has a request id and gives a reason")
	case !overturns && (req.GetOutcome() != casework.Upheld || len(req.GetOverturned()) > 0):
		return nil, problem.Invalidf("claims.appeal.outcome", "outcome", "an appeal is overturned, then findings may be named, or upheld, then none are")
	}
	key := s.workID("DecideAppeal", req.GetClaimId(), caller, req.GetRequestId())
	facts := func(ctx context.Context, st State) ([]proto.Message, error) {
		return s.appealFacts(ctx, st, caller, req, key)
	}
	token := ""
	// Asked here already: a claim that holds no more isn't decided again, and an
	// appeal of it would seem to be answered.
	if !state.Handled[key] {
		if err := state.Case.MayHear(req.GetAppealId(), caller.Subject); err != nil {
			return nil, err
		}
	}
	switch {
	case state.Handled[key]:
	case overturns:
		why := cause{reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED, run: s.index.ID("rpr", key), word: "appeal"}
		err = s.decideWith(ctx, caller, state, &lead{claim: req.GetClaimId(), facts: facts, must: true}, why)
	default:
		_, token, err = s.do(ctx, work{claim: req.GetClaimId(), actor: caller.Subject, request: key, decide: facts})
	}
	if err != nil {
		return nil, err
	}
	if state, _, err = s.readClaim(ctx, req.GetClaimId(), eventstore.NoStream); err != nil {
		return nil, err
	}
	if token == "" {
		token = state.DecidedAt.Token()
	}
	return &claimsv1.DecideAppealResponse{Appeal: state.Case.Appeal(req.GetAppealId()), Claim: state.Summary(), Token: token}, nil
}

// appealFacts is the event of an appeal's decision, sealed for its place.
func (s *Service) appealFacts(ctx context.Context, st State, caller identity.Principal, req *claimsv1.DecideAppealRequest, key string) ([]proto.Message, error) {
	if err := st.Case.MayHear(req.GetAppealId(), caller.Subject); err != nil {
		return nil, err
	}
	e := &eventsv1.AppealDecided{
		ClaimId: req.GetClaimId(), PayerId: st.Received.GetPayerId(), SubmitterOrg: st.Received.GetSubmitterOrg(), AppealId: req.GetAppealId(),
		Outcome: req.GetOutcome(), Decider: caller.Subject, DecidedTime: timestamppb.New(s.now()), RequestKey: key, Overturned: req.GetOverturned(),
	}
	if e.GetOutcome() == casework.Overturned && len(e.GetOverturned()) == 0 {
		decision, err := s.openDecision(ctx, st)
		if err != nil {
			return nil, err
		}
		e.Overturned = denials(decision)
	}
	var err error
	e.Reason, err = s.sealFor(ctx, st, uint64(st.Revision+1), fieldReason, []byte(req.GetReason()))
	return []proto.Message{e}, err
}

// denials are the findings by which a decision's lines pay nothing and which a
// person may judge otherwise.
func denials(d *claimsv1.Decision) []*claimsv1.Finding {
	var out []*claimsv1.Finding
	for _, l := range d.GetLines() {
		for _, a := range l.GetAdjustments() {
			if l.GetAllowedCents() == 0 && adjudication.Judgement(a.GetRuleId()) {
				out = append(out, &claimsv1.Finding{RuleId: a.GetRuleId(), Line: l.GetNumber()})
			}
		}
	}
	return out
}
