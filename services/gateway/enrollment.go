package gateway

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"connectrpc.com/connect"

	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/problem"
)

// enrollmentBatch is how many changes go to the policies service in one call,
// its own bound.
const enrollmentBatch = 500

// ImportEnrollmentFile implements gatewayv1connect.EnrollmentFileServiceHandler.
// The file is judged whole before anything of it is applied. Its batches are
// known by its hash, so that sending it again, or again after a failure,
// applies each change once. The file itself isn't kept: the changes are
// recorded, sealed, with its hash.
func (s *Service) ImportEnrollmentFile(ctx context.Context, stream *connect.ClientStream[gatewayv1.ImportEnrollmentFileRequest]) (*gatewayv1.ImportEnrollmentFileResponse, error) {
	sp, err := newSpool(s.cfg.SpoolDir, s.cfg.MaxFileBytes)
	if err != nil {
		return nil, err
	}
	defer sp.close()
	options := &gatewayv1.ImportEnrollmentFileOptions{}
	for first := true; stream.Receive(); first = false {
		switch part := stream.Msg().GetPart().(type) {
		case *gatewayv1.ImportEnrollmentFileRequest_Options:
			if !first {
				return nil, problem.Invalidf("gateway.import.options", "options", "options come once, before the data")
			}
			options = part.Options
		case *gatewayv1.ImportEnrollmentFileRequest_Data:
			if _, err := sp.Write(part.Data); err != nil {
				return nil, err
			}
		}
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	if sp.size == 0 {
		return nil, emptyFile()
	}
	return s.importEnrollment(ctx, sp, options)
}

func (s *Service) importEnrollment(ctx context.Context, sp *spool, options *gatewayv1.ImportEnrollmentFileOptions) (*gatewayv1.ImportEnrollmentFileResponse, error) {
	parsed, err := x12.ParseEnrollment(sp.reader(), s.limits())
	if err != nil {
		return nil, err
	}
	out := &gatewayv1.ImportEnrollmentFileResponse{FileSha256: sp.digest(), MemberCount: uint32(parsed.MemberCount), Problems: problemProtos(parsed.Problems())}
	if parsed.Enveloped() {
		var ack bytes.Buffer
		env := x12.Envelope{Sender: "PROBITY", Receiver: "SPONSOR", Control: controlNumber("999", hex.EncodeToString(sp.digest())), Time: parsed.Sent()}
		if err := parsed.Acknowledge(&ack, env); err != nil {
			return nil, err
		}
		out.Acknowledgement = ack.Bytes()
	}
	if parsed.Refused() || options.GetDryRun() {
		return out, nil
	}
	im := &enrollmentImport{s: s, out: out, digest: sp.digest(), payer: options.GetPayerId(), duplicate: true}
	for m, err := range parsed.Members(sp.reader()) {
		if err == nil {
			err = im.member(ctx, m)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := im.flush(ctx); err != nil {
		return nil, err
	}
	out.Duplicate, out.Token = im.duplicate && im.sent > 0, strings.Join(im.tokens, ",")
	return out, nil
}

// enrollmentImport gathers changes into batches of one payer.
type enrollmentImport struct {
	s      *Service
	out    *gatewayv1.ImportEnrollmentFileResponse
	digest []byte
	payer  string // of every member; empty: as each transaction set says

	pending   []*policiesv1.EnrollmentChange
	of        string   // payer of pending
	places    []int    // of pending, in the outcomes
	paths     []string // of pending, in the file
	sent      uint32   // changes sent before pending
	tokens    []string
	duplicate bool // every batch so far had been applied before
}

func (im *enrollmentImport) member(ctx context.Context, m *x12.Member) error {
	if len(m.Problems) > 0 {
		im.out.Outcomes = append(im.out.Outcomes, &policiesv1.EnrollmentOutcome{Ordinal: uint32(len(im.out.Outcomes)),
			Result: policiesv1.EnrollmentOutcome_RESULT_REFUSED, Problems: problemProtos(m.Problems)})
		return nil
	}
	payer := im.payer
	if payer == "" {
		payer = m.PayerID
	}
	for _, c := range m.Changes {
		if payer != im.of || len(im.pending) == enrollmentBatch {
			if err := im.flush(ctx); err != nil {
				return err
			}
			im.of = payer
		}
		im.pending, im.places, im.paths = append(im.pending, c), append(im.places, len(im.out.Outcomes)), append(im.paths, m.X12Path)
		im.out.Outcomes = append(im.out.Outcomes, nil)
	}
	return nil
}

// flush sends the pending changes. The request id is the file's and the place
// of the batch in it, so a repeated import repeats the same requests.
func (im *enrollmentImport) flush(ctx context.Context) error {
	if len(im.pending) == 0 {
		return nil
	}
	got, err := im.s.deps.Policies.ApplyEnrollmentChanges(ctx, &policiesv1.ApplyEnrollmentChangesRequest{
		RequestId: fmt.Sprintf("834/%s/%d", hex.EncodeToString(im.digest), im.sent), PayerId: im.of,
		Source:  &policiesv1.EnrollmentSource{FileSha256: im.digest, FirstOrdinal: im.sent},
		Changes: im.pending,
	})
	if err != nil {
		return err
	}
	if len(got.GetOutcomes()) != len(im.pending) {
		return problem.New(problem.Internal, problem.Problem{RuleID: "gateway.import.outcomes", Message: "the policies service answered for another number of changes",
			Fix: "retry; if it persists give the request id to the operator"})
	}
	for i, o := range got.GetOutcomes() {
		o.Ordinal = uint32(im.places[i]) // the ledger counts the changes sent, the answer those of the file
		for _, p := range o.GetProblems() {
			// The policies service knows the change by its place in the batch, and
			// not where it stood in a file.
			p.FieldPath = strings.TrimPrefix(p.GetFieldPath(), fmt.Sprintf("changes[%d].", i))
			if p.GetX12Path() == "" {
				p.X12Path = im.paths[i]
			}
		}
		im.out.Outcomes[im.places[i]] = o
	}
	im.duplicate = im.duplicate && got.GetDuplicate()
	for one := range strings.SplitSeq(got.GetToken(), ",") {
		if one != "" && !slices.Contains(im.tokens, one) {
			im.tokens = append(im.tokens, one)
		}
	}
	im.sent += uint32(len(im.pending))
	im.pending, im.places, im.paths = nil, nil, nil
	return nil
}
