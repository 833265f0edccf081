package scenario

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/cli"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
)

// submitted is the document that `probity submit -o json` prints.
type submitted struct {
	File      *claimsv1.File
	Duplicate bool
	Problems  []json.RawMessage
	Claims    []*claimsv1.ClaimSummary
	Refused   []*claimsv1.ClaimOutcome
	PaidCents int64 // caused by this submission
}

func readSubmitted(t *testing.T, text string) submitted {
	t.Helper()
	var doc struct {
		File            json.RawMessage
		Duplicate       bool
		Problems        []json.RawMessage
		Claims, Refused []json.RawMessage
		Totals          struct{ PaidCents int64 }
	}
	require.NoError(t, json.Unmarshal([]byte(text), &doc), text)
	out := submitted{File: &claimsv1.File{}, Duplicate: doc.Duplicate, Problems: doc.Problems, PaidCents: doc.Totals.PaidCents}
	require.NoError(t, protojson.Unmarshal(doc.File, out.File))
	for _, raw := range doc.Claims {
		c := &claimsv1.ClaimSummary{}
		require.NoError(t, protojson.Unmarshal(raw, c))
		out.Claims = append(out.Claims, c)
	}
	for _, raw := range doc.Refused {
		o := &claimsv1.ClaimOutcome{}
		require.NoError(t, protojson.Unmarshal(raw, o))
		out.Refused = append(out.Refused, o)
	}
	return out
}

// theSample: given the sample payer, when its file is submitted, then every
// claim ends as the sample says.
func theSample(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	s.loadSample(t)
	if rss, err := s.process.RSSMiB(); err == nil {
		t.Logf("resident with the sample payer loaded: %.0f MiB", rss)
	}

	answer := s.probity(t, "submit", s.write(t, "claims.edi", sample.ClaimsFile()), "-o", "json")
	require.Equal(t, cli.ExitRejected, answer.code, "one claim of the file is refused: %s", answer.err)
	got := readSubmitted(t, answer.out)
	require.False(t, got.Duplicate)
	sent.sampleFile = got.File.GetFileId()

	outcomes := sample.Outcomes()
	byOrdinal := map[uint32]*claimsv1.ClaimSummary{}
	for _, c := range got.Claims {
		byOrdinal[c.GetFileOrdinal()] = c
	}
	rejected := map[uint32]*claimsv1.ClaimOutcome{}
	for _, o := range got.Refused {
		rejected[o.GetOrdinal()] = o
	}
	require.Len(t, outcomes, len(got.Claims)+len(got.Refused))
	var paid int64
	for i, want := range outcomes {
		if want.Status == "rejected" {
			o := rejected[uint32(i)]
			require.NotNil(t, o, want.ControlNumber)
			require.NotEmpty(t, o.GetProblems(), want.ControlNumber)
			require.Contains(t, o.GetProblems()[0].GetCode(), want.Codes[0], want.ControlNumber)
			require.NotEmpty(t, o.GetProblems()[0].GetX12Path(), want.ControlNumber)
			require.Empty(t, o.GetClaimId(), want.ControlNumber)
			continue
		}
		c := byOrdinal[uint32(i)]
		require.NotNil(t, c, want.ControlNumber)
		require.Equal(t, want.Status, status(c), "%s: %s", want.ControlNumber, want.Why)
		require.Equal(t, []int64{want.ChargeCents, want.AllowedCents, want.PaidCents, want.PatientCents},
			[]int64{c.GetChargeCents(), c.GetAllowedCents(), c.GetPaidCents(), c.GetPatientCents()}, "%s: %s", want.ControlNumber, want.Why)
		require.Subset(t, c.GetCodes(), want.Codes, want.ControlNumber)
		paid += want.PaidCents
		if want.Status == "pended" {
			sent.pended = c.GetClaimId()
		}
	}
	require.Equal(t, paid, got.PaidCents)
	require.NotEmpty(t, sent.pended)
}

