package cli_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/proto/probity/gateway/v1/gatewayv1connect"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/proto/probity/policies/v1/policiesv1connect"
	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/proto/probity/workflows/v1/workflowsv1connect"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/gateway"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/policies"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
)

const (
	paidID   = "clm_paidaaaaaaaaaaaaaaaaaaaaaa"
	deniedID = "clm_deniedaaaaaaaaaaaaaaaaaaaa"
	pendedID = "clm_pendedaaaaaaaaaaaaaaaaaaaa"
	fileID   = "fil_goodaaaaaaaaaaaaaaaaaaaaaa"
	refused  = "fil_brokenaaaaaaaaaaaaaaaaaaaa"
	partial  = "fil_partialaaaaaaaaaaaaaaaaaaa"
	remitID  = "rem_aaaaaaaaaaaaaaaaaaaaaaaaaa"
	memberID = "sub_qwertyuiopasdfghjklzxcvbnm"
)

// world is what the fake services know. Files are told apart by their first
// word: good, broken (refused whole), partial (one claim refused).
type world struct {
	url        string
	close      func()
	now        time.Time
	terminal   bool
	authorizer *identity.Authorizer
	ledger     *ledgerFake
	members    *policies.Handler // the real one, for enrolment
	down       atomic.Bool       // the workflow service fails

	mu        sync.Mutex
	submitted map[string]bool // guarded by mu; file ids
	polls     int             // guarded by mu; of progress, which each poll advances
	resolved  string          // guarded by mu; review of pendedID
	canceled  bool            // guarded by mu; the good file
	resumed   bool            // guarded by mu; the good file
}

func (w *world) claims() []*claimsv1.ClaimSummary {
	base := func(id string, status claimsv1.ClaimStatus, ordinal uint32) *claimsv1.ClaimSummary {
		return &claimsv1.ClaimSummary{
			ClaimId: id, PayerId: "KEYSTONE", SubmitterOrg: "prov-lakeside", MemberHash: memberID, Status: status,
			FileId: fileID, FileOrdinal: ordinal, ReceivedTime: timestamppb.New(noon.Add(-time.Hour)),
			Position: &ledgerv1.Position{Log: "claims", Shard: 3, Index: 0}, NextActor: "none",
		}
	}
	paid := base(paidID, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, 0)
	paid.ChargeCents, paid.AllowedCents, paid.PaidCents, paid.PatientCents, paid.Codes = 22000, 13700, 8500, 5200, []string{"CO-45", "PR-3"}
	denied := base(deniedID, claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, 1)
	denied.ChargeCents, denied.Codes = 15000, []string{"PR-27"}
	pended := base(pendedID, claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, 2)
	pended.ChargeCents, pended.NextActor = 240000, "payer"
	pended.PendReasons = []*claimsv1.PendReason{{RuleId: "review.high-charge", Message: "the charge is above the plan's review threshold"}}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.resolved == "approve" {
		pended.Status, pended.PendReasons, pended.NextActor = claimsv1.ClaimStatus_CLAIM_STATUS_PAID, nil, "none"
	}
	return []*claimsv1.ClaimSummary{paid, denied, pended}
}

func (w *world) file(id string) *claimsv1.File {
	f := &claimsv1.File{
		FileId: id, SubmitterOrg: "prov-lakeside", Kind: "837P", SizeBytes: 1234, State: claimsv1.FileState_FILE_STATE_COMPLETE,
		ClaimCount: 3, OutcomeCount: 3, ReceivedTime: timestamppb.New(noon.Add(-time.Hour)), InterchangeControlNumber: "000000017",
		Position: &ledgerv1.Position{Log: "claims", Shard: 1, Index: 7}, RemittanceIds: []string{remitID},
	}
	w.mu.Lock()
	if w.canceled && id == fileID {
		f.State, f.NotProcessedCount = claimsv1.FileState_FILE_STATE_CANCELED, 1
	}
	w.mu.Unlock()
	if id == refused {
		f.State, f.ClaimCount, f.OutcomeCount, f.RemittanceIds = claimsv1.FileState_FILE_STATE_REFUSED, 0, 0, nil
		f.Problems = []*problemv1.Problem{{RuleId: "x12.envelope.se-count", X12Path: "ST 0001 / SE01", Code: "4",
			Message: "the transaction set says 24 segments and has 23", Fix: "count the segments from ST to SE and resend", Kind: "invalid"}}
	}
	return f
}

var missing = problem.New(problem.NotFound, problem.Problem{RuleID: "claims.not-found", Message: "there is no such claim, or it is not yours", Fix: "check the id: probity claims list"})

type gatewayFake struct {
	gatewayv1connect.UnimplementedGatewayServiceHandler
	*world
}

