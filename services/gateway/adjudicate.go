package gateway

import (
	"context"
	"errors"
	"strconv"

	"buf.build/go/protovalidate"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/services/problem"
)

// AdjudicateChunk implements gatewayv1connect.GatewayServiceHandler. It is
// safe to repeat: request ids are the file's id and the ordinal, and outcomes
// that are recorded already are left as they are. Where a claim could not be
// decided for a passing reason, nothing of the chunk is recorded and the
// answer is Unavailable. A canceled file's chunk is left alone, unless an
// earlier call may have decided part of it.
func (s *Service) AdjudicateChunk(ctx context.Context, req *gatewayv1.AdjudicateChunkRequest) (*gatewayv1.AdjudicateChunkResponse, error) {
	id := req.GetFileId()
	got, err := s.deps.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id})
	if err != nil {
		return nil, err
	}
	file := got.GetFile()
	first, count := int(req.GetFirstOrdinal()), int(req.GetCount())
	switch {
	case file.GetState() == claimsv1.FileState_FILE_STATE_REFUSED:
		return nil, problem.Invalidf("gateway.chunk.refused", "file_id", "the file was refused whole; nothing of it is adjudicated")
	case first >= int(file.GetClaimCount()):
		return nil, problem.Invalidf("gateway.chunk.range", "first_ordinal", "the file has %d claims, counted from 0", file.GetClaimCount())
	}
	if s := file.GetState(); !req.GetFinish() && (s == claimsv1.FileState_FILE_STATE_CANCELING || s == claimsv1.FileState_FILE_STATE_CANCELED) {
		return &gatewayv1.AdjudicateChunkResponse{OutcomeCount: file.GetOutcomeCount(), Canceled: true}, nil
	}
	at, done, err := s.open(ctx, id)
	if err != nil {
		return nil, err
	}
	defer done()
	if at.parsed.ClaimCount != int(file.GetClaimCount()) {
		// The rules that read the file then and those that read it now differ.
		return nil, problem.New(problem.Internal, problem.Problem{RuleID: "gateway.chunk.count", Message: "the file reads differently than when it was received",
			Fix: "tell the operator; the file was received by another version of the gateway"})
	}
	outcomes, submit, err := s.translate(at, file, first, count)
	if err != nil {
		return nil, err
	}
	decided, err := s.decide(ctx, submit)
	if err != nil {
		return nil, err
	}
	outcomes = append(outcomes, decided...)
	recorded, err := s.deps.Files.RecordOutcomes(ctx, &claimsv1.RecordOutcomesRequest{FileId: id, Outcomes: outcomes})
	if err != nil {
		return nil, err
	}
	return tally(outcomes, recorded.GetOutcomeCount()), nil
}

// translate reads a chunk's claims: those rejected by themselves become
// outcomes at once, the others submissions.
func (s *Service) translate(at *openFile, file *claimsv1.File, first, count int) ([]*claimsv1.ClaimOutcome, []*claimsv1.SubmitClaimRequest, error) {
	var outcomes []*claimsv1.ClaimOutcome
	var submit []*claimsv1.SubmitClaimRequest
	for c, err := range at.parsed.Claims(at.spool, first, count) {
		if err != nil {
			return nil, nil, err
		}
		if len(c.Problems) > 0 {
			outcomes = append(outcomes, rejection(uint32(c.Ordinal), c.Problems))
			continue
		}
		submit = append(submit, &claimsv1.SubmitClaimRequest{RequestId: file.GetFileId() + "/" + strconv.Itoa(c.Ordinal), Claim: c.Claim,
			FileId: file.GetFileId(), FileOrdinal: uint32(c.Ordinal), ReceivedTime: file.GetReceivedTime()})
	}
	return outcomes, submit, nil
}

func rejection(ordinal uint32, found []problem.Problem) *claimsv1.ClaimOutcome {
	return &claimsv1.ClaimOutcome{Ordinal: ordinal, Status: claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED,
		Problems: problemProtos(found[:min(len(found), outcomeProblems)])}
}

// sift takes out the claims that the schema refuses. The grammar knows its
// rules, so there should be none, and the claims service checks them all: they
// are only looked for where it has refused a batch, and their neighbours with them.
func sift(submit []*claimsv1.SubmitClaimRequest) (rejected []*claimsv1.ClaimOutcome, sound []*claimsv1.SubmitClaimRequest) {
	for _, req := range submit {
		if found := misfits(req.GetClaim()); len(found) > 0 {
			rejected = append(rejected, rejection(req.GetFileOrdinal(), found))
		} else {
			sound = append(sound, req)
		}
	}
	return rejected, sound
}

