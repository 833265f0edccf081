package embedded_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/probity-health/probity/standalone/embedded"
)

func TestTemporalResumesOpenWorkflowsFromItsFile(t *testing.T) {
	// Given a workflow that has come halfway when the server stops.
	ctx := testContext(t)
	dir := t.TempDir()
	server := startTemporal(t, dir)
	c := dial(t, server)
	stopWorker := startWaiter(t, c)
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: "waiter", TaskQueue: "test"}, waiter)
	require.NoError(t, err)
	require.NoError(t, c.SignalWorkflow(ctx, "waiter", "", "word", "pro"))
	require.Eventually(t, func() bool {
		v, err := c.QueryWorkflow(ctx, "waiter", "", "heard")
		var heard string
		return err == nil && v.Get(&heard) == nil && heard == "pro"
	}, 20*time.Second, 20*time.Millisecond)
	stopWorker()
	c.Close()
	require.NoError(t, server.Stop())

	// When another server continues the file, on other ports.
	c = dial(t, startTemporal(t, dir))
	defer c.Close()
	defer startWaiter(t, c)()
	require.NoError(t, c.SignalWorkflow(ctx, "waiter", "", "word", "bity"))

	// Then the workflow ends as if nothing had been.
	var said string
	require.NoError(t, c.GetWorkflow(ctx, "waiter", run.GetRunID()).Get(ctx, &said))
	require.Equal(t, "probity", said)
}

func waiter(ctx workflow.Context) (string, error) {
	said := ""
	if err := workflow.SetQueryHandler(ctx, "heard", func() (string, error) { return said, nil }); err != nil {
		return "", err
	}
	for range 2 {
		var word string
		workflow.GetSignalChannel(ctx, "word").Receive(ctx, &word)
		said += word
	}
	return said, nil
}

func startWaiter(t *testing.T, c client.Client) (stop func()) {
	t.Helper()
	w := worker.New(c, "test", worker.Options{})
	w.RegisterWorkflow(waiter)
	require.NoError(t, w.Start())
	return w.Stop
}

func startTemporal(t *testing.T, dir string) *embedded.Temporal {
	t.Helper()
	began := time.Now()
	server, err := embedded.StartTemporal(t.Context(), dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Logf("Temporal started in %v", time.Since(began).Round(time.Millisecond))
	t.Cleanup(func() { require.NoError(t, server.Stop()) })
	return server
}

func dial(t *testing.T, server *embedded.Temporal) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{
		HostPort: server.HostPort(), Namespace: embedded.Namespace, Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	return c
}
