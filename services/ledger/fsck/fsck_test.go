package fsck_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// lived is a data directory of a node that lived and was stopped.
type lived struct {
	dir    string
	policy receipt.Policy
	topics func(log string, shard uint32) replica.Source
}

// live runs a node three times over, so that its store has tables, a
// write-ahead log and several manifests, and its trees full and partial tiles.
func live(t *testing.T) lived {
	t.Helper()
	w := ledgertest.NewEmbedded(t)
	w.Config.Logs = map[string]int{"claims": 2}
	l := lived{dir: w.Config.DataDir}
	number := 0
	for _, many := range []int{330, 40, 7} {
		n := w.Open(t, w.Config)
		for range many / 10 {
			batch := &ledgerv1.AppendBatchRequest{}
			for range 10 {
				number++
				batch.Appends = append(batch.Appends, &ledgerv1.AppendRequest{
					Log: "claims", RoutingKey: fmt.Sprint("k", number%7), RequestId: fmt.Sprint("r", number),
					Writes: []*ledgerv1.StreamWrite{
						{Stream: fmt.Sprint("claim-", number), ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: []byte("one")}, {Type: "test.Event", Payload: []byte("two")}}},
						{Stream: fmt.Sprint("accumulators-", number%7), ExpectedRevision: -2, Events: []*ledgerv1.Event{{Type: "test.Event", Payload: []byte("three")}}},
					},
				})
			}
			res, err := n.Handler().AppendBatch(within(t), batch)
			require.NoError(t, err)
			for _, r := range res.Results {
				require.NotNil(t, r.GetResponse())
			}
		}
		last, err := n.Handler().Append(within(t), &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: "k1", RequestId: fmt.Sprint("end", many),
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-end", ExpectedRevision: -2, Events: []*ledgerv1.Event{{Type: "test.Event"}}}},
		})
		require.NoError(t, err)
		_, err = n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{Position: last.Position})
		require.NoError(t, err)
		l.policy = policyOf(t, n)
		require.NoError(t, n.Close(within(t)))
	}
	client := &kafka.Client{Addr: kafka.TCP(w.Config.Brokers...)}
	l.topics = func(log string, shard uint32) replica.Source {
		return &replica.KafkaSource{Client: client, Topic: "test." + log, Partition: int(shard)}
	}
	return l
}

func policyOf(t *testing.T, n *ledger.Node) receipt.Policy {
	t.Helper()
	got, err := n.Handler().GetCheckpoint(within(t), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	p, err := receipt.ParsePolicy(got.Policy)
	require.NoError(t, err)
	return p
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (l lived) check(t *testing.T, topics bool) fsck.Report {
	t.Helper()
	opts := fsck.Options{DataDir: l.dir, Policy: l.policy}
	if topics {
		opts.Topics = l.topics
	}
	r, err := fsck.Check(t.Context(), opts)
	require.NoError(t, err)
	return r
}

// files are the node's files that have a byte to flip.
func (l lived) files(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, dir := range []string{l.dir, l.dir + "-signed"} {
		require.NoError(t, filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			info, err := e.Info()
			if err == nil && info.Size() > 0 {
				out = append(out, p)
			}
			return err
		}))
	}
	slices.Sort(out)
	return out
}

// Given an undamaged replica, then there is nothing to say, and checking
// leaves every file as it was.
func TestASoundReplica(t *testing.T) {
	l := live(t)
	before := map[string]string{}
	for _, f := range l.files(t) {
		raw, err := os.ReadFile(f)
		require.NoError(t, err)
		before[f] = string(raw)
	}
	r := l.check(t, true)
	require.Empty(t, r.Faults)
	require.Empty(t, r.Notices)
	require.Greater(t, r.Commits, uint64(380))
	require.Positive(t, r.Blocks)
	require.Greater(t, r.Records, r.Commits, "barriers are records too")
	require.Len(t, l.files(t), len(before))
	for f, want := range before {
		raw, err := os.ReadFile(f)
		require.NoError(t, err)
		require.Equal(t, want, string(raw), f)
	}
}

