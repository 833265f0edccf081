package ledger_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/fsck"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
	"github.com/probity-health/probity/services/ledger/segments"
	"github.com/probity-health/probity/services/ledger/tiles"
	"github.com/probity-health/probity/services/problem"
)

// consortium is four parties with a key and a node each on one broker, three
// of whom are a quorum.
type consortium struct {
	t       *testing.T
	world   *ledgertest.Embedded
	file    string // policy
	configs []ledger.Config
	policy  receipt.Policy

	mu    sync.Mutex // guards what follows
	nodes []*ledger.Node
	fed   int // commits handed to peers
}

// absent is the error of a node that is down.
var absent = problem.New(problem.Unavailable, problem.Problem{RuleID: "test.absent", Message: "the node is down", Fix: "start it"})

// line leads to a party's node, if it is up.
type line struct {
	c     *consortium
	party int
}

func (l line) node() (*ledger.Node, error) {
	l.c.mu.Lock()
	defer l.c.mu.Unlock()
	if n := l.c.nodes[l.party]; n != nil {
		return n, nil
	}
	return nil, absent
}

func (l line) ExchangeCosignatures(ctx context.Context, r *ledgerv1.ExchangeCosignaturesRequest) (*ledgerv1.ExchangeCosignaturesResponse, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	return n.Replicas().ExchangeCosignatures(ctx, r)
}

func (l line) GetCommits(ctx context.Context, r *ledgerv1.GetCommitsRequest) (*ledgerv1.GetCommitsResponse, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	out, err := n.Replicas().GetCommits(ctx, r)
	l.c.mu.Lock()
	l.c.fed += len(out.GetCommits())
	l.c.mu.Unlock()
	return out, err
}

func (l line) GetRows(ctx context.Context, r *ledgerv1.GetRowsRequest) (*ledgerv1.GetRowsResponse, error) {
	n, err := l.node()
	if err != nil {
		return nil, err
	}
	return n.Replicas().GetRows(ctx, r)
}

func (l line) RepublishShard(context.Context, *ledgerv1.RepublishShardRequest) (*ledgerv1.RepublishShardResponse, error) {
	return nil, errors.New("no peer asks for this")
}

func newParties(t *testing.T) *consortium {
	c := &consortium{t: t, world: ledgertest.NewEmbedded(t), nodes: make([]*ledger.Node, 4)}
	dir := t.TempDir()
	terms := &receipt.Terms{Origin: ledgertest.Origin, Sequence: 1, Activation: 1, Quorum: 3, Logs: []receipt.LogShards{{Log: "claims", Shards: 2}}}
	for i, party := range []string{"insurer", "network", "regulator", "auditor"} {
		cfg := c.world.Config
		cfg.Logs, cfg.NodeName = nil, party
		cfg.DataDir, cfg.SigningKeyFile = filepath.Join(dir, party), filepath.Join(dir, party+".key")
		cfg.PeerInterval, cfg.ScrubInterval, cfg.TopicGrace = 50*time.Millisecond, time.Millisecond, 100*time.Millisecond
		vkey, err := ledger.EnsureKey(cfg.SigningKeyFile, party+".example")
		require.NoError(t, err)
		key, err := receipt.ParsePublicKey(vkey)
		require.NoError(t, err)
		terms.Members = append(terms.Members, receipt.Member{Role: receipt.Cosigner, Key: key})
		cfg.Peers = map[string]ledger.Peer{}
		for other, name := range []string{"insurer", "network", "regulator", "auditor"} {
			if other != i {
				cfg.Peers[name+".example"] = line{c, other}
			}
		}
		c.configs = append(c.configs, cfg)
	}
	var err error
	c.policy, err = receipt.FirstPolicy(terms)
	require.NoError(t, err)
	c.file = filepath.Join(dir, "policy.txt")
	require.NoError(t, os.WriteFile(c.file, c.policy.Marshal(), 0o644))
	return c
}