// theDocuments: given the decided file, then its 999 accepts it, its 277CA
// names each claim, and its 835s balance and pay what was decided.
func theDocuments(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	ack := s.probity(t, "files", "document", sent.sampleFile, "999")
	require.Equal(t, cli.ExitOK, ack.code, ack.err)
	said := segments([]byte(ack.out))
	require.Equal(t, 1, count(said, "ST", "999"))
	require.Equal(t, 1, count(said, "AK1", "HC", "101"), "the group that is acknowledged")
	require.Equal(t, 1, count(said, "IK5", "E")+count(said, "IK5", "A"), "the set is accepted: a claim's NPI is no fault of syntax")

	notice := segments(s.document(t, "277CA", sent.sampleFile))
	require.Equal(t, 1, count(notice, "ST", "277"))
	for _, o := range sample.Outcomes() {
		require.Equal(t, 1, count(notice, "TRN", "2", o.ControlNumber), "%s is answered once", o.ControlNumber)
	}

	outcomes := map[string]sample.Outcome{}
	for _, o := range sample.Outcomes() {
		outcomes[o.ControlNumber] = o
	}
	paid := map[string]int64{}
	for _, r := range s.remittances(t, sent.sampleFile) {
		advice := s.probity(t, "remit", "get", r.GetRemittanceId())
		require.Equal(t, cli.ExitOK, advice.code, advice.err)
		a := parseAdvice(t, []byte(advice.out))
		require.Equal(t, r.GetPaidCents(), a.PaidCents)
		require.Equal(t, r.GetPayeeNpi(), a.Payee.ID)
		for _, c := range a.Claims {
			_, again := paid[c.PatientControl]
			require.False(t, again, "%s stands in two remittances", c.PatientControl)
			paid[c.PatientControl] = c.PaidCents
		}
	}
	for control, o := range outcomes {
		got, in := paid[control]
		require.Equal(t, o.Status == "paid" || o.Status == "denied", in, "%s, which is %s, in a remittance", control, o.Status)
		require.Equal(t, o.PaidCents, got, control)
	}
}

// parseAdvice reads an 835 of one transaction set and holds it against the
// guide's balancing rules.
func parseAdvice(t *testing.T, document []byte) *x12.Advice {
	t.Helper()
	advices, err := x12.ParseAdvice(bytes.NewReader(document), x12.Limits{})
	require.NoError(t, err)
	require.Len(t, advices, 1)
	require.Empty(t, x12.CheckBalance835(advices[0]))
	return advices[0]
}

// theReceipts: given a decided claim, when its receipt and the public keys
// are taken away from the system, then they prove the decision by themselves,
// and a receipt that differs in one byte proves nothing.
func theReceipts(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	var firstReceipt, firstCommit []byte
	keys := s.write(t, "keys.json", nil)
	made := s.probity(t, "keys", "-f", keys)
	require.Equal(t, cli.ExitOK, made.code, made.err)
	policy := s.policy(t)
	for _, c := range s.claims(t, &claimsv1.ListClaimsRequest{FileId: sent.sampleFile}) {
		path, commitPath := s.write(t, c.GetClaimId()+".receipt", nil), s.write(t, c.GetClaimId()+".commit", nil)
		got := s.probity(t, "receipt", c.GetClaimId(), "-f", path, "--commit", commitPath)
		require.Equal(t, cli.ExitOK, got.code, got.err)
		document, err := os.ReadFile(path)
		require.NoError(t, err)
		commit, err := os.ReadFile(commitPath)
		require.NoError(t, err)
		verified, err := receipt.Verify(document, policy)
		require.NoError(t, err)
		require.NoError(t, receipt.VerifyCommit(verified, commit))
		require.Equal(t, c.GetPosition().GetIndex(), verified.Index)
		if firstReceipt == nil {
			firstReceipt, firstCommit = document, commit
		} else {
			require.Error(t, receipt.VerifyCommit(verified, firstCommit), "a receipt proves its own commit only")
		}
	}
	// Offline: neither server nor context, only files.
	good, bad := s.write(t, "good.receipt", firstReceipt), ""
	offline := s.probity(t, "verify", good, "--policy", keys, "--server", "http://127.0.0.1:1")
	require.Equal(t, cli.ExitOK, offline.code, offline.err)
	for i := range firstReceipt {
		forged := slices.Clone(firstReceipt)
		forged[i] ^= 0x01
		if _, err := receipt.Verify(forged, policy); err == nil {
			t.Fatalf("a receipt with byte %d of %d changed still verifies", i, len(forged))
		}
		if i == len(forged)/2 {
			bad = s.write(t, "forged.receipt", forged)
		}
	}
	refused := s.probity(t, "verify", bad, "--policy", keys)
	require.Equal(t, cli.ExitProofFailed, refused.code, refused.out)
}