func (g gatewayFake) SubmitFile(ctx context.Context, s *connect.ClientStream[gatewayv1.SubmitFileRequest]) (*gatewayv1.SubmitFileResponse, error) {
	var content []byte
	for s.Receive() {
		content = append(content, s.Msg().GetData()...)
	}
	p, _ := identity.FromContext(ctx)
	if err := g.authorizer.Authorize(ctx, "SubmitFile", identity.Resource{Type: identity.File, Org: p.Org}); err != nil {
		return nil, err
	}
	id := fileID
	switch {
	case bytes.Contains(content, []byte("broken")):
		id = refused
	case bytes.Contains(content, []byte("partial")):
		id = partial
	}
	g.mu.Lock()
	duplicate := g.submitted[id]
	g.submitted[id] = true
	g.mu.Unlock()
	f := g.file(id)
	if f.State == claimsv1.FileState_FILE_STATE_COMPLETE {
		f.State, f.OutcomeCount = claimsv1.FileState_FILE_STATE_PROCESSING, 0
	}
	return &gatewayv1.SubmitFileResponse{File: f, Duplicate: duplicate, Token: "t1", Promise: []byte("promise"), Problems: f.Problems}, s.Err()
}

func (g gatewayFake) ValidateFile(_ context.Context, s *connect.ClientStream[gatewayv1.ValidateFileRequest]) (*gatewayv1.ValidateFileResponse, error) {
	var content []byte
	for s.Receive() {
		content = append(content, s.Msg().GetData()...)
	}
	if bytes.Contains(content, []byte("broken")) {
		return &gatewayv1.ValidateFileResponse{Problems: g.file(refused).GetProblems()}, s.Err()
	}
	return &gatewayv1.ValidateFileResponse{ClaimCount: 3}, s.Err()
}

func (g gatewayFake) GetDocument(_ context.Context, r *gatewayv1.GetDocumentRequest, s *connect.ServerStream[gatewayv1.GetDocumentResponse]) error {
	for _, piece := range []string{"ISA*" + r.GetKind(), "~IEA~\n"} {
		if err := s.Send(&gatewayv1.GetDocumentResponse{Data: []byte(piece)}); err != nil {
			return err
		}
	}
	return nil
}

type claimsFake struct {
	claimsv1connect.UnimplementedClaimsServiceHandler
	*world
}

func (c claimsFake) find(id string) (*claimsv1.ClaimSummary, error) {
	for _, claim := range c.claims() {
		if claim.GetClaimId() == id {
			return claim, nil
		}
	}
	return nil, missing
}

func (c claimsFake) GetClaim(_ context.Context, r *claimsv1.GetClaimRequest) (*claimsv1.GetClaimResponse, error) {
	claim, err := c.find(r.GetClaimId())
	return &claimsv1.GetClaimResponse{Claim: claim, Timeline: []*claimsv1.TimelineEntry{
		{Time: claim.GetReceivedTime(), Event: "ClaimReceived", Actor: "dev-biller", Position: claim.GetPosition(), Text: "received in a file"},
	}}, err
}

// ListClaims gives one claim a page, so that walking pages is exercised.
func (c claimsFake) ListClaims(_ context.Context, r *claimsv1.ListClaimsRequest) (*claimsv1.ListClaimsResponse, error) {
	var matching []*claimsv1.ClaimSummary
	for _, claim := range c.claims() {
		if r.GetStatus() == 0 || r.GetStatus() == claim.GetStatus() {
			matching = append(matching, claim)
		}
	}
	at := len(r.GetPageToken())
	if at >= len(matching) {
		return &claimsv1.ListClaimsResponse{}, nil
	}
	out := &claimsv1.ListClaimsResponse{Claims: matching[at : at+1]}
	if at+1 < len(matching) {
		out.NextPageToken = r.GetPageToken() + "+"
	}
	return out, nil
}

func (c claimsFake) ExplainClaim(_ context.Context, r *claimsv1.ExplainClaimRequest) (*claimsv1.ExplainClaimResponse, error) {
	claim, err := c.find(r.GetClaimId())
	if err != nil {
		return nil, err
	}
	if r.GetClaimId() == deniedID {
		return &claimsv1.ExplainClaimResponse{
			Claim: claim,
			Submitted: &claimsv1.Claim{Form: claimsv1.ClaimForm_CLAIM_FORM_INSTITUTIONAL,
				Lines: []*claimsv1.ServiceLine{{Number: 1, Procedure: "93005"}, {Number: 2, Procedure: "93010"}, {Number: 3, RevenueCode: "0730"}}},
			Decision: refusedStay(),
		}, nil
	}
	return &claimsv1.ExplainClaimResponse{
		Claim: claim,
		Submitted: &claimsv1.Claim{Form: claimsv1.ClaimForm_CLAIM_FORM_PROFESSIONAL,
			Lines: []*claimsv1.ServiceLine{{Number: 1, Procedure: "99213", Modifiers: []string{"25"}}, {Number: 2, Procedure: "G0283"}}},
		Decision: explained(claim.GetStatus()),
	}, nil
}

