package main_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// page runs the verifier as a web page would, on the calls it reads.
const page = `
require(process.argv[2]);
const fs = require("fs");
const go = new Go();
WebAssembly.instantiate(fs.readFileSync(process.argv[3]), go.importObject).then(({ instance }) => {
  go.run(instance);
  const calls = JSON.parse(fs.readFileSync(0, "utf8"));
  const answers = calls.map(({ f, args, commit }) => {
    if (commit) args.push(new Uint8Array(Buffer.from(commit, "base64")));
    return probity[f](...args);
  });
  fs.writeSync(1, JSON.stringify(answers));
  process.exit(0);
});
`

type call struct {
	F      string `json:"f"`
	Args   []any  `json:"args"`
	Commit string `json:"commit,omitempty"`
}

type answer struct {
	OK        bool     `json:"ok"`
	Error     string   `json:"error"`
	Log       string   `json:"log"`
	Shard     int      `json:"shard"`
	Index     string   `json:"index"`
	Height    string   `json:"height"`
	Cosigners []string `json:"cosigners"`
}

// Given the golden receipt, then a page finds it good; given any of it
// changed, or a policy of other keys, then a page finds it bad, as Go does.
func TestAPageVerifiesAsGoDoes(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		if os.Getenv("PROBITY_REQUIRE_NODE") != "" {
			t.Fatal("node is required and not installed")
		}
		t.Skip("SKIPPED: no node on this machine; CI has one")
	}
	dir := t.TempDir()
	wasm, script := filepath.Join(dir, "receipt.wasm"), filepath.Join(dir, "page.cjs")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", wasm, ".")
	build.Env = append(os.Environ(), "GOOS=js", "GOARCH=wasm")
	out, err := build.CombinedOutput()
	require.NoError(t, err, string(out))
	root, err := exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(script, []byte(page), 0o600))

	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("..", "testdata", name))
		require.NoError(t, err)
		return b
	}
	document, commit := read("receipt.txt"), read("commit.bin")
	vkey := string(read("key.pub"))
	policy, err := receipt.NewPolicy(origin, 1, vkey)
	require.NoError(t, err)
	keys := func(origin string, quorum int, keys ...any) map[string]any {
		return map[string]any{"origin": origin, "quorum": quorum, "keys": keys}
	}
	fresh, file := underAPolicyFile(t)
	encoded := base64.StdEncoding.EncodeToString
	good := []call{
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 1, vkey)}},
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 1, vkey)}, Commit: encoded(commit)},
		{F: "verifySealed", Args: []any{string(document), keys(origin, 1, vkey)}},
		{F: "verifyReceipt", Args: []any{fresh, file}},
	}
	calls := append(good[:len(good):len(good)], []call{
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 1, vkey)}, Commit: encoded(append([]byte{1}, commit...))},
		{F: "verifyReceipt", Args: []any{string(document), keys("elsewhere.example.org/health", 1, vkey)}},
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 2, vkey)}},
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 1, 7)}},
		{F: "verifyReceipt", Args: []any{string(document), file}},
		{F: "verifyReceipt", Args: []any{string(document), "no policy"}},
		{F: "verifyReceipt", Args: []any{string(document)}},
		{F: "verifyReceipt", Args: []any{1, 2}},
		{F: "verifyReceipt", Args: []any{string(document), keys(origin, 1, vkey), "no bytes"}},
	}...)
	fixed := len(calls)
	// One letter changed, line by line.
	lines := bytes.SplitAfter(document, []byte("\n"))
	for i, line := range lines {
		for at, c := range line {
			if c >= 'a' && c < 'z' || c >= '0' && c < '9' {
				changed := bytes.Clone(line)
				changed[at]++
				whole := bytes.Join([][]byte{bytes.Join(lines[:i], nil), changed, bytes.Join(lines[i+1:], nil)}, nil)
				calls = append(calls, call{F: "verifyReceipt", Args: []any{string(whole), keys(origin, 1, vkey)}})
				break
			}
		}
	}
	in, err := json.Marshal(calls)
	require.NoError(t, err)
	run := exec.CommandContext(t.Context(), node, script, filepath.Join(strings.TrimSpace(string(root)), "lib", "wasm", "wasm_exec.js"), wasm)
	run.Stdin, run.Stderr = bytes.NewReader(in), t.Output()
	raw, err := run.Output()
	require.NoError(t, err)
	var answers []answer
	require.NoError(t, json.Unmarshal(raw, &answers))
	require.Len(t, answers, len(calls))

	want, err := receipt.Verify(document, policy)
	require.NoError(t, err)
	for i, a := range answers[:fixed] {
		require.Equal(t, i < len(good), a.OK, "call %d: %s", i, a.Error)
		require.Equal(t, a.OK, a.Error == "")
	}
	require.Equal(t, answer{OK: true, Log: "claims", Index: "5", Height: "3", Cosigners: want.Signers}, answers[0])
	refused := 0
	for i, a := range answers[fixed:] {
		_, err := receipt.Verify([]byte(calls[fixed+i].Args[0].(string)), policy)
		require.Equal(t, err == nil, a.OK, "changed line %d", i)
		if err != nil {
			refused++
			require.Equal(t, err.Error(), a.Error)
		}
	}
	require.Positive(t, refused)
}

const origin = "ledger.example.org/health"

// underAPolicyFile is a receipt of a ledger of one commit, and its policy file.
func underAPolicyFile(t *testing.T) (document, file string) {
	t.Helper()
	skey, _, err := note.GenerateKey(rand.Reader, origin)
	require.NoError(t, err)
	key, err := receipt.ParseSigningKey(skey)
	require.NoError(t, err)
	terms := &receipt.Terms{
		Origin: origin, Sequence: 1, Activation: 1, Quorum: 1,
		Members: []receipt.Member{{Role: receipt.Cosigner, Key: key.Public()}}, Logs: []receipt.LogShards{{Log: "claims", Shards: 1}},
	}
	policy, err := receipt.FirstPolicy(terms)
	require.NoError(t, err)
	entry := receipt.Entry([]byte("commit"))
	block := &receipt.Block{
		Origin: origin, Height: 1, Time: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Policy: terms.Ref(),
		Heads: []receipt.Head{{Log: "claims", Size: 1, Root: receipt.LeafHash(entry)}},
	}
	head, place, proof, ok := block.ProveHead("claims", 0)
	require.True(t, ok)
	header := block.Header()
	checkpoint, err := receipt.Checkpoint{Origin: origin, Size: 1, Root: receipt.LeafHash(header.Marshal())}.Sign(key.LogSigner(origin), key.Cosigner(block.Time))
	require.NoError(t, err)
	r := receipt.Receipt{Log: "claims", Entry: entry, Head: head, Place: place, HeadProof: proof, Header: header, Checkpoint: checkpoint}
	return string(r.Marshal()), string(policy.Marshal())
}
