package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/standalone"
	"github.com/probity-health/probity/workflows/payment"
)

// The 500 claims of the payment test, and twenty voids beside them.
const (
	inFile    = 320 // of a file
	byRPC     = 110 // decided at once
	reviewed  = 40  // pended until a person decides
	replaced  = 30  // replacements of those by RPC
	voided    = 20  // voids of others of them
	reviewAny = "records seen, XYLOPHANE QUILLWORT agrees"
)

// stopped is a payee for whom the bank takes no orders at first.
const stopped = "1600100048"

// TestEveryClaimIsPaidOnceWhateverDies: given 500 claims, of a file, by RPC,
// pended and reviewed, replaced and voided, with payment cycles in between, a
// payee whose account the bank refuses, and payments that come back, when
// services, worker and Temporal are killed together again and again at random
// points of it, then every claim comes to its final state once, each payee is
// paid once and to the cent, and nothing of it lies about in clear.
func TestEveryClaimIsPaidOnceWhateverDies(t *testing.T) {
	chosen := seed(t)
	rng := rand.New(rand.NewPCG(chosen, 11))
	s := startStack(t)
	s.loadSample(t)
	world := claimgen.New(chosen, 125, claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH", PolicyID: "pol_tidewater_gold"},
		[]claimgen.Provider{
			{NPI: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxID: "990000101"},
			{NPI: "1600100048", Name: "RIVERSIDE IMAGING", TaxID: "990000102"},
			{NPI: "1245319599", Name: "ELSEWHERE CLINIC", TaxID: "990000109"},
		})
	s.enrol(t, world.Enrollments())
	asOf := time.Now().UTC()
	file := world.File(chosen, inFile, 900000001, asOf)
	rpcFile := world.File(chosen+1, byRPC+reviewed, 900000002, asOf.AddDate(0, 0, -90))
	c := s.crowd(t, readClaims(t, rpcFile))
	stop := filepath.Join(s.dir, "payments", "stop", stopped)
	require.NoError(t, os.WriteFile(stop, []byte("account-closed\n"), 0o600))
	stopBank := c.bank()
	defer stopBank()

	// Given claims of every kind, and payment cycles while they come in.
	c.all(t, rng, 2, func(do func(string, func(context.Context) error)) {
		do("the file", func(ctx context.Context) error {
			answer, err := standalone.Submit(ctx, c.clients.Gateway, file)
			c.file = answer.GetFile().GetFileId()
			return err
		})
		for i := range c.ids {
			do(fmt.Sprint("claim ", i), func(ctx context.Context) error { return c.submit(ctx, i) })
			if i%50 == 25 {
				do(fmt.Sprint("cycle ", i), func(ctx context.Context) error {
					_, err := c.cycle(ctx, fmt.Sprint("among the claims ", i))
					return err
				})
			}
		}
	})
	// And then reviews, replacements, voids, and cycles among them.
	c.all(t, rng, 3, func(do func(string, func(context.Context) error)) {
		for i := range reviewed {
			do(fmt.Sprint("review ", i), func(ctx context.Context) error { return c.review(ctx, byRPC+i) })
		}
		for i := range replaced {
			do(fmt.Sprint("replacement ", i), func(ctx context.Context) error { return c.replace(ctx, i) })
		}
		for i := range voided {
			do(fmt.Sprint("void ", i), func(ctx context.Context) error {
				_, err := c.clients.Adjustments.VoidClaim(ctx, &claimsv1.VoidClaimRequest{ClaimId: c.ids[replaced+i], RequestId: fmt.Sprint("void-", i)})
				return err
			})
			if i%5 == 2 {
				do(fmt.Sprint("cycle ", i), func(ctx context.Context) error {
					_, err := c.cycle(ctx, fmt.Sprint("among the reviews ", i))
					return err
				})
			}
		}
	})
	s.awaitProgress(t, c.file, func(p *workflowsv1.GetFileProgressResponse) bool { return p.GetComplete() })
	// And the account that was closed is open again, some of what was paid comes
	// back, and it is decided what becomes of each that failed.
	require.NoError(t, os.Remove(stop))
	admin := s.client(t, "plan-admin").Payments
	c.all(t, rng, 2, func(do func(string, func(context.Context) error)) {
		for i, p := range c.sendBack(t) {
			do(fmt.Sprint("return ", i), func(ctx context.Context) error {
				_, err := admin.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: p, Reason: "returned", Returned: true})
				return err
			})
		}
		do("a cycle", func(ctx context.Context) error {
			_, err := c.cycle(ctx, "among the returns")
			return err
		})
	})
	c.decideFailures(t, rng)
	// And cycles that are killed as they run, until one finds nothing to do.
	for n := 0; ; n++ {
		require.Less(t, n, 20, "the cycles come to an end")
		var last *workflowsv1.PaymentRun
		kills := 0
		if n < 3 {
			kills = 1
		}
		c.all(t, rng, kills, func(do func(string, func(context.Context) error)) {
			do("a cycle", func(ctx context.Context) (err error) {
				last, err = c.cycle(ctx, fmt.Sprint("end ", n))
				return err
			})
		})
		if n >= 3 && last.GetRemittances() == 0 && last.GetPaid() == 0 {
			break
		}
	}
	stopBank()

	t.Run("every claim came to its end once", func(t *testing.T) { c.requireFinal(t) })
	t.Run("every payee was paid once, to the cent", func(t *testing.T) { c.requirePaid(t) })
	t.Run("no health data lies about in clear", func(t *testing.T) {
		words := append(sensitive(file), sensitive(rpcFile)...)
		s.lookThrough(t, append(words, "XYLOPHANE", "QUILLWORT"), filepath.Join(s.dir, "payments", "advice"))
	})
}

