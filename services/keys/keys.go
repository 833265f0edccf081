// Package keys seals protected health information before it leaves a process
// and makes the keyed hashes by which it can still be found.
//
// Invariants: a sealed box opens only with the subject's key and only in the
// place (tenant, stream, revision, field) it was sealed for; one box opens
// one way (the key is committed to). A subject id or blind index reveals
// nothing without the index key. Keys never appear in errors or logs.
package keys

import (
	"context"

	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
)

// SubjectKey is one version of a subject's data key.
type SubjectKey struct {
	Subject string
	Version uint32
	Key     [32]byte
}

// Authority releases subjects' data keys; the consent service is the real one.
// Where keys among them were destroyed the error is Destroyed's (it matches
// ErrDestroyed and names them) and the map holds the others all the same.
type Authority interface {
	// SubjectKeys returns a key for each subject; with create it makes the
	// missing ones, otherwise they are absent from the map.
	SubjectKeys(ctx context.Context, subjects []string, create bool) (map[string]SubjectKey, error)
}

// Place is where a sealed value stands; it is authenticated with the value.
type Place struct {
	Tenant   string // payer id, or "-" where none applies
	Stream   string
	Revision uint64
	Field    string
}

// Sealer seals and opens for one service, caching keys for a bounded time.
type Sealer interface {
	// Seal encrypts plaintext for subject at place, making the subject's key when it is missing.
	Seal(ctx context.Context, subject string, at Place, plaintext []byte) (*typev1.Sealed, error)
	// Open decrypts; it fails with ErrDestroyed after erasure and ErrForged where place, key or box don't fit.
	Open(ctx context.Context, at Place, box *typev1.Sealed) ([]byte, error)
	// Prefetch loads or makes the keys of many subjects in one call.
	Prefetch(ctx context.Context, subjects []string) error
}
