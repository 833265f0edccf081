package sim

import (
	"container/heap"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/probity-health/probity/services/ledger/core"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/shard"
)

const origin = "ledger.sim/health"

// began is when every run begins.
var began = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// names of the partitions: log and shard.
var names = [parts]struct {
	log   string
	shard uint32
}{{"claims", 0}, {"claims", 1}, {replica.BlockLog, 0}}

// event is something that happens at a time; of two at the same, the one that
// was planned first.
type event struct {
	at  time.Duration
	seq uint64
	do  func()
}

type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].seq < e[j].seq
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// world is one run.
type world struct {
	plan Plan
	bug  Bug
	// Each has dice of its own, so that leaving one fault out of a plan
	// changes as little as possible of the rest.
	net, pace *rand.Rand

	now   time.Duration
	shift time.Duration // of all clocks: what Idle let pass
	queue events
	seq   uint64

	broker *broker
	author *node // of the batch being appended
	// authors are the lives of the nodes that wrote a partition's records.
	authors [parts][]author
	truth   [parts]*truth
	notary  *notary
	chamber
	emptied int              // disks that lost everything but the memory of signing
	chain   []*receipt.Block // what the block log says, to the truth's eye
	chained uint64           // leaves of the block log judged so far
	seals   frontier         // over the chain
	sealed  []receipt.Hash   // the block log's roots by height

	nodes   [replicas]*node
	clients []*client
	assign  [parts]int // the group's word on who writes a shard
	issued  int        // appends begun
	acked   [parts]int // highest acknowledged index
	known   map[string]int64
	refused []refusal
	healed  bool
	victim  int

	down    time.Duration // the broker is unreachable until then
	storm   time.Duration
	loss    int
	late    [parts]time.Duration // what the next produce spends on its way
	covered map[string]int

	failure string
	sum     hash.Hash
	keep    bool
	lines   []string
}

// author is a node in one of its lives.
type author struct {
	node *node
	life int
}

// refusal is a conflict that a client was answered, to be held against what
// the stream came to.
type refusal struct {
	part    int
	request string
	stream  string
	actual  int64
}

// Result is what a run came to.
type Result struct {
	Seed uint64
	// Failure is empty when every rule held.
	Failure string
	// Trace is the SHA-256 of the run's trace: equal for equal runs.
	Trace string
	// Lines is the trace, when it was asked for.
	Lines []string
	// Covered counts how often each fault and each rare branch happened.
	Covered map[string]int
}

// Run makes one run of a plan. With trace it keeps the trace's lines.
func Run(seed uint64, plan Plan, bug Bug, trace bool) (res Result) {
	w := &world{
		plan: plan, bug: bug, keep: trace,
		net:    rand.New(rand.NewPCG(seed, 0x6e6574)),
		pace:   rand.New(rand.NewPCG(seed, 0x70616365)),
		broker: newBroker(parts, replicas), chamber: newChamber(),
		known: map[string]int64{}, covered: map[string]int{}, sum: sha256.New(), victim: -1,
		sealed: []receipt.Hash{receipt.EmptyRoot()},
	}
	defer func() {
		if p := recover(); p != nil {
			w.failf("panic: %v", p)
		}
		for _, n := range w.nodes {
			if n != nil {
				n.drop()
			}
		}
		res = Result{Seed: seed, Failure: w.failure, Trace: hex.EncodeToString(w.sum.Sum(nil)), Lines: w.lines, Covered: w.covered}
	}()
	w.broker.appended = w.appended
	w.notary = newNotary(replicas, &w.chamber)
	for p := range parts {
		w.truth[p] = newTruth(names[p].log, names[p].shard)
		w.acked[p] = -1
	}
	for i := range replicas {
		w.nodes[i] = newNode(w, i, seed)
		w.nodes[i].open()
	}
	for i := range clients {
		w.clients = append(w.clients, newClient(w, i, seed))
	}
	for p := range parts {
		w.assign[p] = w.pace.IntN(replicas)
	}
	w.after(0, w.group)
	for _, f := range plan.Faults {
		w.at(f.At, func() { w.inject(f) })
		switch f.Kind {
		case Deceive, FlipTile, FlipBody, Restore, BadBlocks, Equivocate, Lie:
			w.victim = f.Node
		}
	}
	w.at(w.calm(), w.heal)
	end := w.calm() + healing
	for len(w.queue) > 0 && w.failure == "" {
		e := heap.Pop(&w.queue).(event)
		if e.at > end {
			break
		}
		w.now = e.at
		e.do()
		if w.healed && w.rested() {
			break
		}
	}
	if w.failure == "" {
		w.final()
	}
	return res
}