// crowd is everybody who sends, reviews and pays, all at once.
type crowd struct {
	s       *stack
	clients standalone.Clients
	claims  []*claimsv1.Claim
	ids     []string // of claims
	file    string

	mu          sync.Mutex // guards the two below
	taken       map[string]payment.Order
	back        map[string]bool // payments that the bank has sent back
	takenTwice  []string
	replacement []string // ids
}

func (s *stack) crowd(t *testing.T, claims []*claimsv1.Claim) *crowd {
	c := &crowd{s: s, clients: s.developer(t), claims: claims, ids: make([]string, len(claims)), replacement: make([]string, replaced), taken: map[string]payment.Order{}, back: map[string]bool{}}
	for i := byRPC; i < len(claims); i++ {
		l := claims[i].Lines[0]
		claims[i].ChargeCents += 600_000 - l.ChargeCents
		l.ChargeCents = 600_000 // above what the plan pays unseen
	}
	return c
}

// readClaims reads the claims of a file as the gateway would.
func readClaims(t *testing.T, file []byte) []*claimsv1.Claim {
	t.Helper()
	parsed, err := x12.ParseFile(bytes.NewReader(file), x12.Limits{})
	require.NoError(t, err)
	var out []*claimsv1.Claim
	for c, err := range parsed.Claims(bytes.NewReader(file), 0, parsed.ClaimCount) {
		require.NoError(t, err)
		require.Empty(t, c.Problems)
		out = append(out, c.Claim)
	}
	return out
}

// all does things, eight at a time, each again until it succeeds, and kills
// the stack meanwhile: each time after a random number of them and a moment.
func (c *crowd) all(t *testing.T, rng *rand.Rand, kills int, plan func(do func(string, func(context.Context) error))) {
	t.Helper()
	type thing struct {
		name string
		do   func(context.Context) error
	}
	var things []thing
	plan(func(name string, do func(context.Context) error) { things = append(things, thing{name, do}) })
	points := make([]int, kills)
	for i := range points {
		points[i] = rng.IntN(len(things))
	}
	slices.Sort(points)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var done atomic.Int64
	ended := make(chan error, 1)
	go func() {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(8)
		for _, x := range things {
			g.Go(func() error {
				defer done.Add(1)
				for {
					attempt, cancel := context.WithTimeout(ctx, 20*time.Second)
					err := x.do(attempt)
					cancel()
					if err == nil {
						return nil
					}
					select {
					case <-ctx.Done():
						return fmt.Errorf("%s: %w", x.name, err)
					case <-time.After(50 * time.Millisecond):
					}
				}
			})
		}
		ended <- g.Wait()
	}()
	for _, point := range points {
		for done.Load() < int64(point) && ctx.Err() == nil {
			<-time.After(2 * time.Millisecond)
		}
		<-time.After(time.Duration(rng.IntN(250)) * time.Millisecond)
		c.s.process.Kill()
		at := done.Load()
		c.s.start(t)
		t.Logf("killed after %d of %d things", at, len(things))
	}
	require.NoError(t, <-ended)
}

