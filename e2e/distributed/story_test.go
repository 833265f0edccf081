package distributed

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
)

// story is what has been submitted to an installation so far.
type story struct {
	*stack
	biller, adjudicator, planAdmin, auditor clients

	families *claimgen.World
	control  int      // interchange control number of the last generated file
	files    []string // ids of all files
	token    string   // of the last one
	claims   int      // in all files, the rejected left out
	direct   int      // by RPC
}

func TestAnInstallationOfProcesses(t *testing.T) {
	s := &story{stack: newStack(t)}
	s.biller, s.adjudicator, s.planAdmin, s.auditor = s.as("biller"), s.as("adjudicator"), s.as("plan-admin"), s.as("auditor")
	// Each step stands on the one before.
	step := func(name string, f func(*testing.T)) {
		if !t.Run(name, f) {
			t.FailNow()
		}
	}
	step("decides the sample as worked out by hand", s.decidesTheSample)
	step("lets a person review the pended claim", s.reviews)
	step("proves every claim", s.proves)
	for _, victim := range []string{"ledger", "claims", "worker", "gateway", "policies", "consent", "temporal"} {
		step("goes on after "+victim+" was killed", func(t *testing.T) { s.survives(t, victim) })
	}
	step("pays every payee once, whichever process dies", s.pays)
	step("decides what is clean while Temporal is away, and the rest afterwards", s.withoutTemporal)
	step("rebuilds its lists from nothing", s.rebuilds)
	step("fences the older of two ledger nodes", s.fences)
	step("has decided everything once", s.decidedOnce)
	step("drains", s.drains)
	step("has written no person's name or number anywhere", s.keepsSecrets)
}

// patiently repeats a call while its error says that it may be repeated, as
// every client of Probity is told to.
func patiently[A any](t testing.TB, call func(context.Context) (A, error)) A {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for pause := 20 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		answer, err := call(ctx)
		if err == nil {
			return answer
		}
		if p := problem.As(err); !p.Retryable() || ctx.Err() != nil {
			t.Fatalf("%v (cause: %v)", err, p.Cause)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// submit sends a file until it is durable and remembers it.
func (s *story) submit(t *testing.T, file []byte) string {
	t.Helper()
	answer := patiently(t, func(ctx context.Context) (*gatewayv1.SubmitFileResponse, error) {
		stream, err := s.biller.Gateway.SubmitFile(ctx)
		if err != nil {
			return nil, err
		}
		// A failed Send is explained by CloseAndReceive.
		_ = stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Options{Options: &gatewayv1.SubmitOptions{}}})
		for chunk := range slices.Chunk(file, 8<<10) {
			if stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Data{Data: chunk}}) != nil {
				break
			}
		}
		return stream.CloseAndReceive()
	})
	id := answer.GetFile().GetFileId()
	s.files, s.token = append(s.files, id), answer.GetToken()
	return id
}

// generated is a small file of claims that no other file has.
func (s *story) generated(claims int) []byte {
	s.control++
	s.claims += claims
	return s.families.File(uint64(s.control), claims, s.control, time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
}

// completes waits until a file's workflow is done.
func (s *story) completes(t *testing.T, id string) *workflowsv1.GetFileProgressResponse {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		p := patiently(t, func(ctx context.Context) (*workflowsv1.GetFileProgressResponse, error) {
			return s.biller.Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: id})
		})
		if p.GetComplete() {
			return p
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is not complete: %v", id, p)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// list is every claim of the biller's, oldest id first.
func (s *story) list(t *testing.T, fileID string) []*claimsv1.ClaimSummary {
	t.Helper()
	var all []*claimsv1.ClaimSummary
	for page := ""; ; {
		answer := patiently(t, func(ctx context.Context) (*claimsv1.ListClaimsResponse, error) {
			return s.biller.Claims.ListClaims(ctx, &claimsv1.ListClaimsRequest{FileId: fileID, PageSize: 50, PageToken: page, MinToken: s.token})
		})
		all = append(all, answer.GetClaims()...)
		if page = answer.GetNextPageToken(); page == "" {
			break
		}
	}
	slices.SortFunc(all, func(a, b *claimsv1.ClaimSummary) int { return strings.Compare(a.GetClaimId(), b.GetClaimId()) })
	return all
}

func (s *story) document(t *testing.T, kind, id string) string {
	t.Helper()
	return patiently(t, func(ctx context.Context) (string, error) {
		stream, err := s.biller.Gateway.GetDocument(ctx, &gatewayv1.GetDocumentRequest{Kind: kind, Id: id})
		if err != nil {
			return "", err
		}
		var body bytes.Buffer
		for stream.Receive() {
			body.Write(stream.Msg().GetData())
		}
		return body.String(), errors.Join(stream.Err(), stream.Close())
	})
}

func status(s claimsv1.ClaimStatus) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "CLAIM_STATUS_"))
}