// calm is when the last fault is over.
func (w *world) calm() time.Duration {
	calm := time.Second
	for _, f := range w.plan.Faults {
		calm = max(calm, f.At+f.For)
	}
	return calm + time.Second
}

func (w *world) at(t time.Duration, do func()) {
	w.seq++
	heap.Push(&w.queue, event{max(t, w.now), w.seq, do})
}

func (w *world) after(d time.Duration, do func()) { w.at(w.now+d, do) }

// about returns a duration between half and one and a half of d.
func (w *world) about(d time.Duration) time.Duration {
	return d/2 + time.Duration(w.pace.Int64N(int64(d)))
}

// wall is the time that passed, with the days that Idle skipped.
func (w *world) wall() time.Duration { return w.now + w.shift }

func (w *world) tracef(format string, args ...any) {
	line := fmt.Sprintf("%9.4f ", w.now.Seconds()) + fmt.Sprintf(format, args...)
	w.sum.Write([]byte(line + "\n"))
	if w.keep {
		w.lines = append(w.lines, line)
	}
}

func (w *world) cover(what string) { w.covered[what]++ }

// failf ends the run: a rule is broken.
func (w *world) failf(format string, args ...any) {
	if w.failure == "" {
		w.failure = fmt.Sprintf(format, args...)
		w.tracef("BROKEN: %s", w.failure)
	}
}

// appended holds every batch against the rules the moment the broker took it.
func (w *world) appended(p int, offset int64, values [][]byte) {
	t := w.truth[p]
	w.authors[p] = w.authors[p][:offset] // what was there was truncated
	for range values {
		w.authors[p] = append(w.authors[p], author{w.author, w.author.life})
	}
	if t.broken {
		return
	}
	for i, v := range values {
		verdict, err := t.append(v, w.now)
		if err != nil && (t.tampered || w.author.wronged) {
			// An owner that did not hear of the loss yet writes what stands
			// on what was lost, and one that was lied to what stands on a
			// lie. Whoever reads it stops.
			t.tampered, t.broken = true, true
			w.cover("branch: log goes on where it lost its end")
			return
		}
		if err != nil {
			w.failf("the owner of %s/%d wrote an invalid record at offset %d: %v", names[p].log, names[p].shard, offset+int64(i), err)
			return
		}
		switch verdict {
		case core.Void:
			w.cover("branch: record void by its term")
		case core.Raised:
			w.cover("branch: term raised")
		case core.Heartbeat:
			w.cover("branch: heartbeat")
		}
		w.tracef("broker %s/%d offset %d verdict %d term %d next %d", names[p].log, names[p].shard, offset+int64(i), verdict, t.head.Term, t.head.Next)
	}
	if p == blockLog {
		w.judgeBlocks()
	}
}

// judgeBlocks follows the block log as a replica that read everything would.
func (w *world) judgeBlocks() {
	t := w.truth[blockLog]
	for ; w.chained < uint64(len(t.leaves)); w.chained++ {
		for _, write := range t.leaves[w.chained].writes {
			for _, e := range write.Events {
				if e.Type == replica.PolicyType {
					if err := w.record(e.Payload); err != nil {
						w.tracef("policy ignored: %v", err)
					}
					continue
				}
				if e.Type != replica.BlockType {
					continue
				}
				b, err := receipt.ParseBlock(e.Payload)
				if err == nil {
					err = w.judgeBlock(b)
				}
				if err != nil {
					w.cover("branch: block ignored")
					continue
				}
				w.chain = append(w.chain, b)
				w.seals.add(b.Hash())
				w.sealed = append(w.sealed, w.seals.root())
			}
		}
	}
	w.rekey()
}