// start opens a party's node, which takes the shards from who had them.
func (c *consortium) start(party int) *ledger.Node {
	cfg := c.configs[party]
	cfg.PolicyFile, cfg.Logs = c.file, map[string]int{"claims": 2}
	n := c.world.Open(c.t, cfg)
	c.mu.Lock()
	c.nodes[party] = n
	c.mu.Unlock()
	return n
}

func (c *consortium) stop(party int) {
	c.mu.Lock()
	n := c.nodes[party]
	c.nodes[party] = nil
	c.mu.Unlock()
	require.NoError(c.t, n.Close(within(c.t)))
}

// Given four parties on one broker, when one is down then three finalise;
// when two are down then appends go on, sealed and not final; when one comes
// back then all of it becomes final.
func TestFourPartiesOnOneBroker(t *testing.T) {
	c := newParties(t)
	for party := range 4 {
		c.start(party)
	}
	owner := c.nodes[3]
	receiptFrom := func(n *ledger.Node, p *ledgerv1.Position, stage ledgerv1.ReceiptStage) (*ledgerv1.GetReceiptResponse, error) {
		return n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: p, MinStage: stage})
	}
	appended := func(n *ledger.Node, i int) *ledgerv1.Position {
		res, err := n.Handler().Append(within(t), claim(i, -1))
		require.NoError(t, err)
		return res.Position
	}
	first := appended(owner, 1)
	for _, n := range c.nodes {
		got, err := receiptFrom(n, first, ledgerv1.ReceiptStage_RECEIPT_STAGE_UNSPECIFIED)
		require.NoError(t, err)
		require.Equal(t, ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL, got.Stage)
		v, err := receipt.Verify(got.Receipt, c.policy)
		require.NoError(t, err)
		require.GreaterOrEqual(t, len(v.Signers), 3)
		require.Less(t, len(got.Receipt), 4096)
	}
	older, err := owner.Handler().GetCheckpoint(within(t), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	require.Equal(t, string(c.policy.Marshal()), string(older.Policy))

	c.stop(0)
	second := appended(owner, 2)
	_, err = receiptFrom(owner, second, ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL)
	require.NoError(t, err, "three of four are enough")

	c.stop(1)
	third := appended(owner, 3)
	got, err := receiptFrom(owner, third, ledgerv1.ReceiptStage_RECEIPT_STAGE_SEALED)
	require.NoError(t, err)
	require.Equal(t, ledgerv1.ReceiptStage_RECEIPT_STAGE_SEALED, got.Stage)
	_, err = receipt.Verify(got.Receipt, c.policy)
	require.ErrorContains(t, err, "of the 3 parties needed")
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = owner.Handler().GetReceipt(short, &ledgerv1.GetReceiptRequest{Position: third})
	require.True(t, problem.Is(err, problem.Conflict), "two of four are not: %v", err)

	back := c.start(1)
	_, err = receiptFrom(back, third, ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL)
	require.NoError(t, err)
	fourth := appended(back, 4)
	_, err = receiptFrom(c.nodes[2], fourth, ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL)
	require.NoError(t, err, "a node that writes nothing proves all the same")

	// Nothing that was final when it began has changed since.
	from, err := receipt.UnverifiedCheckpoint(older.Checkpoint)
	require.NoError(t, err)
	grown, err := back.Proofs().GetConsistency(within(t), &ledgerv1.GetConsistencyRequest{OlderSize: from.Size})
	require.NoError(t, err)
	doc := receipt.Consistency{Older: older.Checkpoint, Newer: grown.Checkpoint}
	for _, h := range grown.Proof {
		doc.Proof = append(doc.Proof, receipt.Hash(h))
	}
	_, newer, err := receipt.VerifyConsistency(doc.Marshal(), c.policy)
	require.NoError(t, err)
	require.Greater(t, newer.Size, from.Size)
	evidence, err := back.Proofs().ListEvidence(within(t), &ledgerv1.ListEvidenceRequest{})
	require.NoError(t, err)
	require.Empty(t, evidence.Evidence)
	_, err = back.Proofs().GetConsistency(within(t), &ledgerv1.GetConsistencyRequest{OlderSize: newer.Size + 1000})
	require.True(t, problem.Is(err, problem.Invalid))
	_, err = back.Proofs().SubmitEvidence(within(t), &ledgerv1.SubmitEvidenceRequest{Evidence: doc.Marshal()})
	require.True(t, problem.Is(err, problem.Invalid), "it convicts nobody")
}

