package peers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger"
	"github.com/probity-health/probity/services/ledger/ledgerbench"
	"github.com/probity-health/probity/services/ledger/receipt"
)

// Options say how long and how hard to measure; zero values are usable.
type Options struct {
	// Rounds of each measurement; 0 is 3. The median counts.
	Rounds int
	// Round is one measurement's length; 0 is 1 s.
	Round time.Duration
	// Callers are the concurrencies; empty is 1, 64 and 512.
	Callers []int
	// Payload is an event's size; 0 is 1 KiB.
	Payload int
	// WithoutPostgres measures the others where PostgreSQL isn't installed.
	WithoutPostgres bool
	// Progress is told what is being done; nil is told nothing.
	Progress io.Writer
}

// names of the systems, as figures begin.
const (
	inProcess     = "ledger, in process"
	overLoopback  = "ledger, over loopback"
	fourAccepted  = "ledger of four parties, accepted"
	fourFinal     = "ledger of four parties, final"
	rawBatches    = "raw batches to the same broker"
	tesseraNamed  = "Tessera, integrated"
	tesseraPublic = "Tessera, published"
	jetStreamName = "JetStream"
	postgresName  = "PostgreSQL"
	etcdName      = "etcd"

	replayNamed = "replay by a fresh replica on one core"
	diskNamed   = "disk an event on a replica"
)

type entrant struct {
	name string
	// of opens or returns the system for a concurrency.
	of func(callers int) (system, error)
}

// Run measures.
func Run(ctx context.Context, o Options) (_ Report, err error) {
	o.Rounds, o.Round, o.Payload = cmp.Or(o.Rounds, 3), cmp.Or(o.Round, time.Second), cmp.Or(o.Payload, 1<<10)
	if len(o.Callers) == 0 {
		o.Callers = []int{1, 64, 512}
	}
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	dir, err := os.MkdirTemp("", "probity-peers-*")
	if err != nil {
		return nil, err
	}
	// The server of PostgreSQL runs as another user and passes through.
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	var opened []system
	defer func() {
		for i := len(opened) - 1; i >= 0; i-- {
			err = errors.Join(err, opened[i].close())
		}
	}()
	keep := func(s system, err error) (system, error) {
		if err == nil {
			opened = append(opened, s)
		}
		return s, err
	}
	broker, err := openBroker(filepath.Join(dir, "broker"), rawTopic)
	if err != nil {
		return nil, err
	}
	defer broker.Close()
	key := filepath.Join(dir, "key")
	vkey, err := ledger.EnsureKey(key, origin)
	if err != nil {
		return nil, err
	}
	fmt.Fprintln(o.Progress, "starting the systems")
	// Nothing here waits for its blocks, so it makes them as a node does that
	// is told nothing else.
	one, err := openNode(ctx, ledger.DefaultBlockInterval, ledger.Config{Brokers: broker.ListenAddrs(), TopicPrefix: "one", DataDir: filepath.Join(dir, "node"), SigningKeyFile: key})
	if err != nil {
		return nil, err
	}
	opened = append(opened, one)
	// What commits do to each other across topics is not measured here: the
	// consortium has a broker of its own.
	second, err := openBroker(filepath.Join(dir, "broker-four"))
	if err != nil {
		return nil, err
	}
	defer second.Close()
	four, policy, err := openConsortium(ctx, second, filepath.Join(dir, "four"))
	if err != nil {
		return nil, err
	}
	opened = append(opened, four)
	always := func(s system) func(int) (system, error) { return func(int) (system, error) { return s, nil } }
	over, err := keep(openRemote(one, o.Payload))
	if err != nil {
		return nil, err
	}
	floor, err := keep(openRaw(broker), nil)
	if err != nil {
		return nil, err
	}
	js, err := keep(openJetStream(ctx, filepath.Join(dir, "jetstream")))
	if err != nil {
		return nil, err
	}
	kv, err := keep(openEtcd(ctx, filepath.Join(dir, "etcd")))
	if err != nil {
		return nil, err
	}
	logs := map[int]*tesseraLog{}
	tesseraOf := func(callers int) (*tesseraLog, error) {
		if l := logs[callers]; l != nil {
			return l, nil
		}
		l, err := openTessera(ctx, filepath.Join(dir, fmt.Sprintf("tessera-%d", callers)), callers)
		if err == nil {
			logs[callers], opened = l, append(opened, l)
		}
		return l, err
	}
	entrants := []entrant{
		{rawBatches, always(floor)},
		{inProcess, always(one)},
		{tesseraNamed, func(n int) (system, error) { return tesseraOf(n) }},
		{fourAccepted, always(accepted{four})},
		{fourFinal, always(four)},
		{tesseraPublic, func(n int) (system, error) { l, err := tesseraOf(n); return published{l}, err }},
		{overLoopback, always(over)},
		{etcdName, always(kv)},
		{jetStreamName, always(js)},
	}
	if !o.WithoutPostgres {
		pg, err := keep(openPostgres(ctx, filepath.Join(dir, "postgres")))
		if err != nil {
			return nil, err
		}
		entrants = append(entrants, entrant{postgresName, always(pg)})
	}

	payload := make([]byte, o.Payload)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	var report Report
	for round := range o.Rounds {
		for _, callers := range o.Callers {
			rates := map[string]measured{}
			for _, e := range entrants {
				fmt.Fprintf(o.Progress, "round %d of %d: %s, %d callers\n", round+1, o.Rounds, e.name, callers)
				s, err := e.of(callers)
				if err != nil {
					return nil, fmt.Errorf("peers: %s: %w", e.name, err)
				}
				m, err := loop(ctx, callers, o.Round, func(ctx context.Context) error { return s.append(ctx, payload) })
				if err != nil {
					return nil, fmt.Errorf("peers: %s: %w", e.name, err)
				}
				rates[e.name] = m
				at := fmt.Sprintf("%s, %s", e.name, calledBy(callers))
				if l, ok := s.(later); ok {
					start := time.Now()
					if err := l.settle(ctx); err != nil {
						return nil, fmt.Errorf("peers: %s: %w", e.name, err)
					}
					length := m.took.Seconds()
					report.add(at+", with what it put off", m.rate*length/(length+time.Since(start).Seconds()), "appends/s", "higher")
				}
				report.add(at, m.rate, "appends/s", "higher")
				report.add(at+", p50", m.p50.Seconds()*1000, "ms", "lower")
				report.add(at+", p99", m.p99.Seconds()*1000, "ms", "lower")
			}
			report.ratios(callers, rates)
		}
	}
	if err := proofs(ctx, &report, one, four, vkey, policy, o); err != nil {
		return nil, err
	}
	err = replay(ctx, &report, o)
	report.short(o.Callers)
	return report, err
}

