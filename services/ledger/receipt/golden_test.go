package receipt_test

import (
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// fixedKey makes the golden files' signatures the same every time; it signs
// nothing else.
type fixedKey struct{}

func (fixedKey) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(i * 11)
	}
	return len(b), nil
}

// The golden receipt pins the document's form: receipts that were handed out
// must verify for ever. PROBITY_GOLDEN=write makes it anew after a new version
// of the form is added beside this one.
func TestTheGoldenReceiptStaysAsItIs(t *testing.T) {
	skey, _, err := note.GenerateKey(fixedKey{}, origin)
	require.NoError(t, err)
	key, err := receipt.ParseSigningKey(skey)
	require.NoError(t, err)
	w := newWorld(t, 9, 3, 5, 1)
	c, err := receipt.UnverifiedCheckpoint(w.receipt.Checkpoint)
	require.NoError(t, err)
	w.receipt.Checkpoint = cosign(t, c, key)
	vkey := key.Public().String()
	files := map[string][]byte{
		"testdata/receipt.txt": w.receipt.Marshal(), "testdata/commit.bin": w.commits[5], "testdata/key.pub": []byte(vkey),
	}
	for name, want := range files {
		if os.Getenv("PROBITY_GOLDEN") == "write" {
			require.NoError(t, os.WriteFile(name, want, 0o644))
		}
		got, err := os.ReadFile(name)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), name)
	}
	policy, err := receipt.NewPolicy(origin, 1, vkey)
	require.NoError(t, err)
	_, err = receipt.Verify(files["testdata/receipt.txt"], policy)
	require.NoError(t, err)
}
