// Package worker runs the workflows: it dials Temporal with encrypted
// payloads, registers every workflow and activity, and stops gracefully.
//
// Invariant: every payload that leaves for Temporal is sealed, and every one
// that comes back is checked; see Converters.
package worker

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"go.temporal.io/sdk/client"
	temporalotel "go.temporal.io/sdk/contrib/opentelemetry"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/probity-health/probity/workflows/claim"
	"github.com/probity-health/probity/workflows/claimfile"
	"github.com/probity-health/probity/workflows/payment"
)

// TaskQueue is where the workflows' tasks wait, unless configured otherwise.
const TaskQueue = "probity"

// stopTimeout lets a chunk that is with the gateway come back; what takes
// longer is repeated by another worker.
const stopTimeout = 10 * time.Second

// Connection says which Temporal to use. The zero value is a server on this machine without TLS.
type Connection struct {
	// HostPort of the frontend; empty is 127.0.0.1:7233.
	HostPort string
	// Namespace; empty is "probity".
	Namespace string
	// TLS, when the frontend wants it.
	TLS *tls.Config
	// APIKey reads the key for each call; nil sends none.
	APIKey func(context.Context) (string, error)
	// Keys seal the payloads.
	Keys Keys
	// Logger; nil discards.
	Logger *slog.Logger
	// Tracer and Meter; nil is none.
	Tracer trace.TracerProvider
	Meter  metric.MeterProvider
}

// Dial makes a client that connects when it is first used and reconnects by
// itself: a worker may start before Temporal does.
func Dial(c Connection) (client.Client, error) {
	if c.HostPort == "" {
		c.HostPort = client.DefaultHostPort
	}
	if c.Namespace == "" {
		c.Namespace = "probity"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	options := client.Options{
		HostPort: c.HostPort, Namespace: c.Namespace,
		Logger:            log.NewStructuredLogger(c.Logger),
		ConnectionOptions: client.ConnectionOptions{TLS: c.TLS},
	}
	options.DataConverter, options.FailureConverter = Converters(c.Keys)
	if c.APIKey != nil {
		options.Credentials = client.NewAPIKeyDynamicCredentials(c.APIKey)
	}
	if c.Tracer != nil {
		tracing, err := temporalotel.NewTracingInterceptor(temporalotel.TracerOptions{
			Tracer: c.Tracer.Tracer("probity/workflows"), DisableBaggage: true,
			// A span of a trace that was not begun with us is no reason to fail a claim.
			AllowInvalidParentSpans: true,
		})
		if err != nil {
			return nil, fmt.Errorf("worker: tracing: %w", err)
		}
		options.Interceptors = []interceptor.ClientInterceptor{tracing}
	}
	if c.Meter != nil {
		options.MetricsHandler = temporalotel.NewMetricsHandler(temporalotel.MetricsHandlerOptions{
			Meter: c.Meter.Meter("probity/workflows"),
		})
	}
	dialled, err := client.NewLazyClient(options)
	if err != nil {
		return nil, fmt.Errorf("worker: Temporal client: %w", err)
	}
	return dialled, nil
}

// Deps are what a worker works with.
type Deps struct {
	// Temporal is a client from Dial. Start the workflows with the same one:
	// then their first task comes to this worker with the answer.
	Temporal client.Client
	// The services, as Connect clients.
	Gateway     claimfile.Gateway
	Files       claimfile.Files
	Remittances claimfile.Remittances
	Claims      claim.Claims
	Cases       claim.Cases
	// Payments runs payment cycles; nil runs none, and their workflows wait
	// for a worker that does.
	Payments *payment.Activities
	// PaymentTasks keeps the deadlines of failed payments' tasks, also in a
	// worker that runs no cycles.
	PaymentTasks payment.Tasks
	// TaskQueue; empty is TaskQueue.
	TaskQueue string
	// MaxActivities at once in this process; 0 is 32. Each is one RPC in flight.
	MaxActivities int
	// Deployment names a worker deployment and turns versioning on: Temporal
	// then sends new workflows to the build that was made current, and each
	// catalog row says what becomes of open ones. Empty is unversioned.
	Deployment string
	// BuildID of this build in the deployment; see BuildID. Needed with Deployment.
	BuildID string
	// Failed is told when the worker can't go on, for instance because its
	// key was revoked; nil ignores it.
	Failed func(error)
}

// Worker polls for tasks between Start and Stop.
type Worker struct {
	deps Deps

	mu    sync.Mutex
	inner worker.Worker // guarded by mu; nil when not polling
}

// New makes a worker of everything in this module.
func New(d Deps) *Worker {
	if d.TaskQueue == "" {
		d.TaskQueue = TaskQueue
	}
	if d.MaxActivities == 0 {
		d.MaxActivities = 32
	}
	return &Worker{deps: d}
}

// unversioned stands in histories for a worker without a build id.
const unversioned = "unversioned"

// Start begins to poll. It fails when Temporal can't be reached now, and may then be called again.
func (w *Worker) Start() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inner != nil {
		return nil
	}
	// The SDK's worker can be started once only, so each attempt makes its own.
	d := w.deps
	options := worker.Options{
		WorkerStopTimeout:                  stopTimeout,
		MaxConcurrentActivityExecutionSize: d.MaxActivities,
		OnFatalError:                       d.Failed,
	}
	if d.Deployment != "" {
		options.DeploymentOptions = worker.DeploymentOptions{
			UseVersioning: true,
			Version:       worker.WorkerDeploymentVersion{DeploymentName: d.Deployment, BuildID: d.BuildID},
			// What a row of the catalog leaves open: nobody has to keep an old build for it.
			DefaultVersioningBehavior: workflow.VersioningBehaviorAutoUpgrade,
		}
	} else {
		// Without any the SDK hashes the executable: half a second of a core at each start.
		options.BuildID = unversioned //nolint:staticcheck // no other option keeps it from doing so
	}
	inner := worker.New(d.Temporal, d.TaskQueue, options)
	for _, w := range Catalog(d) {
		w.Register(inner)
	}
	if err := inner.Start(); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	w.inner = inner
	return nil
}

// Run polls until ctx ends, then stops. While Temporal can't be reached it
// tries again; being out of reach is never a reason to give up.
func (w *Worker) Run(ctx context.Context, logger *slog.Logger) error {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		err := w.Start()
		if err == nil {
			break
		}
		logger.WarnContext(ctx, "the worker can't reach Temporal yet; it tries again", "error", err, "pause", pause)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
	<-ctx.Done()
	w.Stop()
	return ctx.Err()
}

// Polling tells whether the worker has been started and not stopped.
func (w *Worker) Polling() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.inner != nil
}

// Stop stops polling and waits up to ten seconds for what is in hand. It may be called more than once.
func (w *Worker) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inner != nil {
		w.inner.Stop()
		w.inner = nil
	}
}
