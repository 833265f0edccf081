package policies

import (
	"context"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	problemv1 "github.com/probity-health/probity/proto/probity/problem/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/problem"
)

var planIDPattern = regexp.MustCompile(`^plan_[a-z0-9_]{1,40}$`)

// work is one command on one stream.
type work struct {
	requestID string // the caller's
	stream    string
	// decide is asked with the stream as read; the n-th event it returns gets
	// revision len(events)+n. No event means that nothing is to be changed.
	decide func(ctx context.Context, events []eventstore.Recorded) ([]proto.Message, error)
	// says tells whether an event is what this command would have recorded.
	says func(ctx context.Context, r eventstore.Recorded) (bool, error)
}

// recorded is how a command ended.
type recorded struct {
	revision  uint64
	token     string
	unchanged bool // nothing was appended: the state was so already, or the request had been answered
	answered  bool // the request had been answered
}

// commitID scopes the caller's request id to one stream, so that two tenants
// who count from 1 never answer for each other.
func commitID(requestID, stream string) string { return requestID + ":" + stream }

// record runs a command: read, decide, append; again when another writer was
// first. A request id that the stream has seen is answered from what it
// recorded then, provided that it meant the same: a sealed field never seals
// the same way twice, so the ledger itself can't tell.
func (h *Handler) record(ctx context.Context, w work) (recorded, error) {
	id := commitID(w.requestID, w.stream)
	var out recorded
	answered := func(ctx context.Context, events []eventstore.Recorded) (bool, error) {
		r, found := byRequest(events, id)
		if !found {
			return false, nil
		}
		out = recorded{revision: r.Revision, token: r.Position.Token(), unchanged: true, answered: true}
		if same, err := w.says(ctx, r); err != nil || same {
			return true, err
		}
		return true, requestReused()
	}
	a, err := eventstore.Decide(ctx, h.Store, 0, func(ctx context.Context) (eventstore.Commit, error) {
		out = recorded{}
		events, err := h.Store.Read(ctx, Log, w.stream, w.stream, 0)
		if err != nil {
			return eventstore.Commit{}, err
		}
		if done, err := answered(ctx, events); done || err != nil {
			return eventstore.Commit{}, err
		}
		decided, err := w.decide(ctx, events)
		if err != nil {
			return eventstore.Commit{}, err
		}
		if len(decided) == 0 {
			if len(events) == 0 { // nothing is there and nothing was asked for
				out = recorded{unchanged: true}
				return eventstore.Commit{}, nil
			}
			last := events[len(events)-1]
			out = recorded{revision: last.Revision, token: last.Position.Token(), unchanged: true}
			return eventstore.Commit{}, nil
		}
		return commitOf(ctx, id, w.stream, len(events), decided), nil
	})
	if isReused(err) {
		// The commit that used the id was recorded after our read.
		events, readErr := h.Store.Read(ctx, Log, w.stream, w.stream, 0)
		if readErr != nil {
			return recorded{}, readErr
		}
		if done, sayErr := answered(ctx, events); done {
			return out, sayErr
		}
	}
	if err != nil {
		return recorded{}, err
	}
	if len(a.Revisions) > 0 {
		h.wrote(a.Position)
		out = recorded{revision: a.Revisions[0], token: a.Token}
	}
	return out, nil
}

func commitOf(ctx context.Context, id, stream string, have int, events []proto.Message) eventstore.Commit {
	who, _ := identity.FromContext(ctx)
	return eventstore.Commit{
		Log: Log, RoutingKey: stream, RequestID: id, Actor: who.Subject,
		Writes: []eventstore.Write{{Stream: stream, Expected: int64(have) - 1, Events: events}},
	}
}

func byRequest(events []eventstore.Recorded, id string) (eventstore.Recorded, bool) {
	i := slices.IndexFunc(events, func(r eventstore.Recorded) bool { return r.RequestID == id })
	if i < 0 {
		return eventstore.Recorded{}, false
	}
	return events[i], true
}

func requestReused() *problem.Error {
	return problem.New(problem.Conflict, problem.Problem{RuleID: "request_id.reused", FieldPath: "request_id",
		Message: "this request id was used for another request", Fix: "use a new request id for a new request; repeat a request unchanged"})
}

// isReused tells whether the ledger refused a commit because its request id
// stands for another content.
func isReused(err error) bool {
	e := problem.As(err)
	return e != nil && e.Kind == problem.Conflict && len(e.Problems) > 0 && strings.HasSuffix(e.Problems[0].RuleID, "reused")
}

func missing(field string) *problem.Error {
	return problem.New(problem.Invalid, problem.Problem{RuleID: "field.required", FieldPath: field,
		Message: "value is required", Fix: "give " + field})
}

// under puts the field paths of err below prefix.
func under(prefix string, err *problem.Error) *problem.Error {
	out := *err
	out.Problems = slices.Clone(err.Problems)
	for i := range out.Problems {
		out.Problems[i].FieldPath = strings.TrimSuffix(join(prefix, out.Problems[i].FieldPath), ".")
	}
	return &out
}

// problemProtos is err as messages, field paths below prefix.
func problemProtos(err error, prefix, requestID string) []*problemv1.Problem {
	e := problem.As(err)
	if prefix != "" {
		e = under(prefix, e)
	}
	out := make([]*problemv1.Problem, len(e.Problems))
	for i, p := range e.Problems {
		out[i] = &problemv1.Problem{
			RuleId: p.RuleID, FieldPath: p.FieldPath, X12Path: p.X12Path, Code: p.Code, Message: p.Message, Fix: p.Fix,
			Line: uint32(p.Line), Column: uint32(p.Column),
			Retryable: e.Retryable(), RequestId: requestID, Kind: string(e.Kind),
		}
	}
	return out
}
