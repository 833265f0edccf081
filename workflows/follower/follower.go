// Package follower starts what the ledger says is waiting.
//
// It follows the claims log: a file received gets its workflow, a claim that
// pends gets its own, and a claim that becomes final by another way tells its
// workflow so. Invariants: a workflow's id is made from the fact that asks for
// it, so starting twice is starting once; the cursor is stored only after
// everything before it has been started; and when Temporal or the ledger is
// away the follower waits and tries again, for ever. So nothing is lost and
// nothing is done twice, whichever process stops when.
package follower

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	claimsv1 "github.com/probity-health/probity/proto/probity/claims/v1"
	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/workflows/claim"
)

// Log is the log that is followed.
const Log = "claims"

const (
	// maxDeferred bounds what catching up may hold back; beyond it workflows
	// are started at once, which costs a start that may prove needless.
	maxDeferred = 50_000
	// saveEvery bounds how far back a restart begins; it is not what makes it correct.
	saveEvery = 5 * time.Second

	// parallel is how many workflows are started at once; order matters only
	// between a claim's start and what it is told, and that is kept.
	parallel = 16

	firstPause = 200 * time.Millisecond
	longPause  = 30 * time.Second
)

// Ledger is followed; it is the ledger service's Connect client.
type Ledger interface {
	Subscribe(context.Context, *ledgerv1.SubscribeRequest) (*connect.ServerStreamForClient[ledgerv1.SubscribeResponse], error)
}

// Starter starts and tells workflows; what exists already is success.
type Starter interface {
	StartFile(ctx context.Context, fileID string) error
	StartClaim(ctx context.Context, claimID, dueDate string) error
	ClaimDecided(ctx context.Context, claimID string) error
	// ClaimChanged says that the case of a pended claim has other deadlines.
	ClaimChanged(ctx context.Context, claimID string) error
	StartAppeal(ctx context.Context, appealID, claimID string) error
	AppealDecided(ctx context.Context, appealID string) error
}

// Cursor keeps where to continue, a shard's index each.
type Cursor interface {
	// Load returns nil when nothing usable is stored: then the log is read from its beginning.
	Load(ctx context.Context) (map[uint32]uint64, error)
	Save(ctx context.Context, next map[uint32]uint64) error
}

// Deps are what a follower works with.
type Deps struct {
	Ledger  Ledger
	Starter Starter
	Cursor  Cursor
	// Logger; nil discards.
	Logger *slog.Logger
	// Now tells the time; nil is time.Now. It paces saving only.
	Now func() time.Time
	// Pause waits before an attempt is repeated, or until ctx ends; nil really waits.
	Pause func(ctx context.Context, d time.Duration)
}

// Follower follows while Run runs.
type Follower struct {
	deps Deps

	// Owned by Run's goroutine.
	next  map[uint32]uint64
	saved time.Time
	// What catching up has seen asked for and not yet answered: most of an old
	// log's files are complete and most of its pended claims are decided, and
	// those cost a map entry instead of a workflow. nil once caught up.
	deferred *backlog
	// What the batch in hand asks to start; emptied by flush.
	starts []func(context.Context)

	mu       sync.Mutex
	caughtUp bool   // guarded by mu
	trouble  string // guarded by mu; what is being waited for, empty when nothing
}

type backlog struct {
	files  map[string]struct{}
	claims map[string]string // id -> due date
	// Open appeals, id -> claim. One that another decision made moot is
	// started too; it looks at its case and ends.
	appeals map[string]string
	// Pended claims whose case has changed: a workflow that runs already has
	// to be told.
	changed map[string]struct{}
}

func (b *backlog) size() int { return len(b.files) + len(b.claims) + len(b.appeals) + len(b.changed) }

