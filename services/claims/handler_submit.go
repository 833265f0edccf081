package claims

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

// maxSubmissions bounds one SubmitClaims, as its schema does.
const maxSubmissions = 500

// SubmitClaim implements claimsv1connect.ClaimsServiceHandler. A claim that
// can't be adjudicated is no error: the response says why.
func (s *Service) SubmitClaim(ctx context.Context, req *claimsv1.SubmitClaimRequest) (*claimsv1.SubmitClaimResponse, error) {
	subs, err := s.submit(ctx, "SubmitClaim", []*claimsv1.SubmitClaimRequest{req})
	if err != nil {
		return nil, err
	}
	return subs[0].result, subs[0].err
}

// SubmitClaims implements claimsv1connect.ClaimsServiceHandler.
func (s *Service) SubmitClaims(ctx context.Context, req *claimsv1.SubmitClaimsRequest) (*claimsv1.SubmitClaimsResponse, error) {
	if n := len(req.GetClaims()); n == 0 || n > maxSubmissions {
		return nil, problem.Invalidf("claims.submit.count", "claims", "a call brings 1 to %d claims", maxSubmissions)
	}
	subs, err := s.submit(ctx, "SubmitClaims", req.GetClaims())
	if err != nil {
		return nil, err
	}
	out := &claimsv1.SubmitClaimsResponse{Results: make([]*claimsv1.SubmitClaimResponse, len(subs))}
	basic := req.GetView() == claimsv1.SubmissionView_SUBMISSION_VIEW_BASIC
	for i, sub := range subs {
		if basic && sub.result != nil {
			sub.result.Decision, sub.result.Promise = nil, nil
		}
		if out.Results[i] = sub.result; sub.err != nil {
			own := problem.As(sub.err)
			if own.Kind == problem.Internal {
				s.log.ErrorContext(ctx, "a claim could not be decided", "rule", own.Problems[0].RuleID, "claim", sub.claimID, "cause", own.Cause)
			}
			out.Results[i] = &claimsv1.SubmitClaimResponse{Problems: problemProtos(own.Kind, own.Problems)}
		}
	}
	return out, nil
}

// submit takes requests through authorisation, checks and decision. Its error
// is the whole call's; each submission has a result or an error of its own.
func (s *Service) submit(ctx context.Context, action string, reqs []*claimsv1.SubmitClaimRequest) ([]*submission, error) {
	leave, err := s.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	caller, err := callerOf(ctx)
	if err != nil {
		return nil, err
	}
	// Deciding on half of the plans and members would deny what is covered.
	if err := s.Ready(ctx); err != nil {
		return nil, err
	}
	subs := make([]*submission, len(reqs))
	origins := map[string]origin{}
	for i, req := range reqs {
		from, known := origins[req.GetFileId()]
		if !known {
			if from, err = s.originOf(ctx, caller, req.GetFileId()); err != nil {
				return nil, err
			}
			if err := s.auth.Authorize(ctx, action, identity.Resource{Type: identity.Claim, Org: from.org}); err != nil {
				return nil, err
			}
			origins[req.GetFileId()] = from
		}
		subs[i] = &submission{request: req, org: from.org, actor: caller.Subject}
		if subs[i].received, subs[i].err = from.receivedAt(caller, req, s.now()); subs[i].err == nil {
			subs[i].name = submissionID(s.index, from.org, req.GetRequestId(), req.GetFileId(), req.GetFileOrdinal())
		}
	}
	faults := make([][]problem.Problem, len(subs))
	inParallel(len(subs), s.workers, func(i int) {
		if sub := subs[i]; sub.err == nil {
			if faults[i] = checkClaim(sub.claim()); len(faults[i]) == 0 {
				sub.err = s.identify(ctx, sub)
			}
		}
	})
	var refused []refusal
	pending := make([]*submission, 0, len(subs))
	for i, sub := range subs {
		switch {
		case len(faults[i]) > 0:
			refused = append(refused, refusal{sub, faults[i]})
		case !sub.done():
			pending = append(pending, sub)
		}
	}
	s.refuse(ctx, refused)
	s.takeKeys(ctx, pending)
	s.decideAll(ctx, pending)
	return subs, nil
}

