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
	if req.GetRequestId() == "" {
		return nil, problem.Invalidf("remittances.request-id", "request_id", "the request has no request id")
	}
	run := s.index.ID("run", req.GetFileId(), req.GetRequestId())
	var known map[string]State // as planned
	_, revision, err := s.changeFile(ctx, "CreateRemittances", req.GetFileId(), func(f *FileRecord) ([]proto.Message, error) {
		if f.Run(run) != nil {
			return nil, nil
		}
		var ids []string
		var err error
		if ids, known, err = s.plan(ctx, caller, f, run); err != nil {
			return nil, err
		}
		return f.Plan(run, ids)
	})
	if err != nil {
		return nil, err
	}
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	record, err := s.fileNow(ctx, req.GetFileId(), revision)
	if err != nil {
		return nil, err
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

// plan records the plans of a run's remittances and returns their ids and the
// claims as it found them. A plan that an earlier, broken-off attempt has
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
	states, err := s.readClaims(ctx, claims)
	if err != nil {
		return nil, nil, err
	}
	// An outcome may name a claim of this file only, and one claim once.
	known := make(map[string]State, len(states))
	states = slices.DeleteFunc(states, func(c State) bool {
		id := c.Received.GetClaimId()
		_, again := known[id]
		known[id] = c
		return again || c.Received.GetFileId() != f.File.GetFileId()
	})
	planned := PlanRemittances(s.index, f.File, run, s.day(s.now()).String(), s.config.RemittanceClaims, states)
	commits := make([]eventstore.Commit, len(planned))
	ids := make([]string, len(planned))
	for i, m := range planned {
		ids[i] = m.GetRemittanceId()
		commits[i] = eventstore.Commit{
			Log: logName, RoutingKey: ids[i], RequestID: ids[i] + "/plan", Causation: f.File.GetFileId(), Actor: caller.Subject,
			Writes: []eventstore.Write{{Stream: remittanceStream(ids[i]), Expected: eventstore.NoStream, Events: []proto.Message{&eventsv1.RemittancePlanned{Remittance: m}}}},
		}
	}
	for i, o := range s.appendAll(ctx, commits) {
		if _, planned := asMoved(o.Err, remittanceStream(ids[i]), 0); o.Err != nil && !planned {
			return nil, nil, o.Err
		}
	}
	return ids, known, nil
}

// complete marks a planned remittance's claims and issues it. known claims are
// not read before they are marked; it takes out those that it has used.
func (s *Service) complete(ctx context.Context, caller identity.Principal, id string, known map[string]State) (*claimsv1.Remittance, error) {
	for n, atLeast := 0, int64(0); n < decideAttempts; n++ {
		record, err := s.readRemittance(ctx, id, atLeast)
		if err != nil || record.Issued != nil {
			return record.Issued, err
		}
		states, err := s.mark(ctx, caller, id, record.Planned.GetClaimIds(), known)
		if err != nil {
			return nil, err
		}
		event, err := IssueRemittance(record, states)
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

// mark puts the remittance's mark on those claims that bear none, and returns
// all of them marked. What is known of a claim may be old: the ledger refuses
// a mark at another revision, and the claim is read then.
func (s *Service) mark(ctx context.Context, caller identity.Principal, id string, claims []string, known map[string]State) ([]State, error) {
	states, err := s.claimsKnown(ctx, claims, known)
	if err != nil {
		return nil, err
	}
	for range decideAttempts {
		var open []int
		var commits []eventstore.Commit
		for i, st := range states {
			if st.Remitted != nil {
				continue
			}
			events, err := Decide(st, Remit{RemittanceID: id})
			if err != nil {
				return nil, err
			}
			open = append(open, i)
			commits = append(commits, eventstore.Commit{
				Log: logName, RoutingKey: claimKey(claims[i]), RequestID: claims[i] + "/remit/" + id, Causation: id, Actor: caller.Subject,
				Writes: []eventstore.Write{{Stream: claimStream(claims[i]), Expected: st.Revision, Events: events}},
			})
		}
		if len(open) == 0 {
			return states, nil
		}
		for n, o := range s.appendAll(ctx, commits) {
			i := open[n]
			moved, ok := asMoved(o.Err, claimStream(claims[i]), states[i].Revision+1)
			switch {
			case ok:
				if states[i], _, err = s.readClaim(ctx, claims[i], moved.Actual); err != nil {
					return nil, err
				}
			case o.Err != nil:
				return nil, o.Err
			default:
				states[i] = Evolve(states[i], eventstore.Recorded{
					Position: o.Appended.Position, Revision: uint64(states[i].Revision + 1), Event: commits[n].Writes[0].Events[0],
				})
				s.watch.tell(claims[i])
			}
		}
	}
	return nil, busy(nil)
}

// claimsKnown takes claims out of known, as far as they are there and bear no
// mark, and reads the others.
func (s *Service) claimsKnown(ctx context.Context, ids []string, known map[string]State) ([]State, error) {
	states := make([]State, len(ids))
	var unknown []string
	var places []int
	for i, id := range ids {
		if state, ok := known[id]; ok && state.Remitted == nil {
			states[i] = state
		} else {
			unknown, places = append(unknown, id), append(places, i)
		}
		delete(known, id)
	}
	read, err := s.readClaims(ctx, unknown)
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
	states, failed := make([]State, len(ids)), make([]error, len(ids))
	inParallel(len(ids), readers, func(i int) {
		states[i], _, failed[i] = s.readClaim(ctx, ids[i], eventstore.NoStream)
	})
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
	states, err := s.readClaims(ctx, m.GetClaimIds())
	if err != nil {
		return nil, err
	}
	out := &claimsv1.GetRemittanceResponse{Remittance: m, Claims: make([]*claimsv1.RemittedClaim, len(states))}
	failed := make([]error, len(states))
	inParallel(len(states), s.workers, func(i int) { out.Claims[i], failed[i] = s.remitted(ctx, states[i]) })
	for _, err := range failed {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (s *Service) remitted(ctx context.Context, state State) (*claimsv1.RemittedClaim, error) {
	claim, err := s.openClaim(ctx, state)
	if err != nil {
		return nil, err
	}
	decision, err := s.openDecision(ctx, state)
	if err != nil {
		return nil, err
	}
	return &claimsv1.RemittedClaim{
		ClaimId: state.Received.GetClaimId(), Submitted: claim, Decision: decision, ReceivedTime: state.Received.GetReceivedTime(),
	}, nil
}