func explained(status claimsv1.ClaimStatus) *claimsv1.Decision {
	return &claimsv1.Decision{
		Status: status, PaidCents: 8500, PatientCents: 5200,
		Versions: &claimsv1.Versions{Plan: "plan_gold@3", Engine: "2026.11", ReceivedDate: "2026-11-20"},
		Lines: []*claimsv1.LineDecision{
			{Number: 1, ChargeCents: 12000, AllowedCents: 11000, PaidCents: 8500, PatientCents: 2500, Benefit: "office_visit", Adjustments: []*claimsv1.Adjustment{
				{GroupCode: "CO", Carc: "45", AmountCents: 1000, RuleId: "pricing.contract"},
				{GroupCode: "PR", Carc: "3", AmountCents: 2500, RuleId: "cost.copay", Clause: "benefits.office_visit.copay"},
			}},
			{Number: 2, ChargeCents: 2700, AllowedCents: 2700, PatientCents: 2700, Adjustments: []*claimsv1.Adjustment{
				{GroupCode: "PR", Carc: "1", Rarcs: []string{"N130"}, AmountCents: 2700, RuleId: "cost.deductible",
					Facts: map[string]string{"deductible_remaining_cents": "12000", "visits_used": "20"}},
			}},
		},
	}
}

// refusedStay is a hospital's claim of which each line is denied for another reason.
func refusedStay() *claimsv1.Decision {
	line := func(n uint32, adj *claimsv1.Adjustment) *claimsv1.LineDecision {
		adj.AmountCents = 1000
		return &claimsv1.LineDecision{Number: n, ChargeCents: 1000, Adjustments: []*claimsv1.Adjustment{adj}}
	}
	return &claimsv1.Decision{
		Status: claimsv1.ClaimStatus_CLAIM_STATUS_DENIED, ChargeCents: 3000, Versions: &claimsv1.Versions{Plan: "plan_gold@3"},
		Lines: []*claimsv1.LineDecision{
			line(1, &claimsv1.Adjustment{GroupCode: "OA", Carc: "18", Rarcs: []string{"N522"}, RuleId: "duplicate.exact", Facts: map[string]string{"earlier_line": "2"}}),
			line(2, &claimsv1.Adjustment{GroupCode: "CO", Carc: "236", RuleId: "pair.incompatible", Facts: map[string]string{"paired_line": "1", "modifier_indicator": "1"}}),
			line(3, &claimsv1.Adjustment{GroupCode: "CO", Carc: "16", Rarcs: []string{"MA30"}, RuleId: "institutional.type_of_bill"}),
		},
	}
}

func (c claimsFake) WatchClaim(_ context.Context, r *claimsv1.WatchClaimRequest, s *connect.ServerStream[claimsv1.WatchClaimResponse]) error {
	claim, err := c.find(r.GetClaimId())
	if err != nil {
		return err
	}
	before := &claimsv1.ClaimSummary{ClaimId: claim.GetClaimId(), Status: claimsv1.ClaimStatus_CLAIM_STATUS_RECEIVED}
	return errors.Join(s.Send(&claimsv1.WatchClaimResponse{Claim: before}), s.Send(&claimsv1.WatchClaimResponse{Claim: claim}))
}

type filesFake struct {
	claimsv1connect.UnimplementedFileServiceHandler
	*world
}

func (f filesFake) GetFile(_ context.Context, r *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error) {
	return &claimsv1.GetFileResponse{File: f.file(r.GetFileId())}, nil
}