func (w *world) judgeBlock(b *receipt.Block) error {
	var prev *receipt.Block
	if len(w.chain) > 0 {
		prev = w.chain[len(w.chain)-1]
	}
	if err := core.CheckBlock(w.policy, prev, b); err != nil {
		return err
	}
	for p := range blockLog {
		h, ok := b.Head(names[p].log, names[p].shard)
		if !ok || !w.truth[p].ever(h.Size, h.Root, h.State) {
			return errors.New("a head is not the log's")
		}
	}
	return nil
}

// tampered tells whether the broker broke a promise of its own in this run.
func (w *world) tampered() bool {
	for _, t := range w.truth {
		if t.tampered {
			return true
		}
	}
	return false
}

// lost throws the dice for one message of a node.
func (w *world) lost(n *node) bool {
	if w.healed {
		return false
	}
	if w.now < w.down || w.now < n.cutUntil {
		return true
	}
	return w.now < w.storm && w.net.IntN(100) < w.loss
}

// leg is how long a message takes.
func (w *world) leg() time.Duration {
	d := 200*time.Microsecond + time.Duration(w.net.Int64N(int64(2*time.Millisecond)))
	if w.now < w.storm && !w.healed {
		d += time.Duration(w.net.Int64N(int64(300 * time.Millisecond)))
		if w.net.IntN(20) == 0 {
			d += time.Duration(w.net.Int64N(int64(20 * time.Second)))
		}
	}
	return d
}

// requestTimeout is the one the shell of an owner has.
const requestTimeout = 10 * time.Second

// ask carries an owner's request to the broker and the answer back. Either
// may be lost or late; a request may arrive long after its sender gave it up,
// or died.
func (w *world) ask(n *node, p int, op *shard.Op, done func(shard.Result)) {
	life, sent, finished := n.life, w.wall(), false
	finish := func(res shard.Result) {
		n.in(life, 0, func() {
			if finished {
				return
			}
			finished = true
			if w.wall()-sent >= requestTimeout {
				// The deadline of a connection is the clock's, whenever the
				// process gets to look.
				res = shard.Result{Err: errTimeout}
			}
			done(res)
		})
	}
	w.after(requestTimeout, func() { finish(shard.Result{Err: errTimeout}) })
	going := w.leg()
	if op.Kind == shard.Produce && w.late[p] > 0 && !w.healed {
		going += w.late[p]
		w.late[p] = 0
		w.cover("branch: produce late")
	}
	if w.lost(n) {
		w.cover("branch: request lost")
		return
	}
	w.after(going, func() {
		var res shard.Result
		gone := !n.up || n.life != life
		switch {
		case w.now < w.down && !w.healed:
			res.Err = errNoBroker
		case op.Kind == shard.AskEnd:
			res.Offset, res.Err = w.broker.end(p), w.broker.gone(p)
		case op.Kind == shard.Begin:
			res.Producer, res.Err = w.broker.begin(p, op.Last)
		default:
			w.author = n
			res.Offset, res.Err = w.broker.produce(p, op.Producer, op.Records)
			if gone || finished {
				w.cover("branch: zombie's produce arrives")
				if res.Err == nil {
					w.cover("branch: zombie's produce lands")
				}
			}
			if errors.Is(res.Err, shard.ErrFenced) {
				w.cover("branch: produce fenced")
			}
		}
		if w.failure != "" {
			return
		}
		if w.lost(n) {
			if op.Kind == shard.Produce && res.Err == nil {
				w.cover("branch: acknowledgement lost")
			}
			return
		}
		w.after(w.leg(), func() { finish(res) })
	})
}

// group is the consumer group's coordinator: it gives the shards of nodes it
// has lost to others, and tells each node now and then what is its own.
func (w *world) group() {
	for p := range parts {
		n := w.nodes[w.assign[p]]
		fit := func(n *node) bool {
			return n.up && (w.healed || w.now >= n.cutUntil && w.now >= n.pausedUntil) && n.fit(p) && (!w.healed || n.id != w.victim)
		}
		if fit(n) {
			continue
		}
		if able := w.pick(fit); able >= 0 {
			w.assign[p] = able
			w.cover("branch: shard reassigned")
			w.tracef("group: %s/%d is node %d's", names[p].log, names[p].shard, able)
		}
	}
	w.after(w.about(1500*time.Millisecond), w.group)
}

