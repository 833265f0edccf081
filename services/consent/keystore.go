// Package consent is, so far, the authority over subjects' keys: it makes
// them, releases them to services, and destroys them.
//
// The key store is the one place whose loss can't be made good from the
// ledger, and the one place from which erasure erases. It is therefore apart
// from every log and every view. Keys at rest are wrapped by a master key; a
// destroyed subject keeps a marker, so that its key is never made again.
package consent

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// KeyStore keeps subjects' keys in a directory. It is safe for concurrent use.
type KeyStore struct {
	db     *pebble.DB
	master cipher.AEAD
	close  func() error

	// mu makes "look, then create or destroy" one step. It is held for writing
	// until the write is durable, so a reader, which holds it for reading, never
	// sees a key that a crash could take away again: what that key had sealed
	// meanwhile would be lost.
	mu sync.RWMutex
}

// Records: "k" + subject holds version (4 bytes, big-endian), nonce and
// wrapped key; "d" + subject marks a destroyed one, whose old record may still
// lie in a file of the store (lingering) or not (erased).
const (
	keyPrefix       = "k"
	destroyedPrefix = "d"
	// canary is wrapped at the first start: a wrong master key is noticed at
	// once rather than at the first claim.
	canary = "probity key store 1"
)

var canaryKey = []byte("canary")

// The values of a mark.
var (
	lingering = []byte{1}
	erased    = []byte{2}
)

// OpenKeyStore opens or makes the store in dir. It fails when master isn't
// the key the store was made with.
func OpenKeyStore(dir string, master [32]byte) (*KeyStore, error) {
	block, err := aes.NewCipher(master[:])
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("consent: %w", err)
	}
	db, err := pebble.Open(dir, erasing(&pebble.Options{Logger: silent{}}))
	if err != nil {
		return nil, fmt.Errorf("consent: key store: %w", err)
	}
	s := &KeyStore{db: db, master: aead, close: sync.OnceValue(db.Close)}
	if err := s.checkMaster(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// silent keeps pebble's chatter out of the log; its errors are returned.
type silent struct{}

func (silent) Infof(string, ...any)  {}
func (silent) Errorf(string, ...any) {}
func (silent) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf("consent: key store: "+format, args...))
}

func (s *KeyStore) checkMaster() error {
	sealed, found, err := s.get(canaryKey)
	if err != nil {
		return err
	}
	if !found {
		return s.db.Set(canaryKey, s.master.Seal(nil, nil, []byte(canary), canaryKey), pebble.Sync)
	}
	if plain, err := s.master.Open(nil, nil, sealed, canaryKey); err != nil || string(plain) != canary {
		return errors.New("consent: the master key is not the one this key store was made with")
	}
	return nil
}

// SubjectKeys implements keys.Authority. All missing keys of one call become
// durable together, before any is returned.
func (s *KeyStore) SubjectKeys(_ context.Context, subjects []string, create bool) (map[string]keys.SubjectKey, error) {
	for _, subject := range subjects {
		if !keys.ValidSubject(subject) {
			return nil, problem.Invalidf("consent.subject", "subjects", "a subject id is sub_ or fil_ and 26 letters a-z2-7")
		}
	}
	out := make(map[string]keys.SubjectKey, len(subjects))
	s.mu.RLock()
	missing, destroyed, err := s.look(subjects, out)
	s.mu.RUnlock()
	if err == nil && create && len(missing) > 0 {
		var late []string
		late, err = s.create(missing, out)
		destroyed = append(destroyed, late...)
	}
	if err != nil {
		return nil, err
	}
	if len(destroyed) > 0 {
		return out, keys.Destroyed(destroyed...)
	}
	return out, nil
}

// look loads what there is into out and tells what is missing and what was
// destroyed; mu is held.
func (s *KeyStore) look(subjects []string, out map[string]keys.SubjectKey) (missing, destroyed []string, err error) {
	for _, subject := range subjects {
		if _, done := out[subject]; done {
			continue
		}
		_, gone, err := s.get([]byte(destroyedPrefix + subject))
		if err != nil {
			return nil, nil, err
		}
		if gone {
			destroyed = append(destroyed, subject)
			continue
		}
		key, found, err := s.load(subject)
		if err != nil {
			return nil, nil, err
		}
		if !found {
			missing = append(missing, subject)
			continue
		}
		out[subject] = key
	}
	return missing, destroyed, nil
}

