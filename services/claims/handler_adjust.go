package claims

import (
	"cmp"
	"context"
	"errors"
	"slices"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// VoidClaim implements claimsv1connect.AdjustmentServiceHandler: it submits
// the claim again with frequency code 8, so that a void by RPC and one in a
// file are the same fact.
func (s *Service) VoidClaim(ctx context.Context, req *claimsv1.VoidClaimRequest) (*claimsv1.VoidClaimResponse, error) {
	state, _, err := s.visible(ctx, "VoidClaim", req.GetClaimId())
	if err != nil {
		return nil, err
	}
	claim, err := s.openClaim(ctx, state)
	if err != nil {
		return nil, err
	}
	claim.FrequencyCode, claim.OriginalClaimNumber = frequencyVoid, req.GetClaimId()
	subs, err := s.submit(ctx, "VoidClaim", []*claimsv1.SubmitClaimRequest{{RequestId: req.GetRequestId(), Claim: claim}})
	switch {
	case err != nil:
		return nil, err
	case subs[0].err != nil:
		return nil, subs[0].err
	case len(subs[0].result.GetProblems()) > 0:
		refused := &problem.Error{Kind: problem.Conflict}
		for _, p := range subs[0].result.GetProblems() {
			refused.Problems = append(refused.Problems, problem.Problem{RuleID: p.GetRuleId(), FieldPath: p.GetFieldPath(), Code: p.GetCode(), Message: p.GetMessage(), Fix: p.GetFix()})
		}
		return nil, refused
	}
	return &claimsv1.VoidClaimResponse{Claim: subs[0].result.GetClaim(), Token: subs[0].result.GetToken()}, nil
}

// ReprocessClaims implements claimsv1connect.AdjustmentServiceHandler. Each
// family is adjusted by itself, so a call that breaks off has adjusted some
// and is completed by repeating it.
func (s *Service) ReprocessClaims(ctx context.Context, req *claimsv1.ReprocessClaimsRequest) (*claimsv1.ReprocessClaimsResponse, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	if n := len(req.GetClaimIds()); n == 0 || n > maxSubmissions || req.GetRequestId() == "" {
		return nil, problem.Invalidf("claims.reprocess.count", "claim_ids", "a call has a request id and names 1 to %d claims", maxSubmissions)
	}
	states, err := s.readClaims(ctx, req.GetClaimIds())
	if err != nil {
		return nil, err
	}
	families := map[string][]State{}
	var order []string
	for _, st := range states {
		if err := hide("claim", s.auth.Authorize(ctx, "ReprocessClaims", claimResource(st))); err != nil {
			return nil, err
		}
		subscriber := st.Received.GetSubscriber()
		if families[subscriber] == nil {
			order = append(order, subscriber)
		}
		families[subscriber] = append(families[subscriber], st)
	}
	// In one order whoever asks, so that two calls never wait for each other.
	slices.Sort(order)
	out := &claimsv1.ReprocessClaimsResponse{}
	for _, subscriber := range order {
		r := reprocessing{
			service: s, subscriber: subscriber, actor: caller.Subject, dryRun: req.GetDryRun(),
			cause: cause{reason: eventsv1.ReversalReason_REVERSAL_REASON_REPROCESSED, run: s.index.ID("rpr", caller.Org, req.GetRequestId()), word: req.GetCause()},
		}
		if err := r.run(ctx, families[subscriber], out); err != nil {
			return nil, err
		}
	}
	for _, c := range out.GetCorrections() {
		out.PaidDifferenceCents += c.GetPaidAfterCents() - c.GetPaidBeforeCents()
		out.PatientDifferenceCents += c.GetPatientAfterCents() - c.GetPatientBeforeCents()
	}
	return out, nil
}

// reprocessing decides the named claims of one family again.
type reprocessing struct {
	service    *Service
	subscriber string
	actor      string
	dryRun     bool
	cause      cause
	lead       *lead
	moved      revisions
}

func (r *reprocessing) run(ctx context.Context, named []State, out *claimsv1.ReprocessClaimsResponse) error {
	if err := r.family(ctx, named, out); err != nil || r.dryRun {
		return err
	}
	return r.service.reaskAll(ctx, named, out)
}

// family decides again what is named of the family, and what follows from it.
func (r *reprocessing) family(ctx context.Context, named []State, out *claimsv1.ReprocessClaimsResponse) error {
	s := r.service
	held, err := s.families.hold(ctx, r.subscriber)
	if err != nil {
		return err
	}
	defer s.families.release(held)
	touched := map[string]bool{}
	for _, st := range named {
		touched[st.Received.GetClaimId()] = true
	}
	payer := named[0].Received.GetPayerId()
	for range decideAttempts {
		am, rest, err := r.plan(ctx, held, payer, named, touched)
		if behind, ok := errors.AsType[*eventstore.ConflictError](err); ok {
			r.moved = r.moved.note(behind)
			continue
		}
		if err != nil {
			return err
		}
		if !r.dryRun {
			err = r.record(ctx, held, payer, am, rest)
			var conflict *eventstore.ConflictError
			if errors.As(err, &conflict) {
				r.moved = r.moved.note(conflict)
				continue
			}
			if err != nil {
				return err
			}
		}
		r.report(am, named, touched, out)
		return nil
	}
	return busy(nil)
}

// plan decides again what is named and what follows from it.
func (r *reprocessing) plan(ctx context.Context, held *entry[family], payer string, named []State, touched map[string]bool) (*amendment, string, error) {
	s := r.service
	// What is corrected is corrected on what the ledger says now.
	held.value.snapshot = nil
	read, err := s.families.load(ctx, held, payer, r.moved.atLeast(accumulatorStream(r.subscriber)))
	if err == nil && !r.dryRun {
		read, err = s.settleFamily(ctx, held, payer)
	}
	if err != nil {
		return nil, "", err
	}
	am := &amendment{found: read, after: read, cause: r.cause, lead: r.lead, unbounded: r.dryRun}
	rest, err := s.redecideAll(ctx, am, read.claimsAfter(""), func(id string) bool { return touched[id] }, r.moved)
	if err != nil || rest != "" {
		return am, rest, err
	}
	// Those that have no place yet, because they wait or were no member's, in
	// the order in which they were decided. A family's claims share a shard.
	unplaced := slices.Clone(named)
	slices.SortStableFunc(unplaced, func(a, b State) int { return cmp.Compare(a.DecidedAt.Index, b.DecidedAt.Index) })
	for _, st := range unplaced {
		if id := st.Received.GetClaimId(); read.standingOf(id) < 0 {
			if _, err := s.redecide(ctx, am, id, r.cause, r.moved); err != nil {
				return am, "", err
			}
		}
	}
	return am, "", nil
}

// record appends an amendment and, where it wasn't all, what follows.
func (r *reprocessing) record(ctx context.Context, held *entry[family], payer string, am *amendment, rest string) error {
	s := r.service
	if rest != "" {
		if err := am.post(&eventsv1.AccumulatorsPosted{UnsettledFrom: rest}, nil); err != nil {
			return err
		}
	}
	id := s.index.ID("rpc", append([]string{r.cause.run, r.subscriber, itoa(uint32(am.found.Revision + 1))}, am.amendedIDs()...)...)
	if err := s.appendAmendment(ctx, held, am, id, r.actor); err != nil || rest == "" {
		return err
	}
	_, err := s.settleFamily(ctx, held, payer)
	return err
}

// report tells what an amendment corrects and what earlier calls of the same
// request have corrected of the named claims.
func (r *reprocessing) report(am *amendment, named []State, touched map[string]bool, out *claimsv1.ReprocessClaimsResponse) {
	told := map[string]bool{}
	for _, c := range am.claims {
		if c.reaffirmed {
			continue
		}
		id := c.state.Received.GetClaimId()
		told[id] = true
		out.Corrections = append(out.Corrections, &claimsv1.Correction{
			ClaimId: id, StatusBefore: c.state.Status(), StatusAfter: c.decision.GetStatus(), AccumulatorsMoved: !touched[id],
			PaidBeforeCents: c.state.Decided.GetPaidCents(), PaidAfterCents: c.decision.GetPaidCents(),
			PatientBeforeCents: c.state.Decided.GetPatientCents(), PatientAfterCents: c.decision.GetPatientCents(),
		})
	}
	for _, st := range named {
		last := len(st.Corrections) - 1
		if id := st.Received.GetClaimId(); last >= 0 && !told[id] && st.Corrections[last].GetRunId() == r.cause.run {
			was := st.Corrections[last]
			out.Corrections = append(out.Corrections, &claimsv1.Correction{
				ClaimId: id, StatusBefore: was.GetStatus(), StatusAfter: st.Status(),
				PaidBeforeCents: was.GetPaidCents(), PaidAfterCents: st.Decided.GetPaidCents(),
				PatientBeforeCents: was.GetPatientCents(), PatientAfterCents: st.Decided.GetPatientCents(),
			})
		}
	}
	for _, c := range am.waiting {
		out.Waiting = append(out.Waiting, &claimsv1.WaitingCorrection{ClaimId: c.state.Received.GetClaimId(), PendReasons: c.decision.GetPendReasons()})
	}
}

// ListAffectedClaims implements claimsv1connect.AdjustmentServiceHandler. It
// may list a claim too many, which ReprocessClaims then leaves as it is.
func (s *Service) ListAffectedClaims(ctx context.Context, req *claimsv1.ListAffectedClaimsRequest) (*claimsv1.ListAffectedClaimsResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.auth.Authorize(ctx, "ListAffectedClaims", identity.Resource{Type: identity.Claim, Payer: req.GetPayerId()}); err != nil {
		return nil, err
	}
	index, first := readIndex(req.GetVersion()), []string(nil)
	if sub := req.GetSubscriber(); sub != "" {
		if !isID("sub", sub) {
			return nil, problem.Invalidf("claims.subscriber", "subscriber", "the subscriber is no opaque subscriber id")
		}
		index = noMemberIndex(sub)
		// The family's claims come before those that were no member's, on the first page.
		if req.GetPageToken() == "" {
			if first, err = s.familysClaims(ctx, req.GetPayerId(), sub); err != nil {
				return nil, err
			}
		}
	}
	reading, err := s.view.At(ctx, req.GetMinToken())
	if err != nil {
		return nil, err
	}
	rows, next, err := pageOf(ctx, reading, listing[*claimsv1.ClaimSummary]{
		kind: kindClaims, indexes: []string{index}, ascending: true, size: int(req.GetPageSize()),
		filter: filterOf(caller, "affected", req.GetPayerId(), index), token: req.GetPageToken(), row: claimRow,
		keep: func(c *claimsv1.ClaimSummary) bool {
			st := c.GetStatus()
			return c.GetPayerId() == req.GetPayerId() && !slices.Contains(first, c.GetClaimId()) &&
				(st == claimsv1.ClaimStatus_CLAIM_STATUS_PAID || st == claimsv1.ClaimStatus_CLAIM_STATUS_DENIED)
		},
	})
	if err != nil {
		return nil, err
	}
	out := &claimsv1.ListAffectedClaimsResponse{ClaimIds: first, NextPageToken: next}
	for _, c := range rows {
		out.ClaimIds = append(out.ClaimIds, c.GetClaimId())
	}
	return out, nil
}

// familysClaims are the claims that stand of a family, in its order.
func (s *Service) familysClaims(ctx context.Context, payer, subscriber string) ([]string, error) {
	held, err := s.families.hold(ctx, subscriber)
	if err != nil {
		return nil, err
	}
	defer s.families.release(held)
	held.value.snapshot = nil
	read, err := s.families.load(ctx, held, payer, eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	return read.claimsAfter(""), nil
}

// maxChain bounds how many claims of a chain of replacements are told.
const maxChain = 100

// GetClaimHistory implements claimsv1connect.AdjustmentServiceHandler.
func (s *Service) GetClaimHistory(ctx context.Context, req *claimsv1.GetClaimHistoryRequest) (*claimsv1.GetClaimHistoryResponse, error) {
	type link struct {
		state  State
		events []eventstore.Recorded
	}
	load := func(id string) (link, error) {
		state, events, err := s.visible(ctx, "GetClaimHistory", id)
		return link{state, events}, err
	}
	asked, err := load(req.GetClaimId())
	if err != nil {
		return nil, err
	}
	chain := []link{asked}
	for id := asked.state.original(); id != "" && len(chain) < maxChain; {
		l, err := load(id)
		if err != nil {
			return nil, err
		}
		chain, id = append([]link{l}, chain...), l.state.original()
	}
	for id := asked.state.Reversed.GetByClaimId(); id != "" && len(chain) < maxChain; {
		l, err := load(id)
		if err != nil {
			return nil, err
		}
		chain, id = append(chain, l), l.state.Reversed.GetByClaimId()
	}
	out := &claimsv1.GetClaimHistoryResponse{}
	for _, l := range chain {
		out.Claims = append(out.Claims, l.state.Summary())
		for _, e := range l.events {
			for _, told := range Timeline([]eventstore.Recorded{e}) {
				entry := &claimsv1.HistoryEntry{ClaimId: l.state.Received.GetClaimId(), Entry: told}
				if m, ok := e.Event.(*eventsv1.ClaimRemitted); ok {
					entry.RemittanceId = m.GetRemittanceId()
				}
				out.Entries = append(out.Entries, entry)
			}
		}
	}
	// The claims of a chain share a shard, so their commits are in one order.
	slices.SortStableFunc(out.Entries, func(a, b *claimsv1.HistoryEntry) int {
		return int(int64(a.GetEntry().GetPosition().GetIndex()) - int64(b.GetEntry().GetPosition().GetIndex())) //nolint:gosec // indexes are far below 2⁶³
	})
	return out, nil
}

// original is the claim that this one took the place of; empty for none.
func (s State) original() string {
	if s.Decided.GetVersions().GetOriginalStands() {
		return ""
	}
	return s.Decided.GetVersions().GetOriginalClaimId()
}
