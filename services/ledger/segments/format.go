package segments

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
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

// windowBytes is what a window reads at once.
const windowBytes = 256 << 10

// window shows a file in room of a bounded size.
type window struct {
	file io.ReaderAt
	size int64  // of the file, or of what is looked at of it
	raw  []byte // some of it
	from int64  // where raw begins
}

// at returns n bytes from an offset on, fewer where the file ends. They are
// there until the next call.
func (w *window) at(at, n int64) ([]byte, error) {
	n = min(n, w.size-at)
	if at < w.from || at+n > w.from+int64(len(w.raw)) {
		read := min(max(n, windowBytes), w.size-at)
		if int64(cap(w.raw)) < read {
			w.raw = make([]byte, read)
		}
		w.raw, w.from = w.raw[:read], at
		if n, err := w.file.ReadAt(w.raw, at); int64(n) < read {
			return nil, fmt.Errorf("it cannot be read at %d: %w", at+int64(n), err)
		}
	}
	return w.raw[at-w.from:][:n:n], nil
}

// record returns what parse needs of the record at an offset.
func (w *window) record(at int64) ([]byte, error) {
	head, err := w.at(at, recordHead)
	if err != nil || len(head) < recordHead {
		return head, err
	}
	return w.at(at, recordHead+int64(binary.BigEndian.Uint32(head)))
}

// scan reads a file from its first byte as far as it is sound.
func scan(raw []byte, first uint64) scanned {
	s, _ := scanWindow(&window{size: int64(len(raw)), raw: raw}, first)
	return s
}

// scanWindow is scan. The error is that of reading.
func scanWindow(w *window, first uint64) (s scanned, err error) {
	stop := func(at int64, format string, args ...any) (scanned, error) {
		s.at, s.fault = at, fmt.Sprintf(format, args...)
		s.offsets = s.offsets[:len(s.offsets):len(s.offsets)]
		return s, nil
	}
	head, err := w.at(0, headerSize)
	if err != nil {
		return s, err
	}
	if len(head) < headerSize || string(head[:8]) != magic || binary.BigEndian.Uint64(head[8:]) != first ||
		binary.BigEndian.Uint32(head[16:]) != crc32.Checksum(head[:16], castagnoli) {
		return stop(0, "its header is not that of a segment that begins with %d", first)
	}
	at, batch := int64(headerSize), []uint32(nil)
	for at < w.size {
		raw, err := w.record(at)
		if err != nil {
			return s, err
		}
		k, payload, err := parse(raw)
		if err != nil {
			return stop(at, "after %d commits of the shard: %v", first+uint64(len(s.offsets)+len(batch)), err)
		}
		end := at + recordHead + int64(len(payload))
		switch k {
		case commit:
			batch = append(batch, uint32(at))
		case mark:
			s.offsets, batch = append(s.offsets, batch...), batch[:0]
			s.mark, s.lastMark = append(s.mark[:0], payload...), uint32(at)
		case table:
			lastMark, offsets, err := parseTable(payload)
			if err != nil || len(batch) > 0 || lastMark != s.lastMark || !slices.Equal(offsets, s.offsets) {
				return stop(at, "its table is not that of its records")
			}
			rest, err := w.at(end, w.size-end)
			if err != nil {
				return s, err
			}
			if len(rest) != trailerSize || !bytesEqual(rest, trailer(uint32(at))) {
				return stop(at, "it does not end with a trailer")
			}
			s.whole, s.full, s.tableAt = w.size, true, at
			return s, nil
		}
		at = end
		if k == mark {
			s.whole = at
		}
	}
	if len(batch) > 0 {
		return stop(s.whole, "it ends within a batch")
	}
	s.at = at
	return s, nil
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