// Given four parties, when a change is submitted that adds a log, then it is
// recorded once under both quorums, and what doesn't hold is refused.
func TestAPolicyChangeIsSubmitted(t *testing.T) {
	c := newParties(t)
	var keys []*receipt.SigningKey
	for party := range 4 {
		raw, err := os.ReadFile(c.configs[party].SigningKeyFile)
		require.NoError(t, err)
		key, err := receipt.ParseSigningKey(strings.TrimSpace(string(raw)))
		require.NoError(t, err)
		keys = append(keys, key)
	}
	for party := range 3 {
		c.start(party)
	}
	owner := c.nodes[2]
	_, err := owner.Handler().Append(within(t), claim(1, -1))
	require.NoError(t, err)
	change := *c.policy.Last()
	change.Sequence, change.Activation, change.Prev = 2, 1000, c.policy.Last().Hash()
	change.Logs = append([]receipt.LogShards{{Log: "audits", Shards: 1}}, change.Logs...)
	sign := func(keys ...*receipt.SigningKey) []byte {
		var signers []note.Signer
		for _, k := range keys {
			signers = append(signers, k.Notes())
		}
		signed, err := note.Sign(&note.Note{Text: string(change.Marshal())}, signers...)
		require.NoError(t, err)
		return signed
	}
	submit := func(n *ledger.Node, change []byte) error {
		_, err := n.Proofs().SubmitLedgerPolicy(within(t), &ledgerv1.SubmitLedgerPolicyRequest{Change: change})
		return err
	}
	require.True(t, problem.Is(submit(owner, sign(keys[:2]...)), problem.Invalid), "two are no quorum")
	require.NoError(t, submit(owner, sign(keys[:3]...)))
	require.NoError(t, submit(owner, sign(keys[:3]...)), "its answer may have been lost")
	require.True(t, problem.Is(submit(owner, sign(keys[1:]...)), problem.Invalid), "the same text under other signatures is another change")
	for party := range 3 {
		require.Eventually(t, func() bool {
			got, err := c.nodes[party].Proofs().GetLedgerPolicy(t.Context(), &ledgerv1.GetLedgerPolicyRequest{})
			require.NoError(t, err)
			p, err := receipt.ParsePolicy(got.Policy)
			require.NoError(t, err)
			return p.Last().Sequence == 2 && got.Sequence == 1
		}, patience, 5*time.Millisecond)
	}
	// The block that names the change is final too.
	res, err := owner.Handler().Append(within(t), claim(2, -1))
	require.NoError(t, err)
	got, err := owner.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	now, err := c.policy.Extend(sign(keys[:3]...))
	require.NoError(t, err)
	_, err = receipt.Verify(got.Receipt, now)
	require.NoError(t, err)
}

