package ledger_test

import (
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/fsck"
	"github.com/probity-health/probity/services/ledger/ledgertest"
	"github.com/probity-health/probity/services/ledger/replica"
)

// filesOf returns the files with a byte to flip below a node's data directory
// and its memory of what was signed, by what kind of file they are.
func filesOf(t *testing.T, cfg ledger.Config) map[string][]string {
	t.Helper()
	number := regexp.MustCompile(`[0-9]+`)
	out := map[string][]string{}
	for _, dir := range []string{cfg.DataDir, cfg.DataDir + "-signed"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0 {
				return nil
			}
			rel, _ := filepath.Rel(filepath.Dir(cfg.DataDir), path)
			kind := number.ReplaceAllString(rel, "N")
			out[kind] = append(out[kind], path)
			return err
		}))
	}
	return out
}

// flip changes one bit of a file, and returns the way back.
func flip(t *testing.T, path string, at int, bit int) (undo func()) {
	t.Helper()
	sound, err := os.ReadFile(path)
	require.NoError(t, err)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	require.NoError(t, err)
	// In place: a file that is being written must stay the same file.
	_, err = f.WriteAt([]byte{sound[at] ^ 1<<bit}, int64(at))
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return func() { require.NoError(t, os.WriteFile(path, sound, 0o644)) }
}

// causes joins an error with all it wraps: a problem's text leaves its cause
// to the log.
func causes(err error) string {
	var all []string
	for ; err != nil; err = errors.Unwrap(err) {
		all = append(all, err.Error())
	}
	return strings.Join(all, ": ")
}

// Given four parties that run, when one bit flips in a file of one of them,
// whichever kind of file it is, then that one finds it by itself, says where,
// and cosigns no more, while the others finalise; rebuilt, it is one of them
// again.
func TestABitFlippedUnderARunningReplica(t *testing.T) {
	c := newParties(t)
	for party := range 4 {
		c.start(party)
	}
	number := 0
	finalised := func(asked int) {
		t.Helper()
		number++
		res, err := c.nodes[3].Handler().Append(within(t), claim(number, -1))
		require.NoError(t, err)
		_, err = c.nodes[asked].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
		require.NoError(t, err)
	}
	const victim = 0
	cfg := c.configs[victim]
	batch := &ledgerv1.AppendBatchRequest{}
	for range 300 {
		number++
		batch.Appends = append(batch.Appends, claim(number, -1))
	}
	_, err := c.nodes[3].Handler().AppendBatch(within(t), batch)
	require.NoError(t, err)
	finalised(victim)
	// A start writes tables from the log of the life before. The node started
	// last writes the shards, and that must not be the victim.
	begin := func() {
		c.start(victim)
		c.stop(3)
		c.start(3)
		finalised(victim)
	}
	c.stop(victim)
	begin()
	random := rand.New(rand.NewPCG(5, 5)) //nolint:gosec // samples
	kinds := slices.Sorted(maps.Keys(filesOf(t, cfg)))
	require.Greater(t, len(kinds), 10, "%v", kinds)
	for _, kind := range kinds {
		paths := filesOf(t, cfg)[kind]
		if len(paths) == 0 {
			// It was rebuilt, and has no table yet.
			c.stop(victim)
			begin()
			paths = filesOf(t, cfg)[kind]
		}
		require.NotEmpty(t, paths, kind)
		path := paths[len(paths)-1]
		damaged, err := os.ReadFile(path)
		require.NoError(t, err)
		at, bit := random.IntN(len(damaged)), random.IntN(8)
		flip(t, path, at, bit)
		damaged[at] ^= 1 << bit
		var said error
		require.Eventually(t, func() bool {
			said = c.nodes[victim].Ready(t.Context())
			if strings.Contains(causes(said), "ledger.seal.halted") {
				return true
			}
			// What follows a block is written a moment later. A file that was
			// written anew before anybody read it is sound: it is damaged again.
			if now, err := os.ReadFile(path); err == nil && len(now) > at && now[at] != damaged[at] {
				flip(t, path, at, bit)
				damaged[at] = now[at] ^ 1<<bit
			}
			return false
		}, patience, 5*time.Millisecond,
			"byte %d of %d of %s", at, len(damaged), kind)
		name := filepath.Base(path)
		if strings.Contains(kind, "/tile/") {
			// A tile or the commits beside it, which shows first.
			name = ""
		}
		require.Contains(t, causes(said), name)
		t.Logf("%s@%d: %s", kind, at, causes(said))
		finalised(1)

		// What its operator does: all but what it signed goes, or just that.
		c.stop(victim)
		if strings.HasPrefix(kind, filepath.Base(cfg.DataDir)+"-signed") {
			require.NoError(t, os.Remove(path))
		} else {
			require.NoError(t, os.RemoveAll(cfg.DataDir))
		}
		begin()
	}
}