// Given a replica one bit of which was flipped, in any file and at any place,
// then that is named, with the file where only the file can tell.
func TestAnyFlippedBitIsNamed(t *testing.T) {
	l := live(t)
	files := l.files(t)
	kinds := map[string]int{}
	random := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // samples
	flips, beyond := 0, 0
	for _, f := range files {
		path, name := f, strings.TrimPrefix(strings.TrimPrefix(f, l.dir), "/")
		sound, err := os.ReadFile(path)
		require.NoError(t, err)
		var places []int
		samples := 6
		if strings.HasPrefix(name, "store") {
			samples = 80
		}
		for range samples {
			places = append(places, random.IntN(len(sound)))
		}
		places = append(places, 0, len(sound)-1, max(0, len(sound)-20))
		for _, at := range places {
			damaged := slices.Clone(sound)
			damaged[at] ^= 1 << random.IntN(8)
			require.NoError(t, os.WriteFile(path, damaged, 0o644))
			r := l.check(t, false)
			if len(r.Faults) == 0 {
				// What nothing reads: beyond the trailer that ends a log.
				require.True(t, strings.HasSuffix(f, ".log"), "bit flipped in byte %d of %d of %s", at, len(sound), f)
				beyond++
			}
			flips++
			kinds[filepath.Ext(f)]++
			if !strings.HasPrefix(name, "store") {
				require.Contains(t, fmt.Sprint(r.Faults), strings.TrimPrefix(name, "-signed/"))
			}
		}
		require.NoError(t, os.WriteFile(path, sound, 0o644))
	}
	require.Zero(t, beyond, "a log that was never recycled has no unread bytes")
	t.Logf("%d bits in %d files: %v", flips, len(files), kinds)
	require.Empty(t, l.check(t, false).Faults)
}

// flipped is a source one bit of which is wrong.
type flipped struct {
	replica.Source
	offset int64
	at     int
}

func (f flipped) Fetch(ctx context.Context, offset int64) (replica.Fetched, error) {
	got, err := f.Source.Fetch(ctx, offset)
	for i, r := range got.Records {
		if r.Offset == f.offset {
			v := slices.Clone(r.Value)
			v[f.at%len(v)] ^= 1
			got.Records[i].Value = v
		}
	}
	return got, err
}

// cut is a source that lost its end.
type cut struct {
	replica.Source
	end int64
}

func (c cut) Fetch(ctx context.Context, offset int64) (replica.Fetched, error) {
	if offset >= c.end {
		return replica.Fetched{End: c.end}, nil
	}
	got, err := c.Source.Fetch(ctx, offset)
	got.Records = slices.DeleteFunc(got.Records, func(r replica.Record) bool { return r.Offset >= c.end })
	got.End = c.end
	return got, err
}

// away is a source whose broker is not there.
type away struct{}

func (away) Fetch(context.Context, int64) (replica.Fetched, error) {
	return replica.Fetched{}, errors.New("connection refused")
}

func TestAnyFlippedBitOfATopicIsNamed(t *testing.T) {
	l := live(t)
	for _, log := range []string{"claims", "blocks"} {
		all, err := l.topics(log, 0).Fetch(within(t), 0)
		require.NoError(t, err)
		require.Len(t, all.Records, int(all.End))
		for offset := range all.End {
			damaged := l
			damaged.topics = func(name string, shard uint32) replica.Source {
				if name == log && shard == 0 {
					return flipped{l.topics(name, shard), offset, int(offset * 13)}
				}
				return l.topics(name, shard)
			}
			r := damaged.check(t, true)
			require.NotEmpty(t, r.Faults, "%s@%d", log, offset)
			require.Equal(t, fsck.Fault{Part: "topic", Place: fmt.Sprintf("%s/0@%d", log, offset), What: r.Faults[0].What}, r.Faults[0])
		}
	}
	for what, source := range map[string]replica.Source{
		"the topic ends here": cut{l.topics("claims", 1), 30}, "connection refused": away{},
	} {
		damaged := l
		damaged.topics = func(log string, shard uint32) replica.Source {
			if log == "claims" && shard == 1 {
				return source
			}
			return l.topics(log, shard)
		}
		require.Contains(t, fmt.Sprint(damaged.check(t, true).Faults), what)
	}
}