// policy is whom a verifier believes: every key of this ledger.
func (s *stack) policy(t *testing.T) receipt.Policy {
	t.Helper()
	checkpoint, err := s.developer(t).Ledger.GetCheckpoint(t.Context(), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	policy, err := receipt.NewPolicy(standalone.Origin, len(checkpoint.GetVerifierKeys()), checkpoint.GetVerifierKeys()...)
	require.NoError(t, err)
	return policy
}

// theSameFileAgain: given a decided file, when the same bytes come again,
// then it is called a duplicate, and nothing is decided or paid.
func theSameFileAgain(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	before := s.tally(t)
	again := s.probity(t, "submit", s.write(t, "claims.edi", sample.ClaimsFile()), "-o", "json")
	got := readSubmitted(t, again.out)
	require.True(t, got.Duplicate)
	require.Equal(t, sent.sampleFile, got.File.GetFileId())
	require.Zero(t, got.PaidCents)
	require.Equal(t, before, s.tally(t))
}

// theSameClaimsInAnotherFile: given decided claims, when they come in a file
// with another control number, then what was paid is denied as a duplicate
// of the claim that it repeats, and nothing is paid.
func theSameClaimsInAnotherFile(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	other := bytes.ReplaceAll(sample.ClaimsFile(), []byte("000000101"), []byte("000000102"))
	answer := s.probity(t, "submit", s.write(t, "other.edi", other), "-o", "json")
	got := readSubmitted(t, answer.out)
	require.False(t, got.Duplicate)
	require.Zero(t, got.PaidCents)
	first := map[uint32]*claimsv1.ClaimSummary{}
	for _, c := range s.claims(t, &claimsv1.ListClaimsRequest{FileId: sent.sampleFile}) {
		first[c.GetFileOrdinal()] = c
	}
	for i, o := range sample.Outcomes() {
		if o.Status == "rejected" {
			continue
		}
		at := slices.IndexFunc(got.Claims, func(c *claimsv1.ClaimSummary) bool { return c.GetFileOrdinal() == uint32(i) })
		require.GreaterOrEqual(t, at, 0, o.ControlNumber)
		c := got.Claims[at]
		switch o.Status {
		case "paid":
			require.Equal(t, "denied", status(c), o.ControlNumber)
			require.Contains(t, c.GetCodes(), "OA-18", o.ControlNumber)
			require.Equal(t, first[uint32(i)].GetClaimId(), c.GetDuplicateOf(), o.ControlNumber)
		case "denied":
			require.Equal(t, "denied", status(c), o.ControlNumber)
		case "pended":
			require.Equal(t, "pended", status(c), o.ControlNumber)
			sent.repeated = c.GetClaimId()
		}
	}
	for _, r := range s.remittances(t, got.File.GetFileId()) {
		require.Zero(t, r.GetPaidCents())
		require.Zero(t, parseAdvice(t, s.document(t, "835", r.GetRemittanceId())).PaidCents)
	}
}

// theReview: given a claim that waits and its repetition, when a person
// approves both, then the first is paid and the second is not, a further
// approval is refused, and the claim's history says who did it.
func theReview(t *testing.T, s *stack, sent *ledgerOfTheSender) {
	listed := s.probity(t, "review", "list", "-o", "json")
	require.Equal(t, cli.ExitOK, listed.code, listed.err)
	require.Contains(t, listed.out, sent.pended)
	require.Contains(t, listed.out, sent.repeated)

	approved := s.probity(t, "review", "approve", sent.pended, "--reason", "records seen, medically necessary", "--request-id", "review-1", "-o", "json")
	require.Equal(t, cli.ExitOK, approved.code, approved.err)
	c := s.claim(t, sent.pended)
	require.Equal(t, "paid", status(c.GetClaim()))
	require.Positive(t, c.GetClaim().GetPaidCents())

	same := s.probity(t, "review", "approve", sent.pended, "--reason", "records seen, medically necessary", "--request-id", "review-1")
	require.Equal(t, cli.ExitOK, same.code, "the same request meets its own answer: %s", same.err)
	second := s.probity(t, "review", "deny", sent.pended, "--reason", "changed my mind", "--request-id", "review-2", "-o", "json")
	require.Equal(t, cli.ExitFailed, second.code)
	require.Contains(t, second.err, "decided")
	require.Equal(t, c.GetClaim().GetPaidCents(), s.claim(t, sent.pended).GetClaim().GetPaidCents())

	var events []string
	for _, e := range c.GetTimeline() {
		events = append(events, e.GetEvent())
		if e.GetEvent() == "ClaimReviewed" {
			require.Equal(t, "dev-developer", e.GetActor())
		}
	}
	require.Subset(t, events, []string{"ClaimReceived", "ClaimDecided", "ClaimReviewed"})

	repeated := s.probity(t, "review", "approve", sent.repeated, "--reason", "records seen")
	require.Equal(t, cli.ExitOK, repeated.code, repeated.err)
	r := s.claim(t, sent.repeated).GetClaim()
	require.Zero(t, r.GetPaidCents(), "approving a repetition pays nothing: %v", r)
	require.Contains(t, r.GetCodes(), "OA-18")

	// What a person has approved is remitted like any other claim.
	// A claim bears its remittance's mark a moment before that is issued.
	id := ""
	await(t, "the approved claim is remitted", func() bool {
		id = s.claim(t, sent.pended).GetClaim().GetRemittanceId()
		return slices.ContainsFunc(s.remittances(t, sent.sampleFile), func(r *claimsv1.Remittance) bool { return r.GetRemittanceId() == id })
	})
	advice := parseAdvice(t, s.document(t, "835", id))
	require.True(t, slices.ContainsFunc(advice.Claims, func(a x12.AdviceClaim) bool {
		return a.PayerClaim == sent.pended && a.PaidCents == c.GetClaim().GetPaidCents()
	}))
}

func (s *stack) claim(t *testing.T, id string) *claimsv1.GetClaimResponse {
	t.Helper()
	got, err := s.developer(t).Claims.GetClaim(t.Context(), &claimsv1.GetClaimRequest{ClaimId: id})
	require.NoError(t, err)
	return got
}

// tally is what a stack holds, in counts and sums: what must not change when
// something is refused.
type tally struct {
	claims, remittances, filesTaken int
	paid, patient, remitted         int64
}

func (s *stack) tally(t *testing.T) tally {
	t.Helper()
	s.settle(t)
	var out tally
	for _, c := range s.claims(t, &claimsv1.ListClaimsRequest{}) {
		out.claims++
		out.paid += c.GetPaidCents()
		out.patient += c.GetPatientCents()
	}
	for _, f := range s.files(t) {
		if f.GetState() != claimsv1.FileState_FILE_STATE_REFUSED {
			out.filesTaken++
		}
	}
	for _, r := range s.remittances(t, "") {
		out.remittances++
		out.remitted += r.GetPaidCents()
	}
	return out
}

// settle waits until the lists show all that is on the ledger. A replica may
// be some milliseconds behind what was answered, so its heads have to stand
// still for a moment first.
func (s *stack) settle(t *testing.T) {
	t.Helper()
	last, still := "", 0
	var heads []*ledgerv1.ShardHead
	await(t, "the ledger stands still", func() bool {
		ledger, err := s.developer(t).Ledger.GetLedger(t.Context(), &ledgerv1.GetLedgerRequest{})
		require.NoError(t, err)
		heads = slices.DeleteFunc(ledger.GetHeads(), func(h *ledgerv1.ShardHead) bool { return h.GetLog() != "claims" || h.GetSize() == 0 })
		sizes := ""
		for _, head := range heads {
			sizes += fmt.Sprintf("%d/%d ", head.GetShard(), head.GetSize())
		}
		if still++; sizes != last {
			last, still = sizes, 0
		}
		return still == 3
	})
	for _, head := range heads {
		at := eventstore.Position{Log: head.GetLog(), Shard: head.GetShard(), Index: head.GetSize() - 1}
		await(t, "the lists are built", func() bool {
			_, err := s.developer(t).Claims.ListClaims(t.Context(), &claimsv1.ListClaimsRequest{PageSize: 1, MinToken: at.Token()})
			if problem.Is(err, problem.Unavailable) {
				return false
			}
			require.NoError(t, err)
			return true
		})
	}
}

// await asks until the answer is yes, on the test's own goroutine.
func await(t *testing.T, what string, yes func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !yes(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
