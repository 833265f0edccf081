package embedded_test

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"github.com/probity-health/probity/standalone/embedded"
)

func TestKafkaKeepsAcknowledgedRecordsWhenKilled(t *testing.T) {
	// Given a broker in another process that has acknowledged records one by one.
	ctx := testContext(t)
	dir := t.TempDir()
	process, address := startBrokerProcess(t, dir)
	createTopic(t, address, "claims", 2)
	const n = 50
	for i := range n {
		produce(t, ctx, address, "claims", i%2, fmt.Sprintf("commit %d", i))
	}

	// When it is killed without warning and another process continues its directory.
	require.NoError(t, process.Process.Kill())
	require.ErrorContains(t, process.Wait(), "killed")
	_, address = startBrokerProcess(t, dir)

	// Then every acknowledged record is there, in order, and new ones follow on.
	produce(t, ctx, address, "claims", 0, "after the crash")
	want0, want1 := []string{}, []string{}
	for i := range n {
		if i%2 == 0 {
			want0 = append(want0, fmt.Sprintf("commit %d", i))
		} else {
			want1 = append(want1, fmt.Sprintf("commit %d", i))
		}
	}
	require.Equal(t, append(want0, "after the crash"), consume(t, ctx, address, "claims", 0, n/2+1))
	require.Equal(t, want1, consume(t, ctx, address, "claims", 1, n/2))
}

func TestKafkaFencesAnEarlierProducerAfterARestart(t *testing.T) {
	// Given an owner that took its producer epoch before a crash.
	ctx := testContext(t)
	dir := t.TempDir()
	process, address := startBrokerProcess(t, dir)
	createTopic(t, address, "claims", 1)
	before := producerEpoch(t, ctx, address, "shard-claims-0")

	// When the broker is killed and the next owner takes the same transactional id.
	require.NoError(t, process.Process.Kill())
	require.Error(t, process.Wait())
	_, address = startBrokerProcess(t, dir)
	after := producerEpoch(t, ctx, address, "shard-claims-0")

	// Then it has the same producer id and a later epoch: the old owner stays fenced.
	require.Equal(t, before.ProducerID, after.ProducerID)
	require.Greater(t, after.ProducerEpoch, before.ProducerEpoch)
}

func TestKafkaRestartsOnItsPort(t *testing.T) {
	// Given a broker that was stopped properly.
	ctx := testContext(t)
	dir := t.TempDir()
	k, err := embedded.StartKafka(dir, 0, nil)
	require.NoError(t, err)
	address := k.Address()
	createTopic(t, address, "claims", 1)
	produce(t, ctx, address, "claims", 0, "one")
	require.NoError(t, k.Stop())
	require.NoError(t, k.Stop(), "stopping again does nothing")

	// When it is started on the port it had.
	k, err = embedded.StartKafka(dir, portOf(t, address), nil)
	require.NoError(t, err)
	defer k.Stop()

	// Then it is where and what it was.
	require.Equal(t, address, k.Address())
	require.Equal(t, []string{"one"}, consume(t, ctx, address, "claims", 0, 1))
}

func TestADirectoryBelongsToOneProcess(t *testing.T) {
	dir := t.TempDir()
	k, err := embedded.StartKafka(dir, 0, nil)
	require.NoError(t, err)
	defer k.Stop()

	_, err = embedded.StartKafka(dir, 0, nil)
	require.ErrorContains(t, err, "in use by another process")
	_, err = embedded.StartKafka(t.TempDir(), portOf(t, k.Address()), nil)
	require.ErrorContains(t, err, "is taken")
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startBrokerProcess(t *testing.T, dir string) (*exec.Cmd, string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err, "the broker did not start")
	return cmd, strings.TrimSpace(line)
}

func createTopic(t *testing.T, address, topic string, partitions int) {
	t.Helper()
	conn, err := kafka.Dial("tcp", address)
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.CreateTopics(kafka.TopicConfig{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}))
}

func produce(t *testing.T, ctx context.Context, address, topic string, partition int, value string) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(address)}
	response, err := client.Produce(ctx, &kafka.ProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
		Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes([]byte(value))}),
	})
	require.NoError(t, err)
	require.NoError(t, response.Error)
}

func consume(t *testing.T, ctx context.Context, address, topic string, partition, n int) []string {
	t.Helper()
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{address}, Topic: topic, Partition: partition, MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond})
	defer reader.Close()
	values := make([]string, n)
	for i := range values {
		m, err := reader.ReadMessage(ctx)
		require.NoError(t, err, "after %d of %d records", i, n)
		values[i] = string(m.Value)
	}
	return values
}

func producerEpoch(t *testing.T, ctx context.Context, address, transactionalID string) *kafka.ProducerSession {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(address)}
	response, err := client.InitProducerID(ctx, &kafka.InitProducerIDRequest{TransactionalID: transactionalID, TransactionTimeoutMs: 10000, ProducerID: -1, ProducerEpoch: -1})
	require.NoError(t, err)
	require.NoError(t, response.Error)
	return response.Producer
}

func portOf(t *testing.T, address string) int {
	t.Helper()
	a, err := net.ResolveTCPAddr("tcp", address)
	require.NoError(t, err)
	return a.Port
}
