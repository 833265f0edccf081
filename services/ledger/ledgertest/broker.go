package ledgertest

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// RunBroker checks what the ledger relies on a broker for, without the
// ledger and with another Kafka client than its own. The topic must be fresh,
// of one partition; partition-wide state is told apart by producer ids.
//
// Rules are named by where Apache Kafka has them: ProducerAppendInfo and
// ProducerStateManager for the partition, TransactionMetadata for epochs.
func RunBroker(t *testing.T, kind Broker, topic string, addrs ...string) {
	for name, test := range map[string]func(*testing.T, *Producers){
		"offsets are dense, also over batches and sessions":     brokerDense,
		"the same batch again is acknowledged and not repeated": brokerRepeats,
		"a gap in the sequence is refused":                      brokerGap,
		"a new epoch begins with sequence 0":                    brokerFirstSequence,
		"an older epoch is refused once the newer has written":  brokerFence,
		"an older epoch still writes until the newer has":       brokerNoFenceYet,
		"a session goes on from its own epoch (KIP-360)":        brokerGoesOn,
		"a session that was taken over can't go on (KIP-360)":   brokerTakenOver,
		"asking for an epoch again doesn't fence oneself":       brokerAsksAgain,
		"a damaged batch is refused":                            brokerDamaged,
		"another transactional id is no fence":                  brokerOtherID,
	} {
		t.Run(name, func(t *testing.T) {
			p := NewProducers(t, topic, addrs...)
			p.kind = kind
			test(t, p)
		})
	}
}

// Broker is a kind of broker. Where the kinds differ, the suite expects of
// each what it does, so that a difference that goes or comes is noticed.
type Broker int

// The kinds.
const (
	// Apache is Apache Kafka itself.
	Apache Broker = iota
	// KFake is the embedded broker of tests and the standalone. It is
	// stricter in one place: a new epoch fences with its being given out,
	// not with its first batch. It is laxer in another: it doesn't compare
	// the epoch that a session goes on from, so a deposed one may go on.
	KFake
)

// Producers speaks the broker's protocol as the ledger's writers do, batch by
// batch, so that a test can play a deposed one.
type Producers struct {
	t      *testing.T
	client *kgo.Client
	topic  string
	name   string
	kind   Broker
}

// NewProducers returns producers for partition 0 of a topic.
func NewProducers(t *testing.T, topic string, addrs ...string) *Producers {
	t.Helper()
	// Requests as old as the ledger's own client sends them.
	client, err := kgo.NewClient(kgo.SeedBrokers(addrs...), kgo.MaxVersions(kversion.V2_8_0()))
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return &Producers{t: t, client: client, topic: topic, name: t.Name()}
}

// Session is a producer id and epoch.
type Session struct {
	ID    int64
	Epoch int16
}

// Begin opens a session for a transactional id; from is nil for a new one.
func (p *Producers) Begin(transactional string, from *Session) (Session, error) {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID = &transactional
	req.TransactionTimeoutMillis = 60_000
	req.ProducerID, req.ProducerEpoch = -1, -1
	if from != nil {
		req.ProducerID, req.ProducerEpoch = from.ID, from.Epoch
	}
	for {
		res, err := req.RequestWith(ctxOf(p.t), p.client)
		require.NoError(p.t, err)
		err = kerr.ErrorForCode(res.ErrorCode)
		// A coordinator that has just been elected says so for a moment.
		if kerr.IsRetriable(err) {
			p.pause()
			continue
		}
		return Session{res.ProducerID, res.ProducerEpoch}, err
	}
}

func (p *Producers) begin(from *Session) Session {
	p.t.Helper()
	s, err := p.Begin(p.name, from)
	require.NoError(p.t, err)
	return s
}

// pause lets a broker get on with what it is doing.
func (p *Producers) pause() {
	select {
	case <-time.After(50 * time.Millisecond):
	case <-p.t.Context().Done():
	}
}

// Batch is one record batch to be produced.
type Batch struct {
	Session
	Sequence int32
	Values   []string
	At       time.Time // zero is now
	Damage   bool      // flips a bit under the checksum
}

// leader waits until the partition has a leader.
func (p *Producers) leader() int {
	p.t.Helper()
	req := kmsg.NewPtrMetadataRequest()
	rt := kmsg.NewMetadataRequestTopic()
	rt.Topic = &p.topic
	req.Topics = append(req.Topics, rt)
	for {
		m, err := req.RequestWith(ctxOf(p.t), p.client)
		require.NoError(p.t, err)
		require.Len(p.t, m.Topics, 1)
		if len(m.Topics[0].Partitions) > 0 && m.Topics[0].Partitions[0].Leader >= 0 {
			return int(m.Topics[0].Partitions[0].Leader)
		}
		p.pause()
	}
}

