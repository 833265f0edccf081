package claims

import (
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// CreateRemittances implements claimsv1connect.RemittanceServiceHandler. A
// call that broke off is completed by the next one over the same file,
// whatever its request id; the same request id answers with the same
// remittances.
func (s *Service) CreateRemittances(ctx context.Context, req *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error) {
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	switch {
	case req.GetRequestId() == "":
		return nil, problem.Invalidf("remittances.request-id", "request_id", "the request has no request id")
	case (req.GetFileId() == "") == (req.GetPayerId() == ""):
		return nil, problem.Invalidf("remittances.scope", "file_id", "remittances are made for a file or, as a payment cycle, for a payer: name one of them")
	case req.GetPayerId() != "":
		return s.createCycle(ctx, caller, req)
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	run := s.index.ID("run", req.GetFileId(), req.GetRequestId())
	// Planning reads every claim of the file, so it works on a record of its
	// own: who asks for the file meanwhile doesn't wait. Another call of the
	// same run that was faster has planned the same remittances, and its plan stands.
	record, err := s.fileNow(ctx, req.GetFileId(), eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	if err := s.authorizeFile(ctx, "CreateRemittances", req.GetFileId(), record); err != nil {
		return nil, err
	}
	var known map[string]State // as planned
	if record.Run(run) == nil {
		var ids []string
		if ids, known, err = s.plan(ctx, caller, record, run); err != nil {
			return nil, err
		}
		_, revision, err := s.changeFile(ctx, "CreateRemittances", req.GetFileId(), func(f *FileRecord) ([]proto.Message, error) { return f.Plan(run, ids) })
		if err != nil {
			return nil, err
		}
		if record, err = s.fileNow(ctx, req.GetFileId(), revision); err != nil {
			return nil, err
		}
	}
	out := &claimsv1.CreateRemittancesResponse{}
	for _, r := range record.Runs {
		for _, id := range r.GetRemittanceIds() {
			issued, err := s.complete(ctx, caller, id, known)
			if err != nil {
				return nil, err
			}
			if r.GetRequestId() == run && len(issued.GetClaimIds()) > 0 {
				out.Remittances = append(out.Remittances, issued)
			}
		}
	}
	return out, nil
}

// plan records the plans of a run's remittances and returns their ids and some
// of the claims as it found them. A plan that an earlier, broken-off attempt has
// recorded stands as it is.
func (s *Service) plan(ctx context.Context, caller identity.Principal, f *FileRecord, run string) ([]string, map[string]State, error) {
	if err := f.open(); err != nil {
		return nil, nil, err
	}
	var claims []string
	for _, o := range f.Ordered() {
		if o.GetClaimId() != "" {
			claims = append(claims, o.GetClaimId())
		}
	}
	known, tell := map[string]State{}, make([]tellable, 0, len(claims))
	var originals []string
	seen := make(map[string]bool, len(claims))
	take := func(c State) {
		// What is kept spares marking a read; a file of any size isn't kept whole.
		if len(known) < planKnown {
			known[c.Received.GetClaimId()] = c
		}
		tell = append(tell, tellableOf(c))
	}
	for part := range slices.Chunk(claims, planPart) {
		states, err := s.readUnsealed(ctx, part)
		if err != nil {
			return nil, nil, err
		}
		for _, c := range states {
			// An outcome may name a claim of this file only, and one claim once.
			id := c.Received.GetClaimId()
			again := seen[id]
			if seen[id] = true; again || c.Received.GetFileId() != f.File.GetFileId() {
				continue
			}
			if id := c.original(); id != "" {
				originals = append(originals, id)
			}
			take(c)
		}
	}
	// What the file's claims took back, of whichever file that was, is told with them.
	originals = slices.DeleteFunc(originals, func(id string) bool { return seen[id] })
	taken, err := s.readUnsealed(ctx, originals)
	if err != nil {
		return nil, nil, err
	}
	for _, c := range taken {
		take(c)
	}
	file := f.File.GetFileId()
	ids, err := s.recordPlans(ctx, caller, planRemittances(s.index, scope{name: file, file: file, run: run, date: s.day(s.now()).String()}, s.config.RemittanceClaims, tell))
	return ids, known, err
}

// planPart is how many claims a plan reads before it lets go of what it need
// not keep of them.
const planPart = 5_000

// planKnown is how many claims a plan keeps until they are marked, some 60 MB
// of them.
const planKnown = 20_000

// recordPlans puts plans on the ledger and returns their ids, in order.
func (s *Service) recordPlans(ctx context.Context, caller identity.Principal, planned []*eventsv1.RemittancePlanned) ([]string, error) {
	commits := make([]eventstore.Commit, len(planned))
	ids := make([]string, len(planned))
	for i, p := range planned {
		ids[i] = p.GetRemittance().GetRemittanceId()
		commits[i] = eventstore.Commit{
			Log: logName, RoutingKey: ids[i], RequestID: ids[i] + "/plan", Causation: p.GetRemittance().GetFileId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: remittanceStream(ids[i]), Expected: eventstore.NoStream, Events: []proto.Message{p}}},
		}
	}
	for i, o := range s.appendAll(ctx, commits) {
		if _, planned := asMoved(o.Err, remittanceStream(ids[i]), 0); o.Err != nil && !planned {
			return nil, o.Err
		}
	}
	return ids, nil
}

// complete marks a planned remittance's claims and issues it. known claims are
// not read before they are marked; it takes out those that it has used.
func (s *Service) complete(ctx context.Context, caller identity.Principal, id string, known map[string]State) (*claimsv1.Remittance, error) {
	for n, atLeast := 0, int64(0); n < decideAttempts; n++ {
		record, err := s.readRemittance(ctx, id, atLeast)
		if err != nil || record.Issued != nil {
			return record.Issued, err
		}
		marks, err := s.mark(ctx, caller, record, known)
		if err != nil {
			return nil, err
		}
		account, err := s.postAccount(ctx, caller, record.Planned, marks)
		if err != nil {
			return nil, err
		}
		event, err := issueRemittance(record, marks, account)
		if err != nil {
			return nil, err
		}
		done, err := s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: id, RequestID: id + "/issue", Causation: record.Planned.GetFileId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: remittanceStream(id), Expected: record.Revision, Events: []proto.Message{event}}},
		})
		moved, ok := asMoved(err, remittanceStream(id), record.Revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return nil, err
		default:
			out := proto.CloneOf(event.GetRemittance())
			out.Position = positionProto(done.Position)
			return out, nil
		}
	}
	return nil, busy(nil)
}

