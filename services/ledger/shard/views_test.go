package shard

import (
	"net"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// mistaken is a cluster of three of which one broker believes itself the
// coordinator that it no longer is, and can't do what one is asked. It
// returns that broker's address.
func mistaken(t *testing.T, transactional string) string {
	t.Helper()
	c, err := kfake.NewCluster(kfake.NumBrokers(3))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	victim := (c.CoordinatorFor(transactional) + 1) % 3
	address := c.ListenAddrs()[victim]
	c.ControlKey(int16(kmsg.FindCoordinator), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() != victim {
			return nil, nil, false
		}
		res := r.ResponseKind().(*kmsg.FindCoordinatorResponse)
		host, port, err := net.SplitHostPort(address)
		res.NodeID, res.Host = victim, host
		number, _ := strconv.Atoi(port)
		res.Port = int32(number)
		return res, err, true
	})
	c.ControlKey(int16(kmsg.InitProducerID), func(r kmsg.Request) (kmsg.Response, error, bool) {
		c.KeepControl()
		if c.CurrentNode() != victim {
			return nil, nil, false
		}
		res := r.ResponseKind().(*kmsg.InitProducerIDResponse)
		res.ErrorCode = kerr.ConcurrentTransactions.Code
		return res, nil, true
	})
	return address
}

// Given a broker that was cut off, is asked first and thinks it still
// coordinates, when an owner takes its shard, then it asks the others within
// as many attempts as there are brokers; left alone, the client would ask the
// same one forever.
func TestAMistakenBrokerIsNotAskedForever(t *testing.T) {
	const id = "test.claims.0"
	address := mistaken(t, id)
	transport := func() *kafka.Transport { return &kafka.Transport{MetadataTTL: 50 * time.Millisecond} }
	views := NewViews(transport)
	defer views.CloseIdleConnections()
	b := broker{client: &kafka.Client{Addr: kafka.TCP(address), Transport: views}, transactional: id}
	attempts := 0
	require.Eventually(t, func() bool {
		attempts++
		_, err := b.begin(t.Context(), nil)
		return err == nil
	}, 10*time.Second, time.Millisecond)
	require.Greater(t, attempts, 1)
	require.LessOrEqual(t, attempts, 4, "the bootstrap address and three brokers")

	alone := transport()
	defer alone.CloseIdleConnections()
	b.client = &kafka.Client{Addr: kafka.TCP(address), Transport: alone}
	for range 10 {
		_, err := b.begin(t.Context(), nil)
		require.ErrorIs(t, err, kafka.ConcurrentTransactions)
	}
}

// Given brokers of which the next is gone, then views go round them all.
func TestViewsGoRound(t *testing.T) {
	all := []net.Addr{kafka.TCP("a:1"), kafka.TCP("b:1")}
	require.Nil(t, next(nil, nil))
	require.Equal(t, all[0], next(all, nil))
	require.Equal(t, all[1], next(all, all[0]))
	require.Nil(t, next(all, all[1]), "then the bootstrap addresses")
	require.Nil(t, next(all, kafka.TCP("gone:1")))
}
