package keys

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestABoxsKeysAreHKDFs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var key SubjectKey
		copy(key.Key[:], rapid.SliceOfN(rapid.Byte(), len(key.Key), len(key.Key)).Draw(t, "key"))
		salt := rapid.SliceOfN(rapid.Byte(), saltSize, saltSize).Draw(t, "salt")
		secret, commitment := expand(&key, salt)
		for info, got := range map[string][32]byte{infoEncrypt: secret, infoCommit: commitment} {
			want, err := hkdf.Key(sha256.New, key.Key[:], salt, info, 32)
			require.NoError(t, err)
			require.Equal(t, want, got[:])
		}
	})
}

func TestWhatIsASCIIFoldsLikeTheRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringOf(rapid.Map(rapid.ByteRange(0, 0x7f), func(b byte) rune { return rune(b) })).Draw(t, "text")
		folded, ok := foldASCII(s)
		require.True(t, ok)
		// A combining mark counts for nothing, and is no ASCII.
		require.Equal(t, Fold(s+"\u0301"), folded)
	})
}

func TestAnIndexesMacIsHMACs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := &Index{}
		copy(x.key[:], rapid.SliceOfN(rapid.Byte(), len(x.key), len(x.key)).Draw(t, "key"))
		ss := rapid.SliceOf(rapid.String()).Draw(t, "parts")
		h := hmac.New(sha256.New, x.key[:])
		h.Write(parts(append([]string{"probity/keys/index/1"}, ss...)...))
		require.Equal(t, h.Sum(nil), x.mac(ss...))
	})
}