func (s *story) decidesTheSample(t *testing.T) {
	// Given the sample payer, its members and the file of fifteen claims.
	_, err := sample.Load(t.Context(), s.planAdmin.Policies)
	require.NoError(t, err)
	file := s.submit(t, sample.ClaimsFile())
	made := s.completes(t, file).GetRemittanceIds()

	// Then every claim is decided as the oracle says, through the one address.
	record := patiently(t, func(ctx context.Context) (*claimsv1.GetFileResponse, error) {
		return s.biller.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: file, IncludeOutcomes: true})
	})
	want := sample.Outcomes()
	require.Len(t, record.GetOutcomes(), len(want))
	listed := map[string]*claimsv1.ClaimSummary{}
	for _, c := range s.list(t, file) {
		listed[c.GetClaimId()] = c
	}
	for i, o := range record.GetOutcomes() {
		w := want[i]
		require.Equal(t, w.Status, status(o.GetStatus()), "%s: %s", w.ControlNumber, w.Why)
		if w.Status == "rejected" {
			continue
		}
		s.claims++
		got := listed[o.GetClaimId()]
		require.NotNil(t, got, w.ControlNumber)
		require.Equal(t, []int64{w.ChargeCents, w.AllowedCents, w.PaidCents, w.PatientCents},
			[]int64{got.GetChargeCents(), got.GetAllowedCents(), got.GetPaidCents(), got.GetPatientCents()}, "%s: %s", w.ControlNumber, w.Why)
		require.Subset(t, got.GetCodes(), w.Codes, "%s: %s", w.ControlNumber, w.Why)
	}
	require.Len(t, listed, s.claims)

	// And the documents of X12 say so too.
	ack := s.document(t, "999", file)
	require.Contains(t, ack, "ST*999*")
	require.Contains(t, ack, "AK9*")
	claimAck := s.document(t, "277CA", file)
	require.Contains(t, claimAck, "ST*277*")
	require.Contains(t, claimAck, "SMPL-0015")
	require.NotEmpty(t, made)
	var remittances *claimsv1.ListRemittancesResponse
	require.Eventually(t, func() bool { // the list follows the log
		remittances = patiently(t, func(ctx context.Context) (*claimsv1.ListRemittancesResponse, error) {
			return s.biller.Remittances.ListRemittances(ctx, &claimsv1.ListRemittancesRequest{FileId: file, PageSize: 100})
		})
		return len(remittances.GetRemittances()) == len(made)
	}, patience, 20*time.Millisecond)
	var paid, advised int64
	for _, w := range want {
		paid += w.PaidCents
	}
	for _, r := range remittances.GetRemittances() {
		advised += r.GetPaidCents()
		require.Contains(t, s.document(t, "835", r.GetRemittanceId()), "CLP*SMPL-")
	}
	require.Equal(t, paid, advised)
}

