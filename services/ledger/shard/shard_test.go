package shard

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// Two other implementations of the format read what this one writes.
func TestABatchIsReadByOthers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Producer{ID: rapid.Int64Min(0).Draw(t, "id"), Epoch: rapid.Int16Min(0).Draw(t, "epoch"), Sequence: rapid.Int32Min(0).Draw(t, "sequence")}
		at := time.UnixMilli(rapid.Int64Range(1, 1<<41).Draw(t, "at"))
		var records []Record
		for range rapid.OneOf(rapid.IntRange(1, 20), rapid.IntRange(60, 70)).Draw(t, "n") {
			r := Record{Value: make([]byte, rapid.OneOf(rapid.IntRange(0, 300), rapid.IntRange(8000, 8400)).Draw(t, "size"))}
			for k := range r.Value {
				r.Value[k] = byte(k)
			}
			if rapid.Bool().Draw(t, "keyed") {
				r.Key = rapid.SliceOfN(rapid.Byte(), 1, 16).Draw(t, "key")
			}
			if rapid.Bool().Draw(t, "traced") {
				r.Traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
			}
			records = append(records, r)
		}
		before := rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "before")
		set := encodeBatch(bytes.Clone(before), p, at, records)[len(before):]

		var batch kmsg.RecordBatch
		if err := batch.ReadFrom(set[4:]); err != nil {
			t.Fatal(err)
		}
		if batch.ProducerID != p.ID || batch.ProducerEpoch != p.Epoch || batch.FirstSequence != p.Sequence || batch.MaxTimestamp != at.UnixMilli() {
			t.Fatalf("header %+v", batch)
		}
		theirs, err := kfake.BatchRecords(batch)
		if err != nil || len(theirs) != len(records) {
			t.Fatalf("%d records: %v", len(theirs), err)
		}

		// kafka-go checks the CRC as well.
		var rs protocol.RecordSet
		if _, err := rs.ReadFrom(bytes.NewReader(set)); err != nil {
			t.Fatal(err)
		}
		for i, want := range records {
			got, err := rs.Records.ReadRecord()
			if err != nil {
				t.Fatal(err)
			}
			value, err := protocol.ReadAll(got.Value)
			if err != nil || !bytes.Equal(value, want.Value) || !bytes.Equal(theirs[i].Value, want.Value) {
				t.Fatalf("value %d differs: %v", i, err)
			}
			key, err := protocol.ReadAll(got.Key)
			if err != nil || !bytes.Equal(key, want.Key) || !bytes.Equal(theirs[i].Key, want.Key) {
				t.Fatalf("key %d differs: %v", i, err)
			}
			if (want.Traceparent != "") != (len(got.Headers) == 1) || (len(got.Headers) == 1 && string(got.Headers[0].Value) != want.Traceparent) {
				t.Fatalf("headers %d: %v", i, got.Headers)
			}
		}
		if _, err := rs.Records.ReadRecord(); !errors.Is(err, io.EOF) {
			t.Fatalf("more records: %v", err)
		}
	})
}

func TestSequencesWrapAsKafkas(t *testing.T) {
	require.Equal(t, int32(7), Producer{Sequence: 5}.after(2).Sequence)
	// 2^31-1 is followed by 0 (Kafka's DefaultRecordBatch.incrementSequence).
	require.Equal(t, int32(0), Producer{Sequence: 1<<31 - 1}.after(1).Sequence)
	require.Equal(t, int32(4), Producer{Sequence: 1<<31 - 6}.after(10).Sequence)
}

func TestEveryPathOfAGroupLeadsToItsRoot(t *testing.T) {
	for n := 1; n <= 70; n++ {
		leaves := make([]receipt.Hash, n)
		for i := range leaves {
			leaves[i] = receipt.LeafHash([]byte{byte(i)})
		}
		tree := levels(leaves)
		root := tree[len(tree)-1][0]
		for i := range leaves {
			path := path(nil, tree, i)
			raw := make([][]byte, len(path))
			for k := range path {
				raw[k] = path[k][:]
			}
			require.NoError(t, proof.VerifyInclusion(rfc6962.DefaultHasher, uint64(i), uint64(n), leaves[i][:], raw, root[:]), "%d of %d", i, n)
		}
	}
}
