package consent_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"

	consentv1 "github.com/probity-health/probity/proto/probity/consent/v1"
	"github.com/probity-health/probity/proto/probity/consent/v1/consentv1connect"
	"github.com/probity-health/probity/services/consent"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
)

func TestKeyStoreIsAnAuthority(t *testing.T) {
	keystest.Run(t, func(t *testing.T) (keys.Authority, func(string) error) {
		s := open(t, t.TempDir())
		return s, func(subject string) error { return s.Destroy(t.Context(), subject) }
	})
}

func TestRemoteAuthorityIsAnAuthority(t *testing.T) {
	keystest.Run(t, func(t *testing.T) (keys.Authority, func(string) error) {
		h := consent.NewKeyHandler(open(t, t.TempDir()), eventstore.NewMemory(eventstore.MemoryOptions{}), everybody{}, nil)
		mux := http.NewServeMux()
		mux.Handle(consentv1connect.NewKeyServiceHandler(h))
		srv := httptest.NewServer(mux)
		t.Cleanup(srv.Close)
		client := consentv1connect.NewKeyServiceClient(srv.Client(), srv.URL)
		return keys.NewRemoteAuthority(client), func(subject string) error {
			_, err := client.DestroySubjectKey(t.Context(), &consentv1.DestroySubjectKeyRequest{Subject: subject, Reason: "erasure"})
			return err
		}
	})
}

// Given the bytes of a wrapped key as they lie on the disk, when its subject
// is destroyed, then they are in no file any more: not in a table, not in a
// log, not in a log kept for reuse. Whether the key is of this run of the
// store, when it lies in the newest log, or of an earlier one, makes no difference.
func TestAnErasedKeyLeavesTheDisk(t *testing.T) {
	for _, reopened := range []bool{false, true} {
		dir := t.TempDir()
		s := open(t, dir)
		_, err := s.SubjectKeys(t.Context(), []string{alice, bela}, true)
		require.NoError(t, err)
		copied := filepath.Join(t.TempDir(), "copy")
		require.NoError(t, os.CopyFS(copied, os.DirFS(dir)))
		hers, his := wrapped(t, copied, alice), wrapped(t, copied, bela)
		require.True(t, onDisk(t, dir, hers))

		if reopened {
			require.NoError(t, s.Close())
			s = open(t, dir)
		}
		require.NoError(t, s.Destroy(t.Context(), alice))
		require.NoError(t, s.Close(), "closing waits for the files to be cleaned")
		require.False(t, onDisk(t, dir, hers))
		require.True(t, onDisk(t, dir, his), "or the search finds nothing whatever there is")
	}
}

// wrapped reads a record as pebble holds it, without its version.
func wrapped(t *testing.T, dir, subject string) []byte {
	t.Helper()
	db, err := pebble.Open(dir, &pebble.Options{})
	require.NoError(t, err)
	value, closer, err := db.Get([]byte("k" + subject))
	require.NoError(t, err)
	out := bytes.Clone(value[4:])
	require.NoError(t, errors.Join(closer.Close(), db.Close()))
	return out
}

func onDisk(t *testing.T, dir string, what []byte) (found bool) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		found = found || bytes.Contains(raw, what)
		return err
	}))
	return found
}

// Given two who destroy one subject at once, then both succeed and there is
// one tombstone.
func TestTwoWhoDestroyAtOnceLeaveOneTombstone(t *testing.T) {
	ledger := eventstore.NewMemory(eventstore.MemoryOptions{})
	h := consent.NewKeyHandler(open(t, t.TempDir()), ledger, everybody{}, nil)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = h.DestroySubjectKey(t.Context(), &consentv1.DestroySubjectKeyRequest{Subject: alice, Reason: "erasure"})
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(errs...))
	events, err := ledger.Read(t.Context(), consent.Log, alice, "subject-"+alice, 0)
	require.NoError(t, err)
	require.Len(t, events, 1)
}

// Given a crash after the tombstone and before the key is gone, when the
// consent service follows its log again, then the key goes; and a service that
// had the key in its cache forgets it.
func TestATombstoneIsAPromiseThatIsKept(t *testing.T) {
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	ledger := eventstore.NewMemory(eventstore.MemoryOptions{})
	dir := t.TempDir()
	s := open(t, dir)
	sealer := keys.NewSealer(s, keys.SealerOptions{})
	at := keys.Place{Tenant: "p", Stream: "claim-1", Field: "claim"}
	box, err := sealer.Seal(ctx, alice, at, []byte("diagnosis"))
	require.NoError(t, err)

	// The crash: the tombstone is written over a store that fails at once.
	other := open(t, t.TempDir())
	require.NoError(t, other.Close())
	require.Panics(t, func() {
		_, _ = consent.NewKeyHandler(other, ledger, everybody{}, nil).
			DestroySubjectKey(ctx, &consentv1.DestroySubjectKeyRequest{Subject: alice, Reason: "erasure"})
	})
	_, err = sealer.Open(ctx, at, box)
	require.NoError(t, err, "nothing is erased yet")

	for _, each := range []func(context.Context, string) error{
		s.Destroy,
		func(_ context.Context, subject string) error { sealer.Forget(subject); return nil },
	} {
		round, done := context.WithCancel(ctx)
		err = consent.FollowErasures(round, ledger, func(ctx context.Context, subject string) error {
			require.Equal(t, alice, subject)
			defer done()
			return each(ctx, subject)
		})
		require.ErrorIs(t, err, context.Canceled)
	}
	_, err = sealer.Open(ctx, at, box)
	require.ErrorIs(t, err, keys.ErrDestroyed)
}
