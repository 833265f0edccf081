package ledger

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/note"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// EnsureKey makes sure that file holds a signing key, creating one readable by
// its owner only where there is none, and returns the verifier key to publish
// (a cosignature/v1 vkey). name is the member's in the ledger's policy; a
// ledger of one party names its only member as its origin.
func EnsureKey(file, name string) (verifierKey string, err error) {
	if !receipt.ValidOrigin(name) {
		return "", errors.New("ledger: a key's name must be printable ASCII without spaces and plus")
	}
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		skey, _, err := note.GenerateKey(rand.Reader, name)
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
	key, err := loadKey(file)
	if err != nil {
		return "", err
	}
	if key.Public().Name != name {
		return "", fmt.Errorf("ledger: signing key is named %q, not %q", key.Public().Name, name)
	}
	return key.Public().String(), nil
}

// loadKey reads a signing key.
func loadKey(file string) (*receipt.SigningKey, error) {
	info, err := os.Stat(file)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("ledger: signing key %s can be read by others; chmod 600 it", file)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key: %w", err)
	}
	key, err := receipt.ParseSigningKey(strings.TrimSpace(string(raw)))
	if err != nil {
		return nil, fmt.Errorf("ledger: signing key %s: %w", file, err)
	}
	return key, nil
}
