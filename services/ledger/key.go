package ledger

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// EnsureKey makes sure that file holds a signing key for origin, creating one
// readable by its owner only where there is none, and returns the verifier
// key to publish.
func EnsureKey(file, origin string) (verifierKey string, err error) {
	if !receipt.ValidOrigin(origin) {
		return "", errors.New("ledger: a key's origin must be printable ASCII without spaces and plus")
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		skey, _, err := note.GenerateKey(rand.Reader, origin)
		if err != nil {
			return "", err
		}
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return "", err
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return "", err
		}
		_, err = f.WriteString(skey + "\n")
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return "", err
		}
	}
	_, vkey, err := loadKey(file, origin)
	return vkey, err
}

// loadKey reads a signing key and derives its verifier key. The key's name
// must be the origin, as C2SP tlog-checkpoint asks of a log's own key.
func loadKey(file, origin string) (note.Signer, string, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, "", fmt.Errorf("ledger: signing key %s can be read by others; chmod 600 it", file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: signing key: %w", err)
	}
	skey := strings.TrimSpace(string(raw))
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, "", fmt.Errorf("ledger: signing key %s is not a note signer key", file)
	}
	if signer.Name() != origin {
		return nil, "", fmt.Errorf("ledger: signing key is named %q and the origin is %q", signer.Name(), origin)
	}
	// A signer key is PRIVATE+KEY+<name>+<hash>+<base64 of algorithm and seed>.
	f := strings.SplitN(skey, "+", 5)
	if len(f) != 5 {
		return nil, "", fmt.Errorf("ledger: signing key %s is malformed", file)
	}
	key, err := base64.StdEncoding.DecodeString(f[4])
	if err != nil || len(key) != 1+ed25519.SeedSize {
		return nil, "", fmt.Errorf("ledger: signing key %s is not an Ed25519 key", file)
	}
	pub := ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey)
	vkey, err := note.NewEd25519VerifierKey(signer.Name(), pub)
	return signer, vkey, err
}
