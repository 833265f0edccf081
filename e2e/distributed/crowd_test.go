package distributed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	"github.com/probity-health/probity/e2e/claimgen"
	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	workflowsv1 "github.com/probity-health/probity/proto/probity/workflows/v1"
	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/sample"
	"github.com/probity-health/probity/workflows/payment"
)

// The crowd's 500 claims, and twenty voids beside them.
const (
	crowdInFile   = 320 // of a file
	crowdByRPC    = 110 // decided at once
	crowdReviewed = 40  // pended until a person decides
	crowdReplaced = 30  // replacements of those by RPC
	crowdVoided   = 20  // voids of others of them
)

// closed is a payee whose account the bank refuses at first.
const closed = "1600100048"

// mortal are the processes that are killed, each by itself.
var mortal = []string{"worker", "temporal", "claims"}

// crowd is everybody who sends, reviews and pays, all at once.
type crowd struct {
	*stack
	rng *rand.Rand

	biller, adjudicator, planAdmin, supervisor, auditor clients

	claims      []*claimsv1.Claim // by RPC, the last crowdReviewed to be reviewed
	ids         []string
	replacement []string
	content     []byte // of the file
	file        string // its id

	mu    sync.Mutex               // guards the three below
	taken map[string]payment.Order // what the bank took, by payment
	twice []string                 // what it found a second time
	kept  map[string]bool          // what it said of those
	kills map[string]int           // by process
	paths struct{ outbox, stop string }
}