// ListFileOutcomes gives one outcome a page.
func (f filesFake) ListFileOutcomes(_ context.Context, r *claimsv1.ListFileOutcomesRequest) (*claimsv1.ListFileOutcomesResponse, error) {
	var all []*claimsv1.ClaimOutcome
	switch file := f.file(r.GetFileId()); {
	case r.GetFileId() == partial:
		all = []*claimsv1.ClaimOutcome{{Ordinal: 3, Status: claimsv1.ClaimStatus_CLAIM_STATUS_REJECTED, Problems: []*problemv1.Problem{
			{RuleId: "x12.npi.check-digit", FieldPath: "claim.billing_provider.npi", X12Path: "ST 0001 / 2010AA / NM109", Code: "A7",
				Message: "the billing provider's NPI fails its check digit", Fix: "correct the NPI and resend the claim"},
		}}}
	case r.GetFileId() == fileID:
		for i, c := range f.claims() {
			all = append(all, &claimsv1.ClaimOutcome{Ordinal: uint32(i), ClaimId: c.GetClaimId(), Status: c.GetStatus()})
		}
		if file.GetState() == claimsv1.FileState_FILE_STATE_CANCELED {
			all[2] = &claimsv1.ClaimOutcome{Ordinal: 2, Status: claimsv1.ClaimStatus_CLAIM_STATUS_NOT_PROCESSED}
		}
	}
	page, _ := strconv.Atoi(r.GetPageToken())
	out := &claimsv1.ListFileOutcomesResponse{}
	if page < len(all) {
		out.Outcomes = all[page : page+1]
	}
	if page+1 < len(all) {
		out.NextPageToken = strconv.Itoa(page + 1)
	}
	return out, nil
}

func (f filesFake) CancelFile(ctx context.Context, r *claimsv1.CancelFileRequest) (*claimsv1.CancelFileResponse, error) {
	if err := f.authorizer.Authorize(ctx, "CancelFile", identity.Resource{Type: identity.File, ID: r.GetFileId(), Org: "prov-lakeside"}); err != nil {
		return nil, err
	}
	f.mu.Lock()
	f.canceled, f.polls = true, 0
	f.mu.Unlock()
	return &claimsv1.CancelFileResponse{File: f.file(r.GetFileId())}, nil
}

func (f filesFake) ListFiles(context.Context, *claimsv1.ListFilesRequest) (*claimsv1.ListFilesResponse, error) {
	return &claimsv1.ListFilesResponse{Files: []*claimsv1.File{f.file(fileID), f.file(refused)}}, nil
}

type remittancesFake struct {
	claimsv1connect.UnimplementedRemittanceServiceHandler
	*world
}

func (remittancesFake) ListRemittances(context.Context, *claimsv1.ListRemittancesRequest) (*claimsv1.ListRemittancesResponse, error) {
	return &claimsv1.ListRemittancesResponse{Remittances: []*claimsv1.Remittance{{
		RemittanceId: remitID, PayerId: "KEYSTONE", PayeeNpi: "1234567893", PaidCents: 8500, ClaimIds: []string{paidID}, PaymentDate: "2026-11-21", TraceNumber: "T17",
	}}}, nil
}

type policiesFake struct {
	policiesv1connect.UnimplementedPoliciesServiceHandler
	*world
}

func (policiesFake) PublishPlan(_ context.Context, r *policiesv1.PublishPlanRequest) (*policiesv1.PublishPlanResponse, error) {
	if r.GetEtag() == "stale" {
		return nil, problem.New(problem.Conflict, problem.Problem{RuleID: "document.etag", FieldPath: "etag", Message: "another version was published since", Fix: "read the newest version and make the change in it"})
	}
	return &policiesv1.PublishPlanResponse{PlanId: "plan_gold", Version: 4, Etag: "0123abcd"}, nil
}

func (policiesFake) PublishNetwork(context.Context, *policiesv1.PublishNetworkRequest) (*policiesv1.PublishNetworkResponse, error) {
	return &policiesv1.PublishNetworkResponse{NetworkId: "net_gold", Version: 2, Etag: "v2-ab"}, nil
}

func (policiesFake) LintDocument(_ context.Context, r *policiesv1.LintDocumentRequest) (*policiesv1.LintDocumentResponse, error) {
	if bytes.Contains([]byte(r.GetDocument()), []byte("bad")) {
		return &policiesv1.LintDocumentResponse{Problems: []*problemv1.Problem{{RuleId: "plan.overlap", FieldPath: "benefits[1].match", Message: r.GetKind() + ": two benefits match the same services", Fix: "narrow one of them"}}}, nil
	}
	return &policiesv1.LintDocumentResponse{}, nil
}

type workflowsFake struct {
	workflowsv1connect.UnimplementedWorkflowServiceHandler
	*world
}

func (w workflowsFake) ResumeFile(_ context.Context, _ *workflowsv1.ResumeFileRequest) (*workflowsv1.ResumeFileResponse, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	started := !w.resumed
	w.resumed = true
	return &workflowsv1.ResumeFileResponse{Started: started}, nil
}