func (s *story) reviews(t *testing.T) {
	// Given the claim that is too large to be paid without a look.
	var pended string
	for _, c := range s.list(t, s.files[0]) {
		if c.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
			pended = c.GetClaimId()
		}
	}
	require.NotEmpty(t, pended)
	s.opens(t, pended)

	// When the biller tries, it may not; when an adjudicator approves, it is decided.
	review := &workflowsv1.ReviewClaimRequest{ClaimId: pended, RequestId: "review-1", Resolution: "approve", Reason: "records seen"}
	_, err := s.biller.Workflows.ReviewClaim(t.Context(), review)
	require.Equal(t, problem.Forbidden, problem.As(err).Kind)
	answer := patiently(t, func(ctx context.Context) (*workflowsv1.ReviewClaimResponse, error) {
		return s.adjudicator.Workflows.ReviewClaim(ctx, review)
	})
	require.Equal(t, claimsv1.ClaimStatus_CLAIM_STATUS_PAID, answer.GetClaim().GetStatus())
	require.Positive(t, answer.GetClaim().GetPaidCents())
}

// opens waits until a pended claim's workflow has been started.
func (s *story) opens(t *testing.T, claim string) {
	t.Helper()
	require.Eventually(t, func() bool {
		r, err := s.adjudicator.Workflows.GetReview(t.Context(), &workflowsv1.GetReviewRequest{ClaimId: claim})
		return err == nil && r.GetState() == "open"
	}, patience, 20*time.Millisecond)
}

func (s *story) proves(t *testing.T) { s.verify(t, s.auditor, s.list(t, "")) }

// verify fetches the receipts of claims and checks them with public keys alone.
func (s *story) verify(t *testing.T, c clients, claims []*claimsv1.ClaimSummary) {
	t.Helper()
	sealed := patiently(t, func(ctx context.Context) (*ledgerv1.GetCheckpointResponse, error) {
		return c.Ledger.GetCheckpoint(ctx, &ledgerv1.GetCheckpointRequest{})
	})
	policy, err := receipt.NewPolicy(origin, len(sealed.GetVerifierKeys()), sealed.GetVerifierKeys()...)
	require.NoError(t, err)
	require.NotEmpty(t, claims)
	for _, claim := range claims {
		answer := patiently(t, func(ctx context.Context) (*ledgerv1.GetReceiptResponse, error) {
			return c.Ledger.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: claim.GetPosition(), IncludeCommit: true})
		})
		verified, err := receipt.Verify(answer.GetReceipt(), policy)
		require.NoError(t, err)
		require.NoError(t, receipt.VerifyCommit(verified, answer.GetCommit()))
	}
}

// enrols makes the families of the generated files, once.
func (s *story) enrols(t *testing.T) {
	t.Helper()
	if s.families != nil {
		return
	}
	s.families = claimgen.New(7, 12,
		claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE MUTUAL", PolicyID: "pol_tidewater_gold"},
		[]claimgen.Provider{{NPI: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxID: "990000101"}})
	answer := patiently(t, func(ctx context.Context) (*policiesv1.EnrollMembersResponse, error) {
		return s.planAdmin.Policies.EnrollMembers(ctx, &policiesv1.EnrollMembersRequest{RequestId: "families", Enrollments: s.families.Enrollments()})
	})
	for _, r := range answer.GetResults() {
		require.Empty(t, r.GetProblems())
	}
}

func (s *story) survives(t *testing.T, victim string) {
	s.enrols(t)
	const inFlight, after = 120, 8
	// Given a file that is being worked on, when the process is killed.
	first := s.submit(t, s.generated(inFlight))
	for begun := false; !begun; {
		begun = len(s.list(t, first)) > 0
	}
	s.running[victim].Kill()
	s.start(victim)
	if victim == "temporal" {
		s.listens(victim)
	} else {
		s.ready(victim)
	}

	// Then a file that came before and one that comes after are decided whole.
	second := s.submit(t, s.generated(after))
	for id, n := range map[string]uint32{first: inFlight, second: after} {
		p := s.completes(t, id)
		require.Equal(t, n, p.GetClaimCount())
		require.Equal(t, n, p.GetPaid()+p.GetDenied()+p.GetPended())
		require.Zero(t, p.GetRejected())
		require.NotEmpty(t, p.GetRemittanceIds())
	}
}