func (c *crowd) submit(ctx context.Context, i int) error {
	got, err := c.clients.Claims.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint("rpc-", i), Claim: c.claims[i]})
	switch {
	case err != nil:
		return err
	case len(got.GetProblems()) > 0:
		return errors.New(got.GetProblems()[0].GetRuleId())
	}
	c.ids[i] = got.GetClaim().GetClaimId()
	return nil
}

func (c *crowd) replace(ctx context.Context, i int) error {
	claim := proto.CloneOf(c.claims[i])
	claim.FrequencyCode, claim.OriginalClaimNumber = "7", c.ids[i]
	claim.ChargeCents += 1000
	claim.Lines[0].ChargeCents += 1000
	got, err := c.clients.Claims.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: fmt.Sprint("replacement-", i), Claim: claim})
	if err == nil && len(got.GetProblems()) > 0 {
		err = errors.New(got.GetProblems()[0].GetRuleId())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replacement[i] = got.GetClaim().GetClaimId()
	return err
}

func (c *crowd) review(ctx context.Context, i int) error {
	resolution := "approve"
	if i%4 == 0 {
		resolution = "deny"
	}
	_, err := c.clients.Workflows.ReviewClaim(ctx, &workflowsv1.ReviewClaimRequest{
		ClaimId: c.ids[i], RequestId: fmt.Sprint("review-", i), Resolution: resolution, Reason: reviewAny,
	})
	return err
}

func (c *crowd) cycle(ctx context.Context, request string) (*workflowsv1.PaymentRun, error) {
	got, err := c.clients.Cycles.RunPayments(ctx, &workflowsv1.RunPaymentsRequest{PayerId: sample.PayerID, RequestId: request})
	return got.GetRun(), err
}

// bank takes payment files out of the outbox as they come, until it is stopped.
func (c *crowd) bank() (stop func()) {
	outbox := filepath.Join(c.s.dir, "payments", "outbox")
	quit, done := make(chan struct{}), make(chan struct{})
	sweep := func() {
		files, _ := os.ReadDir(outbox)
		for _, f := range files {
			path := filepath.Join(outbox, f.Name())
			raw, err := os.ReadFile(path)
			var o payment.Order
			if err == nil {
				err = json.Unmarshal(raw, &o)
			}
			c.mu.Lock()
			if _, before := c.taken[f.Name()]; before || err != nil || f.Name() != o.PaymentID+".json" {
				c.takenTwice = append(c.takenTwice, f.Name())
			}
			c.taken[f.Name()] = o
			c.mu.Unlock()
			_ = os.Remove(path)
		}
	}
	go func() {
		defer close(done)
		for {
			select {
			case <-quit:
				sweep()
				return
			case <-time.After(15 * time.Millisecond):
				sweep()
			}
		}
	}()
	return sync.OnceFunc(func() { close(quit); <-done })
}

// awaitLists waits until the lists can be read: where a kill was the last
// thing they are being built again.
func (c *crowd) awaitLists(t *testing.T) {
	t.Helper()
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		_, err := c.clients.Payments.ListPayments(context.Background(), &claimsv1.ListPaymentsRequest{PageSize: 1})
		require.NoError(t, err)
	}, time.Minute, 50*time.Millisecond)
}

// sendBack lets the bank send every third payment back that it has taken and
// that is confirmed by now.
func (c *crowd) sendBack(t *testing.T) []string {
	t.Helper()
	c.awaitLists(t)
	list, err := c.clients.Payments.ListPayments(t.Context(), &claimsv1.ListPaymentsRequest{PageSize: 1000, State: claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED})
	require.NoError(t, err)
	var out []string
	for i, p := range list.GetPayments() {
		if i%3 == 0 {
			out = append(out, p.GetPaymentId())
			c.back[p.GetPaymentId()] = true
		}
	}
	require.NotEmpty(t, out)
	return out
}

