// Package claims receives claims, decides them and remembers what it decided.
//
// It owns one invariant: a service is paid once, to the cent, as the plan in
// force on the date of service says. A claim, its decision and what the
// decision adds to the family's accumulators are one commit on the ledger, at
// the revision of the accumulators that the decision read; so two claims that
// draw on one deductible are never decided on the same remainder, whoever
// decides them and however often a call is repeated.
//
// Everything of one family shares a shard. The family's bucket stands in the
// claim's id, so a claim is read from the ledger by its id alone; the read
// models answer only lists, and losing them loses nothing.
//
// Health data is sealed for the patient before it leaves this process. What
// is in clear on the ledger, in a view, an error or a log line is opaque ids,
// codes and amounts.
package claims

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/probity-health/probity/proto/probity/claims/v1/claimsv1connect"
	"github.com/probity-health/probity/services/claims/adjudication"
	"github.com/probity-health/probity/services/claims/casework"
	"github.com/probity-health/probity/services/claims/interest"
	"github.com/probity-health/probity/services/claims/payments"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/policies/book"
	"github.com/probity-health/probity/services/problem"
	"github.com/probity-health/probity/services/views"
)

// Authorizer says whether the caller in ctx may do action, an RPC's name, to
// a resource; identity.Authorizer is the real one.
type Authorizer interface {
	Authorize(ctx context.Context, action string, r identity.Resource) error
}

// Config holds the service's bounds. The zero value is usable: each field
// then has the default that its comment names.
type Config struct {
	// FamilyBytes are for families' accumulators kept in memory, 1 to 2 KB
	// each; 32 MiB.
	FamilyBytes int `json:"familyBytes"`
	// UntoldBytes are for decided claims kept in memory until a remittance
	// tells them, about 1 KB each; 32 MiB.
	UntoldBytes int `json:"untoldBytes"`
	// FamilyTTL is how long an opened service history stays in memory; 10 minutes.
	FamilyTTL time.Duration `json:"-"`
	// Files whose records are kept in memory; 64. One of 100,000 claims takes some 20 MB.
	Files int `json:"files"`
	// MaxFileBytes is the largest file taken; 256 MiB.
	MaxFileBytes int64 `json:"maxFileBytes"`
	// MaxUploads at a time; 16. Each needs a temporary file for its sealed parts.
	MaxUploads int `json:"maxUploads"`
	// SpoolDir holds sealed parts of uploads under way; the system's temporary folder.
	SpoolDir string `json:"spoolDir"`
	// MaxWatchers of claims at a time; 1,000.
	MaxWatchers int `json:"maxWatchers"`
	// WatchInterval is how often a watched claim is read again without being
	// told of a change, for changes made by another process; 5 seconds.
	WatchInterval time.Duration `json:"-"`
	// RemittanceClaims is how many claims one remittance holds; 1,000. X12's
	// guide for the 835 advises at most 10,000 CLP segments a transaction.
	RemittanceClaims int `json:"remittanceClaims"`
	// CycleClaims is how many claims one call of a payment cycle takes; 10,000.
	CycleClaims int `json:"cycleClaims"`
	// InterestBps is the annual interest on clean claims paid late, in basis
	// points by two-letter state: it overrides interest.Published; 0 owes none.
	InterestBps map[string]int64 `json:"interestBps"`
	// AmendClaims is how many earlier claims one commit decides again; 90, which
	// is also the most: the ledger takes 100 streams a commit.
	AmendClaims int `json:"amendClaims"`
	// Casework holds the deadlines of what can't be decided at once.
	Casework casework.Terms `json:"casework,omitzero"`
	// PaymentTasks holds the deadlines of the work on failed payments.
	PaymentTasks payments.Terms `json:"paymentTasks,omitzero"`
	// Reprocessing says what becomes of decided claims that a change of
	// coverage, plan, prices, contract or authorisation touches afterwards:
	// "automatic" (also when empty) decides them again by itself, "propose" waits
	// until a person has approved the change (ReprocessChange), "off" leaves
	// them to who calls ReprocessClaims. All services of one payer say the same.
	Reprocessing string `json:"reprocessing"`
	// ProposeFor are payers, by id, whose changes wait for a person although
	// Reprocessing is automatic.
	ProposeFor []string `json:"proposeFor"`
	// Replays and simulations at a time; 2. Each may hold reference data of its own.
	Replays int `json:"replays"`
	// Workers that decide claims beside each other in one call; 16.
	Workers int `json:"workers"`
	// Zone is the payer's time zone, an IANA name: which calendar day a claim
	// was received on; UTC.
	Zone string `json:"zone"`
}