// What is missing, or there and should not be, is named too.
func TestFilesThatAreMissingOrStrange(t *testing.T) {
	for name, c := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"a missing tile":       {func(d string) error { return os.RemoveAll(filepath.Join(d, "tiles/claims/0/tile/0")) }, "tiles tiles/claims/0/tile/0/"},
		"a missing bundle":     {func(d string) error { return os.RemoveAll(filepath.Join(d, "tiles/claims/0/tile/entries")) }, "tiles tiles/claims/0/tile/entries/"},
		"a strange file":       {func(d string) error { return os.WriteFile(filepath.Join(d, "tiles/claims/0/tile/0/x"), nil, 0o644) }, "no tile of this tree"},
		"a missing memory":     {func(d string) error { return os.RemoveAll(d + "-signed") }, "may sign a second head"},
		"a strange store file": {func(d string) error { return os.WriteFile(filepath.Join(d, "store/x"), nil, 0o644) }, "store store/x"},
		"missing trees":        {func(d string) error { return os.RemoveAll(filepath.Join(d, "tiles")) }, "tiles tiles/claims/0/state: it says 0 leaves and what was signed seals"},
	} {
		t.Run(name, func(t *testing.T) {
			l := live(t)
			require.NoError(t, c.do(l.dir))
			r := l.check(t, false)
			require.Contains(t, fmt.Sprint(r.Faults, r.Notices), c.want)
		})
	}
}

// Given a replica whose tiles were made at once and so stand in packs, then it
// is sound, a flipped bit of a pack is named with file and byte, and a pack
// that is gone is missed.
func TestPacksAreChecked(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	w.Config.Logs = map[string]int{"claims": 1}
	n := w.Open(t, w.Config)
	for i := range 42 {
		batch := &ledgerv1.AppendBatchRequest{}
		for k := range 100 {
			id := fmt.Sprint(100*i + k)
			batch.Appends = append(batch.Appends, &ledgerv1.AppendRequest{
				Log: "claims", RoutingKey: id, RequestId: id,
				Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "test.Event"}}}},
			})
		}
		_, err := n.Handler().AppendBatch(within(t), batch)
		require.NoError(t, err)
	}
	_, err := n.Handler().GetReceipt(within(t), &ledgerv1.GetReceiptRequest{
		Position: &ledgerv1.Position{Log: "claims", Index: 4199}, MinStage: ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL,
	})
	require.NoError(t, err)
	policy := policyOf(t, n)
	require.NoError(t, n.Close(within(t)))
	require.NoError(t, os.RemoveAll(filepath.Join(w.Config.DataDir, "tiles")))
	n = w.Open(t, w.Config)
	policyOf(t, n)
	require.NoError(t, n.Close(within(t)))
	l := lived{dir: w.Config.DataDir, policy: policy}
	require.Empty(t, l.check(t, false).Faults)
	name := "tiles/claims/0/pack/000"
	path := filepath.Join(l.dir, name)
	sound, err := os.ReadFile(path)
	require.NoError(t, err)
	for _, at := range []int{0, 8192, 16*8192 - 1, 16 * 8192, 200_000, len(sound) - 1} {
		damaged := slices.Clone(sound)
		damaged[at] ^= 1
		require.NoError(t, os.WriteFile(path, damaged, 0o644))
		require.Equal(t, []fsck.Fault{{Part: "tiles", Place: name, What: fmt.Sprintf("byte %d is not what the commits hash to", at)}}, l.check(t, false).Faults)
	}
	require.NoError(t, os.WriteFile(path, append(sound, 0), 0o644))
	require.Contains(t, fmt.Sprint(l.check(t, false).Faults), "it has 274433 bytes of 274432")
	require.NoError(t, os.Remove(path))
	require.Contains(t, fmt.Sprint(l.check(t, false).Faults), "tiles/claims/0/tile/0/000: it is missing")
}

// lists is a view that counts events by stream, in memory.
type lists struct {
	next  map[uint32]uint64
	held  map[string]int
	fails error

	shard uint32
	want  map[string]int
}