// mark puts the remittance's mark on those planned claims that still have to
// tell what was planned, and returns the marks of all that bear it. What is
// known of a claim may be old: the ledger refuses a mark at another revision,
// and the claim is read then.
func (s *Service) mark(ctx context.Context, caller identity.Principal, record RemittanceRecord, known map[string]State) ([]*eventsv1.ClaimRemitted, error) {
	id := record.Planned.GetRemittanceId()
	remit := Remit{RemittanceID: id, PaymentDate: record.Planned.GetPaymentDate(), Rates: s.rates}
	states, err := s.claimsKnown(ctx, record.Planned.GetClaimIds(), known)
	if err != nil {
		return nil, err
	}
	// A claim that was marked may have been corrected and remitted again since:
	// its mark is in its stream, and not in its state.
	marks := make([]*eventsv1.ClaimRemitted, len(states))
	for range decideAttempts {
		var open []int
		var commits []eventstore.Commit
		for i, st := range states {
			if planned := int64(record.Claims[i].GetRevision()); st.Revision < planned {
				// Read from a replica that lags: it must not be taken for a claim that has moved on.
				if st, _, err = s.readClaim(ctx, record.Claims[i].GetClaimId(), planned); err != nil {
					return nil, err
				}
				states[i] = st
			}
			if marks[i] = st.marks[id]; marks[i] != nil {
				continue
			}
			e, ok := takes(st, record.Claims[i], remit)
			if !ok {
				continue
			}
			open = append(open, i)
			claim := e.GetClaimId()
			commits = append(commits, eventstore.Commit{
				Log: logName, RoutingKey: claimKey(claim), RequestID: claim + "/remit/" + id, Causation: id, Actor: caller.Subject,
				Writes: []eventstore.Write{{Stream: claimStream(claim), Expected: st.Revision, Events: []proto.Message{e}}},
			})
		}
		if len(open) == 0 {
			return slices.DeleteFunc(marks, func(m *eventsv1.ClaimRemitted) bool { return m == nil }), nil
		}
		for n, o := range s.appendAll(ctx, commits) {
			i := open[n]
			claim := states[i].Received.GetClaimId()
			moved, ok := asMoved(o.Err, claimStream(claim), states[i].Revision+1)
			switch {
			case ok:
				if states[i], _, err = s.readClaim(ctx, claim, moved.Actual); err != nil {
					return nil, err
				}
			case o.Err != nil:
				return nil, o.Err
			default:
				states[i] = Evolve(states[i], eventstore.Recorded{
					Position: o.Appended.Position, Revision: uint64(states[i].Revision + 1), Event: commits[n].Writes[0].Events[0],
				})
				s.recent.drop(claim)
				s.watch.tell(claim)
			}
		}
	}
	return nil, busy(nil)
}

// postAccount posts a remittance to its payee's account, once. A remittance
// that no claim went into leaves no trace there.
func (s *Service) postAccount(ctx context.Context, caller identity.Principal, m *claimsv1.Remittance, marks []*eventsv1.ClaimRemitted) (*eventsv1.PayeeAccountPosted, error) {
	if len(marks) == 0 {
		return nil, nil
	}
	net := int64(0)
	for _, mark := range marks {
		net += mark.GetPaidCents() + mark.GetInterestCents()
	}
	stream := accountStream(s.index, m.GetPayerId(), m.GetPayeeNpi())
	for n, atLeast := 0, eventstore.NoStream; n < decideAttempts; n++ {
		events, err := readAtLeast(ctx, s.store, stream, stream, eventstore.NoStream, atLeast)
		if err != nil {
			return nil, err
		}
		account := foldAccount(events)
		if e := account.posted[m.GetRemittanceId()]; e != nil {
			return e, nil
		}
		e := account.post(m, net)
		_, err = s.store.Append(ctx, eventstore.Commit{
			Log: logName, RoutingKey: stream, RequestID: m.GetRemittanceId() + "/account", Causation: m.GetRemittanceId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: stream, Expected: account.Revision, Events: []proto.Message{e}}},
		})
		moved, ok := asMoved(err, stream, account.Revision+1)
		switch {
		case ok:
			atLeast = moved.Actual
		case err != nil:
			return nil, err
		default:
			return e, nil
		}
	}
	return nil, busy(nil)
}