// withDefaults fills in what was left zero.
func (c Config) withDefaults() Config {
	fill := func(field *int, otherwise int) {
		if *field <= 0 {
			*field = otherwise
		}
	}
	fill(&c.FamilyBytes, 32<<20)
	fill(&c.UntoldBytes, 32<<20)
	fill(&c.Files, 64)
	fill(&c.MaxUploads, 16)
	fill(&c.MaxWatchers, 1_000)
	fill(&c.RemittanceClaims, 1_000)
	fill(&c.Workers, 16)
	fill(&c.CycleClaims, 10_000)
	fill(&c.AmendClaims, maxAmendClaims)
	c.AmendClaims = min(c.AmendClaims, maxAmendClaims)
	c.Casework = c.Casework.WithDefaults()
	c.PaymentTasks = c.PaymentTasks.WithDefaults()
	fill(&c.Replays, 2)
	if c.FamilyTTL <= 0 {
		c.FamilyTTL = 10 * time.Minute
	}
	if c.MaxFileBytes <= 0 {
		c.MaxFileBytes = 256 << 20
	}
	if c.WatchInterval <= 0 {
		c.WatchInterval = 5 * time.Second
	}
	return c
}

// Deps are what the service stands on; all but Meter, Tracer, Now and Log are needed.
type Deps struct {
	Store      eventstore.Store
	Sealer     keys.Sealer
	Index      *keys.Index
	Book       *book.Book // run by the service, see Run
	Authorizer Authorizer
	Lists      views.Store          // of the read models
	Meter      metric.Meter         // nil measures nothing
	Tracer     trace.TracerProvider // nil records no spans of the read models
	Now        func() time.Time
	Log        *slog.Logger
	Config     Config
}

// Service implements ClaimsServiceHandler, FileServiceHandler and
// RemittanceServiceHandler of claimsv1connect. It is safe for concurrent use.
type Service struct {
	store     eventstore.Store
	written   *written // the same as store
	sealer    keys.Sealer
	index     *keys.Index
	book      *book.Book
	reference *reference
	auth      Authorizer
	view      *views.View
	runner    *views.Runner
	now       func() time.Time
	log       *slog.Logger
	config    Config
	zone      *time.Location
	rates     interest.Rates
	workers   int

	follower *follower
	families *families
	files    *shelf[*FileRecord]
	payees   *shelf[*payeeRecord]
	recent   *recent
	watch    *watch
	uploads  chan struct{} // a token an upload under way
	pasts    chan *past    // the books of the past that no replay holds

	mu      sync.Mutex // guards closing; calls.Add happens under it
	closing bool
	calls   sync.WaitGroup // calls that may still append
	ending  sync.Once      // closes closed
	closed  chan struct{}  // closed by EndWatches: watchers end
}

var (
	_ claimsv1connect.ClaimsServiceHandler     = (*Service)(nil)
	_ claimsv1connect.FileServiceHandler       = (*Service)(nil)
	_ claimsv1connect.RemittanceServiceHandler = (*Service)(nil)
	_ claimsv1connect.AdjustmentServiceHandler = (*Service)(nil)
	_ claimsv1connect.CaseServiceHandler       = (*Service)(nil)
)