// TestEveryClaimIsPaidOnceWhicheverProcessDies: given an installation of
// processes and 500 claims, of a file, by RPC, pended and reviewed, replaced and
// voided, with payment cycles in between, a payee whose account is closed and
// payments that come back, when worker, Temporal and claims service are killed
// apart, each again and again at random points, then every claim comes to its
// end once and each payee has what its claims are paid, to the cent.
//
// PROBITY_E2E_SEED repeats a run; the log names it.
func TestEveryClaimIsPaidOnceWhicheverProcessDies(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("PROBITY_E2E_SEED"); text != "" {
		var err error
		seed, err = strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("PROBITY_E2E_SEED=%d", seed)
	c := newCrowd(t, seed)
	stopBank := c.bank(t)
	defer stopBank()
	require.NoError(t, os.WriteFile(c.paths.stop, []byte("account-closed\n"), 0o600))

	t.Run("claims of every kind come in", c.send)
	t.Run("some are reviewed, replaced, voided", c.change)
	t.Run("the bank answers, and some of it comes back", c.answer)
	t.Run("people decide what becomes of what failed", c.decide)
	t.Run("cycles run to their end", c.pay)
	stopBank()
	if t.Failed() {
		return
	}
	c.shows(t, c.biller, c.heads(t))
	t.Run("every claim came to its end once", c.requireFinal)
	t.Run("every payee was paid once, to the cent", c.requirePaid)
	for _, victim := range mortal {
		require.GreaterOrEqual(t, c.kills[victim], 3, victim)
	}
}

func newCrowd(t *testing.T, seed uint64) *crowd {
	s := newStack(t)
	c := &crowd{
		stack: s, rng: rand.New(rand.NewPCG(seed, 13)),
		biller: s.as("biller"), adjudicator: s.as("adjudicator"), planAdmin: s.as("plan-admin"), supervisor: s.as("supervisor"), auditor: s.as("auditor"),
		ids: make([]string, crowdByRPC+crowdReviewed), replacement: make([]string, crowdReplaced),
		taken: map[string]payment.Order{}, kept: map[string]bool{}, kills: map[string]int{},
	}
	c.paths.outbox, c.paths.stop = s.path("payments", "outbox"), s.path("payments", "stop", closed)
	_, err := sample.Load(t.Context(), c.planAdmin.Policies)
	require.NoError(t, err)
	world := claimgen.New(seed, 125, claimgen.Payer{ID: sample.PayerID, Name: "KEYSTONE HEALTH", PolicyID: "pol_tidewater_gold"},
		[]claimgen.Provider{
			{NPI: "1600100014", Name: "LAKESIDE FAMILY MEDICINE", TaxID: "990000101"},
			{NPI: closed, Name: "RIVERSIDE IMAGING", TaxID: "990000102"},
			{NPI: "1245319599", Name: "ELSEWHERE CLINIC", TaxID: "990000109"},
		})
	for batch := range slices.Chunk(world.Enrollments(), 500) {
		answer := patiently(t, func(ctx context.Context) (*policiesv1.EnrollMembersResponse, error) {
			return c.planAdmin.Policies.EnrollMembers(ctx, &policiesv1.EnrollMembersRequest{RequestId: "enrol-" + batch[0].GetMemberId(), Enrollments: batch})
		})
		for _, r := range answer.GetResults() {
			require.Empty(t, r.GetProblems())
		}
	}
	asOf := time.Now().UTC()
	c.content = world.File(seed, crowdInFile, 900000001, asOf)
	raw := world.File(seed+1, crowdByRPC+crowdReviewed, 900000002, asOf.AddDate(0, 0, -90))
	parsed, err := x12.ParseFile(bytes.NewReader(raw), x12.Limits{})
	require.NoError(t, err)
	for claim, err := range parsed.Claims(bytes.NewReader(raw), 0, parsed.ClaimCount) {
		require.NoError(t, err)
		require.Empty(t, claim.Problems)
		if len(c.claims) >= crowdByRPC {
			l := claim.Claim.Lines[0]
			claim.Claim.ChargeCents += 600_000 - l.ChargeCents
			l.ChargeCents = 600_000 // above what the plan pays unseen
		}
		c.claims = append(c.claims, claim.Claim)
	}
	return c
}

// A thing is something that somebody wants done, again until it succeeds.
type thing struct {
	name string
	do   func(context.Context) error
}

// all does things, eight at a time, and kills processes meanwhile: each after a
// random number of things, alone, and the next when it is up again. It gives up
// when nothing has been done for as long as any wait lasts.
func (c *crowd) all(t *testing.T, victims []string, things []thing) {
	t.Helper()
	victims = slices.Clone(victims)
	c.rng.Shuffle(len(victims), func(i, j int) { victims[i], victims[j] = victims[j], victims[i] })
	points := make([]int, len(victims))
	for i := range points {
		points[i] = c.rng.IntN(len(things))
	}
	slices.Sort(points)

	ctx, giveUp := context.WithCancelCause(t.Context())
	defer giveUp(nil)
	var done atomic.Int64
	progress := make(chan struct{}, len(things)) // one a thing
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	ended := make(chan error, 1)
	go func() {
		for _, x := range things {
			g.Go(func() error {
				err := x.again(ctx)
				done.Add(1)
				progress <- struct{}{}
				return err
			})
		}
		ended <- g.Wait()
	}()
	next := 0
	stands := time.NewTimer(patience)
	defer stands.Stop()
	for {
		for next < len(victims) && done.Load() >= int64(points[next]) {
			victim := victims[next]
			next++
			at := done.Load()
			c.running[victim].Kill()
			c.start(victim)
			if victim == "temporal" {
				c.listens(victim)
			} else {
				c.ready(victim)
			}
			c.kills[victim]++
			t.Logf("%s killed after %d of %d", victim, at, len(things))
			stands.Reset(patience)
		}
		select {
		case err := <-ended:
			if next == len(victims) || err != nil {
				require.NoError(t, err)
				return
			}
			ended <- nil // the last are killed with nothing to do
		case <-progress:
			stands.Reset(patience)
		case <-stands.C:
			giveUp(fmt.Errorf("nothing was done for %s", patience))
			t.Fatalf("after %d of %d things nothing goes on: %v", done.Load(), len(things), <-ended)
		}
	}
}

// again does a thing until it succeeds.
func (x thing) again(ctx context.Context) error {
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
}

// told is an answer whose problems are an error.
func told(id string, problems []string, err error) (string, error) {
	if err == nil && len(problems) > 0 {
		err = errors.New(problems[0])
	}
	return id, err
}

func (c *crowd) submit(ctx context.Context, request string, claim *claimsv1.Claim) (string, error) {
	got, err := c.biller.Claims.SubmitClaim(ctx, &claimsv1.SubmitClaimRequest{RequestId: request, Claim: claim})
	var rules []string
	for _, p := range got.GetProblems() {
		rules = append(rules, p.GetRuleId())
	}
	return told(got.GetClaim().GetClaimId(), rules, err)
}

func (c *crowd) cycle(ctx context.Context, request string) (*workflowsv1.PaymentRun, error) {
	got, err := c.planAdmin.Cycles.RunPayments(ctx, &workflowsv1.RunPaymentsRequest{PayerId: sample.PayerID, RequestId: request})
	return got.GetRun(), err
}

// cycles adds a payment cycle after every n things.
func (c *crowd) cycles(things []thing, every int, name string) []thing {
	var out []thing
	for i, x := range things {
		if out = append(out, x); i%every == every/2 {
			request := fmt.Sprint(name, " ", i)
			out = append(out, thing{request, func(ctx context.Context) error { _, err := c.cycle(ctx, request); return err }})
		}
	}
	return out
}

func (c *crowd) send(t *testing.T) {
	things := []thing{{"the file", func(ctx context.Context) error {
		stream, err := c.biller.Gateway.SubmitFile(ctx)
		if err != nil {
			return err
		}
		_ = stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Options{Options: &gatewayv1.SubmitOptions{}}})
		for chunk := range slices.Chunk(c.content, 8<<10) {
			if stream.Send(&gatewayv1.SubmitFileRequest{Part: &gatewayv1.SubmitFileRequest_Data{Data: chunk}}) != nil {
				break // CloseAndReceive says why
			}
		}
		answer, err := stream.CloseAndReceive()
		c.file = answer.GetFile().GetFileId()
		return err
	}}}
	for i, claim := range c.claims {
		things = append(things, thing{fmt.Sprint("claim ", i), func(ctx context.Context) (err error) {
			c.ids[i], err = c.submit(ctx, fmt.Sprint("rpc-", i), claim)
			return err
		}})
	}
	c.all(t, mortal, c.cycles(things, 50, "among the claims"))
}