// Produce produces a batch with all in-sync replicas' acknowledgement.
func (p *Producers) Produce(b Batch) (offset int64, err error) {
	p.t.Helper()
	for {
		req := kmsg.NewPtrProduceRequest()
		req.Acks, req.TimeoutMillis = -1, 10_000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = p.topic
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = b.encode()
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		raw, err := p.client.Broker(p.leader()).Request(ctxOf(p.t), req)
		if err != nil {
			return 0, err
		}
		res := raw.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		err = kerr.ErrorForCode(res.ErrorCode)
		if errors.Is(err, kerr.NotLeaderForPartition) || errors.Is(err, kerr.UnknownTopicOrPartition) {
			p.pause()
			continue
		}
		return res.BaseOffset, err
	}
}

func (p *Producers) produced(b Batch) int64 {
	p.t.Helper()
	offset, err := p.Produce(b)
	require.NoError(p.t, err)
	return offset
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (b Batch) encode() []byte {
	at := b.At
	if at.IsZero() {
		at = time.Now()
	}
	out := kmsg.RecordBatch{
		PartitionLeaderEpoch: -1, Magic: 2,
		LastOffsetDelta: int32(len(b.Values) - 1), FirstTimestamp: at.UnixMilli(), MaxTimestamp: at.UnixMilli(),
		ProducerID: b.ID, ProducerEpoch: b.Epoch, FirstSequence: b.Sequence, NumRecords: int32(len(b.Values)),
	}
	for i, v := range b.Values {
		r := kmsg.Record{OffsetDelta: int32(i), Value: []byte(v)}
		r.Length = int32(len(r.AppendTo(nil)) - 1) // the length's own byte is not counted
		out.Records = r.AppendTo(out.Records)
	}
	raw := out.AppendTo(nil)
	binary.BigEndian.PutUint32(raw[8:], uint32(len(raw)-12))
	binary.BigEndian.PutUint32(raw[17:], crc32.Checksum(raw[21:], castagnoli))
	if b.Damage {
		raw[len(raw)-2] ^= 1
	}
	return raw
}

func brokerDense(t *testing.T, p *Producers) {
	s := p.begin(nil)
	first := p.produced(Batch{Session: s, Values: []string{"a", "b", "c"}})
	require.Equal(t, first+3, p.produced(Batch{Session: s, Sequence: 3, Values: []string{"d"}}))
	s = p.begin(nil)
	require.Equal(t, first+4, p.produced(Batch{Session: s, Values: []string{"e", "f"}}))
}

func brokerRepeats(t *testing.T, p *Producers) {
	s := p.begin(nil)
	first := p.produced(Batch{Session: s, Values: []string{"a", "b"}})
	require.Equal(t, first, p.produced(Batch{Session: s, Values: []string{"a", "b"}}))
	require.Equal(t, first+2, p.produced(Batch{Session: s, Sequence: 2, Values: []string{"c"}}))
}

func brokerGap(t *testing.T, p *Producers) {
	s := p.begin(nil)
	first := p.produced(Batch{Session: s, Values: []string{"a"}})
	_, err := p.Produce(Batch{Session: s, Sequence: 7, Values: []string{"b"}})
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber)
	require.Equal(t, first+1, p.produced(Batch{Session: s, Sequence: 1, Values: []string{"b"}}))
}

func brokerFirstSequence(t *testing.T, p *Producers) {
	older := p.begin(nil)
	p.produced(Batch{Session: older, Values: []string{"a"}})
	newer := p.begin(nil)
	require.Equal(t, Session{older.ID, older.Epoch + 1}, newer)
	_, err := p.Produce(Batch{Session: newer, Sequence: 1, Values: []string{"b"}})
	require.ErrorIs(t, err, kerr.OutOfOrderSequenceNumber)
	p.produced(Batch{Session: newer, Values: []string{"b"}})
}

func brokerFence(t *testing.T, p *Producers) {
	older := p.begin(nil)
	p.produced(Batch{Session: older, Values: []string{"a"}})
	newer := p.begin(nil)
	at := p.produced(Batch{Session: newer, Values: []string{"barrier"}})
	for _, sequence := range []int32{1, 0, 5} {
		_, err := p.Produce(Batch{Session: older, Sequence: sequence, Values: []string{"zombie"}})
		require.ErrorIs(t, err, kerr.InvalidProducerEpoch, "sequence %d", sequence)
	}
	require.Equal(t, at+1, p.produced(Batch{Session: newer, Sequence: 1, Values: []string{"b"}}))
}

