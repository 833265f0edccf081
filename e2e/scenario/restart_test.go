package scenario

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/sample"
)

// told is what a stack answers to every question of a reader.
type told struct {
	Claims, Files, Remittances []string
	Explained, Timelines       []string
	Receipts                   map[string]string // the commit that each claim's receipt proves
}

func (s *stack) tellAll(t *testing.T) told {
	t.Helper()
	text := func(m proto.Message) string { return prototext.MarshalOptions{}.Format(m) }
	out := told{Receipts: map[string]string{}}
	policy := s.policy(t)
	s.settle(t)
	for _, c := range s.claims(t, &claimsv1.ListClaimsRequest{}) {
		out.Claims = append(out.Claims, text(c))
		explained, err := s.developer(t).Claims.ExplainClaim(t.Context(), &claimsv1.ExplainClaimRequest{ClaimId: c.GetClaimId()})
		require.NoError(t, err)
		out.Explained = append(out.Explained, text(explained))
		out.Timelines = append(out.Timelines, text(s.claim(t, c.GetClaimId())))
		proof := s.receipt(t, c.GetPosition())
		verified, err := receipt.Verify(proof.GetReceipt(), policy)
		require.NoError(t, err)
		require.NoError(t, receipt.VerifyCommit(verified, proof.GetCommit()))
		out.Receipts[c.GetClaimId()] = string(proof.GetCommit())
	}
	for _, f := range s.files(t) {
		out.Files = append(out.Files, text(f))
	}
	for _, r := range s.remittances(t, "") {
		out.Remittances = append(out.Remittances, text(r)+string(s.document(t, "835", r.GetRemittanceId())))
	}
	return out
}

// receipt waits until a commit is sealed.
func (s *stack) receipt(t *testing.T, at *ledgerv1.Position) *ledgerv1.GetReceiptResponse {
	t.Helper()
	var got *ledgerv1.GetReceiptResponse
	await(t, "the commit is sealed", func() bool {
		var err error
		got, err = s.developer(t).Ledger.GetReceipt(t.Context(), &ledgerv1.GetReceiptRequest{Position: at, IncludeCommit: true})
		return err == nil
	})
	return got
}

// theRestart: given a stack with a past, when it is stopped and started, then
// it answers every question as before. Its lists are taken away meanwhile, so
// this is their rebuild too; who is only killed goes on with them.
func theRestart(t *testing.T, s *stack, start func()) {
	before := s.tellAll(t)
	require.NotEmpty(t, before.Claims)
	checkpoint, err := s.developer(t).Ledger.GetLedger(t.Context(), &ledgerv1.GetLedgerRequest{})
	require.NoError(t, err)

	s.stop(t)
	// What was left of the lists is what the commits say, every key of it.
	checked := s.probity(t, "fsck", filepath.Join(s.dir, "ledger"), "--views", filepath.Join(s.dir, "lists"))
	require.Zero(t, checked.code, "%s%s", checked.out, checked.err)
	require.NotContains(t, checked.out, "the view claims", "it was checked")
	require.NoError(t, os.RemoveAll(filepath.Join(s.dir, "lists")))
	start()

	require.Equal(t, before, s.tellAll(t))
	now, err := s.developer(t).Ledger.GetLedger(t.Context(), &ledgerv1.GetLedgerRequest{})
	require.NoError(t, err)
	require.GreaterOrEqual(t, now.GetBlockHeight(), checkpoint.GetBlockHeight())
}

// theDisk: given everything that was sent, then none of its names, member
// ids, diagnoses or free text lies in clear in any file of the stack but those
// that are for the user, nor in what its processes wrote to their logs.
func theDisk(t *testing.T, s *stack) {
	words := sensitive(sample.ClaimsFile())
	require.Greater(t, len(words), 30)
	words = append(words, "KVORTHSHIRE", "medically necessary", "BAD-zero-charge")
	// The test's own copy of the file shows that looking finds.
	require.Contains(t, string(readFile(t, filepath.Join(s.home, "scratch", "claims.edi"))), words[0])
	s.lookThrough(t, words, filepath.Join(s.dir, "remittances"), filepath.Join(s.dir, "receipts"))
}

// sensitive are the words of a claims file that identify a person or tell of
// their health, as far as they are long enough not to occur by chance.
func sensitive(file []byte) []string {
	seen := map[string]bool{}
	var words []string
	add := func(word string) {
		if len(word) >= 7 && !seen[word] {
			seen[word] = true
			words = append(words, word)
		}
	}
	for _, s := range segments(file) {
		el := func(i int) string {
			if i < len(s) {
				return s[i]
			}
			return ""
		}
		switch s[0] {
		case "NM1":
			if el(1) == "IL" || el(1) == "QC" {
				add(el(3))
				add(el(9))
			}
		case "N3":
			add(el(1))
		case "CLM":
			add(el(1))
		case "HI":
			add(el(1))
		case "SV1":
			add(el(1))
		case "REF":
			if el(1) == "6R" {
				add(el(2))
			}
		}
	}
	return words
}

// events are all events of a log, as an auditor reads them.
func (s *stack) events(t *testing.T, log string) []*ledgerv1.RecordedEvent {
	t.Helper()
	stream, err := s.client(t, "auditor").Ledger.Subscribe(t.Context(), &ledgerv1.SubscribeRequest{Log: log})
	require.NoError(t, err)
	defer func() { _ = stream.Close() }()
	var all []*ledgerv1.RecordedEvent
	for stream.Receive() {
		all = append(all, stream.Msg().GetEvents()...)
		if stream.Msg().GetCaughtUp() {
			return all
		}
	}
	require.NoError(t, stream.Err())
	t.Fatalf("the log %s ended before it was caught up", log)
	return nil
}