// decideFailures decides what becomes of every failed payment, with kills
// among it: most are paid anew, some of them by check, and one is written off.
func (c *crowd) decideFailures(t *testing.T, rng *rand.Rand) {
	t.Helper()
	tasks := c.s.client(t, "supervisor").PayTasks
	c.awaitLists(t)
	list, err := tasks.ListPaymentTasks(t.Context(), &claimsv1.ListPaymentTasksRequest{PageSize: 1000})
	require.NoError(t, err)
	for _, o := range c.taken {
		require.NotEqual(t, stopped, o.PayeeNPI)
	}
	refused, writtenOff := 0, false
	c.all(t, rng, 2, func(do func(string, func(context.Context) error)) {
		for i, task := range list.GetTasks() {
			p := task.GetPayment()
			require.NotEqual(t, p.GetFailureReason() == "account-closed", c.back[p.GetPaymentId()], p.GetPaymentId())
			if p.GetFailureReason() == "account-closed" {
				require.Equal(t, stopped, p.GetPayeeNpi())
				refused++
			}
			decision := &claimsv1.ResolvePaymentTaskRequest{PaymentId: p.GetPaymentId(), Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY}
			switch {
			case c.back[p.GetPaymentId()] && !writtenOff:
				writtenOff = true
				decision.Resolution, decision.Reference = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF, "case/1"
			case p.GetPayeeNpi() == stopped:
				decision.Resolution, decision.Method = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD, "check"
			}
			do(fmt.Sprint("decision ", i), func(ctx context.Context) error {
				_, err := tasks.ResolvePaymentTask(ctx, decision)
				return err
			})
		}
	})
	require.Positive(t, refused, "the bank has refused a payment, or this shows nothing")
	require.Len(t, list.GetTasks(), refused+len(c.back))
	// A kill may have been the last thing: the lists are then being built again.
	require.Eventually(t, func() bool {
		left, err := tasks.ListPaymentTasks(t.Context(), &claimsv1.ListPaymentTasksRequest{PageSize: 1000})
		return err == nil && len(left.GetTasks()) == 0
	}, time.Minute, 50*time.Millisecond)
}

// requireFinal: each claim was received once, ended as it should, and stands
// in the lists as on the ledger.
func (c *crowd) requireFinal(t *testing.T) {
	want := map[string][]string{}
	for i, id := range c.ids {
		switch {
		case i < replaced+voided:
			want[id] = []string{"reversed"}
		case i < byRPC:
			want[id] = []string{"paid", "denied"}
		case i%4 == 0:
			want[id] = []string{"denied"}
		default:
			want[id] = []string{"paid", "denied"} // a deductible may take all of it; elsewhere is not covered
		}
	}
	for _, id := range c.replacement {
		want[id] = []string{"paid", "denied"}
	}
	statuses := map[string]int{}
	listed := map[string]*claimsv1.ClaimSummary{}
	voids := 0
	for _, x := range c.s.claims(t, &claimsv1.ListClaimsRequest{}) {
		require.Nil(t, listed[x.GetClaimId()], "listed twice")
		listed[x.GetClaimId()] = x
		statuses[status(x)]++
		switch allowed, known := want[x.GetClaimId()]; {
		case known:
			require.Contains(t, allowed, status(x), x.GetClaimId())
		case x.GetFileId() != "":
			require.Contains(t, []string{"paid", "denied"}, status(x), x.GetClaimId())
		default:
			voids++
			require.Equal(t, "reversed", status(x), "a void")
		}
	}
	require.Equal(t, voided, voids)
	require.Len(t, listed, inFile+byRPC+reviewed+replaced+voided)
	require.Len(t, slices.DeleteFunc(c.s.claims(t, &claimsv1.ListClaimsRequest{FileId: c.file}), func(x *claimsv1.ClaimSummary) bool { return x.GetFileId() == "" }), inFile)
	t.Logf("%d claims: %v", len(listed), statuses)

	received, ends := map[string]int{}, map[string]int{}
	var codec eventstore.Codec
	for _, recorded := range c.s.events(t, "claims") {
		event, err := codec.Decode(recorded.GetEvent())
		require.NoError(t, err)
		switch e := event.(type) {
		case *eventsv1.ClaimReceived:
			received[e.GetClaimId()]++
		case *eventsv1.ClaimDecided:
			if e.GetStatus() != claimsv1.ClaimStatus_CLAIM_STATUS_PENDED {
				ends[e.GetClaimId()]++
			}
		case *eventsv1.ClaimReversed:
			if e.GetReason() == eventsv1.ReversalReason_REVERSAL_REASON_ACCUMULATORS_MOVED {
				ends[e.GetClaimId()]-- // another decision follows in the same commit
			}
		}
	}
	require.Len(t, received, len(listed))
	for id := range listed {
		require.Equal(t, 1, received[id], id)
		require.Equal(t, 1, ends[id], id)
	}
}