func (w workflowsFake) GetFileProgress(context.Context, *workflowsv1.GetFileProgressRequest) (*workflowsv1.GetFileProgressResponse, error) {
	if w.down.Load() {
		return nil, problem.New(problem.Unavailable, problem.Problem{RuleID: "workflows.away", Message: "workflows are away"})
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.polls++
	done := uint32(min(w.polls, 3))
	p := &workflowsv1.GetFileProgressResponse{ClaimCount: 3, Done: done, Complete: done == 3, Stage: "deciding"}
	switch {
	case w.canceled && done == 3:
		p.Stage, p.NotProcessed = "canceled", 1
	case w.canceled:
		p.Stage = "canceling"
	case done == 3:
		p.Stage = "complete"
	}
	return p, nil
}

func (w workflowsFake) ReviewClaim(ctx context.Context, r *workflowsv1.ReviewClaimRequest) (*workflowsv1.ReviewClaimResponse, error) {
	if err := w.authorizer.Authorize(ctx, "ReviewClaim", identity.Resource{Type: identity.Claim, ID: r.GetClaimId(), Org: "prov-lakeside", Payer: "KEYSTONE"}); err != nil {
		return nil, err
	}
	w.mu.Lock()
	w.resolved = r.GetResolution()
	w.mu.Unlock()
	claim, err := claimsFake{world: w.world}.find(r.GetClaimId())
	return &workflowsv1.ReviewClaimResponse{Claim: claim}, err
}

// ledgerFake has one commit in one block, signed by one party. The block is
// there from the second time it is asked for.
type ledgerFake struct {
	ledgerv1connect.UnimplementedLedgerServiceHandler
	ledgerv1connect.UnimplementedProofServiceHandler
	policy     []byte
	checkpoint []byte
	evidence   []byte
	receipt    []byte
	commit     []byte
	// kept and broken are promises of the commit's position: of that commit,
	// and of another.
	kept, broken []byte
	asked        atomic.Int32
}

const origin = "probity.example/test"

func newLedgerFake() (*ledgerFake, error) {
	skey, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return nil, err
	}
	key, err := receipt.ParseSigningKey(skey)
	if err != nil {
		return nil, err
	}
	policy, err := receipt.FirstPolicy(&receipt.Terms{
		Origin: origin, Sequence: 1, Activation: 1, Quorum: 1, Logs: []receipt.LogShards{{Log: "claims", Shards: 4}},
		Members: []receipt.Member{{Role: receipt.Cosigner, Key: key.Public()}},
	})
	if err != nil {
		return nil, err
	}
	decision, err := proto.MarshalOptions{Deterministic: true}.Marshal(explained(claimsv1.ClaimStatus_CLAIM_STATUS_PAID))
	if err != nil {
		return nil, err
	}
	hash := sha256.Sum256(decision)
	decided, err := proto.Marshal(&eventsv1.ClaimDecided{ClaimId: paidID, DecisionSha256: hash[:]})
	if err != nil {
		return nil, err
	}
	commit, err := proto.Marshal(&ledgerv1.Commit{Log: "claims", Shard: 3, Writes: []*ledgerv1.CommittedWrite{
		{Stream: "claim-" + paidID, Events: []*ledgerv1.Event{{Type: "probity.events.v1.ClaimDecided", Payload: decided}}},
	}})
	if err != nil {
		return nil, err
	}
	entry := receipt.Entry(commit)
	block := receipt.Block{Origin: origin, Height: 1, Time: noon, Policy: policy.Last().Ref(), Heads: []receipt.Head{
		{Log: "claims", Shard: 3, Size: 1, Root: receipt.LeafHash(entry)},
	}}
	cp := receipt.Checkpoint{Origin: origin, Size: 1, Root: block.Hash()}
	signed, err := cp.Sign(key.Cosigner(noon))
	if err != nil {
		return nil, err
	}
	other := cp
	other.Root[0] ^= 1
	twice, err := other.Sign(key.Cosigner(noon))
	if err != nil {
		return nil, err
	}
	r := receipt.Receipt{Log: "claims", Shard: 3, Index: 0, Entry: entry, Header: block.Header(), Checkpoint: signed}
	r.Head, r.Place, r.HeadProof, _ = block.ProveHead("claims", 3)
	promise := func(entry []byte) []byte {
		group := receipt.Group{Origin: origin, Log: "claims", Shard: 3, Count: 1, Root: receipt.LeafHash(entry)}
		signed, err := group.Sign(key.Notes())
		if err != nil {
			panic(err)
		}
		p := receipt.Promise{Log: "claims", Shard: 3, Entry: entry, Note: signed}
		return p.Marshal()
	}
	e := receipt.Evidence{Wrong: receipt.TwoHeads, First: signed, Second: twice}
	return &ledgerFake{policy: policy.Marshal(), checkpoint: signed, evidence: e.Marshal(), receipt: r.Marshal(), commit: commit, kept: promise(entry), broken: promise(receipt.Entry([]byte("another")))}, nil
}

