package shard

import (
	"encoding/binary"
	"hash/crc32"
	"math/bits"
	"slices"
	"time"
)

// Record is one Kafka record to be produced.
type Record struct {
	Key         []byte
	Value       []byte
	Traceparent string
}

// Producer identifies a writing session to the broker. Sequence is the next
// record's, from 0 in each epoch, wrapping at 2^31.
type Producer struct {
	ID       int64
	Epoch    int16
	Sequence int32
}

func (p Producer) after(records int) Producer {
	p.Sequence = int32((int64(p.Sequence) + int64(records)) & 0x7fffffff)
	return p
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Offsets of the fixed fields in a v2 record batch (Kafka protocol guide,
// "Record Batch").
const (
	lengthAt = 8
	crcAt    = 17
	headSize = 61
)

// encodeBatch appends a record set for a Produce request to b: its length,
// then one uncompressed v2 record batch. The timestamps must be current: the
// broker forgets an idle producer's epoch, and with it the fence, by them.
func encodeBatch(b []byte, p Producer, at time.Time, records []Record) []byte {
	size := 4 + headSize
	for i := range records {
		size += recordSize(i, &records[i]) + binary.MaxVarintLen32
	}
	millis, start := at.UnixMilli(), len(b)
	b = append(slices.Grow(b, size), 0, 0, 0, 0)                 // the set's length, below
	b = binary.BigEndian.AppendUint64(b, 0)                      // base offset, the broker's to set
	b = binary.BigEndian.AppendUint32(b, 0)                      // length, below
	b = binary.BigEndian.AppendUint32(b, 0xffffffff)             // partition leader epoch
	b = append(b, 2)                                             // magic
	b = binary.BigEndian.AppendUint32(b, 0)                      // CRC, below
	b = binary.BigEndian.AppendUint16(b, 0)                      // attributes: no compression, create time
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)-1)) // last offset delta
	b = binary.BigEndian.AppendUint64(b, uint64(millis))
	b = binary.BigEndian.AppendUint64(b, uint64(millis))
	b = binary.BigEndian.AppendUint64(b, uint64(p.ID))
	b = binary.BigEndian.AppendUint16(b, uint16(p.Epoch))
	b = binary.BigEndian.AppendUint32(b, uint32(p.Sequence))
	b = binary.BigEndian.AppendUint32(b, uint32(len(records)))
	for i := range records {
		r := &records[i]
		b = binary.AppendVarint(b, int64(recordSize(i, r)))
		b = append(b, 0)                     // attributes
		b = binary.AppendVarint(b, 0)        // timestamp delta
		b = binary.AppendVarint(b, int64(i)) // offset delta
		b = appendBytes(b, r.Key)
		b = appendBytes(b, r.Value)
		if r.Traceparent == "" {
			b = binary.AppendVarint(b, 0)
			continue
		}
		b = binary.AppendVarint(b, 1)
		b = append(binary.AppendVarint(b, int64(len(traceparent))), traceparent...)
		b = append(binary.AppendVarint(b, int64(len(r.Traceparent))), r.Traceparent...)
	}
	set := b[start+4:]
	binary.BigEndian.PutUint32(b[start:], uint32(len(set)))
	binary.BigEndian.PutUint32(set[lengthAt:], uint32(len(set)-lengthAt-4))
	binary.BigEndian.PutUint32(set[crcAt:], crc32.Checksum(set[crcAt+4:], castagnoli))
	return b
}

const traceparent = "traceparent" // the header's name

// recordSize is the length of the i-th record beyond its own length field.
func recordSize(i int, r *Record) int {
	size := 2 + varintSize(i) + bytesSize(r.Key) + bytesSize(r.Value) + 1
	if r.Traceparent != "" {
		size += varintSize(len(traceparent)) + len(traceparent) + varintSize(len(r.Traceparent)) + len(r.Traceparent)
	}
	return size
}

// varintSize is the length of a number that is not negative as a zigzag varint.
func varintSize(n int) int { return 1 + max(0, bits.Len(uint(n)<<1)-1)/7 }

func bytesSize(v []byte) int {
	if v == nil {
		return 1
	}
	return varintSize(len(v)) + len(v)
}

// appendBytes appends a length as a zigzag varint and the bytes; nil is null.
func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(v))), v...)
}