// Given a ledger of one party, when its configuration adds a log, then the
// node changes the policy by itself, and old and new receipts verify.
func TestOnePartyAddsALog(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	res, err := n.Handler().Append(within(t), claim(1, -1))
	require.NoError(t, err)
	before, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	require.NoError(t, n.Close(within(t)))

	cfg := w.Config
	cfg.Logs = map[string]int{"policies": 1, "claims": 4, "consent": 1, "trials": 2}
	n = w.Open(t, cfg)
	r := claim(2, -1)
	r.Log = "trials"
	res, err = n.Handler().Append(within(t), r)
	require.NoError(t, err)
	after, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	got, err := n.Proofs().GetLedgerPolicy(within(t), &ledgerv1.GetLedgerPolicyRequest{})
	require.NoError(t, err)
	policy, err := receipt.ParsePolicy(got.Policy)
	require.NoError(t, err)
	require.Equal(t, uint64(2), policy.Last().Sequence)
	for _, doc := range [][]byte{before.Receipt, after.Receipt} {
		_, err = receipt.Verify(doc, policy)
		require.NoError(t, err)
	}
	require.NoError(t, n.Close(within(t)))

	cfg.Logs = map[string]int{"policies": 1, "claims": 4, "consent": 1}
	_, err = ledger.Open(within(t), cfg)
	require.ErrorContains(t, err, "log trials", "a log that is on the ledger must be followed")
}

// Given a tlog client that knows plain Ed25519 keys only, then it can verify
// the checkpoint by the log's own name.
func TestTheCheckpointCarriesTheLogsOwnSignature(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	n := w.Open(t, w.Config)
	s := httptest.NewServer(n.Tiles())
	defer s.Close()
	res, err := n.Handler().Append(within(t), claim(1, -1))
	require.NoError(t, err)
	_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
	got, err := http.Get(s.URL + "/checkpoint")
	require.NoError(t, err)
	defer got.Body.Close()
	body, err := io.ReadAll(got.Body)
	require.NoError(t, err)
	require.Equal(t, "no-store", got.Header.Get("Cache-Control"))
	key, err := receipt.ParsePublicKey(n.VerifierKey())
	require.NoError(t, err)
	plain, err := note.NewVerifier(key.LogKey(ledgertest.Origin))
	require.NoError(t, err)
	opened, err := note.Open(body, note.VerifierList(plain))
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(opened.Text, ledgertest.Origin+"\n"))
	policy, err := receipt.NewPolicy(ledgertest.Origin, 1, n.VerifierKey())
	require.NoError(t, err)
	_, _, err = policy.OpenCheckpoint(body)
	require.NoError(t, err)
	tile, err := http.Get(s.URL + "/tile/0/000.p/1")
	require.NoError(t, err)
	tile.Body.Close()
	require.Equal(t, http.StatusOK, tile.StatusCode)
	require.Contains(t, tile.Header.Get("Cache-Control"), "immutable")
}

// settle starts every party, appends forty claims and waits until every party
// knows each to be final: whichever is asked for what it has, has all of them.
func (c *consortium) settle(t *testing.T) []*ledgerv1.Position {
	t.Helper()
	for party := range 4 {
		c.start(party)
	}
	var positions []*ledgerv1.Position
	for i := range 40 {
		res, err := c.nodes[3].Handler().Append(within(t), claim(i, -1))
		require.NoError(t, err)
		positions = append(positions, res.Position)
	}
	for _, n := range c.nodes {
		for _, p := range positions {
			_, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: p})
			require.NoError(t, err)
		}
	}
	return positions
}

// Given a party that lost its data directory, then its node catches up from a
// peer, proves what it got, and goes on reading the topic from there.
func TestALostDataDirectoryIsFilledFromAPeer(t *testing.T) {
	c := newParties(t)
	positions := c.settle(t)
	c.stop(0)
	require.NoError(t, os.RemoveAll(c.configs[0].DataDir))
	require.Zero(t, c.fed)
	n := c.start(0)
	require.Greater(t, c.fed, 40, "commits and blocks came from a peer")
	for _, p := range positions {
		got, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: p})
		require.NoError(t, err)
		_, err = receipt.Verify(got.Receipt, c.policy)
		require.NoError(t, err)
	}
	res, err := n.Handler().Append(within(t), claim(40, -1))
	require.NoError(t, err)
	_, err = c.nodes[1].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)
}

