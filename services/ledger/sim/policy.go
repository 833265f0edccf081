package sim

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// signingKey makes a party's key from its name and which of its keys it is:
// the same in every run.
func signingKey(name string, generation int) *receipt.SigningKey {
	seed := sha256.Sum256(fmt.Append(nil, name, " ", generation))
	raw := append([]byte{1}, ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)...)
	id := sha256.Sum256(append([]byte(name+"\n"), raw...))
	key, err := receipt.ParseSigningKey(fmt.Sprintf("PRIVATE+KEY+%s+%08x+%s", name, id[:4], base64.StdEncoding.EncodeToString(append([]byte{1}, seed[:]...))))
	if err != nil {
		panic(err)
	}
	return key
}

// keys are the parties' first signing keys.
var keys = func() (out [replicas]*receipt.SigningKey) {
	for i := range out {
		out[i] = signingKey(fmt.Sprintf("party%d.sim", i), 0)
	}
	return out
}()

// terms is the ledger's first policy: four parties, three to finalise.
var terms = func() *receipt.Terms {
	t := &receipt.Terms{
		Origin: origin, Sequence: 1, Activation: 1, Quorum: quorum,
		Logs: []receipt.LogShards{{Log: names[0].log, Shards: blockLog}},
	}
	for _, k := range keys {
		t.Members = append(t.Members, receipt.Member{Role: receipt.Cosigner, Key: k.Public()})
	}
	return t
}()

// seat is who a public key stands for.
type seat struct {
	node int
	key  *receipt.SigningKey
}

// amendment is a version of the policy that the parties signed and that is to be
// recorded.
type amendment struct {
	note  []byte
	terms *receipt.Terms
	// sound is false when too few signed it: no replica may take it.
	sound bool
}

// chamber is what the parties agree on outside the ledger, and what the block
// log says of it.
type chamber struct {
	// policy is what the block log says now, and longest the most it ever
	// said: they differ where the block log lost its end.
	policy, longest receipt.Policy
	seats           map[receipt.PublicKey]seat
	keys            int // made so far
	pending         *amendment
	// due are the nodes whose party has another key from a height on.
	due map[uint64][]func()
}

func newChamber() chamber {
	first, err := receipt.FirstPolicy(terms)
	if err != nil {
		panic(err)
	}
	c := chamber{longest: first, seats: map[receipt.PublicKey]seat{}, due: map[uint64][]func(){}}
	for i, k := range keys {
		c.seats[k.Public()] = seat{i, k}
	}
	return c
}

// cosigners returns the nodes that count for a checkpoint of a size, and how
// many of them make it final.
func (c *chamber) cosigners(size uint64) (nodes []int, quorum int) {
	t := c.longest.At(size)
	for _, k := range t.Cosigners() {
		nodes = append(nodes, c.seats[k].node)
	}
	return nodes, t.Quorum
}

// record judges one policy record of the block log by the rules in plain
// words: the first version is the one all were given; every other one is
// signed under the old and the new, follows the one before, and governs no
// block that exists.
func (w *world) record(payload []byte) error {
	if p := w.pending; p != nil && string(p.note) == string(payload) {
		w.pending = nil
	}
	last := w.policy.Last()
	if last == nil {
		if string(payload) != string(terms.Marshal()) {
			return fmt.Errorf("the first policy is not the one that was agreed on")
		}
		w.policy, _ = receipt.FirstPolicy(terms)
		return nil
	}
	next, err := w.policy.Extend(payload)
	if err != nil {
		w.cover("branch: policy refused")
		return err
	}
	t := next.Last()
	if t.Activation <= uint64(len(w.chain)) {
		w.cover("branch: policy too late")
		return fmt.Errorf("policy %d governs blocks that exist", t.Sequence)
	}
	w.policy = next
	if t.Sequence > w.longest.Last().Sequence {
		w.longest = next
	}
	w.cover("branch: policy changed")
	w.tracef("policy %d activates at %d: %d of %d", t.Sequence, t.Activation, t.Quorum, len(t.Cosigners()))
	return nil
}

// rekey has nodes whose party got another key go on under it, once a block
// that the policy with the new key governs exists.
func (w *world) rekey() {
	for height := uint64(1); height <= uint64(len(w.chain)); height++ {
		due := w.due[height]
		if due == nil || w.policy.At(height).Activation != height {
			continue
		}
		delete(w.due, height)
		for _, do := range due {
			w.after(w.about(600*time.Millisecond), do)
		}
	}
}