// The reason for barriers: the partition's leader learns of an epoch by its
// first batch, not from the coordinator that gave it out.
func brokerNoFenceYet(t *testing.T, p *Producers) {
	older := p.begin(nil)
	at := p.produced(Batch{Session: older, Values: []string{"a"}})
	p.begin(nil)
	late := Batch{Session: older, Sequence: 1, Values: []string{"late"}}
	if p.kind == KFake {
		_, err := p.Produce(late)
		require.ErrorIs(t, err, kerr.InvalidProducerEpoch)
		return
	}
	require.Equal(t, at+1, p.produced(late))
}

func brokerGoesOn(t *testing.T, p *Producers) {
	first := p.begin(nil)
	p.produced(Batch{Session: first, Values: []string{"a"}})
	second := p.begin(&first)
	require.Equal(t, Session{first.ID, first.Epoch + 1}, second)
	p.produced(Batch{Session: second, Values: []string{"b"}})
	third := p.begin(&second)
	require.Equal(t, Session{first.ID, first.Epoch + 2}, third)
}

func brokerTakenOver(t *testing.T, p *Producers) {
	older := p.begin(nil)
	newer := p.begin(nil)
	refuse := func() {
		t.Helper()
		_, err := p.Begin(p.name, &older)
		if p.kind == KFake {
			require.NoError(t, err)
			return
		}
		require.Error(t, err)
		// Which of the two depends on the request's version (KIP-588).
		require.Contains(t, []error{kerr.InvalidProducerEpoch, kerr.ProducerFenced}, err)
	}
	refuse()
	renewed := p.begin(&newer)
	refuse()
	if p.kind == KFake {
		return
	}
	p.produced(Batch{Session: renewed, Values: []string{"not disturbed"}})
	refuse()
}

// An answer that was lost is asked for again with the epoch from before it.
func brokerAsksAgain(t *testing.T, p *Producers) {
	first := p.begin(nil)
	p.begin(&first)
	again, err := p.Begin(p.name, &first)
	require.NoError(t, err)
	p.produced(Batch{Session: again, Values: []string{"a"}})
	_, err = p.Produce(Batch{Session: first, Values: []string{"zombie"}})
	require.ErrorIs(t, err, kerr.InvalidProducerEpoch)
}

func brokerDamaged(t *testing.T, p *Producers) {
	s := p.begin(nil)
	first := p.produced(Batch{Session: s, Values: []string{"a"}})
	_, err := p.Produce(Batch{Session: s, Sequence: 1, Values: []string{"bb"}, Damage: true})
	require.Error(t, err)
	require.Equal(t, first+1, p.produced(Batch{Session: s, Sequence: 1, Values: []string{"bb"}}))
}

// What a coordinator that forgot an idle transactional id amounts to: the next
// owner gets another producer id, and the one before is not refused. Only the
// term in the record voids what it writes.
func brokerOtherID(t *testing.T, p *Producers) {
	older := p.begin(nil)
	at := p.produced(Batch{Session: older, Values: []string{"a"}})
	newer, err := p.Begin(p.name+"/other", nil)
	require.NoError(t, err)
	require.NotEqual(t, older.ID, newer.ID)
	require.Equal(t, at+1, p.produced(Batch{Session: newer, Values: []string{"barrier"}}))
	require.Equal(t, at+2, p.produced(Batch{Session: older, Sequence: 1, Values: []string{"zombie"}}))
}

// Producing returns the producers a partition's leader remembers: those whose
// older epochs it refuses.
func (p *Producers) Producing() []Session {
	p.t.Helper()
	req := kmsg.NewPtrDescribeProducersRequest()
	rt := kmsg.NewDescribeProducersRequestTopic()
	rt.Topic, rt.Partitions = p.topic, []int32{0}
	req.Topics = append(req.Topics, rt)
	raw, err := p.client.Broker(p.leader()).Request(ctxOf(p.t), req)
	require.NoError(p.t, err)
	res := raw.(*kmsg.DescribeProducersResponse).Topics[0].Partitions[0]
	require.NoError(p.t, kerr.ErrorForCode(res.ErrorCode))
	var out []Session
	for _, a := range res.ActiveProducers {
		out = append(out, Session{a.ProducerID, int16(a.ProducerEpoch)})
	}
	return out
}