// misfits are the rules of the schema that a claim breaks.
func misfits(c *claimsv1.Claim) []problem.Problem {
	err := protovalidate.Validate(c)
	if err == nil {
		return nil
	}
	p := problem.Problem{RuleID: "gateway.claim.schema", Code: "A7:21", Message: "the claim holds something that can't be recorded", Fix: "correct the field named"}
	var broken *protovalidate.ValidationError
	if errors.As(err, &broken) && len(broken.Violations) > 0 {
		p.FieldPath = "claim." + protovalidate.FieldPathString(broken.Violations[0].Proto.GetField())
	}
	return []problem.Problem{p}
}

const (
	// batchBytes bounds one call's claims, well below what a service reads (8 MiB).
	batchBytes = 2 << 20
	// outcomeProblems is how many reasons a rejection records; the 277CA tells all.
	outcomeProblems = 5
)

// decide submits claims in batches; every answer is final, or the error is
// retryable. What earlier batches decided is answered again on the retry.
func (s *Service) decide(ctx context.Context, submit []*claimsv1.SubmitClaimRequest) ([]*claimsv1.ClaimOutcome, error) {
	var out []*claimsv1.ClaimOutcome
	for len(submit) > 0 {
		n, size := 0, 0
		for n < len(submit) && (n == 0 || size < batchBytes) {
			size += proto.Size(submit[n])
			n++
		}
		batch, err := s.decideBatch(ctx, submit[:n])
		if err != nil {
			return nil, err
		}
		out = append(out, batch...)
		submit = submit[n:]
	}
	return out, nil
}

func (s *Service) decideBatch(ctx context.Context, submit []*claimsv1.SubmitClaimRequest) ([]*claimsv1.ClaimOutcome, error) {
	res, err := s.deps.Claims.SubmitClaims(ctx, &claimsv1.SubmitClaimsRequest{Claims: submit, View: claimsv1.SubmissionView_SUBMISSION_VIEW_BASIC})
	if problem.Is(err, problem.Invalid) {
		rejected, sound := sift(submit)
		if len(rejected) == 0 {
			return nil, err
		}
		if len(sound) == 0 {
			return rejected, nil
		}
		decided, err := s.decideBatch(ctx, sound)
		return append(rejected, decided...), err
	}
	if err != nil {
		return nil, err
	}
	if len(res.GetResults()) != len(submit) {
		return nil, unavailable("gateway.chunk.answers", "the claims service answered for another number of claims than were sent", nil)
	}
	var out []*claimsv1.ClaimOutcome
	for i, r := range res.GetResults() {
		o := &claimsv1.ClaimOutcome{Ordinal: submit[i].GetFileOrdinal()}
		for _, p := range r.GetProblems() {
			// A defect inside the service is no verdict on the claim either.
			if p.GetRetryable() || p.GetKind() == string(problem.Internal) {
				return nil, unavailable("gateway.chunk.retry", "a claim of the chunk could not be decided just now", nil)
			}
		}
		switch status := r.GetClaim().GetStatus(); status {
		case claimsv1.ClaimStatus_CLAIM_STATUS_PAID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
			o.Status, o.ClaimId = status, r.GetClaim().GetClaimId()
		case claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED:
			// A void that has taken its original back, or a replay of a claim that
			// was decided and has since been voided or replaced: as a claim of this
			// file it was decided.
			o.Status, o.ClaimId = claimsv1.ClaimStatus_CLAIM_STATUS_PAID, r.GetClaim().GetClaimId()
		default:
			if len(r.GetProblems()) == 0 {
				return nil, unavailable("gateway.chunk.undecided", "a claim of the chunk was received and not decided yet", nil)
			}
			o.Status, o.Problems = claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, r.GetProblems()[:min(len(r.GetProblems()), outcomeProblems)]
		}
		out = append(out, o)
	}
	return out, nil
}

func tally(outcomes []*claimsv1.ClaimOutcome, total uint32) *gatewayv1.AdjudicateChunkResponse {
	res := &gatewayv1.AdjudicateChunkResponse{OutcomeCount: total}
	for _, o := range outcomes {
		switch o.GetStatus() {
		case claimsv1.ClaimStatus_CLAIM_STATUS_PAID:
			res.Paid++
		case claimsv1.ClaimStatus_CLAIM_STATUS_DENIED:
			res.Denied++
		case claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
			res.Pended++
		default:
			res.Rejected++
		}
	}
	return res
}