// Given a party whose data directory is damaged, when it begins anew with that
// as what to salvage, then it keeps what is sound and asks its peers for the
// rest; where a stored commit was changed so that its checksum fits it asks them
// for everything.
func TestADamagedDataDirectoryIsSalvaged(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, old string, at *ledgerv1.Position)
		all    bool
	}{
		"a byte": {func(t *testing.T, old string, at *ledgerv1.Position) {
			file := filepath.Join(old, "commits", "claims", strconv.Itoa(int(at.Shard)), "00000000000000000000.seg")
			raw, err := os.ReadFile(file)
			require.NoError(t, err)
			raw[len(raw)/2] ^= 1
			require.NoError(t, os.WriteFile(file, raw, 0o600))
		}, false},
		"a commit": {func(t *testing.T, old string, at *ledgerv1.Position) {
			dir := filepath.Join(old, "commits", "claims", strconv.Itoa(int(at.Shard)))
			require.NoError(t, segments.Falsify(tiles.Disk{}, dir, at.Index, func(value []byte) { value[len(value)-1] ^= 1 }))
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newParties(t)
			positions := p.settle(t)
			p.stop(0)
			old := p.configs[0].DataDir + "-old"
			require.NoError(t, os.Rename(p.configs[0].DataDir, old))
			c.damage(t, old, positions[5])
			p.configs[0].SalvageDir = old
			n := p.start(0)
			if c.all {
				require.GreaterOrEqual(t, p.fed, 40)
			} else {
				require.Less(t, p.fed, 40)
			}
			for _, at := range positions {
				got, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: at, IncludeCommit: true})
				require.NoError(t, err)
				v, err := receipt.Verify(got.Receipt, p.policy)
				require.NoError(t, err)
				require.NoError(t, receipt.VerifyCommit(v, got.Commit))
			}
		})
	}
}

// Given a party whose data directory is lost and who asks for rows alone, then
// it cosigns and proves what was and what comes, says of the first events that
// others have them, and fsck finds every row right and names one that isn't.
func TestAPartyBeginsWithRows(t *testing.T) {
	c := newParties(t)
	positions := c.settle(t)
	c.stop(0)
	require.NoError(t, os.RemoveAll(c.configs[0].DataDir))
	require.NoError(t, os.MkdirAll(filepath.Join(c.configs[0].DataDir, "store"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(c.configs[0].DataDir, "unproven"), nil, 0o600), "as one that stopped while it was fed")
	c.configs[0].StartFromRows = true
	n := c.start(0)
	require.NoFileExists(t, filepath.Join(c.configs[0].DataDir, "unproven"))
	c.stop(1) // so that a quorum needs the newcomer
	res, err := n.Handler().Append(within(t), claim(40, -1))
	require.NoError(t, err)
	positions = append(positions, res.Position)
	again, err := n.Handler().Append(within(t), claim(3, -1))
	require.NoError(t, err)
	require.True(t, again.Replayed, "it owns the shards and knows every request")
	require.Equal(t, positions[3].Index, again.Position.Index)
	for _, p := range positions {
		got, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: p})
		require.NoError(t, err)
		_, err = receipt.Verify(got.Receipt, c.policy)
		require.NoError(t, err)
	}
	_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: positions[0], IncludeCommit: true})
	require.True(t, problem.Is(err, problem.Unavailable), "%v", err)
	require.ErrorContains(t, err, "ledger.commit.no-body")
	_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: positions[40], IncludeCommit: true})
	require.NoError(t, err)
	for party := range 4 {
		if party != 1 {
			c.stop(party)
		}
	}

	check := func() fsck.Report {
		t.Helper()
		client := &kafka.Client{Addr: kafka.TCP(c.world.Config.Brokers...)}
		report, err := fsck.Check(t.Context(), fsck.Options{
			DataDir: c.configs[0].DataDir, SignedDir: c.configs[0].SignedDir, Policy: c.policy,
			Topics: func(log string, shard uint32) replica.Source {
				return &replica.KafkaSource{Client: client, Topic: "test." + log, Partition: int(shard)}
			},
		})
		require.NoError(t, err)
		return report
	}
	report := check()
	require.Empty(t, report.Faults)
	require.GreaterOrEqual(t, report.Rows, uint64(40))
	db, err := pebble.Open(filepath.Join(c.configs[0].DataDir, "store"), &pebble.Options{Logger: quiet{}})
	require.NoError(t, err)
	at := positions[7]
	key := append(binary.BigEndian.AppendUint32([]byte("claims\x00"), at.Shard), 'r')
	key = binary.BigEndian.AppendUint64(key, at.Index)
	raw, closer, err := db.Get(key)
	require.NoError(t, err)
	raw = bytes.Clone(raw)
	require.NoError(t, closer.Close())
	raw[40] ^= 1 // of the request's digest
	require.NoError(t, db.Set(key, raw, pebble.Sync))
	require.NoError(t, db.Close())
	require.NotEmpty(t, check().Faults)
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(string, ...any) {}