// New makes a service; it starts nothing.
func New(d Deps) (*Service, error) {
	if d.Store == nil || d.Sealer == nil || d.Index == nil || d.Book == nil || d.Authorizer == nil || d.Lists == nil {
		return nil, errors.New("claims: a dependency is missing")
	}
	if d.Now == nil {
		d.Now = time.Now
	}
	if d.Log == nil {
		d.Log = slog.New(slog.DiscardHandler)
	}
	c := d.Config.withDefaults()
	zone, err := time.LoadLocation(c.Zone)
	if err != nil {
		return nil, errors.New("claims: config zone is not a known IANA time zone")
	}
	own := newWritten(d.Store)
	s := &Service{
		store: own, written: own, sealer: d.Sealer, index: d.Index, book: d.Book, auth: d.Authorizer,
		now: d.Now, log: d.Log, config: c, zone: zone, workers: c.Workers,
		files: newShelf[*FileRecord](c.Files), payees: newShelf[*payeeRecord](payeesKept), recent: newRecent(c.UntoldBytes), watch: newWatch(c.MaxWatchers), uploads: make(chan struct{}, c.MaxUploads),
		pasts: make(chan *past, c.Replays), closed: make(chan struct{}),
	}
	for range c.Replays {
		s.pasts <- newPast(s)
	}
	if s.follower, err = newFollower(s, c); err != nil {
		return nil, err
	}
	s.rates = interest.Published()
	maps.Copy(s.rates, c.InterestBps)
	s.reference = &reference{book: d.Book, index: d.Index, sealer: d.Sealer, log: d.Log}
	s.families = &families{shelf: newShelf[family](c.FamilyBytes), store: own, sealer: d.Sealer, now: d.Now, ttl: c.FamilyTTL}
	if s.view, err = views.Open(d.Lists, Projection(s.watch.tell), views.Options{Now: d.Now, Logger: d.Log, Tracer: d.Tracer}); err != nil {
		return nil, err
	}
	if s.runner, err = views.NewRunner(s.view, listedOf(d.Store), d.Meter); err != nil {
		return nil, err
	}
	return s, nil
}

// Run follows the policies log into the book and the claims log into the read
// models, and has decided claims follow retroactive changes, until ctx ends or
// one of them can't go on; its error says which.
func (s *Service) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var changes sync.WaitGroup
	changes.Go(func() { _ = s.follower.run(ctx) }) // ends with ctx only
	defer changes.Wait()
	defer cancel()
	ended := make(chan error, 2)
	go func() { ended <- fmt.Errorf("claims: the book: %w", s.book.Run(ctx, s.store)) }()
	go func() { ended <- fmt.Errorf("claims: the lists: %w", s.runner.Run(ctx)) }()
	first := <-ended
	cancel()
	if second := <-ended; !errors.Is(second, context.Canceled) {
		return errors.Join(first, second)
	}
	return first
}

// Ready returns once claims can be decided: the book has caught up. The lists
// may still be building; they answer Unavailable until they have caught up.
func (s *Service) Ready(ctx context.Context) error { return s.book.WaitCaughtUp(ctx) }

// EndWatches ends the watches, which last as long as their callers want.
// Everything else goes on until Close, which calls it too.
func (s *Service) EndWatches() { s.ending.Do(func() { close(s.closed) }) }

// Close refuses new writes, ends watches and waits for the writes under way,
// at most as long as ctx.
func (s *Service) Close(ctx context.Context) error {
	s.mu.Lock()
	s.closing = true
	s.mu.Unlock()
	s.EndWatches()
	drained := make(chan struct{})
	go func() {
		s.calls.Wait()
		close(drained)
	}()
	select {
	case <-drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter counts a call that may append; leave must be called.
func (s *Service) enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, problem.New(problem.Unavailable, problem.Problem{
			RuleID: "claims.closing", Message: "the service is shutting down", Fix: "send the same request again in a moment",
		})
	}
	s.calls.Add(1)
	return s.calls.Done, nil
}

// day is the payer's calendar day of an instant.
func (s *Service) day(t time.Time) adjudication.Date {
	y, m, d := t.In(s.zone).Date()
	return adjudication.DateOf(y, m, d)
}
