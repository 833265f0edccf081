package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a kind of fault.
type Kind int

// The faults. Those from Truncate on break what a ledger may expect of Kafka
// or of one party; a run has at most one party they happen to, its victim.
const (
	Crash      Kind = iota // a machine crashes within its next N disk operations
	PowerCut               // all machines crash at once
	Cut                    // a node loses the broker and its group
	Storm                  // N percent of all messages are lost, all are late
	BrokerDown             // nobody reaches the broker
	Move                   // the group gives a shard to another node
	Pause                  // a process stops and goes on as if nothing happened
	Skew                   // a clock jumps by N seconds
	Idle                   // days pass; the broker forgets idle producers
	Forget                 // a week passes; the coordinator forgets the transactional id
	Late                   // a produce in flight stays on the way for long
	Amend                  // the parties change the policy: members, a key, the quorum
	Rebuild                // a node loses its disk but the memory of signing; N%4 of 0 asks no peer
	Republish              // a topic is lost and, after a while, made anew from a replica
	Slow                   // a replica reads one partition seldom
	Truncate               // a partition loses its last N records
	LoseTopic              // a partition loses all records
	Deceive                // the broker serves the victim one record with a bit flipped
	FlipTile               // a bit of one of the victim's files of tiles flips
	FlipBody               // a bit of one of the victim's stored commits flips while it is down
	Restore                // the victim's disk is restored from a backup; for odd N with its memory of signing
	BadBlocks              // the victim proposes blocks that do not verify
	Equivocate             // the victim signs a head that no block log has, for some of the others
	Lie                    // the victim tells who catches up from it one bit wrong
	kinds
)

var kindNames = [kinds]string{
	"crash", "power cut", "cut", "storm", "broker down", "move", "pause", "skew", "idle", "forget", "late", "amend", "rebuild", "republish", "slow",
	"truncate", "lose topic", "deceive", "flip tile", "flip body", "restore", "bad blocks", "equivocate", "lie",
}

// String names the kind.
func (k Kind) String() string { return kindNames[k] }

// Fault is one planned fault.
type Fault struct {
	At   time.Duration
	Kind Kind
	Node int
	Part int
	N    int
	For  time.Duration
}

// String says what happens when to whom.
func (f Fault) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%8.3fs %s node=%d part=%d n=%d", f.At.Seconds(), f.Kind, f.Node, f.Part, f.N)
	if f.For > 0 {
		fmt.Fprintf(&b, " for %.3fs", f.For.Seconds())
	}
	return b.String()
}

// Plan is what a run does: how many appends its clients make, and its faults
// in order. A smaller plan is what shrinking looks for.
type Plan struct {
	Appends int
	Faults  []Fault
}

const (
	replicas = 4
	quorum   = 3
	clients  = 3
	parts    = 3 // two shards of a log and the block log
	blockLog = parts - 1

	// storming is how long faults may begin, healing how long the system has
	// afterwards to come to rest.
	storming = 12 * time.Second
	healing  = 90 * time.Second
)

// NewPlan draws a plan. Every seed gets its own mix of kinds, so that some
// runs see little but one of them.
func NewPlan(seed uint64) Plan {
	dice := rand.New(rand.NewPCG(seed, 0x706c616e))
	p := Plan{Appends: 15 + dice.IntN(45)}
	victim := dice.IntN(replicas)
	var menu []Kind
	for k := range kinds {
		likely := 40
		if k >= Truncate || k == Republish {
			likely = 12
		}
		if dice.IntN(100) < likely {
			menu = append(menu, k)
		}
	}
	if len(menu) == 0 {
		return p
	}
	for range 1 + dice.IntN(14) {
		f := Fault{
			At:   300*time.Millisecond + time.Duration(dice.Int64N(int64(storming))),
			Kind: menu[dice.IntN(len(menu))],
			Node: dice.IntN(replicas), Part: dice.IntN(parts),
			For: 100*time.Millisecond + time.Duration(dice.Int64N(int64(4*time.Second))),
		}
		switch f.Kind {
		case Crash, PowerCut:
			f.N = dice.IntN(60)
		case Storm:
			f.N = 5 + dice.IntN(50)
		case Skew:
			f.N = dice.IntN(7200) - 3600
		case Truncate:
			f.N = 1 + dice.IntN(8)
		case Amend, Rebuild, Republish:
			f.N = dice.IntN(1 << 16)
		case Deceive, FlipTile, FlipBody, BadBlocks, Restore, Equivocate, Lie:
			f.Node, f.N = victim, dice.IntN(1<<16)
		case Late:
			f.For += time.Duration(dice.Int64N(int64(40 * time.Second)))
		}
		p.Faults = append(p.Faults, f)
		if f.Kind == Lie {
			// To somebody who has nothing and asks it first.
			p.Faults = append(p.Faults, Fault{Kind: Rebuild, At: f.At + f.For, Node: (victim + replicas - 1) % replicas, N: 1 + f.N%3})
		}
		if f.Kind == Truncate && dice.IntN(2) == 0 {
			// An heir that had not read what is lost. It alone can go on where
			// the log now ends, and only then do the others meet new records at
			// offsets that they knew.
			heir := Fault{Kind: Slow, At: max(0, f.At-2*time.Second), Node: dice.IntN(replicas), Part: f.Part, For: 6 * time.Second}
			p.Faults = append(p.Faults, heir)
			heir.Kind, heir.At, heir.For = Move, f.At+10*time.Millisecond, 0
			p.Faults = append(p.Faults, heir)
		}
		if f.Kind == Deceive && f.N%2 == 1 {
			// About a record of its own, so it must write some.
			p.Faults = append(p.Faults, Fault{Kind: Move, At: f.At, Node: f.Node, Part: f.Part})
		}
		if f.Kind == Move && dice.IntN(2) == 0 {
			// A new owner that is behind: what a takeover must not get wrong.
			f.Kind, f.At, f.For = Slow, max(0, f.At-time.Second), f.For+2*time.Second
			p.Faults = append(p.Faults, f)
		}
	}
	slices.SortStableFunc(p.Faults, func(a, b Fault) int { return int(a.At - b.At) })
	return p
}