func (c *crowd) change(t *testing.T) {
	var things []thing
	for i := range crowdReviewed {
		things = append(things, thing{fmt.Sprint("review ", i), func(ctx context.Context) error {
			_, err := c.adjudicator.Workflows.ReviewClaim(ctx, &workflowsv1.ReviewClaimRequest{
				ClaimId: c.ids[crowdByRPC+i], RequestId: fmt.Sprint("review-", i), Resolution: []string{"deny", "approve", "approve"}[i%3], Reason: "records seen",
			})
			return err
		}})
	}
	for i := range crowdReplaced {
		things = append(things, thing{fmt.Sprint("replacement ", i), func(ctx context.Context) (err error) {
			claim := proto.CloneOf(c.claims[i])
			claim.FrequencyCode, claim.OriginalClaimNumber = "7", c.ids[i]
			claim.ChargeCents += 1000
			claim.Lines[0].ChargeCents += 1000
			c.replacement[i], err = c.submit(ctx, fmt.Sprint("replacement-", i), claim)
			return err
		}})
	}
	for i := range crowdVoided {
		things = append(things, thing{fmt.Sprint("void ", i), func(ctx context.Context) error {
			_, err := c.biller.Adjustments.VoidClaim(ctx, &claimsv1.VoidClaimRequest{ClaimId: c.ids[crowdReplaced+i], RequestId: fmt.Sprint("void-", i)})
			return err
		}})
	}
	c.rng.Shuffle(len(things), func(i, j int) { things[i], things[j] = things[j], things[i] })
	// The file may not have come to its end yet: it does so among them.
	things = append(things, thing{"the file's end", func(ctx context.Context) error {
		p, err := c.biller.Workflows.GetFileProgress(ctx, &workflowsv1.GetFileProgressRequest{FileId: c.file})
		if err == nil && !p.GetComplete() {
			err = fmt.Errorf("%d of %d, %s", p.GetDone(), p.GetClaimCount(), p.GetStage())
		}
		return err
	}})
	c.all(t, mortal, c.cycles(things, 25, "among the reviews"))
}

// bank takes orders out of the outbox as they come, until it is stopped.
func (c *crowd) bank(t *testing.T) (stop func()) {
	quit, done := make(chan struct{}), make(chan struct{})
	sweep := func() {
		files, _ := os.ReadDir(c.paths.outbox)
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, f := range files {
			path := c.path("payments", "outbox", f.Name())
			raw, err := os.ReadFile(path)
			var o payment.Order
			if err == nil {
				err = json.Unmarshal(raw, &o)
			}
			if _, before := c.taken[o.PaymentID]; before || err != nil || f.Name() != o.PaymentID+".json" {
				c.twice = append(c.twice, f.Name())
			}
			c.taken[o.PaymentID] = o
			_ = os.Remove(path)
		}
	}
	go func() {
		defer close(done)
		tick := time.NewTicker(15 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-quit:
				sweep()
				return
			case <-tick.C:
				sweep()
			}
		}
	}()
	stop = sync.OnceFunc(func() { close(quit); <-done })
	t.Cleanup(stop)
	return stop
}