// amend has the parties sign the next version of the policy. Whom it is about
// is the victim if there is one: with three parties none may lie.
func (w *world) amend(f Fault) {
	last := w.policy.Last()
	if last == nil || w.pending != nil || w.tampered() {
		return
	}
	who := f.Node
	if w.victim >= 0 {
		who = w.victim
	}
	next := *last
	next.Sequence, next.Prev = last.Sequence+1, last.Hash()
	next.Activation = max(last.Activation, uint64(len(w.chain))) + 1 + uint64(f.N>>4%5)
	next.Members = slices.Clone(last.Members)
	at := slices.IndexFunc(next.Members, func(m receipt.Member) bool { return w.seats[m.Key].node == who })
	var then func()
	admit := func(name string) receipt.Member {
		w.keys++
		key := signingKey(name, w.keys)
		w.seats[key.Public()] = seat{who, key}
		return receipt.Member{Role: receipt.Cosigner, Key: key.Public()}
	}
	how := ""
	switch full := len(next.Members) == replicas; {
	case at < 0:
		how = "member added"
		next.Members = append(next.Members, receipt.Member{Role: receipt.Cosigner, Key: w.nodes[who].key.Public()})
		next.Quorum = quorum
	case f.N%4 == 0 && full:
		how = "member removed"
		next.Members = slices.Delete(next.Members, at, at+1)
		next.Quorum = 2 + f.N>>2%2
	case f.N%4 == 1 && !full:
		how = "quorum changed"
		next.Quorum = 5 - next.Quorum // two of three, or all
	case f.N%4 == 2:
		how = "member replaced"
		next.Members[at] = admit(fmt.Sprintf("newcomer%d.sim", w.keys))
		key := w.seats[next.Members[at].Key].key
		then = func() { w.nodes[who].replace(key) }
	default:
		how = "key rotated"
		next.Members[at] = admit(next.Members[at].Key.Name)
		key := w.seats[next.Members[at].Key].key
		then = func() { w.nodes[who].rekey(key) }
	}
	c := &amendment{terms: &next, sound: f.N>>7%8 > 0}
	signers := map[string]note.Signer{}
	for _, members := range [][]receipt.Member{last.Members, next.Members} {
		for _, m := range members {
			s := w.seats[m.Key].key.Notes()
			signers[fmt.Sprint(s.Name(), s.KeyHash())] = s
		}
	}
	var by []note.Signer
	for _, id := range sorted(signers) {
		if by = append(by, signers[id]); !c.sound && len(by) == last.Quorum-1 {
			break
		}
	}
	signed, err := note.Sign(&note.Note{Text: string(next.Marshal())}, by...)
	if err != nil {
		w.failf("sim: %v", err)
		return
	}
	c.note, w.pending = signed, c
	if c.sound && then != nil {
		w.due[next.Activation] = append(w.due[next.Activation], then)
	}
	w.cover("branch: " + how)
	w.tracef("the parties sign policy %d: %s, node %d, from %d on", next.Sequence, how, who, next.Activation)
}

func sorted[V any](m map[string]V) []string {
	var out []string
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// rekey starts the node again with its party's new key.
func (n *node) rekey(key *receipt.SigningKey) {
	n.w.tracef("%s gets its party's new key", n)
	n.w.cover("branch: node rekeyed")
	if n.key = key; n.up {
		n.die()
	}
}

// replace puts another party's machine in the node's place: with another key,
// and nothing on its disk.
func (n *node) replace(key *receipt.SigningKey) {
	n.w.tracef("%s is another party's from now on", n)
	n.w.cover("branch: newcomer")
	if n.key = key; n.up {
		n.die()
	}
	n.empty()
	n.feeds, n.rows = true, n.w.keys%2 == 0
	n.rehash = [blockLog]frontier{}
	n.w.notary.highest[n.id] = 0
	for _, name := range []string{"/last-signed", "/highest-seen"} {
		_ = n.disk.RemoveAll(name)
	}
}

// empty takes all the node has from its disk but the memory of what was signed.
func (n *node) empty() {
	n.disk.arm(-1) // who deletes it sees to it that it is deleted
	n.wipe()
	n.disk.settle()
	n.bare = true
	n.w.emptied++
}

// submit has the owner of the block log record the version that waits.
func (n *node) submit(next uint64) bool {
	c := n.w.pending
	if c == nil || n.blocks.Policy().Last().Sequence+1 != c.terms.Sequence || n.w.lost(n) {
		return false
	}
	n.record(fmt.Sprintf("policy-%d-%d-%t", c.terms.Sequence, next, c.sound), replica.PolicyType, c.note)
	return true
}

// early is what a planted bug holds final: what the newest policy's quorum
// signed, whether it governs that size yet or not.
func (n *node) early() (receipt.Checkpoint, bool) {
	newest := n.blocks.Policy().Last()
	if newest == nil {
		return receipt.Checkpoint{}, false
	}
	for _, text := range n.blocks.Notes() {
		c, err := receipt.UnverifiedCheckpoint(text)
		if err != nil || c.Size <= n.final {
			continue
		}
		_, lines, err := n.blocks.Policy().Cosignatures(text)
		if err != nil {
			continue
		}
		count := 0
		for _, s := range lines {
			if slices.Contains(newest.Cosigners(), s.Key) {
				count++
			}
		}
		if count >= newest.Quorum {
			return c, true
		}
	}
	return receipt.Checkpoint{}, false
}