// create makes the subjects' keys, but for those that another caller has made
// or destroyed meanwhile.
func (s *KeyStore) create(subjects []string, out map[string]keys.SubjectKey) (destroyed []string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	missing, destroyed, err := s.look(subjects, out)
	if err != nil || len(missing) == 0 {
		return destroyed, err
	}
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	for _, subject := range missing {
		if _, done := out[subject]; done {
			continue
		}
		if out[subject], err = s.make(batch, subject); err != nil {
			return nil, err
		}
	}
	if err := batch.Commit(pebble.Sync); err != nil {
		return nil, fmt.Errorf("consent: key store: %w", err)
	}
	return destroyed, nil
}

func (s *KeyStore) make(batch *pebble.Batch, subject string) (keys.SubjectKey, error) {
	key := keys.SubjectKey{Subject: subject, Version: 1}
	if _, err := rand.Read(key.Key[:]); err != nil {
		return keys.SubjectKey{}, fmt.Errorf("consent: %w", err)
	}
	record := binary.BigEndian.AppendUint32(nil, key.Version)
	record = s.master.Seal(record, nil, key.Key[:], wrapping(subject, key.Version))
	return key, batch.Set([]byte(keyPrefix+subject), record, nil)
}

func (s *KeyStore) load(subject string) (key keys.SubjectKey, found bool, err error) {
	record, found, err := s.get([]byte(keyPrefix + subject))
	if err != nil || !found {
		return keys.SubjectKey{}, false, err
	}
	if len(record) < 4 {
		return keys.SubjectKey{}, false, errors.New("consent: a record of the key store is damaged")
	}
	key = keys.SubjectKey{Subject: subject, Version: binary.BigEndian.Uint32(record)}
	plain, err := s.master.Open(nil, nil, record[4:], wrapping(subject, key.Version))
	if err != nil || len(plain) != len(key.Key) {
		return keys.SubjectKey{}, false, errors.New("consent: a record of the key store is damaged")
	}
	copy(key.Key[:], plain)
	clear(plain)
	return key, true, nil
}

// wrapping binds a wrapped key to its subject and version.
func wrapping(subject string, version uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte("probity subject key\x00"+subject+"\x00"), version)
}

// Destroy removes a subject's key and marks the subject for good; it may be
// repeated. From its first commit on nobody gets the key. Then the old record
// is compacted away and the files that held it are overwritten, which a
// repetition completes if a crash came between. Copies outside the directory,
// as backups, are the operator's: they are useless without the master key.
func (s *KeyStore) Destroy(ctx context.Context, subject string) error {
	if !keys.ValidSubject(subject) {
		return problem.Invalidf("consent.subject", "subject", "a subject id is sub_ or fil_ and 26 letters a-z2-7")
	}
	record, mark := []byte(keyPrefix+subject), []byte(destroyedPrefix+subject)
	done, err := s.mark(record, mark)
	if err != nil || done {
		return err
	}
	// Without the lock: compaction takes its time, and nobody waits for it but the eraser.
	if err = s.db.Flush(); err == nil {
		err = s.db.Compact(ctx, record, append(bytes.Clone(record), 0), false)
	}
	if err == nil {
		err = s.db.Set(mark, erased, pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("consent: key store: %w", err)
	}
	return nil
}

// mark deletes the record and sets the mark; done tells that nothing lingers.
func (s *KeyStore) mark(record, mark []byte) (done bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	have, _, err := s.get(mark)
	if err != nil || bytes.Equal(have, erased) {
		return err == nil, err
	}
	batch := s.db.NewBatch()
	defer func() { _ = batch.Close() }()
	if err := errors.Join(batch.Delete(record, nil), batch.Set(mark, lingering, nil), batch.Commit(pebble.Sync)); err != nil {
		return false, fmt.Errorf("consent: key store: %w", err)
	}
	return false, nil
}

// Close closes the store. It may be called more than once.
func (s *KeyStore) Close() error { return s.close() }

// get returns a copy of the value.
func (s *KeyStore) get(key []byte) (value []byte, found bool, err error) {
	value, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("consent: key store: %w", err)
	}
	value = bytes.Clone(value)
	return value, true, closer.Close()
}