func (l *ledgerFake) GetReceipt(_ context.Context, r *ledgerv1.GetReceiptRequest) (*ledgerv1.GetReceiptResponse, error) {
	if l.asked.Add(1) == 1 {
		return nil, problem.New(problem.Unavailable, problem.Problem{RuleID: "ledger.not-sealed", Message: "the commit is not sealed yet", Fix: "retry in a moment"})
	}
	out := &ledgerv1.GetReceiptResponse{Receipt: l.receipt}
	if r.GetIncludeCommit() {
		out.Commit = l.commit
	}
	return out, nil
}

func (l *ledgerFake) GetCheckpoint(context.Context, *ledgerv1.GetCheckpointRequest) (*ledgerv1.GetCheckpointResponse, error) {
	return &ledgerv1.GetCheckpointResponse{Checkpoint: l.checkpoint, Policy: l.policy, Quorum: 1}, nil
}

func (l *ledgerFake) GetLedgerPolicy(context.Context, *ledgerv1.GetLedgerPolicyRequest) (*ledgerv1.GetLedgerPolicyResponse, error) {
	return &ledgerv1.GetLedgerPolicyResponse{Policy: l.policy, Sequence: 1}, nil
}

func (l *ledgerFake) GetConsistency(_ context.Context, r *ledgerv1.GetConsistencyRequest) (*ledgerv1.GetConsistencyResponse, error) {
	return &ledgerv1.GetConsistencyResponse{Checkpoint: l.checkpoint}, nil
}

func (l *ledgerFake) ListEvidence(context.Context, *ledgerv1.ListEvidenceRequest) (*ledgerv1.ListEvidenceResponse, error) {
	return &ledgerv1.ListEvidenceResponse{Evidence: [][]byte{l.evidence}}, nil
}

func (l *ledgerFake) SubmitEvidence(_ context.Context, r *ledgerv1.SubmitEvidenceRequest) (*ledgerv1.SubmitEvidenceResponse, error) {
	l.evidence = r.GetEvidence()
	return &ledgerv1.SubmitEvidenceResponse{}, nil
}

func (l *ledgerFake) GetLedger(context.Context, *ledgerv1.GetLedgerRequest) (*ledgerv1.GetLedgerResponse, error) {
	return &ledgerv1.GetLedgerResponse{Origin: origin, BlockHeight: 1}, nil
}

// replaysFake finds every decision identical but that of deniedID.
type replaysFake struct {
	claimsv1connect.UnimplementedReplayServiceHandler
	*world
}

func (f replaysFake) ReplayDecisions(_ context.Context, r *claimsv1.ReplayDecisionsRequest, s *connect.ServerStream[claimsv1.ReplayDecisionsResponse]) error {
	counts := &claimsv1.ReplayCounts{}
	for _, c := range f.claims() {
		if r.GetClaimId() != "" && r.GetClaimId() != c.GetClaimId() {
			continue
		}
		d := &claimsv1.ReplayedDecision{
			ClaimId: c.GetClaimId(), Position: c.GetPosition(), Verdict: claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL,
			RecordedSha256: []byte{0x3f, 0x1c}, ReplayedSha256: []byte{0x3f, 0x1c},
		}
		counts.Decisions++
		if c.GetClaimId() == deniedID {
			counts.Different++
			d.Verdict, d.ReplayedSha256 = claimsv1.ReplayVerdict_REPLAY_VERDICT_DIFFERENT, []byte{0x77}
			d.Differences = []*claimsv1.ReplayDifference{{Path: "decision.lines[0].paid_cents", Recorded: "0", Replayed: "8500"}}
		} else {
			counts.Identical++
		}
		if r.GetClaimId() != "" || d.GetVerdict() != claimsv1.ReplayVerdict_REPLAY_VERDICT_IDENTICAL {
			if err := s.Send(&claimsv1.ReplayDecisionsResponse{Counts: counts, Decision: d}); err != nil {
				return err
			}
		}
	}
	return s.Send(&claimsv1.ReplayDecisionsResponse{Counts: counts, Done: true})
}

func (f replaysFake) SimulatePlan(_ context.Context, r *claimsv1.SimulatePlanRequest, s *connect.ServerStream[claimsv1.SimulatePlanResponse]) error {
	if strings.Contains(r.GetDocument(), "contradiction") {
		return s.Send(&claimsv1.SimulatePlanResponse{Result: &claimsv1.PlanSimulation{Problems: []*problemv1.Problem{{RuleId: "plan.contradiction", Message: "two limits contradict each other"}}}})
	}
	visits := &claimsv1.BenefitDifference{Benefit: "office_visit", LinesBefore: 4, LinesAfter: 4, AllowedBeforeCents: 40000, AllowedAfterCents: 40000,
		PaidBeforeCents: 16000, PaidAfterCents: 12000, PatientBeforeCents: 24000, PatientAfterCents: 28000, DeniedAfter: 1}
	return errors.Join(
		s.Send(&claimsv1.SimulatePlanResponse{Claims: 2}),
		s.Send(&claimsv1.SimulatePlanResponse{Claims: 4, Result: &claimsv1.PlanSimulation{
			Plans: []string{"plan_gold@1"}, Claims: 4, Unchanged: 3, PaidLess: 1, Benefits: []*claimsv1.BenefitDifference{visits}, Total: visits,
		}}),
	)
}