// answers are what the bank has to say of what it took since it was last asked:
// all of it was made but for every nth, which then came back; zero is none.
func (c *crowd) answers(t *testing.T, nth int) []thing {
	c.mu.Lock()
	defer c.mu.Unlock()
	var ids []string
	for id := range c.taken {
		if _, known := c.kept[id]; !known {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	var things []thing
	for i, id := range ids {
		back := nth > 0 && i%nth == 0
		c.kept[id] = !back
		things = append(things, thing{"answer " + id, func(ctx context.Context) error {
			_, err := c.planAdmin.Payments.ConfirmPayment(ctx, &claimsv1.ConfirmPaymentRequest{PaymentId: id, Reference: "bank/1"})
			if back && (err == nil || problem.Is(err, problem.Conflict)) { // an earlier attempt came so far
				_, err = c.planAdmin.Payments.FailPayment(ctx, &claimsv1.FailPaymentRequest{PaymentId: id, Reason: "returned", Returned: true})
			}
			return err
		}})
	}
	return things
}

func (c *crowd) answer(t *testing.T) {
	things := c.answers(t, 3)
	require.NotEmpty(t, things)
	back := 0
	for _, kept := range c.kept {
		if !kept {
			back++
		}
	}
	require.Positive(t, back)
	require.NoError(t, os.Remove(c.paths.stop)) // the account is open again
	c.all(t, mortal, c.cycles(things, 4, "among the answers"))
}

// tasks are the payments that wait for a person.
func (c *crowd) tasks(t *testing.T) []*claimsv1.PaymentTask {
	return patiently(t, func(ctx context.Context) (*claimsv1.ListPaymentTasksResponse, error) {
		return c.supervisor.PayTasks.ListPaymentTasks(ctx, &claimsv1.ListPaymentTasksRequest{PageSize: 1000})
	}).GetTasks()
}

// decide: most are paid anew, those of the closed account by check, and one of
// what came back is written off.
func (c *crowd) decide(t *testing.T) {
	tasks := c.tasks(t)
	refused, writtenOff := 0, false
	var things []thing
	for _, task := range tasks {
		require.NotNil(t, task.GetDueTime(), "nothing waits without a time by which it is decided")
		p := task.GetPayment()
		decision := &claimsv1.ResolvePaymentTaskRequest{PaymentId: p.GetPaymentId(), Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY}
		switch {
		case p.GetFailureReason() == "account-closed":
			refused++
			require.Equal(t, closed, p.GetPayeeNpi())
			decision.Resolution, decision.Method = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_CHANGE_METHOD, "check"
		case !writtenOff:
			writtenOff = true
			decision.Resolution, decision.Reference = claimsv1.PaymentResolution_PAYMENT_RESOLUTION_WRITE_OFF, "case/1"
		}
		things = append(things, thing{"decision on " + p.GetPaymentId(), func(ctx context.Context) error {
			_, err := c.supervisor.PayTasks.ResolvePaymentTask(ctx, decision)
			return err
		}})
	}
	require.Positive(t, refused, "the bank has refused a payment, or this shows nothing")
	require.True(t, writtenOff)
	c.all(t, mortal, things)
}

// pay runs cycles, three of them with a process killed as they run, until one
// finds nothing to do and the bank has answered for all.
func (c *crowd) pay(t *testing.T) {
	for n := 0; ; n++ {
		require.Less(t, n, 20, "the cycles come to an end")
		var victims []string
		if n < len(mortal) {
			victims = mortal[n : n+1]
		}
		var last *workflowsv1.PaymentRun
		c.all(t, victims, []thing{{"a cycle", func(ctx context.Context) (err error) {
			last, err = c.cycle(ctx, fmt.Sprint("end ", n))
			return err
		}}})
		c.sweptOut(t)
		answers := c.answers(t, 0)
		c.all(t, nil, answers)
		tasks := c.tasks(t)
		for _, task := range tasks { // whatever the cycle found failed
			_ = patiently(t, func(ctx context.Context) (*claimsv1.ResolvePaymentTaskResponse, error) {
				return c.supervisor.PayTasks.ResolvePaymentTask(ctx, &claimsv1.ResolvePaymentTaskRequest{
					PaymentId: task.GetPayment().GetPaymentId(), Resolution: claimsv1.PaymentResolution_PAYMENT_RESOLUTION_RETRY,
				})
			})
		}
		if n >= len(mortal) && last.GetRemittances() == 0 && last.GetPaid() == 0 && last.GetHeld() == 0 && len(answers)+len(tasks) == 0 {
			return
		}
	}
}

// sweptOut waits until the bank has taken what is in the outbox.
func (c *crowd) sweptOut(t *testing.T) {
	t.Helper()
	require.Eventually(t, func() bool {
		files, err := os.ReadDir(c.paths.outbox)
		return err == nil && len(files) == 0
	}, patience, 5*time.Millisecond)
}
