package embedded_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/proto/probity/ledger/v1/ledgerv1connect"
	"github.com/probity-health/probity/standalone/embedded"
	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/follower"
	"github.com/probity-health/probity/workflows/payment"
	"github.com/probity-health/probity/workflows/worker"
)

// again starts a stopped server's successor on its directory and port.
func again(t *testing.T, dir string, stopped *embedded.Temporal) *embedded.Temporal {
	t.Helper()
	_, port, err := net.SplitHostPort(stopped.HostPort())
	require.NoError(t, err)
	n, err := strconv.Atoi(port)
	require.NoError(t, err)
	server, err := embedded.TemporalOptions{Dir: dir, Port: n}.Start(context.WithoutCancel(t.Context()))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return server
}

func TestAFileGoesOnWhenTheServerStoppedUnderIt(t *testing.T) {
	// Given a file half of whose claims are decided when the server stops,
	// with a worker that goes on alone.
	ctx := testContext(t)
	dir := t.TempDir()
	server := startTemporal(t, dir)
	c := dialSealed(t, server)
	i := newInstallation(2_100)
	i.holdAt = 1_000
	startWorker(t, c, i)
	require.NoError(t, follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}.Start(ctx, claimfile.Start(fileID)))
	<-i.reached
	require.NoError(t, server.Stop())
	close(i.release)

	// When the server continues its file, then so does the worker.
	again(t, dir, server)
	require.NoError(t, c.GetWorkflow(ctx, claimfile.WorkflowID(fileID), "").Get(ctx, nil))
	require.Len(t, i.decided, 2_100)
	require.True(t, i.complete)
}

// claimsLog is a claims log of one shard that grows under its followers.
type claimsLog struct {
	ledgerv1connect.UnimplementedLedgerServiceHandler
	clock *clock

	mu     sync.Mutex
	events []*ledgerv1.RecordedEvent // guarded by mu
	grew   chan struct{}             // guarded by mu
}

func (l *claimsLog) add(stream string, revision uint64, event proto.Message) {
	payload, _ := proto.Marshal(event)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.events = append(l.events, &ledgerv1.RecordedEvent{
		Stream: stream, Revision: revision, RecordedTime: timestamppb.New(l.clock.now()),
		Position: &ledgerv1.Position{Log: follower.Log, Index: uint64(len(l.events))},
		Event:    &ledgerv1.Event{Type: string(proto.MessageName(event)), Payload: payload},
	})
	close(l.grew)
	l.grew = make(chan struct{})
}

