package ledger_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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
	"github.com/twmb/franz-go/pkg/kfake"
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

// alter changes a byte of a record in the broker's files, and its batch's
// checksum with it: the broker gives back something else than it was given.
func alter(t *testing.T, dir string, payload []byte) {
	t.Helper()
	castagnoli := crc32.MakeTable(crc32.Castagnoli)
	altered := 0
	require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		at := bytes.Index(raw, payload)
		if err != nil || at < 0 {
			return err
		}
		// A batch of version 2: magic at 16, its checksum at 17 of all from 21 on.
		for from := at - 61; from >= 0; from-- {
			size := int(binary.BigEndian.Uint32(raw[from+8:]))
			if end := from + 12 + size; raw[from+16] == 2 && end > at && end <= len(raw) &&
				binary.BigEndian.Uint32(raw[from+17:]) == crc32.Checksum(raw[from+21:end], castagnoli) {
				raw[at] ^= 0x10
				sum := binary.BigEndian.AppendUint32(nil, crc32.Checksum(raw[from+21:end], castagnoli))
				f, err := os.OpenFile(path, os.O_WRONLY, 0)
				require.NoError(t, err)
				_, err1 := f.WriteAt(raw[at:at+1], int64(at))
				_, err2 := f.WriteAt(sum, int64(from+17))
				require.NoError(t, errors.Join(err1, err2, f.Close()))
				altered++
				return nil
			}
		}
		return nil
	}))
	require.Equal(t, 1, altered, "one record is altered")
}

// Given a node that takes in what it wrote itself, when the broker holds
// something else, then the node's audit of the topic finds it and names it, and
// nothing more is promised or sealed. What is altered after the audit came by
// is found by whoever reads the topic next: here it is tried again.
func TestARecordAlteredUnderItsOwner(t *testing.T) {
	const burst = 50
	for name, c := range map[string]struct {
		nth  int
		says string
	}{
		"one of many":  {burst - 10, `the record at (offset \d+, )?index %d,? is not the one that this node wrote \(ledger\.topic\.altered\)`},
		"the last one": {burst - 1, `index %d at offset \d+ is not the commit followed before \(ledger\.topic\.rewritten\)`},
	} {
		t.Run(name, func(t *testing.T) {
			broker := t.TempDir()
			w := ledgertest.NewEmbedded(t, kfake.DataDir(broker))
			w.Config.Logs = map[string]int{"claims": 1}
			n := w.Open(t, w.Config)
			said, altered := "", uint64(0)
			for number := 0; said == ""; number++ {
				require.Less(t, number, 100*burst, "no alteration is found")
				r := claim(number, -1)
				payload := fmt.Appendf(nil, "what the owner wrote, number %d.", number)
				r.Writes[0].Events[0].Payload = payload
				res, err := n.Handler().Append(within(t), r)
				require.NoError(t, err)
				if number%burst == c.nth {
					altered = res.GetPosition().GetIndex()
					alter(t, broker, payload)
				}
				for try := 0; said == "" && try < 200 && number%burst == burst-1; try++ {
					if all := causes(n.Ready(t.Context())); strings.Contains(all, "ledger.topic") {
						said = all
					}
					select {
					case <-time.After(5 * time.Millisecond):
					case <-t.Context().Done():
					}
				}
			}
			require.Regexp(t, fmt.Sprintf(c.says, altered), said)

			before, err := n.Handler().GetCheckpoint(within(t), &ledgerv1.GetCheckpointRequest{})
			require.NoError(t, err)
			short, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			_, err = n.Handler().Append(short, claim(-1, -1))
			require.Error(t, err, "nothing is promised on top of it")
			after, err := n.Handler().GetCheckpoint(within(t), &ledgerv1.GetCheckpointRequest{})
			require.NoError(t, err)
			require.Equal(t, before.GetCheckpoint(), after.GetCheckpoint(), "nothing is sealed on top of it")
		})
	}
}
