package ledger

import (
	"bytes"
	"net/http"
	"regexp"
	"strconv"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/tiles"
)

// Tile paths: the block log's at the root, as C2SP tlog-tiles lays them out,
// and each shard's tree the same way below /shards/<log>/<shard>/.
var tilePath = regexp.MustCompile(`^/(?:shards/([a-z]{1,32})/([0-9]{1,9})/)?(tile/(?:entries|[0-9]{1,2})/(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/[0-9]{1,3})?)$`)

var shardCheckpoint = regexp.MustCompile(`^/shards/([a-z]{1,32})/([0-9]{1,9})/checkpoint$`)

// Tiles serves the static read side of C2SP tlog-tiles: GET /checkpoint and
// /tile/… of the block log, and the same below /shards/<log>/<shard> of a
// shard's tree, whose origin is the ledger's with /<log>/<shard> after it.
// Tiles never change and may be cached for ever; a checkpoint may not.
func (n *Node) Tiles() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if m := shardCheckpoint.FindStringSubmatch(r.URL.Path); m != nil || r.URL.Path == "/checkpoint" {
			signed, err := n.logCheckpoint(m)
			if err != nil {
				http.Error(w, "the checkpoint cannot be signed", http.StatusInternalServerError)
				return
			}
			if signed == nil {
				http.Error(w, "nothing final yet", http.StatusNotFound)
				return
			}
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(signed)
			return
		}
		m := tilePath.FindStringSubmatch(r.URL.Path)
		if m == nil {
			http.NotFound(w, r)
			return
		}
		tree := n.blocks.Tree()
		if m[1] != "" {
			if tree = n.shardTree(m[1], m[2]); tree == nil {
				http.NotFound(w, r)
				return
			}
		}
		var body []byte
		err := n.read(func() (err error) {
			body, err = tree.ReadFile(m[3])
			return err
		})
		switch {
		case tiles.IsNotExist(err):
			http.NotFound(w, r)
			return
		case err != nil:
			http.Error(w, "the tile cannot be read", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		// A partial tile is as immutable as a full one: its width is in its
		// name.
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		_, _ = w.Write(body)
	})
}

// shardTree returns the tree of a shard as paths name it, nil if there is none.
func (n *Node) shardTree(log, shard string) *tiles.Tree {
	index, err := strconv.ParseUint(shard, 10, 32)
	if err != nil || strconv.FormatUint(index, 10) != shard {
		return nil
	}
	m, err := n.find(log, uint32(index))
	if err != nil {
		return nil
	}
	return m.replica.Tree()
}

// logCheckpoint returns the newest final checkpoint with one signature more:
// this node's under the log's own name, which C2SP tlog-checkpoint asks for
// and clients know that take no cosignatures. With a shard's log and number
// it returns that shard's head in the final block under this node's signature
// alone: the cosignatures are over the block that holds it.
func (n *Node) logCheckpoint(shard []string) ([]byte, error) {
	final, block := n.blocks.Final()
	if final == nil {
		return nil, nil
	}
	c, err := receipt.UnverifiedCheckpoint(final)
	if err != nil {
		return nil, err
	}
	if shard != nil {
		index, err := strconv.ParseUint(shard[2], 10, 32)
		h, ok := block.Head(shard[1], uint32(index))
		if err != nil || !ok || strconv.FormatUint(index, 10) != shard[2] {
			return nil, nil
		}
		c = receipt.Checkpoint{Origin: c.Origin + "/" + shard[1] + "/" + shard[2], Size: h.Size, Root: h.Root}
	}
	signed, err := c.Sign(n.key.LogSigner(c.Origin))
	if err != nil || shard != nil {
		return signed, err
	}
	_, cosignatures, _ := bytes.Cut(final, []byte("\n\n"))
	return append(signed, cosignatures...), nil
}