func (l *claimsLog) Subscribe(ctx context.Context, q *ledgerv1.SubscribeRequest, out *connect.ServerStream[ledgerv1.SubscribeResponse]) error {
	at := uint64(0)
	for _, from := range q.GetFrom() {
		at = from.GetIndex()
	}
	for {
		l.mu.Lock()
		grew, end := l.grew, uint64(len(l.events))
		to := min(end, at+20)
		batch := &ledgerv1.SubscribeResponse{Events: l.events[at:to], Next: []*ledgerv1.ShardIndex{{Index: to}}, CaughtUp: to == end}
		l.mu.Unlock()
		at = to
		if err := out.Send(batch); err != nil {
			return err
		}
		if batch.CaughtUp {
			select {
			case <-grew:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

// clock is the follower's, which an outage moves by the pauses it waits.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) pass(d time.Duration) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
	return c.at
}

func TestAfterAnHourWithoutTemporalEverythingPendingMovesOnOnce(t *testing.T) {
	// Given a follower at work on a real server, and time that passes as it pauses.
	ctx := testContext(t)
	dir := t.TempDir()
	server := startTemporal(t, dir)
	c := dialSealed(t, server)
	time0 := &clock{at: time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)}
	log := &claimsLog{clock: time0, grew: make(chan struct{})}
	_, handler := ledgerv1connect.NewLedgerServiceHandler(log)
	srv := httptest.NewServer(handler)
	t.Cleanup(srv.Close)
	t.Cleanup(srv.CloseClientConnections)
	back := make(chan struct{})
	var paused time.Duration
	deps := follower.Deps{
		Ledger:  ledgerv1connect.NewLedgerServiceClient(srv.Client(), srv.URL),
		Starter: follower.Temporal{Client: c, TaskQueue: worker.TaskQueue}, Cursor: follower.FromStart{}, Now: time0.now,
	}
	outage := deps
	var once sync.Once
	var mu sync.Mutex
	outage.Pause = func(ctx context.Context, _ time.Duration) {
		// Each attempt has waited for real until its call gave up; the pauses
		// between them are where the hour passes.
		const d = 10 * time.Minute
		mu.Lock()
		paused += d
		hour := paused >= time.Hour
		mu.Unlock()
		time0.pass(d)
		if hour {
			once.Do(func() { close(back) })
			select { // from here on time passes as it does
			case <-ctx.Done():
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	f := follower.New(outage)
	following, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- f.Run(following) }()
	file := func(n int) string { return fmt.Sprintf("fil_%026d", n) }
	pend := func(n int) string { return fmt.Sprintf("clm_%026d", n) }
	write := func(n int) {
		log.add("file-"+file(n), 0, &eventsv1.FileReceived{File: &claimsv1.File{FileId: file(n), State: claimsv1.FileState_FILE_STATE_PROCESSING}})
		log.add("claim-"+pend(n), 1, &eventsv1.ClaimDecided{ClaimId: pend(n), Status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, PromptPayDueDate: "2099-12-21", PayerId: "payer"})
		// Decided in its own request: nothing for Temporal to do.
		log.add(fmt.Sprintf("claim-clean%d", n), 1, &eventsv1.ClaimDecided{ClaimId: fmt.Sprintf("clean%d", n), Status: claimsv1.ClaimStatus_CLAIM_STATUS_PAID})
	}
	write(0)
	// One claim waits for a deadline that passes in the outage, and a payer's
	// payments fall due again and again in it.
	i, books := newInstallation(0), &ledgered{payments: map[string]*claimsv1.Payment{}}
	port, err := payment.NewFileDrop(t.TempDir(), payment.FileDropOptions{})
	require.NoError(t, err)
	w := worker.New(worker.Deps{
		Temporal: c, Gateway: i, Files: i, Remittances: i, Claims: i, Cases: i,
		Payments: &payment.Activities{Remittances: books, Payments: books, Port: port},
	})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	runs := func() int {
		books.mu.Lock()
		defer books.mu.Unlock()
		return books.calls
	}
	const period = time.Second
	payment.KeepSchedules(ctx, c, worker.TaskQueue, []payment.Scheduled{{PayerID: "KEYSTONE", Schedule: payment.Schedule{Every: period}}}, slog.New(slog.DiscardHandler))
	require.Eventually(t, func() bool { return runs() > 0 }, 20*time.Second, 10*time.Millisecond)
	const late = "clm_llllllllllllllllllllllllll"
	passes := time.Now().Add(2 * time.Second)
	log.add("claim-"+late, 1, &eventsv1.ClaimDecided{
		ClaimId: late, Status: claimsv1.ClaimStatus_CLAIM_STATUS_PENDED, PromptPayDueDate: "2099-12-21", PayerId: "payer",
		FirstDeadline: &claimsv1.Deadline{Kind: "escalation", Time: timestamppb.New(passes)},
	})
	require.Eventually(t, func() bool { return open(ctx, c, claim.WorkflowID(late)) != "" }, 20*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return f.Ready() == nil && open(ctx, c, claim.WorkflowID(pend(0))) != "" }, 20*time.Second, 10*time.Millisecond)

	// When the server is stopped for an hour in which work keeps coming.
	require.NoError(t, server.Stop())
	stopped, paid := time.Now(), runs()
	const load = 60
	for n := 1; n <= load; n++ {
		write(n)
	}
	select {
	case <-back:
	case <-ctx.Done():
		t.Fatal("the hour never passed")
	}
	require.GreaterOrEqual(t, f.Lag(), time.Hour, "the oldest fact has waited that long")
	require.ErrorContains(t, f.Ready(), "Temporal can't start a workflow")
	require.LessOrEqual(t, runs(), paid+1, "without Temporal no cycle begins; one may have been under way")
	for time.Until(passes) > 0 || time.Since(stopped) < 4*period { // so much has to pass by itself
		<-time.After(10 * time.Millisecond)
	}
	missed, returned := int(time.Since(stopped)/period), time.Now()
	again(t, dir, server)

	// Then everything that came meanwhile is started, once.
	started := map[string]string{}
	require.Eventually(t, func() bool {
		if f.Ready() != nil || f.Lag() != 0 {
			return false
		}
		for n := range load + 1 {
			for _, id := range []string{claimfile.WorkflowID(file(n)), claim.WorkflowID(pend(n))} {
				if started[id] != "" {
					continue // each look asks the server
				}
				if started[id] = open(ctx, c, id); started[id] == "" {
					return false
				}
			}
		}
		return true
	}, 2*time.Minute, 50*time.Millisecond)
	require.Empty(t, open(ctx, c, claim.WorkflowID("clean1")))
	// And the deadline that has passed is dealt with, and the payments that were
	// due are made up for by one run, not by one for each time that was missed.
	require.Eventually(t, func() bool {
		i.mu.Lock()
		defer i.mu.Unlock()
		return len(i.advanced[late]) > 0
	}, 30*time.Second, 10*time.Millisecond)
	require.Eventually(t, func() bool { return runs() > paid }, 30*time.Second, 10*time.Millisecond)
	require.LessOrEqual(t, runs(), paid+2+int(time.Since(returned)/period), "%d were missed", missed)
	i.mu.Lock()
	require.True(t, i.advanced[late][0].After(passes), "not before its time")
	i.mu.Unlock()
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)

	// And following the same log from its beginning begins none of them anew.
	second := follower.New(deps)
	following, stop = context.WithCancel(ctx)
	go func() { ended <- second.Run(following) }()
	require.Eventually(t, func() bool { return second.Ready() == nil }, 20*time.Second, 10*time.Millisecond)
	for id, run := range started {
		require.Equal(t, run, open(ctx, c, id), id)
	}
	stop()
	require.ErrorIs(t, <-ended, context.Canceled)
}

// open returns the id of a workflow's run; empty when there is none.
func open(ctx context.Context, c client.Client, id string) string {
	r, err := c.DescribeWorkflowExecution(ctx, id, "")
	if err != nil {
		return ""
	}
	return r.GetWorkflowExecutionInfo().GetExecution().GetRunId()
}