func (s *story) redisAdmin(t *testing.T) *redis.Client {
	t.Helper()
	password, err := os.ReadFile(s.path("secrets", "redis-admin"))
	require.NoError(t, err)
	c := redis.NewClient(&redis.Options{
		Addr: s.address["redis"], Username: "admin", Password: strings.TrimSpace(string(password)),
		TLSConfig: &tls.Config{RootCAs: s.authority.pool, MinVersion: tls.VersionTLS12},
	})
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (s *story) rebuilds(t *testing.T) {
	for try := 0; ; try++ {
		require.Less(t, try, 20, "the ledger comes to rest")
		// Given the lists as they are, with all that is on the ledger.
		heads := s.heads(t)
		s.shows(t, s.biller, heads)
		before := s.list(t, "")
		require.Len(t, before, s.claims+s.direct)

		// When everything in Redis is deleted.
		require.NoError(t, s.redisAdmin(t).FlushAll(t.Context()).Err())

		// Then the first answer that is no excuse is the whole list again.
		after := s.list(t, "")
		require.Len(t, after, len(before))
		if !slices.EqualFunc(heads, s.heads(t), func(a, b *ledgerv1.ShardHead) bool { return proto.Equal(a, b) }) {
			continue // a workflow has gone on meanwhile, and its claim with it
		}
		for i := range before {
			require.True(t, proto.Equal(before[i], after[i]), "%s came back different", before[i].GetClaimId())
		}
		return
	}
}

func (s *story) fences(t *testing.T) {
	// Given the only ledger node, and a client that is connected to it.
	older, newer := s.at(s.url("ledger"), "svc-claims"), s.at(s.url("ledger-2"), "svc-claims")
	claim := s.list(t, "")[:1]
	s.verify(t, older, claim)

	// When a second one starts on the same topics with nothing on its disk.
	s.start("ledger-2")
	s.ready("ledger-2")

	// Then the older one's appends are refused, in words that say to retry,
	// and the same append with the same request id succeeds at the newer.
	append1 := &ledgerv1.AppendRequest{
		Log: "claims", RoutingKey: "fence", RequestId: "fence-1",
		Writes: []*ledgerv1.StreamWrite{{Stream: "refusal-fence", ExpectedRevision: -1, Events: []*ledgerv1.Event{s.event(t)}}},
	}
	_, err := older.Ledger.Append(t.Context(), append1)
	refused := problem.As(err)
	require.Equal(t, problem.Unavailable, refused.Kind)
	require.True(t, refused.Retryable())
	first := patiently(t, func(ctx context.Context) (*ledgerv1.AppendResponse, error) { return newer.Ledger.Append(ctx, append1) })
	again := patiently(t, func(ctx context.Context) (*ledgerv1.AppendResponse, error) { return newer.Ledger.Append(ctx, append1) })
	require.Equal(t, first.GetPosition().GetIndex(), again.GetPosition().GetIndex())
	require.False(t, isReady(t.Context(), s.http, s.address["ledger"]), "the older node still calls itself ready")

	// And while the older one still runs, the services find the newer one
	// behind the address that both share.
	id := s.submit(t, s.generated(20))
	s.completes(t, id)
	s.verify(t, newer, s.list(t, id))

	// And the older one ends in order when it is told to.
	require.NoError(t, s.stop("ledger"))
	id = s.submit(t, s.generated(5))
	s.completes(t, id)
}

// event is one that nobody acts on.
func (s *story) event(t *testing.T) *ledgerv1.Event {
	t.Helper()
	m := &eventsv1.SubmissionRefused{}
	raw, err := proto.Marshal(m)
	require.NoError(t, err)
	return &ledgerv1.Event{Type: eventstore.TypeOf(m), Payload: raw}
}

func (s *story) decidedOnce(t *testing.T) {
	// Given everything that the ledger holds.
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	stream, err := s.at(s.url("ledger-2"), "auditor").Ledger.Subscribe(ctx, &ledgerv1.SubscribeRequest{Log: "claims"})
	require.NoError(t, err)
	received, decided, reviewed, remitted, voided := map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}, map[string]int{}
	for caughtUp := false; !caughtUp && stream.Receive(); caughtUp = stream.Msg().GetCaughtUp() {
		for _, e := range stream.Msg().GetEvents() {
			switch e.GetEvent().GetType() {
			case eventstore.TypeOf(&eventsv1.ClaimReceived{}):
				received[e.GetStream()]++
			case eventstore.TypeOf(&eventsv1.ClaimDecided{}):
				decided[e.GetStream()]++
			case eventstore.TypeOf(&eventsv1.ClaimReviewed{}):
				reviewed[e.GetStream()]++
			case eventstore.TypeOf(&eventsv1.ClaimRemitted{}):
				remitted[e.GetStream()]++
			case eventstore.TypeOf(&eventsv1.ClaimRemittanceVoided{}):
				voided[e.GetStream()]++
			}
		}
	}
	require.NoError(t, stream.Err())

	// Then every claim that was submitted was received once, decided once,
	// once more for its review, and remitted at most once but for what was told
	// again after its payment had failed.
	require.Len(t, received, s.claims+s.direct)
	require.Len(t, reviewed, 1)
	for claim, n := range received {
		require.Equal(t, 1, n, claim)
		require.Equal(t, 1+reviewed[claim], decided[claim], claim)
		require.LessOrEqual(t, remitted[claim], 1+voided[claim], claim)
	}
	// And no file counts an outcome twice.
	total := 0
	for _, id := range s.files {
		record := patiently(t, func(ctx context.Context) (*claimsv1.GetFileResponse, error) {
			return s.biller.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: id, IncludeOutcomes: true})
		})
		require.Equal(t, claimsv1.FileState_FILE_STATE_COMPLETE, record.GetFile().GetState())
		require.Equal(t, record.GetFile().GetClaimCount(), record.GetFile().GetOutcomeCount())
		for i, o := range record.GetOutcomes() {
			require.EqualValues(t, i, o.GetOrdinal())
			if o.GetClaimId() != "" {
				total++
			}
		}
	}
	require.Equal(t, s.claims, total)
}

