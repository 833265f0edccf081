package ledgertest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/tlog"
	"google.golang.org/protobuf/proto"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

func policy(t *testing.T, w World, n Node) receipt.Policy {
	t.Helper()
	p, err := receipt.NewPolicy(w.Origin(), 1, n.VerifierKey())
	require.NoError(t, err)
	return p
}

func receiptOf(t *testing.T, n Node, pos *ledgerv1.Position) *ledgerv1.GetReceiptResponse {
	t.Helper()
	res, err := n.Handler().GetReceipt(ctxOf(t), &ledgerv1.GetReceiptRequest{Position: pos, IncludeCommit: true})
	require.NoError(t, err)
	return res
}

func testReceipt(t *testing.T, w World) {
	n := w.Start(t)
	p := policy(t, w, n)
	for i := range 20 {
		res := appendOK(t, n, request(fmt.Sprint("k", i), fmt.Sprint("r", i), write(fmt.Sprint("claim-", i), -1, fmt.Sprint("a:", i))))
		got := receiptOf(t, n, res.Position)
		require.Less(t, len(got.Receipt), 4096)
		v, err := receipt.Verify(got.Receipt, p)
		require.NoError(t, err)
		require.Equal(t, res.Position.Log, v.Log)
		require.Equal(t, res.Position.Shard, v.Shard)
		require.Equal(t, res.Position.Index, v.Index)
		require.NoError(t, receipt.VerifyCommit(v, got.Commit))
		c := &ledgerv1.Commit{}
		require.NoError(t, proto.Unmarshal(got.Commit, c))
		require.Equal(t, fmt.Sprint("a:", i), string(c.Writes[0].Events[0].Payload))
		require.Error(t, receipt.VerifyCommit(v, append(got.Commit, 0)))
		for _, at := range []int{30, len(got.Receipt) / 2, len(got.Receipt) - 10} {
			forged := append([]byte(nil), got.Receipt...)
			forged[at] ^= 1
			_, err := receipt.Verify(forged, p)
			require.Error(t, err, "byte %d", at)
		}
	}
	_, err := n.Handler().GetReceipt(ctxOf(t), &ledgerv1.GetReceiptRequest{Position: &ledgerv1.Position{Log: "claims", Shard: 999}})
	require.Error(t, err)
}

func testPromise(t *testing.T, w World) {
	n := w.Start(t)
	p := policy(t, w, n)
	batch := &ledgerv1.AppendBatchRequest{}
	for i := range 33 {
		batch.Appends = append(batch.Appends, request("k", fmt.Sprint("r", i), write(fmt.Sprint("claim-", i), -1, "a:1")))
	}
	res, err := n.Handler().AppendBatch(ctxOf(t), batch)
	require.NoError(t, err)
	for _, r := range res.Results {
		a := r.GetResponse()
		require.NotNil(t, a)
		promised, err := receipt.VerifyPromise(a.Promise, p)
		require.NoError(t, err)
		require.Equal(t, a.Position.Index, promised.Index)
		// The promise is honoured: the receipt proves the same leaf there.
		proved, err := receipt.Verify(receiptOf(t, n, a.Position).Receipt, p)
		require.NoError(t, err)
		require.Equal(t, promised.Entry, proved.Entry)
	}
}

func checkpoint(t *testing.T, w World, n Node) receipt.Checkpoint {
	t.Helper()
	res, err := n.Handler().GetCheckpoint(ctxOf(t), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	p, err := receipt.NewPolicy(w.Origin(), 1, res.VerifierKeys...)
	require.NoError(t, err)
	c, _, err := p.OpenCheckpoint(res.Checkpoint)
	require.NoError(t, err)
	return c
}

// tileReader reads the block log's static tiles as any tlog client would.
type tileReader struct {
	t   *testing.T
	url string
}

func (r tileReader) Height() int { return 8 }

func (r tileReader) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	var out [][]byte
	for _, tile := range tiles {
		path := "/tile/" + tile.Path()[len("tile/8/"):]
		res, err := http.Get(r.url + path)
		if err != nil {
			return nil, err
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("GET %s: %s %w", path, res.Status, err)
		}
		out = append(out, body)
	}
	return out, nil
}

func (tileReader) SaveTiles([]tlog.Tile, [][]byte) {}

