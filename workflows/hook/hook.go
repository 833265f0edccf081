// Package hook is how a service gets work done that takes time.
//
// A service writes a fact on its log and does nothing more. A row of the
// worker's catalog, a Workflow, says which facts begin, move and end a
// workflow; the follower of that log does what they ask; the workflow waits
// with timers and gives a command back to the service by RPC. The fact is the
// truth and the workflow only its clock: started again from the log it must
// come to the same state, so its first step reads how things stand.
//
// docs/how-to/add-a-workflow.md walks through one.
package hook

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/proto"
)

// Workflow is one kind of workflow: what runs, and what of a log it runs for.
type Workflow struct {
	// Type is the name Temporal knows it by. Renaming it strands open ones.
	Type string
	// Run is the workflow function.
	Run any
	// Versioning says what a new build of a versioned worker does to open
	// ones: Pinned ends them on the build that began them, which must keep
	// running so long; AutoUpgrade moves them, and changes of their course then
	// need workflow.GetVersion. Pin what ends within a day.
	Versioning workflow.VersioningBehavior
	// Activities by the names Temporal knows them by.
	Activities map[string]any
	// Log whose facts concern it, "claims"; empty when nothing but other
	// workflows and RPCs start it.
	Log string
	// Facts of that log, one an event type.
	Facts []Fact
}

// Register makes the workflow and its activities known to a worker.
func (w Workflow) Register(r worker.Registry) {
	r.RegisterWorkflowWithOptions(w.Run, workflow.RegisterOptions{Name: w.Type, VersioningBehavior: w.Versioning})
	for name, f := range w.Activities {
		r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

// Fact says what an event type asks for.
type Fact struct {
	// Event is the full name of its message.
	Event string
	// Asks is a pure function of the event. An error says that the event can't
	// be read; the follower then waits there for a build that can.
	Asks func(payload []byte, at Place) ([]Ask, error)
}

// Place is where an event stands in its stream.
type Place struct {
	Stream   string
	Revision uint64
}

// On makes a Fact of the event type M.
func On[M proto.Message](asks func(M, Place) []Ask) Fact {
	var none M
	kind := none.ProtoReflect()
	name := string(kind.Descriptor().FullName())
	return Fact{Event: name, Asks: func(payload []byte, at Place) ([]Ask, error) {
		event := kind.New().Interface()
		if err := proto.Unmarshal(payload, event); err != nil {
			return nil, fmt.Errorf("%s can't be decoded", name)
		}
		return asks(event.(M), at), nil
	}}
}

// Ask is a Start or a Tell.
type Ask interface{ Workflow() string }

// Start begins a workflow unless one of this id runs or has ended well.
type Start struct {
	// ID is made from the fact, so that starting twice is starting once. It is
	// kept in clear: opaque ids only.
	ID   string
	Type string
	// Input is the workflow's one argument; it is sealed.
	Input any
	// Late is the input where the fact is read long after it was written, and
	// Input may count on what isn't so any more; nil is Input.
	Late any
	// Again begins one anew that failed or was stopped: what it was refused for
	// may have been repaired.
	Again bool
	// Attributes for lists in Temporal, kept in clear: codes and dates only.
	Attributes temporal.SearchAttributes
	// Idle is until when the workflow would do nothing but wait, as far as the
	// fact tells: its start may give way to what presses, and its first task
	// may be put off until then, or until it is told or asked something. Zero
	// is not known.
	Idle time.Time
}

// Tell signals a workflow; one that isn't there or has ended needs no telling.
type Tell struct {
	ID string
	// Signal is the channel's name; empty tells nothing.
	Signal string
	// Ends says that what the workflow waits for has come: a follower that
	// catches up need not start it at all.
	Ends bool
}

// Workflow returns the workflow's id.
func (s Start) Workflow() string { return s.ID }

// Workflow returns the workflow's id.
func (t Tell) Workflow() string { return t.ID }

// Logs lists the logs that any of the workflows concern, in order.
func Logs(all []Workflow) []string {
	var logs []string
	for _, w := range all {
		if w.Log != "" && !slices.Contains(logs, w.Log) {
			logs = append(logs, w.Log)
		}
	}
	slices.Sort(logs)
	return logs
}

// Of returns the facts of one log.
func Of(all []Workflow, log string) []Fact {
	var facts []Fact
	for _, w := range all {
		if w.Log == log {
			facts = append(facts, w.Facts...)
		}
	}
	return facts
}