func calledBy(n int) string {
	if n == 1 {
		return "1 caller"
	}
	return fmt.Sprintf("%d callers", n)
}

// ratios of the ledger to its like, each round's own.
func (r *Report) ratios(callers int, m map[string]measured) {
	for _, of := range []struct{ ours, theirs string }{
		{inProcess, rawBatches}, {inProcess, tesseraNamed}, {fourFinal, tesseraPublic},
		{overLoopback, postgresName}, {overLoopback, etcdName}, {overLoopback, jetStreamName},
	} {
		if theirs := m[of.theirs].rate; theirs > 0 {
			r.add(fmt.Sprintf("%s / %s, %s", of.ours, of.theirs, calledBy(callers)), m[of.ours].rate/theirs, "×", "higher")
		}
	}
	if floor := m[rawBatches].p50; floor > 0 {
		r.add(fmt.Sprintf("%s / %s, p50, %s", inProcess, rawBatches, calledBy(callers)), float64(m[inProcess].p50)/float64(floor), "×", "lower")
	}
}

// proofs measures receipts and what a replica keeps.
func proofs(ctx context.Context, report *Report, one *node, four *consortium, vkey string, policy receipt.Policy, o Options) error {
	last := one.last.Load()
	final, err := one.Handler().GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: last, MinStage: ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL})
	if err != nil {
		return err
	}
	if _, err := receipt.NewPolicy(origin, 1, vkey); err != nil {
		return err
	}
	report.add("receipt, one party", float64(len(final.GetReceipt())), "bytes", "lower")
	quorum, err := four.nodes[0].Handler().GetReceipt(ctx, &ledgerv1.GetReceiptRequest{Position: four.nodes[0].last.Load(), MinStage: ledgerv1.ReceiptStage_RECEIPT_STAGE_FINAL})
	if err != nil {
		return err
	}
	report.add("receipt, four parties", float64(len(quorum.GetReceipt())), "bytes", "lower")
	for range o.Rounds {
		m, err := loop(ctx, 1, o.Round/2, func(context.Context) error { _, err := receipt.Verify(quorum.GetReceipt(), policy); return err })
		if err != nil {
			return err
		}
		report.add("receipt, four parties, verified", m.p50.Seconds()*1000, "ms", "lower")
	}
	return nil
}

// replay measures a fresh replica on one core, and what an event takes on it.
func replay(ctx context.Context, report *Report, o Options) error {
	for range o.Rounds {
		figures, err := ledgerbench.Run(ctx, ledgerbench.Options{Callers: []int{512}, Rounds: 1, Round: o.Round, Payload: o.Payload})
		if err != nil {
			return err
		}
		for _, f := range figures {
			switch f.Name {
			case "replay":
				report.add(replayNamed, f.Rate, "events/s", "higher")
			case "replay with the broker":
				report.add("replay by a fresh replica, broker and client on the same core", f.Rate, "events/s", "higher")
			case "disk":
				report.add(diskNamed, f.Rate, "bytes", "lower")
			}
		}
	}
	return nil
}
