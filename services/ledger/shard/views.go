package shard

import (
	"cmp"
	"context"
	"errors"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol/describegroups"
	"github.com/segmentio/kafka-go/protocol/fetch"
	"github.com/segmentio/kafka-go/protocol/initproducerid"
	"github.com/segmentio/kafka-go/protocol/listoffsets"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/produce"
)

// Views asks another broker about the cluster when what the last one told
// led nowhere. It is a kafka.RoundTripper.
//
// A kafka.Transport learns who leads a partition and who coordinates a
// transactional id over one connection, and keeps it for as long as it works.
// A broker that its peers can't reach goes on naming itself the leader and the
// coordinator of all it was before, and answers what it is then asked with
// timeouts, or, as a coordinator that can't store an answer it owes, with
// "concurrent transactions". Nothing about the connection is wrong, so a
// Transport would ask it forever.
type Views struct {
	// transport makes the Transport of one view.
	transport func() *kafka.Transport

	mu      sync.Mutex // guards what follows
	now     *view
	brokers []net.Addr // as the cluster last named them, in the order of their ids
}

// view is what one broker, or whoever answers at the bootstrap addresses,
// says of the cluster.
type view struct {
	transport *kafka.Transport
	of        net.Addr // nil: the bootstrap addresses
	requests  int      // under way; guarded by Views.mu
}

// NewViews returns Views whose Transports transport makes.
func NewViews(transport func() *kafka.Transport) *Views {
	return &Views{transport: transport, now: &view{transport: transport()}}
}

// RoundTrip implements kafka.RoundTripper.
func (v *Views) RoundTrip(ctx context.Context, bootstrap net.Addr, r kafka.Request) (kafka.Response, error) {
	v.mu.Lock()
	now := v.now
	now.requests++
	v.mu.Unlock()
	defer v.done(now)
	res, err := now.transport.RoundTrip(ctx, now.at(bootstrap), r)
	if err != nil && !errors.Is(err, context.Canceled) || err == nil && misled(res) {
		v.leave(now, bootstrap)
	}
	return res, err
}

// CloseIdleConnections closes connections that no request uses; others close
// after their request.
func (v *Views) CloseIdleConnections() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.now.transport.CloseIdleConnections()
}

// done ends a request. The last one of a view that was left closes it: a
// Transport that is closed earlier would open anew for the next request.
func (v *Views) done(w *view) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if w.requests--; w.requests == 0 && v.now != w {
		w.transport.CloseIdleConnections()
	}
}

func (w *view) at(bootstrap net.Addr) net.Addr {
	if w.of != nil {
		return w.of
	}
	return bootstrap
}

// leave turns to the next broker, unless that happened since the request that
// failed was sent; the caller's request is still under way.
func (v *Views) leave(left *view, bootstrap net.Addr) {
	known := left.brokers(bootstrap)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.now != left {
		return
	}
	if len(known) > 0 {
		v.brokers = known
	}
	v.now = &view{transport: v.transport(), of: next(v.brokers, left.of)}
}

// brokers returns the cluster's brokers as the view knows them: it waits for
// nothing, and is empty for a view that never was told.
func (w *view) brokers(bootstrap net.Addr) []net.Addr {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	// A Transport answers this from what it holds.
	res, err := w.transport.RoundTrip(ctx, w.at(bootstrap), &metadata.Request{TopicNames: []string{}})
	m, ok := res.(*metadata.Response)
	if err != nil || !ok {
		return nil
	}
	all := slices.SortedFunc(slices.Values(m.Brokers), func(a, b metadata.ResponseBroker) int { return cmp.Compare(a.NodeID, b.NodeID) })
	var out []net.Addr
	for _, b := range all {
		out = append(out, kafka.TCP(net.JoinHostPort(b.Host, strconv.Itoa(int(b.Port)))))
	}
	return out
}

// next goes round: the bootstrap addresses, which is nil, and the brokers.
func next(brokers []net.Addr, after net.Addr) net.Addr {
	at := -1
	if after != nil {
		at = slices.IndexFunc(brokers, func(a net.Addr) bool { return a.String() == after.String() })
		if at < 0 {
			return nil
		}
	}
	if at+1 < len(brokers) {
		return brokers[at+1]
	}
	return nil
}

// misled tells an answer that another broker may know better than to give.
func misled(res kafka.Response) bool {
	bad := func(code int16) bool {
		err := kafka.Error(code)
		return code != 0 && (err.Temporary() || err == kafka.ConcurrentTransactions || err == kafka.BrokerNotAvailable)
	}
	switch res := res.(type) {
	case *initproducerid.Response:
		return bad(res.ErrorCode)
	case *produce.Response:
		return slices.ContainsFunc(res.Topics, func(t produce.ResponseTopic) bool {
			return slices.ContainsFunc(t.Partitions, func(p produce.ResponsePartition) bool { return bad(p.ErrorCode) })
		})
	case *listoffsets.Response:
		return slices.ContainsFunc(res.Topics, func(t listoffsets.ResponseTopic) bool {
			return slices.ContainsFunc(t.Partitions, func(p listoffsets.ResponsePartition) bool { return bad(p.ErrorCode) })
		})
	case *fetch.Response:
		return bad(res.ErrorCode) || slices.ContainsFunc(res.Topics, func(t fetch.ResponseTopic) bool {
			return slices.ContainsFunc(t.Partitions, func(p fetch.ResponsePartition) bool { return bad(p.ErrorCode) })
		})
	case *describegroups.Response:
		return slices.ContainsFunc(res.Groups, func(g describegroups.ResponseGroup) bool { return bad(g.ErrorCode) })
	}
	return false
}