func testCheckpoints(t *testing.T, w World) {
	n := w.Start(t)
	s := httptest.NewServer(n.Tiles())
	defer s.Close()
	var older receipt.Checkpoint
	for i := range 6 {
		res := appendOK(t, n, request("k", fmt.Sprint("r", i), write("claim-1", -2, "a:1")))
		receiptOf(t, n, res.Position)
		newer := checkpoint(t, w, n)
		require.Greater(t, newer.Size, older.Size)
		tree := tlog.Tree{N: int64(newer.Size), Hash: tlog.Hash(newer.Root)}
		if older.Size > 0 {
			// The proof is made from the static tiles alone.
			reader := tlog.TileHashReader(tree, tileReader{t, s.URL})
			proof, err := tlog.ProveTree(tree.N, int64(older.Size), reader)
			require.NoError(t, err)
			require.NoError(t, tlog.CheckTree(proof, tree.N, tree.Hash, int64(older.Size), tlog.Hash(older.Root)))
		}
		older = newer
	}
	got, err := n.Handler().GetLedger(ctxOf(t), &ledgerv1.GetLedgerRequest{})
	require.NoError(t, err)
	require.Equal(t, w.Origin(), got.Origin)
	require.GreaterOrEqual(t, got.BlockHeight, older.Size)
	for _, path := range []string{"/tile/0/../../../last-signed", "/tile/0/000.p/999999", "/shards/claims/0/state", "/"} {
		res, err := http.Get(s.URL + path)
		require.NoError(t, err)
		res.Body.Close()
		require.Equal(t, http.StatusNotFound, res.StatusCode, path)
	}
}

// history is what must not change over restarts.
type history struct {
	receipts [][]byte
	requests []*ledgerv1.AppendRequest
	answers  []*ledgerv1.AppendResponse
	last     receipt.Checkpoint
}

func live(t *testing.T, w World, n Node) history {
	var h history
	for i := range 30 {
		r := request(fmt.Sprint("k", i%4), fmt.Sprint("r", i), write(fmt.Sprintf("claim-%d", i%4), int64(i/4)-1, fmt.Sprint("a:", i)))
		h.requests = append(h.requests, r)
		h.answers = append(h.answers, appendOK(t, n, r))
	}
	for _, a := range h.answers {
		h.receipts = append(h.receipts, receiptOf(t, n, a.Position).Receipt)
	}
	h.last = checkpoint(t, w, n)
	return h
}

func (h history) check(t *testing.T, w World, n Node) {
	t.Helper()
	p := policy(t, w, n)
	for i, r := range h.requests {
		again := appendOK(t, n, r)
		require.True(t, again.Replayed)
		require.True(t, proto.Equal(h.answers[i].Position, again.Position))
		require.Equal(t, h.answers[i].Revisions, again.Revisions)
		require.Equal(t, h.answers[i].RecordedTime.AsTime(), again.RecordedTime.AsTime())
		_, err := receipt.Verify(h.receipts[i], p)
		require.NoError(t, err, "an old receipt still verifies")
		_, err = receipt.Verify(receiptOf(t, n, again.Position).Receipt, p)
		require.NoError(t, err)
	}
	for k := range 4 {
		a := h.answers[len(h.answers)-4+k]
		i := len(h.answers) - 4 + k
		got := read(t, n, h.requests[i].RoutingKey, h.requests[i].Writes[0].Stream, a.Token)
		require.Len(t, got, int(a.Revisions[0])+1)
	}
	res := appendOK(t, n, request("k0", "after", write("claim-0", -2, "a:after")))
	receiptOf(t, n, res.Position)
	require.Greater(t, checkpoint(t, w, n).Size, h.last.Size)
}

func testRestart(t *testing.T, w World) {
	n := w.Start(t)
	h := live(t, w, n)
	require.NoError(t, n.Close(ctxOf(t)))
	_, err := n.Handler().Append(ctxOf(t), request("k", "late", write("claim-late", -1, "a:1")))
	require.True(t, problem.Is(err, problem.Unavailable), "a closed node takes nothing: %v", err)
	_, err = n.Handler().ReadStream(ctxOf(t), &ledgerv1.ReadStreamRequest{Log: "claims", RoutingKey: "k", Stream: "claim-1"})
	require.True(t, problem.Is(err, problem.Unavailable), "a closed node reads nothing: %v", err)
	_, err = n.Handler().GetReceipt(ctxOf(t), &ledgerv1.GetReceiptRequest{Position: h.answers[0].Position})
	require.True(t, problem.Is(err, problem.Unavailable), "a closed node proves nothing: %v", err)
	h.check(t, w, w.Start(t))
}

func testRebuild(t *testing.T, w World) {
	n := w.Start(t)
	h := live(t, w, n)
	require.NoError(t, n.Close(ctxOf(t)))
	w.Forget(t)
	n = w.Start(t)
	// Ready means that it proves what it serves, not only that it serves.
	_, err := n.Handler().GetCheckpoint(ctxOf(t), &ledgerv1.GetCheckpointRequest{})
	require.NoError(t, err)
	h.check(t, w, n)
}