// origin is where claims come from: an organisation's own call, or a file.
type origin struct {
	org  string
	file *claimsv1.File // nil for a call of its own
}

func (s *Service) originOf(ctx context.Context, caller identity.Principal, fileID string) (origin, error) {
	if fileID == "" {
		return origin{org: caller.Org}, nil
	}
	held, err := s.holdFile(ctx, fileID)
	if err != nil {
		return origin{}, err
	}
	defer s.files.release(held)
	if err := held.value.open(); err != nil {
		// Whose file it is comes before how it stands.
		if !held.value.Exists() || !identity.ScopeOf(caller).Includes(held.value.File.GetSubmitterOrg(), "") {
			return origin{}, notFound("file")
		}
		return origin{}, err
	}
	return origin{org: held.value.File.GetSubmitterOrg(), file: held.value.View()}, nil
}

// receivedAt is when the payer received a claim: with its file, or now. Only
// a service may say otherwise, or a sender could file in time after the time.
func (o origin) receivedAt(caller identity.Principal, req *claimsv1.SubmitClaimRequest, now time.Time) (time.Time, error) {
	switch {
	case o.file != nil:
		if req.GetFileOrdinal() >= o.file.GetClaimCount() {
			return time.Time{}, problem.Invalidf("claims.file.ordinal", "file_ordinal", "the file has %d claims, counted from 0", o.file.GetClaimCount())
		}
		return o.file.GetReceivedTime().AsTime(), nil
	case req.GetReceivedTime() == nil:
		return now, nil
	case !caller.Has(identity.RoleService):
		return time.Time{}, problem.Invalidf("claims.received-time.given", "received_time", "the time of receipt is the payer's to say; leave it empty")
	case !req.GetReceivedTime().IsValid() || req.GetReceivedTime().AsTime().After(now):
		return time.Time{}, problem.Invalidf("claims.received-time.future", "received_time", "the time of receipt lies in the future")
	}
	return req.GetReceivedTime().AsTime(), nil
}

// identify finds out whose claim it is, and so its id and routing.
func (s *Service) identify(ctx context.Context, sub *submission) error {
	c := sub.claim()
	var err error
	if sub.encoded, err = encode(c); err != nil {
		return err
	}
	sub.payer = c.GetPayer().GetId()
	sub.subscriber = s.index.Subscriber(sub.payer, c.GetSubscriber().GetMemberId())
	sub.claimID = claimID(sub.name, sub.subscriber)
	if sub.input, err = s.reference.lookup(ctx, c, sub.subscriber, s.day(sub.received)); err != nil {
		return err
	}
	if sub.matched = sub.input.Member.Match == adjudication.MatchOne; sub.matched {
		sub.subject = sub.input.Member.Subject
		return nil
	}
	p := patientOf(c)
	sub.subject = s.index.Person(sub.payer, c.GetSubscriber().GetMemberId(), p.GetBirthDate(), p.GetFirstName())
	return nil
}

// refusal is a submission with what is wrong with it.
type refusal struct {
	sub   *submission
	found []problem.Problem
}

