package replica

import "github.com/probity-health/probity/services/ledger/core"

// reading is a portion of records read before any of them is judged. The filter
// and the index are asked for all their names at once: what those look at lies
// anywhere in memory, and waiting for many costs about what waiting for one
// does.
type reading struct {
	records []core.Record
	read    []bool // the others are the protobuf library's to read
	first   []int  // of each record's keys
	keys    []key
	touched uint64 // keeps what only fetches into the cache from being left out
}

// key is a name that a record uses, as it was before the portion.
type key struct {
	name string
	hash uint64
	// absent: surely no commit before the portion used it.
	absent bool
}

// keysOf appends a row's keys: its request id's, then its streams'.
func (h hashes) keysOf(keys []key, id string, writes []core.RowWrite) []key {
	keys = append(keys, key{name: id, hash: h.request(id)})
	for i := range writes {
		keys = append(keys, key{name: writes[i].Stream, hash: h.stream(writes[i].Stream)})
	}
	return keys
}

// look reads records.
func (a *reading) look(s *Shard, records []Record) {
	a.begin()
	if cap(a.records) < len(records) {
		a.records = make([]core.Record, portionRecords)
	}
	a.records = a.records[:len(records)]
	for i := range records {
		rec := &a.records[i]
		a.first = append(a.first, len(a.keys))
		ok := s.reader.Read(rec, records[i].Value, s.cfg.Log)
		if a.read = append(a.read, ok); ok {
			a.keys = s.index.hashes.keysOf(a.keys, rec.RequestID, rec.Writes)
		}
	}
	touched := a.touched
	for i := range a.keys {
		touched += s.known.touch(a.keys[i].hash)
	}
	requests, streams := &s.index.fresh.requests, &s.index.fresh.streams
	for i := range a.keys {
		touched += requests.touch(a.keys[i].hash) + streams.touch(a.keys[i].hash)
	}
	a.touched = touched
	for i := range a.keys {
		a.keys[i].absent = s.known.absent(a.keys[i].hash)
	}
}

// begin forgets what was read and keeps its room.
func (a *reading) begin() {
	clear(a.records)
	clear(a.keys)
	a.records, a.read, a.first, a.keys = a.records[:0], a.read[:0], a.first[:0], a.keys[:0]
}
