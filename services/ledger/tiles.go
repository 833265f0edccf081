package ledger

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Tile paths: the block log's at the root, as C2SP tlog-tiles lays them out,
// and each shard's tree the same way below /shards/<log>/<shard>/.
var tilePath = regexp.MustCompile(`^/(?:shards/([a-z]{1,32})/([0-9]{1,9})/)?(tile/(?:entries|[0-9]{1,2})/(?:x[0-9]{3}/){0,6}[0-9]{3}(?:\.p/[0-9]{1,3})?)$`)

// Tiles serves the static read side: GET /checkpoint, /tile/… and
// /shards/<log>/<shard>/tile/…. Full tiles never change and may be cached for
// ever; partial ones and the checkpoint may not.
func (n *Node) Tiles() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == "/checkpoint" {
			signed, _ := n.blocks.Sealed()
			if signed == nil {
				http.Error(w, "nothing sealed yet", http.StatusNotFound)
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
		dir := filepath.Join(n.cfg.DataDir, "tiles", "blocks")
		if m[1] != "" {
			dir = filepath.Join(n.cfg.DataDir, "tiles", m[1], m[2])
		}
		body, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(m[3])))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		if !strings.Contains(m[3], ".p/") {
			w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		}
		_, _ = w.Write(body)
	})
}