// claimsKnown takes claims out of known, as far as they are there, and reads
// the others.
func (s *Service) claimsKnown(ctx context.Context, ids []string, known map[string]State) ([]State, error) {
	states := make([]State, len(ids))
	var unknown []string
	var places []int
	for i, id := range ids {
		if state, ok := known[id]; ok {
			states[i] = state
		} else {
			unknown, places = append(unknown, id), append(places, i)
		}
		delete(known, id)
	}
	read, err := s.readUnsealed(ctx, unknown)
	for n, state := range read {
		states[places[n]] = state
	}
	return states, err
}

// readers is how many claims are asked for at once: they wait for the ledger
// rather than work, and reads that wait together share a call.
const readers = 256

// readClaims loads claims beside each other, in the order given.
func (s *Service) readClaims(ctx context.Context, ids []string) ([]State, error) {
	return s.eachClaim(ids, func(id string) (State, error) {
		state, _, err := s.readClaim(ctx, id, eventstore.NoStream)
		return state, err
	})
}

// eachClaim calls read for claims beside each other, and fails where one fails.
func (s *Service) eachClaim(ids []string, read func(id string) (State, error)) ([]State, error) {
	states, failed := make([]State, len(ids)), make([]error, len(ids))
	inParallel(len(ids), readers, func(i int) { states[i], failed[i] = read(ids[i]) })
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return states, nil
}

func (s *Service) readRemittance(ctx context.Context, id string, atLeast int64) (RemittanceRecord, error) {
	if !isID("rem", id) {
		return RemittanceRecord{}, notFound("remittance")
	}
	events, err := readAtLeast(ctx, s.store, id, remittanceStream(id), eventstore.NoStream, atLeast)
	if err != nil {
		return RemittanceRecord{}, err
	}
	return FoldRemittance(events), nil
}

// GetRemittance implements claimsv1connect.RemittanceServiceHandler: the
// claims and decisions unsealed, as the 835 needs them.
func (s *Service) GetRemittance(ctx context.Context, req *claimsv1.GetRemittanceRequest) (*claimsv1.GetRemittanceResponse, error) {
	record, err := s.readRemittance(ctx, req.GetRemittanceId(), eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	m := record.Issued
	if m == nil {
		return nil, notFound("remittance")
	}
	resource := identity.Resource{Type: identity.Remittance, ID: m.GetRemittanceId(), Org: m.GetSubmitterOrg(), Payer: m.GetPayerId()}
	if err := hide("remittance", s.auth.Authorize(ctx, "GetRemittance", resource)); err != nil {
		return nil, err
	}
	out := &claimsv1.GetRemittanceResponse{Remittance: m}
	told, failed := make([][]*claimsv1.RemittedClaim, len(m.GetClaimIds())), make([]error, len(m.GetClaimIds()))
	inParallel(len(told), readers, func(i int) { told[i], failed[i] = s.told(ctx, m.GetClaimIds()[i], m.GetRemittanceId()) })
	for i, err := range failed {
		if err != nil {
			return nil, err
		}
		out.Claims = append(out.Claims, told[i]...)
	}
	return out, nil
}

// told is what a remittance tells of a claim: a reversal, a decision, or one
// after the other.
func (s *Service) told(ctx context.Context, id, remittance string) ([]*claimsv1.RemittedClaim, error) {
	state, events, err := s.readClaim(ctx, id, eventstore.NoStream)
	if err != nil {
		return nil, err
	}
	mark := state.marks[remittance]
	if mark == nil {
		return nil, defect("remittances.unmarked", "a claim of a remittance doesn't bear its mark")
	}
	claim, err := s.openClaim(ctx, state)
	if err != nil {
		return nil, err
	}
	var out []*claimsv1.RemittedClaim
	for _, d := range []struct {
		revision uint64
		reversal bool
	}{{mark.GetReversedRevision(), true}, {mark.GetDecisionRevision(), false}} {
		if d.revision == 0 {
			continue
		}
		decision, err := s.openDecision(ctx, Fold(events[:d.revision+1]))
		if err != nil {
			return nil, err
		}
		out = append(out, &claimsv1.RemittedClaim{
			ClaimId: id, Submitted: claim, Decision: decision, ReceivedTime: state.Received.GetReceivedTime(), Reversal: d.reversal,
		})
	}
	if len(out) == 0 {
		return nil, defect("remittances.nothing", "a mark tells nothing of its claim")
	}
	out[len(out)-1].InterestCents = mark.GetInterestCents()
	return out, nil
}
