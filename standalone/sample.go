package standalone

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/jedib0t/go-pretty/v6/table"
	"github.com/jedib0t/go-pretty/v6/text"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/money"
	"github.com/probity-health/probity/services/sample"
)

// runSample loads the sample payer, submits its file and shows what became of
// it: each claim, the 835s and the verified receipts.
func (s *Stack) runSample(ctx context.Context, out, progress io.Writer) error {
	c, err := s.As(developer)
	if err != nil {
		return err
	}
	loaded, err := sample.Load(ctx, c.Policies)
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	fmt.Fprintf(progress, "sample: %d plans, %d contracts, %d members\n", loaded.Plans, loaded.Contracts, loaded.Members)

	submitted, err := Submit(ctx, c.Gateway, sample.ClaimsFile())
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	file := submitted.GetFile()
	if submitted.GetDuplicate() {
		fmt.Fprintf(progress, "sample: %s had been submitted before; nothing is paid twice\n", file.GetFileId())
	}
	if err := awaitFile(ctx, c.Workflows, file.GetFileId(), progress); err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	recorded, err := c.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: file.GetFileId(), IncludeOutcomes: true})
	if err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	var claims []*claimsv1.ClaimSummary // one by one: the lists may be a moment behind the file
	for _, o := range recorded.GetOutcomes() {
		if o.GetClaimId() == "" {
			continue
		}
		got, err := c.Claims.GetClaim(ctx, &claimsv1.GetClaimRequest{ClaimId: o.GetClaimId()})
		if err != nil {
			return fmt.Errorf("sample: %w", err)
		}
		claims = append(claims, got.GetClaim())
	}
	printClaims(out, claims, recorded.GetOutcomes(), submitted.GetDuplicate())
	if err := s.writeRemittances(ctx, c, file.GetFileId(), out); err != nil {
		return fmt.Errorf("sample: %w", err)
	}
	return s.verifyReceipts(ctx, c.Ledger, claims, out)
}

// Submit sends a file of claims and returns when it is durable.
func Submit(ctx context.Context, gateway gatewayv1connect.GatewayServiceClient, file []byte) (*gatewayv1.SubmitFileResponse, error) {
	stream, err := gateway.SubmitFile(ctx)
	if err != nil {
		return nil, err
	}
	// An error of Send is the server's answer, which CloseAndReceive returns.
	err = stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Options{Options: &gatewayv1.SubmitOptions{}}})
	for rest := file; len(rest) > 0 && err == nil; {
		n := min(len(rest), 256<<10)
		err = stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Data{Data: rest[:n]}})
		rest = rest[n:]
	}
	answer, err := stream.CloseAndReceive()
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// awaitFile follows a file's progress until its workflow is done.
func awaitFile(ctx context.Context, w workflowsv1connect.WorkflowServiceClient, id string, progress io.Writer) error {
	said := time.Now()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		p, err := w.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: id})
		if err != nil {
			return err
		}
		if p.GetComplete() || p.GetStage() == "refused" {
			return nil
		}
		if time.Since(said) > 2*time.Second {
			fmt.Fprintf(progress, "%s: %d of %d claims\n", p.GetStage(), p.GetDone(), p.GetClaimCount())
			said = time.Now()
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

func printClaims(out io.Writer, claims []*claimsv1.ClaimSummary, outcomes []*claimsv1.ClaimOutcome, duplicate bool) {
	t := table.NewWriter()
	t.SetOutputMirror(out)
	t.SetStyle(table.StyleLight)
	t.Style().Options.SeparateRows = false
	t.Style().Format.Footer = text.FormatDefault
	t.AppendHeader(table.Row{"claim", "member", "charge", "allowed", "paid", "patient", "codes", "status"})
	for i := range 4 {
		t.SetColumnConfigs([]table.ColumnConfig{{Number: 3 + i, Align: text.AlignRight}})
	}
	var charge, allowed, paid, patient money.Cents
	for _, c := range claims {
		status := strings.ToLower(strings.TrimPrefix(c.GetStatus().String(), "CLAIM_STATUS_"))
		now := money.Cents(c.GetPaidCents())
		if duplicate {
			status, now = "duplicate, was "+status, 0
		}
		t.AppendRow(table.Row{
			c.GetClaimId(), short(c.GetMemberHash()), money.Cents(c.GetChargeCents()), money.Cents(c.GetAllowedCents()),
			now, money.Cents(c.GetPatientCents()), strings.Join(c.GetCodes(), " "), status,
		})
		charge += money.Cents(c.GetChargeCents())
		allowed += money.Cents(c.GetAllowedCents())
		paid += now
		patient += money.Cents(c.GetPatientCents())
	}
	for _, o := range outcomes {
		if o.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED {
			t.AppendRow(table.Row{fmt.Sprintf("(number %d)", o.GetOrdinal()+1), "", "", "", "", "", codes(o), "rejected"})
		}
	}
	t.AppendFooter(table.Row{fmt.Sprintf("%d claims", len(outcomes)), "", charge, allowed, paid, patient})
	t.Render()
	for _, o := range outcomes {
		for _, p := range o.GetProblems() {
			fmt.Fprintf(out, "number %d: %s (%s, %s)\n", o.GetOrdinal()+1, p.GetMessage(), p.GetRuleId(), p.GetX12Path())
		}
	}
}

func codes(o *claimsv1.ClaimOutcome) string {
	var out []string
	for _, p := range o.GetProblems() {
		if p.GetCode() != "" {
			out = append(out, p.GetCode())
		}
	}
	return strings.Join(out, " ")
}

func short(hash string) string { return hash[:min(len(hash), 12)] }

// writeRemittances writes each 835 made from the file below DataDir/remittances.
func (s *Stack) writeRemittances(ctx context.Context, c Clients, fileID string, out io.Writer) error {
	listed, err := c.Remittances.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{FileId: fileID, PageSize: 1000})
	if err != nil {
		return err
	}
	for _, r := range listed.GetRemittances() {
		body, err := Document(ctx, c.Gateway, "835", r.GetRemittanceId())
		if err != nil {
			return err
		}
		path := filepath.Join(s.DataDir, "remittances", r.GetRemittanceId()+".835.edi")
		if err := writePrivate(path, body); err != nil {
			return err
		}
		fmt.Fprintf(out, "835 to %s, %s: %s\n", r.GetPayeeNpi(), money.Cents(r.GetPaidCents()), path)
	}
	return nil
}

