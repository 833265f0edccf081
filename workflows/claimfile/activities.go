package claimfile

import (
	"context"
	"errors"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/worker"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	gatewayv1 "github.com/probity-health/probity/proto/probity/gateway/v1"
	"github.com/probity-health/probity/workflows/failure"
)

const (
	// heartbeatTimeout bounds how long a dead worker's span lies idle.
	heartbeatTimeout = 10 * time.Second
	heartbeatEvery   = heartbeatTimeout / 4
	// callTimeout of one chunk: the first of a large file waits for its parsing.
	callTimeout = 60 * time.Second
)

// Gateway decides a chunk of a file's claims; chunks decided before answer as they did.
type Gateway interface {
	AdjudicateChunk(context.Context, *gatewayv1.AdjudicateChunkRequest) (*gatewayv1.AdjudicateChunkResponse, error)
}

// Files knows and completes files.
type Files interface {
	GetFile(context.Context, *claimsv1.GetFileRequest) (*claimsv1.GetFileResponse, error)
	CompleteFile(context.Context, *claimsv1.CompleteFileRequest) (*claimsv1.CompleteFileResponse, error)
}

// Remittances makes a file's remittances, once.
type Remittances interface {
	CreateRemittances(context.Context, *claimsv1.CreateRemittancesRequest) (*claimsv1.CreateRemittancesResponse, error)
}

// Activities are the workflow's hands: each is calls to one service.
type Activities struct {
	Gateway     Gateway
	Files       Files
	Remittances Remittances
}

// Register makes workflow and activities known to a worker.
func Register(w worker.Registry, a *Activities) { Hook(a).Register(w) }

// Loaded is what the workflow needs to know of a file.
type Loaded struct {
	Claims            uint32
	Refused, Complete bool
	Canceled          bool `json:",omitempty"`
	Remittances       []string
}

// Load reads a file's state. A file not found is asked for again: the
// projection that answers may be behind the log that named it.
func (a *Activities) Load(ctx context.Context, fileID string) (Loaded, error) {
	defer startPulse(ctx, reached{}).stop()
	r, err := a.Files.GetFile(ctx, &claimsv1.GetFileRequest{FileId: fileID})
	if err != nil {
		return Loaded{}, failure.FromRPC(err)
	}
	f := r.GetFile()
	state := f.GetState()
	return Loaded{
		Claims:      f.GetClaimCount(),
		Refused:     state == claimsv1.FileState_FILE_STATE_REFUSED,
		Complete:    state == claimsv1.FileState_FILE_STATE_COMPLETE || state == claimsv1.FileState_FILE_STATE_CANCELED,
		Canceled:    state == claimsv1.FileState_FILE_STATE_CANCELING || state == claimsv1.FileState_FILE_STATE_CANCELED,
		Remittances: f.GetRemittanceIds(),
	}, nil
}

// reached is an activity's heartbeat: where its next attempt begins, and the
// counts of what lies before.
type reached struct {
	Next  uint32
	Tally Tally
}

// errStopping ends an attempt between chunks so that another worker goes on.
var errStopping = errors.New("the worker is stopping")

// Decide has a span decided chunk by chunk, continuing where an earlier
// attempt's heartbeat said it was. In a canceled file it begins no chunk; but
// where there was an earlier attempt, a chunk of its may be decided in part
// without the file knowing, so then the span is brought to its end.
func (a *Activities) Decide(ctx context.Context, s Span) (Decided, error) {
	at := reached{Next: s.First}
	if activity.HasHeartbeatDetails(ctx) {
		var earlier reached
		// What can't be read, or isn't of this span, costs only a repetition.
		if activity.GetHeartbeatDetails(ctx, &earlier) == nil && earlier.Next >= s.First && earlier.Next <= s.First+s.Count {
			at = earlier
		}
	}
	finish := activity.GetInfo(ctx).Attempt > 1
	pulse := startPulse(ctx, at)
	defer pulse.stop()
	for end := s.First + s.Count; at.Next < end; {
		select {
		case <-activity.GetWorkerStopChannel(ctx):
			return Decided{}, errStopping
		default:
		}
		count := min(chunkClaims, end-at.Next)
		d, err := a.decideChunk(ctx, &gatewayv1.AdjudicateChunkRequest{FileId: s.FileID, FirstOrdinal: at.Next, Count: count, Finish: finish})
		switch {
		case err != nil:
			return Decided{}, failure.FromRPC(err)
		case d.Canceled:
			return Decided{Tally: at.Tally, Canceled: true}, nil
		}
		at = reached{Next: at.Next + count, Tally: at.Tally.plus(d.Tally)}
		if at.Next < end { // the span's result says the last
			pulse.beat(at)
		}
	}
	return Decided{Tally: at.Tally}, nil
}

func (a *Activities) decideChunk(ctx context.Context, q *gatewayv1.AdjudicateChunkRequest) (Decided, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := a.Gateway.AdjudicateChunk(ctx, q)
	if err != nil || r.GetCanceled() {
		return Decided{Canceled: r.GetCanceled()}, err
	}
	return Decided{Tally: Tally{Done: q.GetCount(), Paid: r.GetPaid(), Denied: r.GetDenied(), Pended: r.GetPended(), Rejected: r.GetRejected()}}, nil
}

// Remit has the file's remittances made. Its request id is the file's, so a
// repetition answers with those made first.
func (a *Activities) Remit(ctx context.Context, fileID string) ([]string, error) {
	defer startPulse(ctx, reached{}).stop()
	r, err := a.Remittances.CreateRemittances(ctx, &claimsv1.CreateRemittancesRequest{FileId: fileID, RequestId: "remit:" + fileID})
	if err != nil {
		return nil, failure.FromRPC(err)
	}
	ids := make([]string, len(r.GetRemittances()))
	for i, remittance := range r.GetRemittances() {
		ids[i] = remittance.GetRemittanceId()
	}
	return ids, nil
}

// Complete marks the file complete.
func (a *Activities) Complete(ctx context.Context, fileID string, remittances []string) error {
	defer startPulse(ctx, reached{}).stop()
	_, err := a.Files.CompleteFile(ctx, &claimsv1.CompleteFileRequest{FileId: fileID, RemittanceIds: remittances})
	return failure.FromRPC(err)
}

// pulse heartbeats on while a call takes its time. Temporal throttles: a
// short span costs no heartbeat at all, a long one a few a minute.
type pulse struct {
	ctx  context.Context
	done chan struct{}
	wait sync.WaitGroup

	mu sync.Mutex
	at reached // guarded by mu
}

func startPulse(ctx context.Context, at reached) *pulse {
	p := &pulse{ctx: ctx, done: make(chan struct{}), at: at}
	p.wait.Go(func() {
		ticker := time.NewTicker(heartbeatEvery)
		defer ticker.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-ticker.C:
				p.mu.Lock()
				activity.RecordHeartbeat(p.ctx, p.at)
				p.mu.Unlock()
			}
		}
	})
	return p
}

func (p *pulse) beat(at reached) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at = at
	activity.RecordHeartbeat(p.ctx, at)
}

func (p *pulse) stop() {
	close(p.done)
	p.wait.Wait()
}