func (policiesFake) DiffPlans(_ context.Context, r *policiesv1.DiffPlansRequest) (*policiesv1.DiffPlansResponse, error) {
	out := &policiesv1.DiffPlansResponse{PlanId: "plan_gold", MembersAffected: 12, FamiliesAffected: 5, Differences: []*policiesv1.PlanDifference{
		{Kind: "changed", Field: "effective.start_date", OldValue: "2026-01-01", NewValue: "2026-07-01"},
		{Benefit: "office_visit", Kind: "changed", Field: "copay_in_cents", OldValue: "$25.00", NewValue: "$20.00", Favours: "member"},
		{Benefit: "therapy", Kind: "removed"},
	}}
	if r.GetVersion() == 3 {
		out.Differences = nil
	}
	if bytes.Contains([]byte(r.GetNewDocument()), []byte("network_id")) {
		return &policiesv1.DiffPlansResponse{Problems: []*problemv1.Problem{{RuleId: "plan.diff.no-plan", Message: "the document is no plan: it is a network", Fix: "give a plan's document", Line: 1, Column: 1}}}, nil
	}
	if bytes.Contains([]byte(r.GetNewDocument()), []byte("bad")) {
		out.Problems = []*problemv1.Problem{{RuleId: "plan.overlap", FieldPath: "benefits[1].match", Message: "two benefits match the same services", Fix: "narrow one of them", Line: 4, Column: 7}}
	}
	return out, nil
}

func (f policiesFake) GetMember(ctx context.Context, r *policiesv1.GetMemberRequest) (*policiesv1.GetMemberResponse, error) {
	return f.members.GetMember(ctx, r)
}

func (f policiesFake) GetMemberHistory(ctx context.Context, r *policiesv1.GetMemberHistoryRequest) (*policiesv1.GetMemberHistoryResponse, error) {
	return f.members.GetMemberHistory(ctx, r)
}

// editsFake refuses what isn't the word "table".
type editsFake struct {
	policiesv1connect.UnimplementedEditsServiceHandler
}

func (editsFake) ImportEdits(_ context.Context, s *connect.ClientStream[policiesv1.ImportEditsRequest]) (*policiesv1.ImportEditsResponse, error) {
	var content []byte
	for s.Receive() {
		content = append(content, s.Msg().GetData()...)
	}
	if !bytes.HasPrefix(content, []byte("table")) {
		return nil, problem.New(problem.Invalid, problem.Problem{RuleID: "edits.code", Line: 7, Message: "column 1 is not a procedure code", Fix: "send the file as CMS publishes it"})
	}
	return &policiesv1.ImportEditsResponse{Version: 2, RowCount: 13}, nil
}

func (editsFake) ListEditTables(context.Context, *policiesv1.ListEditTablesRequest) (*policiesv1.ListEditTablesResponse, error) {
	return &policiesv1.ListEditTablesResponse{Tables: []*policiesv1.EditTableVersion{{Table: policiesv1.EditTable_EDIT_TABLE_PTP_PRACTITIONER, Version: 2, Quarter: "2026Q1", RowCount: 13, Digest: []byte{1, 2, 3, 4, 5, 6, 7, 8}}}}, nil
}

// everybody may do everything: who may enrol is the policies service's test.
type everybody struct{}

func (everybody) Authorize(context.Context, string, identity.Resource) error { return nil }

// enrolling is no fake: enrolment files go through a real gateway to a real
// policies service that holds the sample, so that a script shows what a person
// is told of a faulty file, and that it changed nothing.
func (w *world) enrolling(dir string) (*gateway.Service, func() error, error) {
	store, directory := eventstore.NewMemory(eventstore.MemoryOptions{Now: func() time.Time { return noon }}), book.New()
	sealer := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	ctx, stop := context.WithCancel(context.Background())
	ran := make(chan error, 1)
	go func() { ran <- directory.Run(ctx, store) }()
	w.members = policies.NewHandler(policies.Deps{Store: store, Directory: directory, Sealer: sealer, Index: keys.NewIndex([32]byte{7}), Authorizer: everybody{}})
	gw := gateway.New(gateway.Config{SpoolDir: dir}, gateway.Deps{Policies: w.members})
	end := func() error {
		gw.Close()
		stop()
		if err := <-ran; !errors.Is(err, context.Canceled) {
			return err
		}
		return sealer.Close()
	}
	if _, err := sample.Load(ctx, w.members); err != nil {
		return nil, nil, errors.Join(err, end())
	}
	return gw, end, nil
}