// Document fetches an X12 document of a file or a remittance.
func Document(ctx context.Context, gateway gatewayv1connect.GatewayServiceClient, kind, id string) ([]byte, error) {
	stream, err := gateway.GetDocument(ctx, &gatewayv1.GetDocumentRequest{Kind: kind, Id: id})
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.Close() }()
	var body bytes.Buffer
	for stream.Receive() {
		body.Write(stream.Msg().GetData())
	}
	return body.Bytes(), stream.Err()
}

// writePrivate writes a file that holds health data.
func writePrivate(path string, body []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o600)
}

// verifyReceipts fetches each claim's receipt and verifies it as anyone could
// offline: with the ledger's public key alone.
func (s *Stack) verifyReceipts(ctx context.Context, ledger ledgerv1connect.LedgerServiceClient, claims []*claimsv1.ClaimSummary, out io.Writer) error {
	sealed, err := ledger.GetCheckpoint(ctx, &ledgerv1.GetCheckpointRequest{})
	if err != nil {
		return err
	}
	policy, err := receipt.NewPolicy(Origin, len(sealed.GetVerifierKeys()), sealed.GetVerifierKeys()...)
	if err != nil {
		return err
	}
	for _, c := range claims {
		answer, err := receiptOf(ctx, ledger, c.GetPosition())
		if err != nil {
			return fmt.Errorf("receipt of %s: %w", c.GetClaimId(), err)
		}
		verified, err := receipt.Verify(answer.GetReceipt(), policy)
		if err == nil {
			err = receipt.VerifyCommit(verified, answer.GetCommit())
		}
		if err != nil {
			return fmt.Errorf("receipt of %s: %w", c.GetClaimId(), err)
		}
		path := filepath.Join(s.DataDir, "receipts", c.GetClaimId()+".receipt")
		if err := writePrivate(path, answer.GetReceipt()); err != nil {
			return err
		}
		fmt.Fprintf(out, "receipt verified: %s %s/%d/%d sha256:%.8x\n", c.GetClaimId(),
			c.GetPosition().GetLog(), c.GetPosition().GetShard(), c.GetPosition().GetIndex(), sha256.Sum256(answer.GetReceipt()))
	}
	return nil
}

// receiptOf waits for a commit to be sealed, a few times the longest a block takes.
func receiptOf(ctx context.Context, ledger ledgerv1connect.LedgerServiceClient, at *ledgerv1.Position) (*ledgerv1.GetReceiptResponse, error) {
	for attempt := 1; ; attempt++ {
		answer, err := ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: at, IncludeCommit: true})
		var rpc *connect.Error
		if err == nil || attempt == 3 || !errors.As(err, &rpc) || rpc.Code() == connect.CodeNotFound {
			return answer, err
		}
	}
}
