package replica

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// known spares the index most look-ups. Nearly every append asks for a
// request id and a stream that no commit named before, which a filter in
// memory answers. It is not written anywhere.
//
// The filter knows a shard's older keys once load has read them all; until
// then it answers nothing. Safe for concurrent use.
type known struct {
	hashes hashes

	mu     sync.RWMutex // guards what follows
	layers []layer      // each twice the one before; the last takes new keys
	whole  bool         // every key of the store is in
	cursor []byte       // where load goes on
}

// layer is a blocked Bloom filter: a key has all its bits in one block of a
// cache line. At 16 bits a key about one in five hundred unknown keys passes a
// full layer, and each that does costs a look-up in the store.
type layer struct {
	blocks []block
	room   int
}

type block [8]uint64

const (
	firstBlocks = 1 << 10
	keysABlock  = 512 / 16
	probes      = 7
	// mostBlocks bounds the layer that is made for keys to come: 16 MiB.
	mostBlocks = 1 << 18
	// loadKeys bounds what one load reads.
	loadKeys = 1 << 16
)

func newKnown(h hashes) *known {
	return &known{hashes: h, layers: []layer{newLayer(firstBlocks)}}
}

func newLayer(blocks int) layer {
	return layer{blocks: make([]block, blocks), room: blocks * keysABlock}
}

// at returns a key's block and the bits that say which of its bits are the
// key's, nine for each.
func (l *layer) at(h uint64) (*block, uint64) {
	n, _ := bits.Mul64(h, uint64(len(l.blocks)))
	return &l.blocks[n], h * 0x9e3779b97f4a7c15
}

func (l *layer) has(h uint64) bool {
	b, x := l.at(h)
	for range probes {
		if b[x>>6&7]&(1<<(x&63)) == 0 {
			return false
		}
		x >>= 9
	}
	return true
}

func (l *layer) add(h uint64) {
	b, x := l.at(h)
	for range probes {
		b[x>>6&7] |= 1 << (x & 63)
		x >>= 9
	}
	l.room--
}

// add puts a key in. The caller holds mu.
func (k *known) add(h uint64) {
	last := &k.layers[len(k.layers)-1]
	if last.room == 0 {
		k.layers = append(k.layers, newLayer(2*len(last.blocks)))
		last = &k.layers[len(k.layers)-1]
	}
	last.add(h)
}

// expect makes room for many keys at once, where so many are to come: each
// layer that a key is looked for in is a miss of the processor's cache.
func (k *known) expect(keys int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	keys = min(keys, mostBlocks*keysABlock)
	if last := k.layers[len(k.layers)-1]; keys > 2*int64(len(last.blocks)*keysABlock) {
		k.layers = append(k.layers, newLayer(int(keys/keysABlock)))
	}
}

// touch reads a little of where a key is looked for.
func (k *known) touch(h uint64) (touched uint64) {
	for i := range k.layers {
		b, _ := k.layers[i].at(h)
		touched += b[0]
	}
	return touched
}

// absent tells whether a key is surely in no commit. The caller holds mu or is
// the one who announces and loads.
func (k *known) absent(h uint64) bool {
	if !k.whole {
		return false
	}
	for i := range k.layers {
		if k.layers[i].has(h) {
			return false
		}
	}
	return true
}

// noRequest tells whether surely no commit has a request id.
func (k *known) noRequest(id string) bool {
	h := k.hashes.request(id)
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.absent(h)
}

// noStream tells whether surely no commit writes a stream.
func (k *known) noStream(stream string) bool {
	h := k.hashes.stream(stream)
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.absent(h)
}

// announce takes in the keys of commits that are about to be stored: a filter
// that learned of them after the store would deny them for a moment.
func (k *known) announce(entries []stored) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for i := range entries {
		e := &entries[i]
		k.add(e.keys[0].hash)
		for n := range e.row.Writes {
			if e.row.Writes[n].First == 0 {
				k.add(e.keys[1+n].hash)
			}
		}
	}
}

// load reads some of the store's keys, until it has read all.
func (k *known) load(r rows) error {
	k.mu.RLock()
	whole, cursor := k.whole, k.cursor
	k.mu.RUnlock()
	if whole {
		return nil
	}
	// Request ids, then streams by their first extents.
	lower, upper := r.key(kindRequest), r.key(kindStream+1)
	if cursor == nil {
		cursor = lower
	}
	it, err := r.db.NewIter(&pebble.IterOptions{LowerBound: cursor, UpperBound: upper})
	if err != nil {
		return err
	}
	defer it.Close()
	n, prefix := 0, len(r.prefix)
	k.mu.Lock()
	defer k.mu.Unlock()
	for ok := it.First(); ok; {
		key := it.Key()
		if n == loadKeys {
			k.cursor = append([]byte{}, key...)
			return nil
		}
		n++
		switch name := key[prefix+1:]; {
		case key[prefix] == kindRequest:
			k.add(maphash.Bytes(k.hashes.requests, name))
		case key[prefix] != kindStream:
			// Another kind stands between the two.
			ok = it.SeekGE(r.key(kindStream))
			continue
		case bytes.HasSuffix(name, firstExtent):
			k.add(maphash.Bytes(k.hashes.streams, name[:len(name)-len(firstExtent)]))
		}
		ok = it.Next()
	}
	if err := it.Error(); err != nil {
		return err
	}
	k.whole, k.cursor = true, nil
	return nil
}

// firstExtent ends the key of a stream's first extent, and of no other.
var firstExtent = make([]byte, 9)
