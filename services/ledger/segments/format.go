package segments

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

type kind byte

const (
	commit kind = iota + 1
	mark
	table
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// scanned is what a file holds.
type scanned struct {
	offsets  []uint32 // of the commits of whole batches
	mark     []byte
	lastMark uint32
	whole    int64 // where the last whole batch ends
	full     bool
	tableAt  int64 // where the table of a full file is
	// fault is why the scan ended before the file did.
	fault string
	at    int64
}

// scan reads a file from its first byte as far as it is sound.
func scan(raw []byte, first uint64) (s scanned) {
	stop := func(at int64, format string, args ...any) scanned {
		s.at, s.fault = at, fmt.Sprintf(format, args...)
		s.offsets = s.offsets[:len(s.offsets):len(s.offsets)]
		return s
	}
	if len(raw) < headerSize || string(raw[:8]) != magic || binary.BigEndian.Uint64(raw[8:]) != first ||
		binary.BigEndian.Uint32(raw[16:]) != crc32.Checksum(raw[:16], castagnoli) {
		return stop(0, "its header is not that of a segment that begins with %d", first)
	}
	at, batch := int64(headerSize), []uint32(nil)
	for at < int64(len(raw)) {
		k, payload, err := parse(raw[at:])
		if err != nil {
			return stop(at, "after %d commits of the shard: %v", first+uint64(len(s.offsets)+len(batch)), err)
		}
		switch k {
		case commit:
			batch = append(batch, uint32(at))
		case mark:
			s.offsets, batch = append(s.offsets, batch...), batch[:0]
			s.mark, s.lastMark = payload, uint32(at)
		case table:
			rest := raw[at+recordHead+int64(len(payload)):]
			lastMark, offsets, err := parseTable(payload)
			if err != nil || len(batch) > 0 || lastMark != s.lastMark || !slices.Equal(offsets, s.offsets) {
				return stop(at, "its table is not that of its records")
			}
			if len(rest) != trailerSize || !bytesEqual(rest, trailer(uint32(at))) {
				return stop(at, "it does not end with a trailer")
			}
			s.whole, s.full, s.tableAt = int64(len(raw)), true, at
			return s
		}
		at += recordHead + int64(len(payload))
		if k == mark {
			s.whole = at
		}
	}
	if len(batch) > 0 {
		return stop(s.whole, "it ends within a batch")
	}
	s.at = at
	return s
}

func bytesEqual(a, b []byte) bool { return string(a) == string(b) }

// parse reads the record that raw begins with.
func parse(raw []byte) (kind, []byte, error) {
	if len(raw) < recordHead {
		return 0, nil, errors.New("a record is cut short")
	}
	size, k := int64(binary.BigEndian.Uint32(raw)), kind(raw[4])
	switch {
	case k < commit || k > table:
		return 0, nil, errors.New("a record is of no known kind")
	case size > int64(len(raw)-recordHead):
		return 0, nil, errors.New("a record is cut short")
	}
	payload := raw[recordHead : recordHead+size : recordHead+size]
	if sum(raw[:5], payload) != binary.BigEndian.Uint32(raw[5:]) {
		return 0, nil, errors.New("a record does not match its checksum")
	}
	return k, payload, nil
}

func sum(head, payload []byte) uint32 {
	return crc32.Update(crc32.Checksum(head, castagnoli), castagnoli, payload)
}

func appendRecord(b []byte, k kind, payload []byte) []byte {
	at := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
	b = append(b, byte(k))
	b = binary.BigEndian.AppendUint32(b, sum(b[at:at+5], payload))
	return append(b, payload...)
}

func header(first uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte(magic), first)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func trailer(at uint32) []byte {
	b := binary.BigEndian.AppendUint32(nil, at)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseTable(payload []byte) (lastMark uint32, offsets []uint32, err error) {
	if len(payload) < 4 || len(payload)%4 != 0 {
		return 0, nil, errors.New("a table is malformed")
	}
	offsets = make([]uint32, len(payload)/4-1)
	for i := range offsets {
		offsets[i] = binary.BigEndian.Uint32(payload[4*i+4:])
	}
	return binary.BigEndian.Uint32(payload), offsets, nil
}