// refuse answers claims that can't be adjudicated and leaves their trace: a
// refusal changes nothing else, and its key stays free for the corrected claim.
func (s *Service) refuse(ctx context.Context, refused []refusal) {
	var recording []refusal
	var commits []eventstore.Commit
	for _, r := range refused {
		r.sub.result = &claimsv1.SubmitClaimResponse{
			Problems: problemProtos(problem.Invalid, r.found),
			Claim: &claimsv1.ClaimSummary{
				Status: claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, SubmitterOrg: r.sub.org, NextActor: "provider",
				FileId: r.sub.request.GetFileId(), FileOrdinal: r.sub.request.GetFileOrdinal(),
			},
		}
		if r.sub.request.GetValidateOnly() {
			continue
		}
		rules := make([]string, len(r.found))
		for i, p := range r.found {
			rules[i] = p.RuleID + "@" + p.FieldPath
		}
		recording = append(recording, r)
		commits = append(commits, eventstore.Commit{
			Log:        logName,
			RoutingKey: refusalStream(s.index, r.sub.org),
			RequestID:  refusalKey(s.index, r.sub.name, rules),
			Causation:  r.sub.request.GetFileId(),
			Actor:      r.sub.actor,
			Writes: []eventstore.Write{{
				Stream: refusalStream(s.index, r.sub.org), Expected: eventstore.Any,
				Events: []proto.Message{refusalEvent(r.sub.org, r.sub.name, r.found)},
			}},
		})
	}
	for i, o := range s.appendAll(ctx, commits) {
		sub := recording[i].sub
		if sub.result.Token = o.Appended.Token; o.Err != nil {
			sub.result, sub.err = nil, o.Err
		}
	}
}

// takeKeys takes the idempotency keys of claims that came by themselves. The
// claim's own stream can't guard its key where a changed claim belongs to
// another family, and so to another shard. A claim of a file needs none: its
// key is its place in bytes that can't change.
func (s *Service) takeKeys(ctx context.Context, subs []*submission) {
	taken := map[string]string{}
	var waiting []*submission
	var commits []eventstore.Commit
	for _, sub := range subs {
		if first, again := taken[sub.name]; again && first != sub.claimID {
			sub.err = keyReused()
			continue
		}
		taken[sub.name] = sub.claimID
		if sub.request.GetFileId() != "" || sub.request.GetValidateOnly() {
			continue
		}
		waiting = append(waiting, sub)
		commits = append(commits, eventstore.Commit{
			Log:        logName,
			RoutingKey: sub.name,
			RequestID:  "key/" + sub.name,
			Actor:      sub.actor,
			Writes: []eventstore.Write{{
				Stream: submissionStream(sub.name), Expected: eventstore.NoStream,
				Events: []proto.Message{&eventsv1.SubmissionRouted{ClaimId: sub.claimID}},
			}},
		})
	}
	for i, o := range s.appendAll(ctx, commits) {
		switch {
		case o.Err == nil:
		case eventstore.IsConflict(o.Err), problem.Is(o.Err, problem.Conflict):
			waiting[i].err = s.sameKey(ctx, waiting[i])
		default:
			waiting[i].err = o.Err
		}
	}
}

// sameKey checks that a key that is taken was taken for this very claim.
func (s *Service) sameKey(ctx context.Context, sub *submission) error {
	events, err := readAtLeast(ctx, s.store, sub.name, submissionStream(sub.name), eventstore.NoStream, 0)
	if err != nil {
		return err
	}
	if e, ok := events[0].Event.(*eventsv1.SubmissionRouted); !ok || e.GetClaimId() != sub.claimID {
		return keyReused()
	}
	return nil
}

// callerOf is the authenticated caller.
func callerOf(ctx context.Context) (identity.Principal, error) {
	p, ok := identity.FromContext(ctx)
	if !ok {
		return p, problem.New(problem.Unauthenticated, problem.Problem{
			RuleID: "claims.no-caller", Message: "the request carries no verified token", Fix: "sign in and send the token with the request",
		})
	}
	return p, nil
}

// problemProtos are problems as messages.
func problemProtos(kind problem.Kind, in []problem.Problem) []*problemv1.Problem {
	out := make([]*problemv1.Problem, 0, len(in))
	for _, p := range in {
		out = append(out, &problemv1.Problem{
			RuleId: p.RuleID, FieldPath: p.FieldPath, X12Path: p.X12Path, Code: p.Code, Message: p.Message, Fix: p.Fix,
			Kind: string(kind), Retryable: kind == problem.Unavailable || kind == problem.Exhausted,
		})
	}
	return out
}