// Given a node that is stopped, when one bit flips in any of its files and it
// starts, then either it refuses to, naming the file, or it finds the damage
// by itself and cosigns no more, or nothing is damaged any longer, since it
// reads the topics again from before that place: it never goes on with it.
func TestABitFlippedUnderAStoppedNode(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	w.Config.Logs = map[string]int{"claims": 1}
	w.Config.ScrubInterval = time.Millisecond
	number := 0
	for range 2 {
		n := w.Open(t, w.Config)
		for range 150 {
			number++
			_, err := n.Handler().Append(within(t), claim(number, -1))
			require.NoError(t, err)
		}
		res, err := n.Handler().Append(within(t), claim(number, 0))
		require.NoError(t, err)
		_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
		require.NoError(t, err)
		require.NoError(t, n.Close(within(t)))
	}
	sound := filepath.Join(t.TempDir(), "sound")
	require.NoError(t, os.CopyFS(sound, os.DirFS(filepath.Dir(w.Config.DataDir))))
	random := rand.New(rand.NewPCG(7, 7)) //nolint:gosec // samples
	outcomes := map[string]map[string]int{}
	for kind, paths := range filesOf(t, w.Config) {
		path := paths[len(paths)-1]
		info, err := os.Stat(path)
		require.NoError(t, err)
		outcomes[kind] = map[string]int{}
		for sample := range 3 {
			at := random.IntN(int(info.Size()))
			if sample == 0 {
				at = int(info.Size()) - 1
			}
			cfg := w.Config
			cfg.DataDir = filepath.Join(t.TempDir(), "data")
			require.NoError(t, os.CopyFS(filepath.Dir(cfg.DataDir), os.DirFS(sound)))
			rel, err := filepath.Rel(filepath.Dir(w.Config.DataDir), path)
			require.NoError(t, err)
			flip(t, filepath.Join(filepath.Dir(cfg.DataDir), rel), at, random.IntN(8))
			n, err := ledger.Open(within(t), cfg)
			if err == nil {
				require.NoError(t, n.Close(within(t)))
			}
			report, ferr := fsck.Check(t.Context(), fsck.Options{DataDir: cfg.DataDir})
			outcome := "refuses"
			switch {
			case err != nil:
				require.Contains(t, causes(err), "delete", "it says what to do")
			case ferr == nil && len(report.Faults) == 0:
				outcome = "is repaired"
			default:
				outcome = "stops"
				n, err = ledger.Open(within(t), cfg)
				require.NoError(t, err)
				require.Eventually(t, func() bool {
					return strings.Contains(causes(n.Ready(t.Context())), "damaged")
				}, patience, 5*time.Millisecond, "byte %d of %d of %s: %v", at, info.Size(), kind, report.Faults)
				require.NoError(t, n.Close(within(t)))
			}
			outcomes[kind][outcome]++
		}
	}
	t.Log(outcomes)
}

// Given a cluster, when the node that proposes the blocks finds a flipped bit
// in its files, then another one proposes, and what is appended becomes final.
func TestAProposerThatIsDamagedHandsOver(t *testing.T) {
	w, nodes := newCluster(t, 3)
	proposer := func() *clustered {
		t.Helper()
		source := &replica.KafkaSource{Client: &kafka.Client{Addr: kafka.TCP(w.Config.Brokers...)}, Topic: "test.blocks"}
		var owner string
		for offset := int64(0); ; {
			got, err := source.Fetch(within(t), offset)
			require.NoError(t, err)
			for _, r := range got.Records {
				c := &ledgerv1.Commit{}
				require.NoError(t, proto.Unmarshal(r.Value, c))
				if c.Barrier {
					owner = c.RequestId
				}
				offset = r.Offset + 1
			}
			if offset == got.End {
				break
			}
		}
		i := slices.IndexFunc(nodes, func(n *clustered) bool { return strings.HasPrefix(owner, n.cfg.NodeName+"-") })
		require.GreaterOrEqual(t, i, 0, owner)
		return nodes[i]
	}
	res, err := nodes[0].Handler().Append(within(t), routed(1, -1))
	require.NoError(t, err)
	_, err = nodes[0].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
	require.NoError(t, err)

	victim := proposer()
	options, err := filepath.Glob(filepath.Join(victim.cfg.DataDir, "store", "OPTIONS-*"))
	require.NoError(t, err)
	flip(t, options[len(options)-1], 40, 3)
	require.Eventually(t, func() bool {
		return strings.Contains(causes(victim.Ready(t.Context())), "ledger.seal.halted")
	}, patience, 5*time.Millisecond)
	others := slices.DeleteFunc(slices.Clone(nodes), func(n *clustered) bool { return n == victim })
	res, err = persist(within(t), others, 0, routed(2, -1))
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := others[0].Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: res.Position})
		return err == nil
	}, patience, 5*time.Millisecond)
	require.NotEqual(t, victim, proposer())
}