// pick draws one of the nodes that fit, -1 for none.
func (w *world) pick(fit func(*node) bool) int {
	var able []int
	for _, n := range w.nodes {
		if fit(n) {
			able = append(able, n.id)
		}
	}
	if len(able) == 0 {
		return -1
	}
	return able[w.pace.IntN(len(able))]
}

// heal ends all faults: from here on everything must come to rest.
func (w *world) heal() {
	w.healed = true
	w.tracef("healed")
	for _, n := range w.nodes {
		if n.skew > 0 && n.up {
			// An owner's timers run on the process's clock, which doesn't jump
			// when the machine's is set right; here there is one clock for both.
			n.die()
		}
		n.cutUntil, n.pausedUntil, n.slow, n.deceive, n.spoil, n.skew, n.lies = 0, w.now, [parts]time.Duration{}, nil, 0, 0, 0
		n.disk.arm(-1)
	}
}

// inject makes one fault happen.
func (w *world) inject(f Fault) {
	w.tracef("fault: %s", f)
	n := w.nodes[f.Node]
	w.cover("fault: " + f.Kind.String())
	switch f.Kind {
	case Crash:
		n.crashSoon(f.N)
	case PowerCut:
		for _, n := range w.nodes {
			n.crashSoon(f.N)
		}
	case Cut:
		n.cutUntil = max(n.cutUntil, w.now+f.For)
	case Storm:
		w.storm, w.loss = max(w.storm, w.now+f.For), f.N
	case BrokerDown:
		w.down = max(w.down, w.now+f.For)
	case Move:
		w.assign[f.Part] = f.Node
	case Pause:
		n.pausedUntil = max(n.pausedUntil, w.now+f.For)
	case Skew:
		n.skew += time.Duration(f.N) * time.Second
	case Idle, Forget:
		w.shift += 25 * time.Hour
		for p := range parts {
			w.broker.forgetProducers(p)
		}
		if f.Kind == Forget {
			w.shift += 7 * 24 * time.Hour
			w.broker.forgetTransactional(f.Part)
		}
	case Late:
		w.late[f.Part] = f.For
	case Slow:
		n.slow[f.Part] = max(n.slow[f.Part], w.now+f.For)
	case Truncate:
		w.truncate(f.Part, max(0, w.broker.end(f.Part)-int64(f.N)), f.For%4 == 0)
	case LoseTopic:
		w.truncate(f.Part, 0, false)
	case Deceive:
		n.deceive = &deception{part: f.Part, bit: f.N}
		n.wrong()
	case FlipTile:
		n.flipTile(f.N)
	case FlipBody:
		n.flipBody(f.Part, f.N)
	case Restore:
		backup := n.disk.root.clone()
		w.after(f.For, func() { n.restore(backup, f.N%2 == 1) })
	case Equivocate:
		n.equivocate(f.N)
	case BadBlocks:
		n.spoil = f.N%7 + 1
	case Amend:
		w.amend(f)
	case Rebuild:
		n.rebuild(f)
	case Lie:
		n.lies = 1 + f.N
	case Republish:
		w.loseTopic(f)
	}
}

// retell follows the block log from its start again.
func (w *world) retell() {
	w.chain, w.chained, w.seals, w.sealed = nil, 0, frontier{}, w.sealed[:1]
	w.policy = receipt.Policy{}
	w.judgeBlocks()
}

// truncate loses the end of a partition, which no ledger can undo: from here
// on the truth is what is left, and what was final must still be nowhere
// contradicted. When it happens quietly, between two fetches and without a
// connection breaking, a follower that comes back to a log grown again cannot
// tell at once: its tree forks, and it must sign nothing of that.
func (w *world) truncate(p int, keep int64, quiet bool) {
	if keep == w.broker.end(p) {
		return
	}
	w.cover("branch: log truncated")
	w.broker.cut(p, keep, quiet)
	t := w.truth[p]
	if quiet {
		t.quiet = true
		w.cover("branch: log truncated quietly")
	}
	t.tampered, t.broken = true, false
	t.reset()
	for _, v := range w.broker.parts[p].values {
		if _, err := t.append(v, w.now); err != nil {
			t.broken = true
			break
		}
	}
	// The blocks' truth is told anew too.
	w.retell()
}

var silent = slog.New(slog.DiscardHandler)
