// Package ledgerbench measures a ledger node beside what lies beneath it: the
// same group commit to the same embedded broker without a ledger on top. Both
// sync every batch to disk; rounds are interleaved, so that the ratio holds
// even where the machine's speed does not.
package ledgerbench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kfake"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// Options say how long and how hard to measure; zero values are usable.
type Options struct {
	// Callers are the closed-loop concurrencies; empty is 1 and 64.
	Callers []int
	// Rounds is how often each figure is measured; 0 is 3. The median counts.
	Rounds int
	// Round is one measurement's length; 0 is 1 s.
	Round time.Duration
	// Payload is an event's size; 0 is 1 KiB.
	Payload int
	// Shards is the measured log's; 0 is 1.
	Shards int
	// Dir holds the broker's and node's data; empty is a temporary directory.
	Dir string
}

// Figure is one measured thing.
type Figure struct {
	Name    string        // "node append", "raw group commit", …
	Callers int           // 0 where it doesn't apply
	Rate    float64       // per second; bytes where the name is "disk"
	P50     time.Duration // of one call
	P99     time.Duration
	Note    string
}

// String is one line of a report.
func (f Figure) String() string {
	return fmt.Sprintf("%-28s %4d callers %10.0f/s  p50 %-10v p99 %-10v %s", f.Name, f.Callers, f.Rate, f.P50, f.P99, f.Note)
}

const (
	origin = "bench.probity.test/ledger"
	raw    = "bench-raw"
)