// New makes a follower.
func New(d Deps) *Follower {
	if d.Logger == nil {
		d.Logger = slog.New(slog.DiscardHandler)
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Pause == nil {
		d.Pause = pause
	}
	return &Follower{deps: d}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// Ready returns nil when everything the log held at the start has been
// started and nothing is being waited for, else what it waits for.
func (f *Follower) Ready() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.trouble != "":
		return errors.New("follower: " + f.trouble)
	case !f.caughtUp:
		return errors.New("follower: catching up with the claims log")
	}
	return nil
}

// Run follows until ctx ends and returns ctx's error.
func (f *Follower) Run(ctx context.Context) error {
	f.insist(ctx, "the cursor can't be read", func() error {
		next, err := f.deps.Cursor.Load(ctx)
		f.next = maps.Clone(next)
		return err
	})
	if f.next == nil {
		f.next = map[uint32]uint64{}
	}
	f.deferred = &backlog{files: map[string]struct{}{}, claims: map[string]string{}, appeals: map[string]string{}, changed: map[string]struct{}{}}
	for wait := firstPause; ctx.Err() == nil; {
		progressed, err := f.follow(ctx)
		if ctx.Err() != nil {
			break
		}
		if progressed {
			wait = firstPause
		}
		f.note("the claims log can't be followed now")
		f.deps.Logger.WarnContext(ctx, "following the claims log was interrupted; trying again", "error", err, "pause", wait)
		f.deps.Pause(ctx, wait)
		wait = min(2*wait, longPause)
	}
	return ctx.Err()
}

var followed = []string{
	name(&eventsv1.FileReceived{}), name(&eventsv1.FileCompleted{}), name(&eventsv1.ClaimDecided{}),
	name(&eventsv1.TaskClaimed{}), name(&eventsv1.InformationRequested{}), name(&eventsv1.InformationReceived{}),
	name(&eventsv1.AppealFiled{}), name(&eventsv1.AppealDecided{}),
}

func name(m proto.Message) string { return string(proto.MessageName(m)) }

// follow holds one subscription until it breaks.
func (f *Follower) follow(ctx context.Context) (progressed bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := &ledgerv1.SubscribeRequest{Log: Log, Types: followed}
	for _, shard := range slices.Sorted(maps.Keys(f.next)) {
		request.From = append(request.From, &ledgerv1.ShardIndex{Shard: shard, Index: f.next[shard]})
	}
	stream, err := f.deps.Ledger.Subscribe(ctx, request)
	if err != nil {
		return false, err
	}
	defer func() { _ = stream.Close() }()
	for stream.Receive() {
		if err := f.take(ctx, stream.Msg()); err != nil {
			return progressed, err
		}
		progressed = true
	}
	if err := stream.Err(); err != nil {
		return progressed, err
	}
	return progressed, io.EOF
}