// requirePaid: what the bank kept is what is confirmed; with what was written
// off it is what the remittances that hold pay, and what stands of the claims
// less what is still owed back; and of each claim as much was told as stands.
func (c *crowd) requirePaid(t *testing.T) {
	require.Empty(t, c.takenTwice)
	standing, told := map[string]int64{}, map[string]int64{}
	var decided int64
	for _, x := range c.s.claims(t, &claimsv1.ListClaimsRequest{}) {
		standing[x.GetClaimId()] = x.GetPaidCents()
		decided += x.GetPaidCents()
	}
	type telling struct{ claim, remittance string }
	tellings := map[telling][2]int64{} // paid, interest
	balances, interest := map[string]int64{}, int64(0)
	var codec eventstore.Codec
	for _, recorded := range c.s.events(t, "claims") {
		event, err := codec.Decode(recorded.GetEvent())
		require.NoError(t, err)
		switch e := event.(type) {
		case *eventsv1.ClaimRemitted:
			tellings[telling{e.GetClaimId(), e.GetRemittanceId()}] = [2]int64{e.GetPaidCents(), e.GetInterestCents()}
		case *eventsv1.ClaimRemittanceVoided:
			delete(tellings, telling{e.GetClaimId(), e.GetRemittanceId()})
		case *eventsv1.PayeeAccountPosted:
			balances[recorded.GetStream()] = e.GetBalanceCents()
		case *eventsv1.PayeeAccountRestored:
			balances[recorded.GetStream()] = e.GetBalanceCents()
		}
	}
	for of, cents := range tellings {
		told[of.claim] += cents[0]
		interest += cents[1]
	}
	for id, cents := range standing {
		require.Equal(t, cents, told[id], id)
	}
	owed := int64(0)
	for _, b := range balances {
		owed += b
	}
	remitted, remittances := int64(0), map[string]*claimsv1.Remittance{}
	for _, m := range c.s.remittances(t, "") {
		if m.GetPaidCents() > 0 {
			remittances[m.GetRemittanceId()] = m
		}
		if !m.GetVoided() {
			remitted += m.GetPaidCents()
		}
	}
	list, err := c.clients.Payments.ListPayments(t.Context(), &claimsv1.ListPaymentsRequest{PageSize: 1000})
	require.NoError(t, err)
	require.Empty(t, list.GetNextPageToken())
	require.Len(t, list.GetPayments(), len(remittances))
	confirmed, writtenOff, kept, failed, byCheck := int64(0), int64(0), int64(0), 0, 0
	for _, p := range list.GetPayments() {
		m := remittances[p.GetRemittanceId()]
		require.NotNil(t, m)
		o, taken := c.taken[p.GetPaymentId()+".json"]
		holds := taken && !c.back[p.GetPaymentId()]
		require.Equal(t, holds, p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED, "%v", p)
		require.Equal(t, p.GetState() == claimsv1.PaymentState_PAYMENT_STATE_VOIDED, m.GetVoided(), "%v", p)
		switch p.GetState() {
		case claimsv1.PaymentState_PAYMENT_STATE_CONFIRMED:
			confirmed += p.GetAmountCents()
			kept += o.AmountCents
		case claimsv1.PaymentState_PAYMENT_STATE_WRITTEN_OFF:
			writtenOff += p.GetAmountCents()
			failed++
		default:
			require.Equal(t, claimsv1.PaymentState_PAYMENT_STATE_VOIDED, p.GetState())
			failed++
		}
		if !taken {
			require.Equal(t, stopped, p.GetPayeeNpi(), "only what the bank refused was not taken")
			continue
		}
		require.Equal(t, payment.Order{
			PaymentID: p.GetPaymentId(), RemittanceID: m.GetRemittanceId(), PayerID: m.GetPayerId(), PayeeNPI: m.GetPayeeNpi(),
			AmountCents: m.GetPaidCents(), PaymentDate: m.GetPaymentDate(), TraceNumber: m.GetTraceNumber(), Method: p.GetMethod(),
		}, o)
		byCheck += strings.Count(o.Method, "check")
		advice, err := os.ReadFile(filepath.Join(c.s.dir, "payments", "advice", m.GetRemittanceId()+".835"))
		require.NoError(t, err)
		require.Equal(t, o.AmountCents, parseAdvice(t, advice).PaidCents)
	}
	require.Equal(t, remitted, confirmed+writtenOff)
	require.Equal(t, kept, confirmed)
	require.Equal(t, decided+interest+owed, kept+writtenOff)
	require.Positive(t, decided)
	require.Positive(t, writtenOff)
	require.Positive(t, byCheck)
	t.Logf("%d orders taken, %d cents kept and %d written off for claims of %d, %d owed back; %d payments failed", len(c.taken), kept, writtenOff, decided, owed, failed)
}

