package replica

import (
	"context"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

// fed is a Feed from another replica, which may lie.
type fed struct {
	from *bench
	lie  func(log string, index uint64, value []byte) []byte // nil value: it ends there
}

func (f fed) Notes(context.Context) ([][]byte, error) { return f.from.blocks.Notes(), nil }

func (f fed) Commits(_ context.Context, log string, _ uint32, from uint64) ([][]byte, int64, error) {
	s := f.from.claims
	if log == BlockLog {
		s = f.from.log
	}
	values, err := s.Values(from, 3, 1<<20) // few at a time, so that ends fall anywhere
	for i := range values {
		if f.lie == nil {
			break
		}
		if values[i] = f.lie(log, from+uint64(i), values[i]); values[i] == nil {
			return values[:i], 0, err
		}
	}
	return values, s.Offset(), err
}

// newcomer is a fifth replica that holds nothing.
func (f *four) newcomer() *bench {
	b := &bench{t: f.t, dir: f.t.TempDir(), key: f.keys[4], policy: f.policy}
	require.NoError(f.t, b.open())
	f.t.Cleanup(func() { _ = b.store.Close() })
	return b
}

func (f *four) live() {
	for i := range 5 {
		for range 2*i + 1 {
			f.claim()
		}
		f.block()
		f.talk()
	}
	require.Equal(f.t, uint64(5), f.members[0].final())
}

// Given an empty replica and no Kafka, then it takes everything final from a
// peer, with the same roots and proofs.
func TestANewReplicaCatchesUpFromAPeer(t *testing.T) {
	f := newFour(t)
	f.live()
	// What is not final yet is not taken.
	f.claim(0)
	f.block(0)
	b := f.newcomer()
	height, err := b.blocks.CatchUp(t.Context(), fed{from: f.members[0]})
	require.NoError(t, err)
	require.Equal(t, uint64(5), height)
	require.Equal(t, uint64(25), b.claims.Head().Next)
	require.Equal(t, uint64(5), b.final())
	for index := range uint64(25) {
		doc, err := b.blocks.Receipt("claims", 0, index, false)
		require.NoError(t, err)
		same, err := f.members[1].blocks.Receipt("claims", 0, index, false)
		require.NoError(t, err)
		require.Equal(t, same.Header, doc.Header)
		require.Equal(t, same.ShardProof, doc.ShardProof)
	}
	seen, ok, err := b.claims.Request("r1")
	require.NoError(t, err)
	require.True(t, ok)
	require.Zero(t, seen.Index)
	// It survives a restart, and its shards know that they must find
	// themselves in their topics first.
	require.NoError(t, b.store.Close())
	require.NoError(t, b.open())
	require.Equal(t, uint64(5), b.final())
	require.NotNil(t, b.claims.anchor)
	for n := 0; n < 4; n++ {
		_, err = b.blocks.Scrub()
		require.NoError(t, err)
	}
}

// Given a peer that lies about one commit, or ends early, then the newcomer
// says so, and nothing of it was served as final.
func TestALyingPeerIsNotBelieved(t *testing.T) {
	f := newFour(t)
	f.live()
	spoiled := func(value []byte) []byte {
		value[len(value)-1] ^= 1
		return value
	}
	for name, lie := range map[string]func(log string, index uint64, value []byte) []byte{
		"a commit's byte": func(log string, index uint64, value []byte) []byte {
			if log == "claims" && index == 7 {
				return spoiled(value)
			}
			return value
		},
		"a block's byte": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index == 3 {
				return spoiled(value)
			}
			return value
		},
		"the claims end early": func(log string, index uint64, value []byte) []byte {
			if log == "claims" && index >= 20 {
				return nil
			}
			return value
		},
		"the blocks end early": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index >= 3 {
				return nil
			}
			return value
		},
		"no policy": func(log string, index uint64, value []byte) []byte {
			if log == BlockLog && index == 0 {
				return spoiled(value)
			}
			return value
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := f.newcomer()
			_, err := b.blocks.CatchUp(t.Context(), fed{from: f.members[0], lie: lie})
			require.ErrorIs(t, err, ErrFeed)
			require.Zero(t, b.final())
			require.NoError(t, b.store.Close())
			require.NoError(t, os.RemoveAll(b.data()))
			require.NoError(t, b.open())
			_, err = b.blocks.CatchUp(t.Context(), fed{from: f.members[1]})
			require.NoError(t, err, "an honest one is")
		})
	}
	b := f.newcomer()
	height, err := b.blocks.CatchUp(t.Context(), fed{from: f.newcomer()})
	require.NoError(t, err)
	require.Zero(t, height, "a peer that has nothing")
}
