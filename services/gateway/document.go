package gateway

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/problem"
)

// GetDocument implements gatewayv1connect.GatewayServiceHandler. A document
// is made anew each time and always with the same bytes: its control number
// comes from its kind and the id, its time from what it answers.
func (s *Service) GetDocument(ctx context.Context, req *gatewayv1.GetDocumentRequest, stream *connect.ServerStream[gatewayv1.GetDocumentResponse]) error {
	w := bufio.NewWriterSize(&documentWriter{stream}, sendBytes)
	isFile := strings.HasPrefix(req.GetId(), "fil_")
	var err error
	switch kind := req.GetKind(); {
	case kind == "999" && isFile:
		err = s.acknowledge(ctx, req.GetId(), w)
	case kind == "277CA" && isFile:
		err = s.acknowledgeClaims(ctx, req.GetId(), w)
	case kind == "835" && !isFile:
		err = s.advise(ctx, req.GetId(), w)
	default:
		err = problem.New(problem.Invalid, problem.Problem{RuleID: "gateway.document.kind", FieldPath: "kind", Message: "there is no such document of this id",
			Fix: "ask for 999 or 277CA with a file id, for 835 with a remittance id"})
	}
	if err != nil {
		return err
	}
	return w.Flush()
}

type documentWriter struct {
	stream *connect.ServerStream[gatewayv1.GetDocumentResponse]
}

func (d *documentWriter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		n := min(len(rest), sendBytes)
		if err := d.stream.Send(&gatewayv1.GetDocumentResponse{Data: rest[:n]}); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	return len(p), nil
}

// controlNumber derives ISA13, from 1 to 999999999, from what the document is.
func controlNumber(kind, id string) int {
	sum := sha256.Sum256([]byte(kind + "/" + id))
	return int(binary.BigEndian.Uint64(sum[:8])%999_999_999) + 1
}

func (s *Service) acknowledge(ctx context.Context, id string, w io.Writer) error {
	got, err := s.deps.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id})
	if err != nil {
		return err
	}
	file := got.GetFile()
	env := x12.Envelope{Sender: "PROBITY", Receiver: org(file.GetSubmitterOrg()), Control: controlNumber("999", id), Time: file.GetReceivedTime().AsTime()}
	if file.GetState() == claimsv1.FileState_FILE_STATE_REFUSED {
		// The content of a refused file isn't kept; its problems say enough.
		return x12.Write999(w, x12.RefusedFile(file.GetKind(), problemsOf(file.GetProblems())), env)
	}
	at, done, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	return x12.Write999(w, at.parsed, env)
}

// org makes an ISA06 of an organisation's id.
func org(id string) string { return strings.ToUpper(id) }

func (s *Service) acknowledgeClaims(ctx context.Context, id string, w io.Writer) error {
	got, err := s.deps.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id})
	if err != nil {
		return err
	}
	file := got.GetFile()
	if file.GetState() == claimsv1.FileState_FILE_STATE_REFUSED {
		return problem.New(problem.Conflict, problem.Problem{RuleID: "gateway.document.refused", Message: "the file was refused whole: no claim of it was looked at",
			Fix: "fetch its 999, which says why"})
	}
	unfinished := unavailable("gateway.document.unfinished", "claims of the file are still being decided", nil)
	if file.GetOutcomeCount() < file.GetClaimCount() {
		return unfinished
	}
	outcomes, err := s.outcomes(ctx, id)
	if err != nil {
		return err
	}
	if len(outcomes) < int(file.GetClaimCount()) {
		return unfinished
	}
	at, done, err := s.open(ctx, id)
	if err != nil {
		return err
	}
	defer done()
	received := file.GetReceivedTime().AsTime()
	processed := received
	if t := file.GetCompletedTime(); t != nil {
		processed = t.AsTime()
	}
	env := x12.Envelope{Sender: "PROBITY", Receiver: org(file.GetSubmitterOrg()), Control: controlNumber("277CA", id), Time: processed}
	if ics := at.parsed.Interchanges; len(ics) > 0 {
		env.Sender, env.SenderQualifier, env.Receiver, env.ReceiverQualifier, env.Usage = ics[0].Receiver, ics[0].ReceiverQualifier, ics[0].Sender, ics[0].SenderQualifier, ics[0].Usage
		if len(ics[0].Groups) > 0 {
			env.GroupSender, env.GroupReceiver = ics[0].Groups[0].Receiver, ics[0].Groups[0].Sender
		}
	}
	claims := at.parsed.Claims(at.spool, 0, at.parsed.ClaimCount)
	return x12.Write277CA(w, env, received, processed, claims, func(c *x12.Claim) x12.Acknowledged {
		o := outcomes[c.Ordinal]
		switch {
		case o.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED:
			return x12.Acknowledged{Statuses: []string{notProcessed}}
		case o.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED:
			return x12.Acknowledged{ClaimID: o.GetClaimId()}
		case len(c.Statuses) > 0: // rejected here; the outcome holds only the first reasons
			return x12.Acknowledged{Statuses: c.Statuses}
		}
		return x12.Acknowledged{Statuses: statuses(problemsOf(o.GetProblems()))}
	})
}