// lookThrough requires that none of the words lies in clear in any file of the
// stack, its lists' among them, but those below the given folders, nor in its
// logs and what the ledger reads out.
func (s *stack) lookThrough(t *testing.T, words []string, outputs ...string) {
	t.Helper()
	require.Greater(t, len(words), 30)
	for i, word := range words {
		words[i] = strings.ToUpper(word)
	}
	slices.Sort(words)
	words = slices.Compact(words)
	look := func(where string, content []byte) {
		t.Helper()
		content = bytes.ToUpper(content)
		for _, word := range words {
			if at := bytes.Index(content, []byte(word)); at >= 0 {
				t.Errorf("%s holds %q at byte %d: …%q…", where, word, at, content[max(0, at-40):min(len(content), at+60)])
			}
		}
	}
	look("the log", []byte(s.output()))
	files, size, seen, listed := 0, 0, map[string]bool{}, map[string]bool{}
	require.NoError(t, filepath.WalkDir(s.home, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // the stack runs and removes what it is done with
		}
		if err != nil {
			return err
		}
		if entry.IsDir() {
			if slices.Contains(append(outputs, filepath.Join(s.dir, "secrets"), filepath.Join(s.home, "scratch")), path) {
				return fs.SkipDir
			}
			return nil
		}
		look(path, []byte(filepath.Base(path)))
		if entry.Type()&fs.ModeType != 0 {
			return nil
		}
		content, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		files++
		size += len(content)
		below, _ := filepath.Rel(s.dir, path)
		seen[strings.Split(below, string(filepath.Separator))[0]] = true
		look(path, content)
		if filepath.Dir(path) == filepath.Join(s.dir, "lists") {
			listed["all"] = listed["all"] || bytes.Contains(content, []byte("claims:all"))
			listed["row"] = listed["row"] || bytes.Contains(content, []byte("CO-45"))
		}
		return nil
	}))
	for _, store := range []string{"temporal", "kafka", "ledger"} {
		require.True(t, seen[store], "%s was looked through", store)
	}
	// The lists' files hold keys, names and rows as they are: an id and a code
	// that the lists show are found, or looking proves nothing.
	require.True(t, listed["all"] && listed["row"], "the lists were looked through: %v", listed)
	// Stores compress: what the ledger holds is looked through as it reads it.
	events := 0
	for _, log := range []string{"claims", "policies", "consent"} {
		for _, e := range s.events(t, log) {
			events++
			look(log+" "+e.GetStream(), e.GetEvent().GetPayload())
			look(log+" meta", []byte(e.GetStream()+" "+e.GetRequestId()+" "+e.GetCausation()+" "+e.GetActor()))
		}
	}
	t.Logf("%d files, %.1f MiB, and %d events looked through for %d words", files, float64(size)/(1<<20), events, len(words))
}
