package bench

import (
	"sync/atomic"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
)

// cost is how many Temporal actions an event of a history stands for: starts
// (a continued run's too), activities with each further attempt, timers,
// signals, updates, children, markers (one stands for the local activities of
// a task) and upserted attributes. Queries and heartbeats leave no event and
// are not counted.
func cost(e *historypb.HistoryEvent) int {
	switch e.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED,
		enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED,
		enumspb.EVENT_TYPE_TIMER_STARTED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
		enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_UPDATE_ACCEPTED,
		enumspb.EVENT_TYPE_START_CHILD_WORKFLOW_EXECUTION_INITIATED,
		enumspb.EVENT_TYPE_SIGNAL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED,
		enumspb.EVENT_TYPE_REQUEST_CANCEL_EXTERNAL_WORKFLOW_EXECUTION_INITIATED,
		enumspb.EVENT_TYPE_MARKER_RECORDED,
		enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
		return 1
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_STARTED:
		return max(0, int(e.GetActivityTaskStartedEventAttributes().GetAttempt())-1)
	}
	return 0
}

// taskCounter counts finished workflow tasks of a client's workers.
type taskCounter struct{ done atomic.Int64 }

// taskMetrics is a metrics handler that tells a taskCounter of the same
// requests that the stack's worker counts.
type taskMetrics struct {
	to        *taskCounter
	operation string
}

var _ client.MetricsHandler = taskMetrics{}

func (m taskMetrics) WithTags(tags map[string]string) client.MetricsHandler {
	if operation := tags["operation"]; operation != "" {
		m.operation = operation
	}
	return m
}

func (m taskMetrics) Counter(name string) client.MetricsCounter {
	if name == "temporal_request" && m.operation == "RespondWorkflowTaskCompleted" {
		return m
	}
	return client.MetricsNopHandler.Counter(name)
}

func (m taskMetrics) Gauge(name string) client.MetricsGauge {
	return client.MetricsNopHandler.Gauge(name)
}

func (m taskMetrics) Timer(name string) client.MetricsTimer {
	return client.MetricsNopHandler.Timer(name)
}

// Inc counts a request.
func (m taskMetrics) Inc(n int64) { m.to.done.Add(n) }

// quiet is a logger that says nothing.
type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}