func (l *lists) Name() string { return "counts" }
func (l *lists) Log() string  { return "claims" }
func (l *lists) Next(context.Context) (map[uint32]uint64, error) {
	return l.next, l.fails
}
func (l *lists) Begin(_ context.Context, shard uint32) error {
	l.shard, l.want = shard, map[string]int{}
	return nil
}
func (l *lists) Take(index uint64, events []*ledgerv1.RecordedEvent) error {
	for _, e := range events {
		if e.Position.Index != index || e.Position.Shard != l.shard {
			return errors.New("an event of another place")
		}
		l.want[fmt.Sprintf("%d %s", l.shard, e.Stream)]++
	}
	return nil
}
func (l *lists) Compare(_ context.Context, differs func(key, what string)) error {
	for key, n := range l.want {
		if l.held[key] != n {
			differs(key, "another number")
		}
	}
	return nil
}

// Given a read model beside the replica, when it holds something other than
// the commits say, then the key is named; when it can't be compared, that is
// said, and no fault.
func TestAViewIsComparedWithTheCommits(t *testing.T) {
	l := live(t)
	view := &lists{held: map[string]int{}}
	check := func() fsck.Report {
		t.Helper()
		r, err := fsck.Check(t.Context(), fsck.Options{DataDir: l.dir, Policy: l.policy, Views: []fsck.View{view}})
		require.NoError(t, err)
		return r
	}
	view.fails = errors.New("connection refused")
	r := check()
	require.Empty(t, r.Faults)
	require.Contains(t, fmt.Sprint(r.Notices), "the view counts was not checked: connection refused")

	view.fails, view.next = nil, map[uint32]uint64{0: 20, 1: 20}
	r = check()
	require.NotEmpty(t, r.Faults, "it holds nothing")
	require.Equal(t, "view", r.Faults[0].Part)
	for _, f := range r.Faults {
		_, key, _ := strings.Cut(f.Place, "counts claims/")
		_, key, _ = strings.Cut(key, " ")
		view.held[key] = -1
	}
	for key := range view.held {
		shard, stream, _ := strings.Cut(key, " ")
		n, _ := strconv.Atoi(shard)
		view.held[key] = l.count(t, uint32(n), 20, stream)
	}
	require.Empty(t, check().Faults)
	for key := range view.held {
		view.held[key]++
		r = check()
		require.Equal(t, []fsck.Fault{{Part: "view", Place: "counts claims/" + key[:1] + " " + key, What: "another number"}}, r.Faults)
		break
	}

	view.next = map[uint32]uint64{0: 1 << 40}
	r = check()
	require.Empty(t, r.Faults)
	require.Contains(t, fmt.Sprint(r.Notices), "check a replica that is level with it")
	view.next = map[uint32]uint64{7: 1}
	require.Contains(t, fmt.Sprint(check().Faults), "it has taken in 1 commits of a shard that has none here")
}

// count is how many events of a stream the first commits of a shard hold, by
// the topic.
func (l lived) count(t *testing.T, shard uint32, commits int, stream string) (n int) {
	t.Helper()
	all, err := l.topics("claims", shard).Fetch(within(t), 0)
	require.NoError(t, err)
	for _, r := range all.Records {
		c := &ledgerv1.Commit{}
		require.NoError(t, proto.Unmarshal(r.Value, c))
		if c.Barrier || c.Index >= uint64(commits) {
			continue
		}
		for _, w := range c.Writes {
			if w.Stream == stream {
				n += len(w.Events)
			}
		}
	}
	return n
}

// A node that runs keeps its directory to itself.
func TestARunningNodeIsLeftAlone(t *testing.T) {
	w := ledgertest.NewEmbedded(t)
	w.Open(t, w.Config)
	_, err := fsck.Check(t.Context(), fsck.Options{DataDir: w.Config.DataDir})
	require.ErrorContains(t, err, "stop the node first")
	_, err = fsck.Check(t.Context(), fsck.Options{DataDir: t.TempDir()})
	require.ErrorContains(t, err, "no ledger node's data directory")
}
