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
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/workflows/failure"
)

const (
	// heartbeatTimeout bounds how long a dead worker's span lies idle.
	heartbeatTimeout = 10 * time.Second
	heartbeatEvery   = heartbeatTimeout / 4
	// callTimeout of one chunk: the first of a large file waits for its parsing.
	callTimeout = 60 * time.Second
	// chunksAbreast of a span are decided at once: a chunk waits for the ledger
	// several times, and while all that are begun wait nothing is done.
	chunksAbreast = 2
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

// Decide has a span decided, two chunks at a time, continuing where an earlier
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
	var abreast []chan chunk // in the order of their ordinals
	var halt error           // why no more is begun
	canceled := false
	for next, end := at.Next, s.First+s.Count; ; {
		if next < end && halt == nil && !canceled && stopping(ctx) {
			halt = errStopping
		}
		for len(abreast) < chunksAbreast && next < end && halt == nil && !canceled {
			q := &gatewayv1.AdjudicateChunkRequest{FileId: s.FileID, FirstOrdinal: next, Count: min(chunkClaims, end-next), Finish: finish}
			done := make(chan chunk, 1)
			go func() {
				d, err := a.decideChunk(ctx, q)
				done <- chunk{q.GetCount(), d, err}
			}()
			abreast, next = append(abreast, done), next+q.GetCount()
		}
		if len(abreast) == 0 {
			break
		}
		c := <-abreast[0]
		abreast = abreast[1:]
		switch {
		case c.err != nil:
			// What is begun is brought to its end, so that nobody meets it half
			// done; of several errors one that asks for another attempt counts.
			if failed := failure.FromRPC(c.err); halt == nil || failure.IsKind(halt, problem.Invalid) {
				halt = failed
			}
		case c.Canceled:
			canceled = true
		case halt == nil && !canceled:
			if at = (reached{Next: at.Next + c.count, Tally: at.Tally.plus(c.Tally)}); at.Next < end { // the span's result says the last
				pulse.beat(at)
			}
		case halt == nil:
			at.Tally = at.Tally.plus(c.Tally) // begun before the cancel was met
		}
	}
	if halt != nil {
		return Decided{}, halt
	}
	return Decided{Tally: at.Tally, Canceled: canceled}, nil
}

func stopping(ctx context.Context) bool {
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}

// chunk is the outcome of one.
type chunk struct {
	count uint32
	Decided
	err error
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