// Given topics that are lost with everything in them, when a replica
// republishes them, then all replicas find what they held and appends go on;
// receipts from before the loss verify, and those made after hold the same
// leaves.
func TestLostTopicsAreRepublished(t *testing.T) {
	c := newParties(t)
	for party := range 4 {
		c.start(party)
	}
	var appended []*ledgerv1.AppendResponse
	for i := range 30 {
		res, err := c.nodes[3].Handler().Append(within(t), claim(i, -1))
		require.NoError(t, err)
		appended = append(appended, res)
	}
	last := appended[29].Position
	for _, n := range c.nodes {
		_, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: last})
		require.NoError(t, err)
	}
	before, err := c.nodes[3].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: last})
	require.NoError(t, err)
	for party := range 4 {
		c.stop(party)
	}
	client := &kafka.Client{Addr: kafka.TCP(c.world.Config.Brokers...)}
	res, err := client.DeleteTopics(within(t), &kafka.DeleteTopicsRequest{Topics: []string{"test.claims", "test.blocks"}})
	require.NoError(t, err)
	for _, err := range res.Errors {
		require.NoError(t, err)
	}

	// The node makes the topics anew, and writes nothing to what it doesn't know.
	cfg := c.configs[2]
	cfg.PolicyFile, cfg.Logs, cfg.TopicGrace = c.file, map[string]int{"claims": 2}, time.Minute
	n, err := ledger.Open(within(t), cfg)
	require.NoError(t, err)
	var commits uint64
	for _, shard := range []struct {
		log   string
		index uint32
	}{{"claims", 0}, {"claims", 1}, {"blocks", 0}} {
		require.Error(t, n.Ready(t.Context()))
		got, err := n.Replicas().RepublishShard(within(t), &ledgerv1.RepublishShardRequest{Log: shard.log, Shard: shard.index})
		require.NoError(t, err)
		if shard.log == "claims" {
			commits += got.Commits
		}
		_, err = n.Replicas().RepublishShard(within(t), &ledgerv1.RepublishShardRequest{Log: shard.log, Shard: shard.index})
		require.True(t, got.Commits == 0 || problem.Is(err, problem.Conflict), "it is not empty any more: %v", err)
	}
	require.Equal(t, uint64(30), commits)
	require.NoError(t, n.Close(within(t)))

	for party := range 4 {
		c.start(party)
	}
	again, err := c.nodes[3].Handler().Append(within(t), claim(29, -1))
	require.NoError(t, err)
	require.True(t, again.Replayed)
	require.Equal(t, last.Index, again.Position.Index)
	after, err := c.nodes[3].Handler().Append(within(t), claim(30, -1))
	require.NoError(t, err)
	_, err = c.nodes[0].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: after.Position})
	require.NoError(t, err)
	v, err := receipt.Verify(before.Receipt, c.policy)
	require.NoError(t, err)
	now, err := c.nodes[0].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: last})
	require.NoError(t, err)
	same, err := receipt.Verify(now.Receipt, c.policy)
	require.NoError(t, err)
	require.Equal(t, v.Entry, same.Entry)
}