// take handles one batch whole: it returns only when every workflow the batch
// asks for is started or held back, so next may move.
func (f *Follower) take(ctx context.Context, batch *ledgerv1.SubscribeResponse) error {
	for _, e := range batch.GetEvents() {
		if err := f.event(ctx, e); err != nil {
			f.starts = nil // the batch comes again
			return err
		}
	}
	f.flush(ctx)
	for _, n := range batch.GetNext() {
		f.next[n.GetShard()] = n.GetIndex()
	}
	if f.deferred != nil && (batch.GetCaughtUp() || f.deferred.size() > maxDeferred) {
		f.startDeferred()
		f.flush(ctx)
		f.tellDeferred(ctx)
		if batch.GetCaughtUp() {
			f.deferred = nil
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	f.trouble = ""
	f.caughtUp = f.caughtUp || batch.GetCaughtUp()
	f.mu.Unlock()
	// While something is held back the stored cursor must stay before it.
	if now := f.deps.Now(); f.deferred == nil && now.Sub(f.saved) >= saveEvery {
		if err := f.deps.Cursor.Save(ctx, maps.Clone(f.next)); err != nil {
			// A stale cursor costs time at the next start, nothing else.
			f.deps.Logger.WarnContext(ctx, "the follower's cursor could not be stored", "error", err)
		}
		f.saved = now
	}
	return nil
}

func (f *Follower) event(ctx context.Context, e *ledgerv1.RecordedEvent) error {
	switch e.GetEvent().GetType() {
	case followed[0]:
		var received eventsv1.FileReceived
		if err := f.decode(e, &received); err != nil {
			return err
		}
		// A file refused whole has nothing to decide.
		if received.GetFile().GetState() != claimsv1.FileState_FILE_STATE_REFUSED {
			f.fileReceived(received.GetFile().GetFileId(), e.GetTraceparent())
		}
	case followed[1]:
		if f.deferred != nil {
			delete(f.deferred.files, strings.TrimPrefix(e.GetStream(), "file-"))
		}
	case followed[2]:
		var decided eventsv1.ClaimDecided
		if err := f.decode(e, &decided); err != nil {
			return err
		}
		f.claimDecided(ctx, &decided, e)
	case followed[3], followed[4], followed[5]:
		return f.caseChanged(ctx, e)
	case followed[6]:
		var filed eventsv1.AppealFiled
		if err := f.decode(e, &filed); err != nil {
			return err
		}
		f.appealFiled(filed.GetAppeal().GetAppealId(), filed.GetClaimId(), e.GetTraceparent())
	case followed[7]:
		var decided eventsv1.AppealDecided
		if err := f.decode(e, &decided); err != nil {
			return err
		}
		f.appealDecided(ctx, decided.GetAppealId())
	}
	return nil
}

// caseChanged tells a claim's workflow of a deadline that it can't know. What
// the workflow had done itself it knows.
func (f *Follower) caseChanged(ctx context.Context, e *ledgerv1.RecordedEvent) error {
	id := strings.TrimPrefix(e.GetStream(), "claim-")
	if e.GetEvent().GetType() == followed[4] {
		var requested eventsv1.InformationRequested
		if err := f.decode(e, &requested); err != nil {
			return err
		}
		if requested.GetRequest().GetRequestedBy() == "" {
			return nil
		}
	}
	if f.deferred != nil {
		f.deferred.changed[id] = struct{}{}
		return nil
	}
	f.flush(ctx)
	f.tellChanged(ctx, id)
	return nil
}

func (f *Follower) tellChanged(ctx context.Context, id string) {
	f.insist(ctx, "Temporal can't be told of a changed case", func() error { return f.deps.Starter.ClaimChanged(ctx, id) })
}

func (f *Follower) appealFiled(id, claimID, traceparent string) {
	if f.deferred != nil {
		f.deferred.appeals[id] = claimID
		return
	}
	f.startAppeal(id, claimID, traceparent)
}

func (f *Follower) appealDecided(ctx context.Context, id string) {
	if f.deferred != nil {
		delete(f.deferred.appeals, id)
	}
	f.flush(ctx)
	f.insist(ctx, "Temporal can't be told of a decided appeal", func() error { return f.deps.Starter.AppealDecided(ctx, id) })
}

func (f *Follower) startAppeal(id, claimID, traceparent string) {
	f.starts = append(f.starts, func(ctx context.Context) {
		ctx = telemetry.Continue(ctx, traceparent)
		f.insist(ctx, "Temporal can't start an appeal's workflow", func() error { return f.deps.Starter.StartAppeal(ctx, id, claimID) })
	})
}

// decode stops the follower at an event it can't read: to skip it would be to
// lose what it asks for. Ready says so until a build that can read it runs.
func (f *Follower) decode(e *ledgerv1.RecordedEvent, into proto.Message) error {
	if err := proto.Unmarshal(e.GetEvent().GetPayload(), into); err != nil {
		p := e.GetPosition()
		return fmt.Errorf("event %s at %s/%d/%d can't be decoded", e.GetEvent().GetType(), p.GetLog(), p.GetShard(), p.GetIndex())
	}
	return nil
}

func (f *Follower) fileReceived(id, traceparent string) {
	if f.deferred != nil {
		f.deferred.files[id] = struct{}{}
		return
	}
	f.startFile(id, traceparent)
}

func (f *Follower) claimDecided(ctx context.Context, d *eventsv1.ClaimDecided, e *ledgerv1.RecordedEvent) {
	id, due := d.GetClaimId(), d.GetPromptPayDueDate()
	if f.deferred != nil && claim.Final(d.GetStatus()) {
		delete(f.deferred.changed, id)
	}
	switch {
	case d.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED && f.deferred != nil:
		f.deferred.claims[id] = due
	case d.GetStatus() == claimsv1.ClaimStatus_CLAIM_STATUS_PENDED:
		f.startClaim(id, due, e.GetTraceparent())
	case !claim.Final(d.GetStatus()):
	case f.deferred != nil && f.held(id):
		delete(f.deferred.claims, id)
	// A straight-through decision is its stream's revision 1, after the
	// receipt: only a later one can end a wait.
	case e.GetRevision() > 1:
		f.flush(ctx) // its workflow may be among those about to start
		f.insist(ctx, "Temporal can't be told of a decided claim", func() error { return f.deps.Starter.ClaimDecided(ctx, id) })
	}
}

func (f *Follower) held(claimID string) bool {
	_, held := f.deferred.claims[claimID]
	return held
}

func (f *Follower) startDeferred() {
	f.deps.Logger.Info("starting what the claims log left open", "files", len(f.deferred.files), "claims", len(f.deferred.claims))
	for _, id := range slices.Sorted(maps.Keys(f.deferred.files)) {
		f.startFile(id, "")
	}
	for _, id := range slices.Sorted(maps.Keys(f.deferred.claims)) {
		f.startClaim(id, f.deferred.claims[id], "")
	}
	for _, id := range slices.Sorted(maps.Keys(f.deferred.appeals)) {
		f.startAppeal(id, f.deferred.appeals[id], "")
	}
	clear(f.deferred.files)
	clear(f.deferred.claims)
	clear(f.deferred.appeals)
}

// tellDeferred tells what runs already of what has changed meanwhile; it comes
// after the starts.
func (f *Follower) tellDeferred(ctx context.Context) {
	for _, id := range slices.Sorted(maps.Keys(f.deferred.changed)) {
		f.tellChanged(ctx, id)
	}
	clear(f.deferred.changed)
}

// startFile queues a start; the workflow continues the trace of the request
// that brought the file. What is started after catching up begins its own.
func (f *Follower) startFile(id, traceparent string) {
	f.starts = append(f.starts, func(ctx context.Context) {
		ctx = telemetry.Continue(ctx, traceparent)
		f.insist(ctx, "Temporal can't start a file's workflow", func() error { return f.deps.Starter.StartFile(ctx, id) })
	})
}

func (f *Follower) startClaim(id, due, traceparent string) {
	f.starts = append(f.starts, func(ctx context.Context) {
		ctx = telemetry.Continue(ctx, traceparent)
		f.insist(ctx, "Temporal can't start a claim's workflow", func() error { return f.deps.Starter.StartClaim(ctx, id, due) })
	})
}

// flush starts what was asked for and returns when all of it is started.
func (f *Follower) flush(ctx context.Context) {
	var g errgroup.Group
	g.SetLimit(parallel)
	for _, start := range f.starts {
		g.Go(func() error {
			start(ctx)
			return nil
		})
	}
	_ = g.Wait() // the functions insist instead of failing
	f.starts = nil
}

// insist repeats do until it succeeds or ctx ends. The callers check ctx
// before the cursor moves, so giving up for ctx's sake loses nothing.
func (f *Follower) insist(ctx context.Context, trouble string, do func() error) {
	for wait := firstPause; ctx.Err() == nil; wait = min(2*wait, longPause) {
		err := do()
		if err == nil || ctx.Err() != nil {
			return
		}
		f.note(trouble)
		f.deps.Logger.WarnContext(ctx, trouble+"; trying again", "error", err, "pause", wait)
		f.deps.Pause(ctx, wait)
	}
}

func (f *Follower) note(trouble string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.trouble = trouble
}