func (s *story) drains(t *testing.T) {
	// Given services that follow each other's streams and would wait ten
	// minutes for a request to end, when they are told to stop, the ones that
	// others stand on first.
	for _, role := range []string{"ledger-2", "consent", "policies", "claims", "gateway", "worker"} {
		// Then each ends in order and at once: nothing waits for a stream.
		begun := time.Now()
		require.NoError(t, s.stop(role))
		t.Logf("%s drained in %s", role, time.Since(begun).Round(time.Millisecond))
	}
}

// keepsSecrets searches every byte that any process has left: topics, tiles,
// stores, workflow histories, read models and logs.
func (s *story) keepsSecrets(t *testing.T) {
	// Given what tells who the patients are, as the files and the enrolment wrote it.
	var needles [][]byte
	for _, e := range s.families.Enrollments() {
		for _, text := range []string{e.GetMemberId(), strings.ToUpper(e.GetLastName()), strings.ReplaceAll(e.GetBirthDate(), "-", "")} {
			needles = append(needles, []byte(text))
		}
		needles = append(needles, []byte(e.GetBirthDate()), []byte(e.GetLastName()))
	}
	// And a control, which must be found or the search proves nothing.
	control := []byte(s.files[0])

	// When all of it is searched.
	require.NoError(t, s.redisAdmin(t).Save(t.Context()).Err())
	found := map[string]bool{}
	search := func(where string, content []byte) {
		for _, needle := range needles {
			if bytes.Contains(content, needle) {
				t.Errorf("%s holds %s", where, needle)
			}
		}
		if bytes.Contains(content, control) {
			found[where] = true
		}
	}
	require.NoError(t, filepath.WalkDir(s.dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		where, _, _ := strings.Cut(strings.TrimPrefix(path, s.dir+"/"), "/")
		search(where, content)
		return err
	}))
	for _, p := range s.all {
		search(fmt.Sprintf("the output of %s %d", p.Role, p.PID()), []byte(p.Output()))
	}

	// Then none of it was found, where it would have been.
	for _, where := range []string{"kafka", "temporal", "dump.rdb"} {
		require.True(t, found[where], "the search looks past the content of %s", where)
	}
}
