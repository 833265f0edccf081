package sim

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/segments"
)

// flipTile flips a bit of one of the files below the tiles.
func (n *node) flipTile(bit int) {
	if n.disk.flip(tilesDir, bit) {
		n.wrong()
		n.w.cover("branch: tile bit flipped")
	}
}

// flip flips a bit of one of the files below dir, if there is one.
func (d *disk) flip(dir string, bit int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	var files []*inode
	var walk func(*inode)
	walk = func(i *inode) {
		for _, name := range slices.Sorted(maps.Keys(i.entries)) {
			if child := i.entries[name]; child.dir {
				walk(child)
			} else if len(child.data) > 0 && !strings.HasPrefix(name, ".new-") {
				files = append(files, child)
			}
		}
	}
	if i := d.find(dir); i != nil {
		walk(i)
	}
	if len(files) == 0 {
		return false
	}
	f := files[bit%len(files)]
	f.data[bit/7%len(f.data)] ^= 1 << (bit % 8)
	return true
}

// flipBody crashes the node, flips a bit of a stored commit and starts again.
func (n *node) flipBody(p, bit int) {
	if !n.up {
		return
	}
	if next := n.follow[p].Head().Next; next > 0 && n.follow[p].Outset() == 0 {
		index := uint64(bit) % next
		n.die()
		n.wrong()
		dir := path.Join(commitsDir, names[p].log, fmt.Sprint(names[p].shard))
		err := segments.Falsify(n.files(), dir, index, func(value []byte) {
			value[bit/8%len(value)] ^= 1 << (bit % 8)
			n.w.cover("branch: stored commit's bit flipped")
		})
		// The commit may have been lost in the crash.
		if err != nil && !errors.Is(err, segments.ErrDamaged) {
			n.w.failf("%s: the store does not take a flip: %v", n, err)
		}
	}
}

// restore puts a backup in place of everything, or of everything but the
// memory of signing, as it should be.
func (n *node) restore(backup *inode, all bool) {
	if n.up {
		n.die()
	}
	n.wrong()
	n.w.cover("branch: restored from a backup")
	n.w.tracef("%s is restored from a backup", n)
	fresh := newDisk(storeDir, n.dice)
	fresh.lies = n.disk.lies
	fresh.root = backup
	for _, name := range []string{"last-signed", "highest-seen"} {
		if all {
			n.w.cover("branch: memory of signing restored too")
			break
		}
		delete(backup.entries, name)
		if kept := n.disk.root.entries[name]; kept != nil {
			backup.entries[name] = kept
		}
	}
	backup.durable = maps.Clone(backup.entries)
	n.disk = fresh
}

// equivocate signs a head that is not the block log's and tells some of the
// others.
func (n *node) equivocate(bits int) {
	size := uint64(1 + bits>>3%3)
	if n.w.notary.tip != nil {
		size += n.w.notary.tip.Height
	}
	cp := receipt.Checkpoint{Origin: origin, Size: size, Root: sha256.Sum256(fmt.Append(nil, "forged ", bits))}
	note, err := cp.Sign(n.key.Cosigner(n.clock()))
	if err != nil {
		n.w.failf("sim: %v", err)
		return
	}
	n.wrong()
	if _, err := n.w.notary.count(n.id, signature{cp.Size, cp.Root}); err != nil {
		n.w.failf("%v", err)
	}
	for _, peer := range n.w.nodes {
		if peer != n && bits>>peer.id&1 == 1 {
			peer.in(peer.life, n.w.leg(), func() { peer.hears("", [][]byte{note}) })
		}
	}
}

// wrong notes that the broker, its disk or its operator did this node wrong.
func (n *node) wrong() {
	n.wronged = true
	n.wrongs++
}
