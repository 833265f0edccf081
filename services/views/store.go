package views

import (
	"context"

	"github.com/probity-health/probity/services/problem"
)

// Store keeps the tables of views. Package redisstore keeps them in Redis, for
// any number of processes; package localstore in this process. viewstest.Run
// holds both to the same behaviour. A Store is safe for concurrent use.
//
// An error that waiting may mend is Unavailable (see Away).
type Store interface {
	// Shards returns the shards that AddShards has named for a view, in order.
	Shards(ctx context.Context, view string) ([]uint32, error)
	AddShards(ctx context.Context, view string, shards []uint32) error
	// Heads returns which build of each shard readers use.
	Heads(ctx context.Context, view string, shards []uint32) ([]Head, error)
	// GoLive switches a shard's readers to a build's version, never back, and
	// returns the version that is live now; false when the shard's generation
	// is another than the build's, and then nothing changes.
	GoLive(ctx context.Context, b Build) (live uint32, same bool, err error)
	// Renew raises a shard's generation and leaves its readers without a build:
	// nothing is written to an earlier generation any more.
	Renew(ctx context.Context, view string, shard uint32) (generation uint64, err error)
	// Drop deletes a shard's builds that are unwanted. None of them may be live
	// or still be written to.
	Drop(ctx context.Context, view string, shard uint32, unwanted func(Build) bool) error

	// Apply applies a batch once and together, or says why not (see Verdict).
	Apply(ctx context.Context, b Batch) (Applied, error)
	// Offsets returns how far builds have come: the next index to apply.
	Offsets(ctx context.Context, builds ...Build) ([]uint64, error)
	// Parked returns a build's parked commits: index to reason.
	Parked(ctx context.Context, b Build) (map[uint64]string, error)

	// Hashes loads fields of hashes; a hash without any of them is nil.
	Hashes(ctx context.Context, looks ...Fields) ([]map[string]string, error)
	// Members returns the members of sets, in any order.
	Members(ctx context.Context, sets ...At) ([][]string, error)
	// Count returns the number of members of sorted sets together.
	Count(ctx context.Context, sets ...At) (int64, error)
	// Range returns a page of one sorted set; Page.Limit is positive.
	Range(ctx context.Context, set At, page Page) ([]Member, error)
	// Tables visits every key of a build, in any order and some perhaps twice.
	// It is for audits: each key's whole content is in memory at a time.
	Tables(ctx context.Context, b Build, visit func(key string, t Table) error) error
}

// Build is one version of one shard's tables of a view, in one generation.
type Build struct {
	View       string
	Shard      uint32
	Version    uint32
	Generation uint64
}

// Head is what a shard's readers use.
type Head struct {
	Live       uint32 // version; 0 is none
	Generation uint64
}

// At is a key of a build.
type At struct {
	Build
	Key string
}

// Fields asks for fields of the hash at a key; nil is all of them.
type Fields struct {
	At
	Fields []string
}

// Table is what a key holds; which field counts says the kind.
type Table struct {
	Kind   Kind
	Hash   map[string]string
	Scores map[string]int64 // a sorted set's, or a set's members with scores of 0
	Text   string
}

// Change is what one commit does to a view.
type Change struct {
	Index  uint64
	Reason string // why it is parked; then Ops is empty
	Ops    []Op
}

// Batch is the commits from From on and before Next of one shard, those that
// change something, in order.
type Batch struct {
	Build
	From, Next uint64
	Changes    []Change
}

// Verdict is what became of a batch.
type Verdict uint8

const (
	// Done: applied, now or, Commits being 0, before. Of a batch that reaches
	// back behind what is stored only the rest is applied.
	Done Verdict = iota + 1
	// Gap: what is stored ends before the batch, or the shard's generation is
	// another. Nothing has changed.
	Gap
	// Superseded: nothing is stored and readers use a newer version. Nothing has changed.
	Superseded
	// Clash: the commit at Applied.Index takes a key for another kind than it
	// has. Nothing has changed.
	Clash
)

// Applied is a store's answer to a batch.
type Applied struct {
	Verdict Verdict
	Index   uint64 // of a Clash
	Commits int    // applied just now
}

// PartlyApplied begins the reason of a commit whose commands did not all
// apply although their kinds fit, as when a sum overflows. It is parked as it
// is: a repeated increment would be a wrong sum.
const PartlyApplied = "partly applied: "

// Away says that a store can't be reached, or can't serve.
func Away(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "views.unavailable",
		Message: "the lists are not available just now",
		Fix:     "ask again in a moment; claims are still accepted and decided",
	}).Because(cause)
}