// Run measures and returns the figures in a stable order.
func Run(ctx context.Context, o Options) ([]Figure, error) {
	if len(o.Callers) == 0 {
		o.Callers = []int{1, 64}
	}
	o.Rounds, o.Round, o.Payload, o.Shards = cmp.Or(o.Rounds, 3), cmp.Or(o.Round, time.Second), cmp.Or(o.Payload, 1<<10), cmp.Or(o.Shards, 1)
	if o.Dir == "" {
		dir, err := os.MkdirTemp("", "ledgerbench-*")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		o.Dir = dir
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.DataDir(filepath.Join(o.Dir, "broker")), kfake.SyncWrites(), kfake.SeedTopics(1, raw))
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	key := filepath.Join(o.Dir, "key")
	vkey, err := ledger.EnsureKey(key, origin)
	if err != nil {
		return nil, err
	}
	node, err := ledger.Open(ctx, ledger.Config{
		Origin: origin, Brokers: broker.ListenAddrs(), TopicPrefix: "bench", Logs: map[string]int{"claims": o.Shards},
		DataDir: filepath.Join(o.Dir, "data"), SigningKeyFile: key, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	defer func() { _ = node.Close(context.WithoutCancel(ctx)) }()
	for node.Ready(ctx) != nil {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
	b := &bench{o: o, node: node, client: &kafka.Client{Addr: kafka.TCP(broker.ListenAddrs()...), Transport: &kafka.Transport{}}}
	return b.run(ctx, vkey)
}

type bench struct {
	o      Options
	node   *ledger.Node
	client *kafka.Client
	serial atomic.Uint64
	last   atomic.Pointer[ledgerv1.Position]
	noise  []byte
}

// payload returns the n-th event's.
func (b *bench) payload(n uint64) []byte {
	at := n * 0x9e3779b97f4a7c15 >> 44
	return b.noise[at : at+uint64(b.o.Payload)]
}

func (b *bench) run(ctx context.Context, vkey string) ([]Figure, error) {
	// Sealed payloads don't compress, so neither do these.
	b.noise = make([]byte, 1<<20+b.o.Payload)
	if _, err := rand.NewChaCha8([32]byte{}).Read(b.noise); err != nil {
		return nil, err
	}
	var out []Figure
	for _, callers := range b.o.Callers {
		var nodes, raws []Figure
		for range b.o.Rounds {
			r, err := b.raw(ctx, callers)
			if err != nil {
				return nil, err
			}
			n, err := b.append(ctx, callers)
			if err != nil {
				return nil, err
			}
			raws, nodes = append(raws, r), append(nodes, n)
		}
		n, r := median(nodes), median(raws)
		n.Note = fmt.Sprintf("%.0f%% of raw", 100*n.Rate/r.Rate)
		out = append(out, r, n)
	}
	proofs, err := b.proofs(ctx, vkey)
	if err != nil {
		return nil, err
	}
	replayed, err := b.replay(ctx)
	return append(append(out, proofs...), replayed...), err
}

// replay measures a fresh replica that reads the topic of what was appended,
// on one core, re-checking every commit: once with the records in memory, so
// that the core is the replica's alone, and once with the broker and the
// client on it too. Then the disk it takes.
func (b *bench) replay(ctx context.Context) ([]Figure, error) {
	last := b.last.Load()
	topic := &replica.KafkaSource{Client: b.client, Topic: "bench." + last.Log, Partition: int(last.Shard)}
	held, err := hold(ctx, topic, last.Index)
	if err != nil {
		return nil, err
	}
	own, _, err := b.replayFrom(ctx, held)
	if err != nil {
		return nil, err
	}
	topic.Reuse = true // as a node reads it
	shared, size, err := b.replayFrom(ctx, topic)
	if err != nil {
		return nil, err
	}
	own.Name, own.Note = "replay", fmt.Sprintf("%d events of %d bytes, one a commit, one core, the records in memory", held.commits, b.o.Payload)
	shared.Name, shared.Note = "replay with the broker", "the same, the broker and its client on the core too"
	disk := Figure{Name: "disk", Rate: size, Note: "bytes an event on a replica, with the write-ahead log it still keeps"}
	return []Figure{own, shared, disk}, nil
}

// held is a Source of records in memory, in the portions they came in.
type held struct {
	portions []replica.Fetched
	commits  uint64
}

// hold reads a topic until it holds the commit at an index.
func hold(ctx context.Context, from replica.Source, index uint64) (*held, error) {
	h := &held{}
	var next int64
	for {
		got, err := from.Fetch(ctx, next)
		if err != nil {
			return nil, err
		}
		if len(got.Records) == 0 {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			continue
		}
		h.portions = append(h.portions, got)
		last := got.Records[len(got.Records)-1]
		next = last.Offset + 1
		c := &ledgerv1.Commit{}
		if err := proto.Unmarshal(last.Value, c); err != nil {
			return nil, err
		}
		if h.commits = c.Index; !c.Barrier {
			h.commits++
		}
		if h.commits > index {
			return h, nil
		}
	}
}

// Fetch implements replica.Source.
func (h *held) Fetch(_ context.Context, offset int64) (replica.Fetched, error) {
	for i, p := range h.portions {
		if p.Records[0].Offset == offset {
			h.portions = h.portions[i:]
			return p, nil
		}
	}
	return replica.Fetched{}, replica.ErrOutOfRange
}

// replayFrom replays a source and returns the rate and the bytes an event takes.
func (b *bench) replayFrom(ctx context.Context, source replica.Source) (Figure, float64, error) {
	last := b.last.Load()
	dir := filepath.Join(b.o.Dir, "replay")
	defer os.RemoveAll(dir)
	logger := slog.New(slog.DiscardHandler)
	store, err := replica.OpenStore(filepath.Join(dir, "store"), logger)
	if err != nil {
		return Figure{}, 0, err
	}
	shard, err := replica.OpenShard(replica.ShardConfig{
		Log: last.Log, Shard: last.Shard, Store: store, Dir: filepath.Join(dir, "tiles"), Logger: logger,
		Source: source,
	})
	if err != nil {
		return Figure{}, 0, errors.Join(err, store.Close())
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	start := time.Now()
	for shard.Head().Next <= last.Index && err == nil {
		if err = shard.Step(ctx, time.Now()); ctx.Err() != nil {
			err = ctx.Err()
		}
	}
	took := time.Since(start)
	commits := shard.Head().Next
	if err = errors.Join(err, shard.Tree().Publish(commits), store.Close()); err != nil {
		return Figure{}, 0, err
	}
	size, err := diskOf(dir)
	return Figure{Rate: float64(commits) / took.Seconds()}, float64(size) / float64(commits), err
}

// diskOf adds up the files below dir.
func diskOf(dir string) (size int64, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
		}
		return err
	})
	return size, err
}

func median(fs []Figure) Figure {
	slices.SortFunc(fs, func(a, b Figure) int { return cmp.Compare(a.Rate, b.Rate) })
	return fs[len(fs)/2]
}

// loop runs call from several callers for a round.
func (b *bench) loop(ctx context.Context, name string, callers int, call func(caller int) error) (Figure, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, b.o.Round, errRound)
	defer cancel()
	took := make([][]time.Duration, callers)
	errs := make([]error, callers)
	var wg sync.WaitGroup
	start := time.Now()
	for c := range callers {
		wg.Go(func() {
			for ctx.Err() == nil {
				t := time.Now()
				if errs[c] = call(c); errs[c] != nil {
					return
				}
				took[c] = append(took[c], time.Since(t))
			}
		})
	}
	wg.Wait()
	elapsed := time.Since(start)
	for _, err := range errs {
		if err != nil {
			return Figure{}, fmt.Errorf("ledgerbench: %s: %w", name, err)
		}
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	if len(all) == 0 {
		return Figure{}, fmt.Errorf("ledgerbench: %s: nothing finished within a round", name)
	}
	return Figure{
		Name: name, Callers: callers, Rate: float64(len(all)) / elapsed.Seconds(),
		P50: all[len(all)/2].Round(time.Microsecond), P99: all[len(all)*99/100].Round(time.Microsecond),
	}, nil
}

var errRound = fmt.Errorf("the round is over")

func (b *bench) append(ctx context.Context, callers int) (Figure, error) {
	h := b.node.Handler()
	return b.loop(ctx, "node append", callers, func(int) error {
		n := b.serial.Add(1)
		id := fmt.Sprintf("%016x", n*0x9e3779b97f4a7c15)
		res, err := h.Append(ctx, &ledgerv1.AppendRequest{
			Log: "claims", RoutingKey: id, RequestId: id,
			Writes: []*ledgerv1.StreamWrite{{Stream: "claim-" + id, ExpectedRevision: -1, Events: []*ledgerv1.Event{{Type: "bench.Event", Payload: b.payload(n)}}}},
		})
		if err == nil {
			b.last.Store(res.Position)
		}
		return err
	})
}

// raw is the least that makes 1 KiB durable in a partition: whatever waits is
// produced as one batch, one batch at a time.
func (b *bench) raw(ctx context.Context, callers int) (Figure, error) {
	type item struct{ done chan error }
	queue := make(chan item, callers)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			var batch []item
			select {
			case it := <-queue:
				batch = append(batch, it)
			case <-stop:
				return
			}
			for more := true; more && len(batch) < 900; {
				select {
				case it := <-queue:
					batch = append(batch, it)
				default:
					more = false
				}
			}
			records := make([]kafka.Record, len(batch))
			for i := range records {
				records[i].Value = kafka.NewBytes(b.payload(b.serial.Add(1)))
			}
			res, err := b.client.Produce(ctx, &kafka.ProduceRequest{
				Topic: raw, RequiredAcks: kafka.RequireAll, Records: kafka.NewRecordReader(records...),
			})
			if err == nil {
				err = res.Error
			}
			for _, it := range batch {
				it.done <- err
			}
		}
	})
	f, err := b.loop(ctx, "raw group commit", callers, func(int) error {
		it := item{done: make(chan error, 1)}
		queue <- it
		return <-it.done
	})
	close(stop)
	wg.Wait()
	return f, err
}

// proofs measures receipts of what was appended: handed out and verified.
func (b *bench) proofs(ctx context.Context, vkey string) ([]Figure, error) {
	last := b.last.Load()
	h := b.node.Handler()
	policy, err := receipt.NewPolicy(origin, 1, vkey)
	if err != nil {
		return nil, err
	}
	var doc []byte
	handed, err := b.loop(ctx, "receipt handed out", 1, func(int) error {
		res, err := h.GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: &ledgerv1.Position{Log: last.Log, Shard: last.Shard, Index: b.serial.Add(0x9e3779b97f4a7c15) % (last.Index + 1)}})
		if err == nil {
			doc = res.Receipt
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	handed.Note = fmt.Sprintf("%d bytes of %d commits", len(doc), last.Index+1)
	verified, err := b.loop(ctx, "receipt verified", 1, func(int) error {
		_, err := receipt.Verify(doc, policy)
		return err
	})
	return []Figure{handed, verified}, err
}