type adjustmentsFake struct{ *world }

func (f adjustmentsFake) claim(id string) (*claimsv1.ClaimSummary, error) {
	return claimsFake{world: f.world}.find(id)
}

func (f adjustmentsFake) GetClaimHistory(_ context.Context, r *claimsv1.GetClaimHistoryRequest) (*claimsv1.GetClaimHistoryResponse, error) {
	claim, err := f.claim(r.GetClaimId())
	return &claimsv1.GetClaimHistoryResponse{Claims: []*claimsv1.ClaimSummary{claim}, Entries: []*claimsv1.HistoryEntry{{
		ClaimId: r.GetClaimId(), Entry: &claimsv1.TimelineEntry{Time: claim.GetReceivedTime(), Event: "ClaimReversed", Actor: "dev-biller", Position: claim.GetPosition(), Text: "Reversed $85.00: voided"},
	}}}, err
}

// VoidClaim answers with the request id in place of the void's own id, so that
// a script sees what was sent.
func (f adjustmentsFake) VoidClaim(_ context.Context, r *claimsv1.VoidClaimRequest) (*claimsv1.VoidClaimResponse, error) {
	_, err := f.claim(r.GetClaimId())
	return &claimsv1.VoidClaimResponse{Claim: &claimsv1.ClaimSummary{ClaimId: r.GetRequestId(), Status: claimsv1.ClaimStatus_CLAIM_STATUS_REVERSED}}, err
}

func (f adjustmentsFake) ReprocessClaims(_ context.Context, r *claimsv1.ReprocessClaimsRequest) (*claimsv1.ReprocessClaimsResponse, error) {
	out := &claimsv1.ReprocessClaimsResponse{PaidDifferenceCents: -4000, PatientDifferenceCents: 4000}
	for i, id := range r.GetClaimIds() {
		if _, err := f.claim(id); err != nil {
			return nil, err
		}
		out.Corrections = append(out.Corrections, &claimsv1.Correction{ClaimId: id, StatusBefore: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, StatusAfter: claimsv1.ClaimStatus_CLAIM_STATUS_PAID,
			PaidBeforeCents: 8000, PaidAfterCents: 4000, PatientBeforeCents: 2000, PatientAfterCents: 6000, AccumulatorsMoved: i > 0})
	}
	return out, nil
}

func (f adjustmentsFake) ListAffectedClaims(_ context.Context, r *claimsv1.ListAffectedClaimsRequest) (*claimsv1.ListAffectedClaimsResponse, error) {
	out := &claimsv1.ListAffectedClaimsResponse{}
	if r.GetVersion() == "plan_gold@3" && r.GetPageToken() == "" {
		out.ClaimIds, out.NextPageToken = []string{paidID}, "more"
	}
	return out, nil
}

var proposedChange = &claimsv1.Change{
	ChangeId: "chg_aaaaaaaaaaaaaaaaaaaaaaaaaa", PayerId: "ACME", Cause: "fee-schedule", Version: "fs_gold@2", State: claimsv1.ChangeState_CHANGE_STATE_PROPOSED,
	Corrections: 1, Waiting: 1, PaidDifferenceCents: -4000, PatientDifferenceCents: 4000, WaitingClaimIds: []string{pendedID},
}

func (f adjustmentsFake) ListChanges(_ context.Context, r *claimsv1.ListChangesRequest) (*claimsv1.ListChangesResponse, error) {
	out := &claimsv1.ListChangesResponse{}
	if r.GetState() != claimsv1.ChangeState_CHANGE_STATE_REPROCESSED {
		out.Changes = []*claimsv1.Change{proposedChange}
	}
	return out, nil
}

func (f adjustmentsFake) ReprocessChange(_ context.Context, r *claimsv1.ReprocessChangeRequest) (*claimsv1.ReprocessChangeResponse, error) {
	c := proto.CloneOf(proposedChange)
	if r.GetDryRun() {
		return &claimsv1.ReprocessChangeResponse{Change: c, More: true, Corrections: []*claimsv1.Correction{{ClaimId: paidID,
			StatusBefore: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, StatusAfter: claimsv1.ClaimStatus_CLAIM_STATUS_PAID, PaidBeforeCents: 8000, PaidAfterCents: 4000}}}, nil
	}
	c.State = claimsv1.ChangeState_CHANGE_STATE_APPROVED
	return &claimsv1.ReprocessChangeResponse{Change: c}, nil
}