// notProcessed is the 277CA status of a canceled file's claim: returned as
// unprocessable (category A3), and status 0, "cannot provide further status
// electronically": X12's list has none for a sender who changed its mind.
const notProcessed = "A3:0"

// outcomesPage is how many outcomes are asked for at once: a file has no
// upper bound, a message has.
const outcomesPage = 5000

// outcomes reads what became of a file's claims, by ordinal.
func (s *Service) outcomes(ctx context.Context, id string) (map[int]*claimsv1.ClaimOutcome, error) {
	all := map[int]*claimsv1.ClaimOutcome{}
	for token := ""; ; {
		page, err := s.deps.Files.ListFileOutcomes(ctx, &claimsv1.ListFileOutcomesRequest{FileId: id, PageSize: outcomesPage, PageToken: token})
		if err != nil {
			return nil, err
		}
		for _, o := range page.GetOutcomes() {
			all[int(o.GetOrdinal())] = o
		}
		if token = page.GetNextPageToken(); token == "" {
			return all, nil
		}
	}
}

// statuses takes the 277CA statuses out of a rejection's problems. A service
// may give the category alone: then the status is 21, missing or invalid information.
func statuses(list []problem.Problem) []string {
	var out []string
	seen := map[string]bool{}
	add := func(s string) {
		if !seen[s] {
			seen[s] = true
			out = append(out, s)
		}
	}
	for _, p := range list {
		for _, code := range strings.Fields(p.Code) {
			category, rest, full := strings.Cut(code, ":")
			switch category {
			case "A3", "A6", "A7", "A8":
				if !full || rest == "" {
					code = category + ":21"
				}
				add(code)
			}
		}
	}
	if len(out) == 0 {
		add("A3:21") // returned as unprocessable
	}
	return out
}

func (s *Service) advise(ctx context.Context, id string, w io.Writer) error {
	got, err := s.deps.Remittances.GetRemittance(ctx, &claimsv1.GetRemittanceRequest{RemittanceId: id})
	if err != nil {
		return err
	}
	rem := got.GetRemittance()
	if rem.GetVoided() {
		return problem.New(problem.Conflict, problem.Problem{RuleID: "gateway.document.void", FieldPath: "id", Message: "the remittance is void: its payment failed",
			Fix: "list the remittances; another one tells of these claims, or will after the next payment cycle"})
	}
	profile, known := s.cfg.Payers[rem.GetPayerId()]
	if !known {
		profile = s.cfg.DefaultPayer
	}
	advice, err := x12.NewAdvice(rem, got.GetClaims(), profile)
	if err != nil {
		return err
	}
	at, err := time.Parse(time.DateOnly, rem.GetPaymentDate())
	if err != nil {
		return problem.New(problem.Internal, problem.Problem{RuleID: "gateway.document.payment-date", Message: "the remittance has no payment date", Fix: "tell the operator"}).Because(err)
	}
	env := x12.Envelope{Sender: rem.GetPayerId(), Receiver: rem.GetPayeeNpi(), Control: controlNumber("835", id), Time: at}
	return x12.Write835(w, env, advice)
}
