package shard

import (
	"encoding/binary"
	"hash/crc32"
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

// encodeBatch returns a record set for a Produce request: its length, then
// one uncompressed v2 record batch. The timestamps must be current: the
// broker forgets an idle producer's epoch, and with it the fence, by them.
func encodeBatch(p Producer, at time.Time, records []Record) []byte {
	size := 4 + headSize
	for i := range records {
		size += len(records[i].Value) + len(records[i].Key) + len(records[i].Traceparent) + 48
	}
	millis := at.UnixMilli()
	b := make([]byte, 4, size)
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
	var body []byte
	for i, r := range records {
		body = body[:0]
		body = append(body, 0)                     // attributes
		body = binary.AppendVarint(body, 0)        // timestamp delta
		body = binary.AppendVarint(body, int64(i)) // offset delta
		body = appendBytes(body, r.Key)
		body = appendBytes(body, r.Value)
		if r.Traceparent == "" {
			body = binary.AppendVarint(body, 0)
		} else {
			body = binary.AppendVarint(body, 1)
			body = appendBytes(body, []byte("traceparent"))
			body = appendBytes(body, []byte(r.Traceparent))
		}
		b = binary.AppendVarint(b, int64(len(body)))
		b = append(b, body...)
	}
	set := b[4:]
	binary.BigEndian.PutUint32(b, uint32(len(set)))
	binary.BigEndian.PutUint32(set[lengthAt:], uint32(len(set)-lengthAt-4))
	binary.BigEndian.PutUint32(set[crcAt:], crc32.Checksum(set[crcAt+4:], castagnoli))
	return b
}

// appendBytes appends a length as a zigzag varint and the bytes; nil is null.
func appendBytes(b, v []byte) []byte {
	if v == nil {
		return binary.AppendVarint(b, -1)
	}
	return append(binary.AppendVarint(b, int64(len(v))), v...)
}
