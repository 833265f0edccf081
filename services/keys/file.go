package keys

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// keyFileSize is 32 bytes in base64 and a newline.
const keyFileSize = 45

// ReadKeyFile reads a 32-byte key: standard base64 with padding, 44
// characters and at most one newline, nothing else. The file must be out of
// other users' reach: no permission for others, at most read for the group,
// which is how Kubernetes mounts a secret under fsGroup. The file's content
// is in no error.
func ReadKeyFile(path string) (key [32]byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return key, fmt.Errorf("keys: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return key, fmt.Errorf("keys: %w", err)
	}
	if !info.Mode().IsRegular() {
		return key, fmt.Errorf("keys: %s is not a regular file", path)
	}
	if info.Mode().Perm()&0o037 != 0 {
		return key, fmt.Errorf("keys: %s has mode %04o, so others can get at the key: chmod 0600 %s", path, info.Mode().Perm(), path)
	}
	text, err := io.ReadAll(io.LimitReader(f, keyFileSize+1))
	defer clear(text)
	if err != nil {
		return key, fmt.Errorf("keys: %w", err)
	}
	if len(text) == keyFileSize && text[keyFileSize-1] == '\n' {
		text = text[:keyFileSize-1]
	}
	var raw [33]byte
	defer clear(raw[:])
	if len(text) != keyFileSize-1 {
		return key, malformedKey(path)
	}
	// The decoder skips newlines; with the length fixed one would leave too little.
	if n, err := base64.StdEncoding.Strict().Decode(raw[:], text); err != nil || n != 32 {
		return key, malformedKey(path)
	}
	copy(key[:], raw[:32])
	if key == [32]byte{} {
		return key, fmt.Errorf("keys: %s holds a key of zeros", path)
	}
	return key, nil
}

func malformedKey(path string) error {
	return fmt.Errorf("keys: %s doesn't hold a key: 32 bytes in base64 (make one with: head -c 32 /dev/urandom | base64)", path)
}

// GenerateKeyFile makes a new random key at path, mode 0600, durably. It
// refuses to replace a file: a lost key is lost data.
func GenerateKeyFile(path string) (key [32]byte, err error) {
	if _, err := rand.Read(key[:]); err != nil {
		return key, fmt.Errorf("keys: %w", err)
	}
	// A crash must not leave half a key under the final name, so the text is
	// complete before it gets there; Link, unlike Rename, replaces nothing.
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, ".key-*")
	if err != nil {
		return key, fmt.Errorf("keys: %w", err)
	}
	defer os.Remove(f.Name()) // a leftover of mode 0600 at worst
	_, err = f.WriteString(base64.StdEncoding.EncodeToString(key[:]) + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if err != nil {
		return [32]byte{}, fmt.Errorf("keys: %w", err)
	}
	return key, nil
}

// EnsureKeyFile reads the key at path and makes it where there is none: for a
// stack that a person starts by hand. Services in a cluster are given theirs.
func EnsureKeyFile(path string) (key [32]byte, made bool, err error) {
	key, err = ReadKeyFile(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, false, err
	}
	key, err = GenerateKeyFile(path)
	if errors.Is(err, fs.ErrExist) {
		// Another process of the stack was quicker.
		key, err = ReadKeyFile(path)
		return key, false, err
	}
	return key, true, err
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
