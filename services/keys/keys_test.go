package keys_test

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/keys/keystest"
	"github.com/probity-health/probity/services/problem"
)

var (
	ctx   = context.Background()
	place = keys.Place{Tenant: "payer-1", Stream: "claim-1", Revision: 7, Field: "claim"}
)

// clock is a hand-moved one.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestAuthority(t *testing.T) {
	keystest.Run(t, func(*testing.T) (keys.Authority, func(string) error) {
		a := keystest.New()
		return a, func(s string) error { a.Destroy(s); return nil }
	})
}

func TestSealedOpensWhereItWasSealed(t *testing.T) {
	s := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	rapid.Check(t, func(rt *rapid.T) {
		plaintext := rapid.SliceOfN(rapid.Byte(), 0, 4096).Draw(rt, "plaintext")
		at := keys.Place{
			Tenant: rapid.String().Draw(rt, "tenant"), Stream: rapid.String().Draw(rt, "stream"),
			Revision: rapid.Uint64().Draw(rt, "revision"), Field: rapid.String().Draw(rt, "field"),
		}
		box, err := s.Seal(ctx, keystest.Subject(1), at, plaintext)
		require.NoError(rt, err)
		opened, err := s.Open(ctx, at, box)
		require.NoError(rt, err)
		require.Equal(rt, string(plaintext), string(opened))
		again, err := s.Seal(ctx, keystest.Subject(1), at, plaintext)
		require.NoError(rt, err)
		require.NotEqual(rt, box.GetBox(), again.GetBox(), "equal plaintexts can't be seen to be equal")
	})
}

// Given a box, when anything about it or its place differs, then it is forged.
func TestMovedOrChangedIsForged(t *testing.T) {
	s := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("diagnosis"))
	require.NoError(t, err)
	require.NoError(t, s.Prefetch(ctx, []string{keystest.Subject(2)}))

	for name, move := range map[string]func(*keys.Place){
		"tenant":   func(p *keys.Place) { p.Tenant = "payer-2" },
		"stream":   func(p *keys.Place) { p.Stream = "claim-2" },
		"revision": func(p *keys.Place) { p.Revision++ },
		"field":    func(p *keys.Place) { p.Field = "decision" },
		// The same letters, cut elsewhere.
		"boundary": func(p *keys.Place) { p.Tenant, p.Stream = "payer-1claim-", "1" },
	} {
		p := place
		move(&p)
		_, err := s.Open(ctx, p, box)
		require.ErrorIs(t, err, keys.ErrForged, name)
	}
	for name, change := range map[string]func(*typev1.Sealed){
		"subject":    func(b *typev1.Sealed) { b.Subject = keystest.Subject(2) },
		"no subject": func(b *typev1.Sealed) { b.Subject = "somebody" },
		"version":    func(b *typev1.Sealed) { b.Box[0]++ },
		"short":      func(b *typev1.Sealed) { b.Box = b.Box[:72] },
		"empty":      func(b *typev1.Sealed) { b.Box = nil },
		"long":       func(b *typev1.Sealed) { b.Box = append(b.Box, 0) },
	} {
		b := proto.CloneOf(box)
		change(b)
		_, err := s.Open(ctx, place, b)
		require.ErrorIs(t, err, keys.ErrForged, name)
	}
	for i := range box.GetBox() {
		b := proto.CloneOf(box)
		b.Box[i] ^= 0x10
		_, err := s.Open(ctx, place, b)
		require.ErrorIs(t, err, keys.ErrForged, "byte %d", i)
	}
	b := proto.CloneOf(box)
	b.KeyVersion = 2
	_, err = s.Open(ctx, place, b)
	require.ErrorIs(t, err, keys.ErrNoKey)
}

// swap hands out the key it is told to.
type swap struct{ key keys.SubjectKey }

func (a *swap) SubjectKeys(_ context.Context, subjects []string, _ bool) (map[string]keys.SubjectKey, error) {
	k := a.key
	k.Subject = subjects[0]
	return map[string]keys.SubjectKey{subjects[0]: k}, nil
}

// Given a ciphertext that is valid under a second key (GCM alone lets whoever
// holds two keys make one that opens under both), then the commitment to the
// first still refuses the second.
func TestBoxCommitsToItsKey(t *testing.T) {
	a := &swap{key: keys.SubjectKey{Version: 1, Key: [32]byte{1}}}
	s := keys.NewSealer(a, keys.SealerOptions{TTL: time.Nanosecond})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("for one reader"))
	require.NoError(t, err)

	a.key.Key = [32]byte{2}
	other := keys.NewSealer(a, keys.SealerOptions{Random: strings.NewReader(string(box.GetBox()[1:25]))})
	forgery, err := other.Seal(ctx, keystest.Subject(1), place, []byte("for the others"))
	require.NoError(t, err)
	require.Equal(t, box.GetBox()[:25], forgery.GetBox()[:25], "same salt")
	_, err = other.Open(ctx, place, forgery)
	require.NoError(t, err, "under its own commitment it opens")
	copy(forgery.Box, box.GetBox()[:57])
	_, err = other.Open(ctx, place, forgery)
	require.ErrorIs(t, err, keys.ErrForged)
}

// The layout is on the ledger for good: a box of today opens forever. Sealed
// once with key 0x0102…20 and salt 0x00…17.
func TestLayoutIsFixed(t *testing.T) {
	k := keys.SubjectKey{Version: 1}
	for i := range k.Key {
		k.Key[i] = byte(i + 1)
	}
	salt := make([]byte, 24)
	for i := range salt {
		salt[i] = byte(i)
	}
	s := keys.NewSealer(&swap{key: k}, keys.SealerOptions{Random: strings.NewReader(string(salt))})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("plaintext"))
	require.NoError(t, err)
	require.Equal(t, goldenBox, hex.EncodeToString(box.GetBox()))
}

func TestErasure(t *testing.T) {
	a, c := keystest.New(), &clock{at: time.Unix(1_700_000_000, 0)}
	s := keys.NewSealer(a, keys.SealerOptions{Now: c.now, TTL: time.Minute})
	subject := keystest.Subject(1)
	box, err := s.Seal(ctx, subject, place, []byte("x"))
	require.NoError(t, err)

	// When the key is destroyed and nobody tells, the cache opens on until its time is up.
	a.Destroy(subject)
	_, err = s.Open(ctx, place, box)
	require.NoError(t, err)
	c.at = c.at.Add(time.Minute + 1)
	_, err = s.Open(ctx, place, box)
	require.ErrorIs(t, err, keys.ErrDestroyed)
	require.True(t, problem.Is(err, problem.NotFound))
	_, err = s.Seal(ctx, subject, place, []byte("x"))
	require.ErrorIs(t, err, keys.ErrDestroyed, "nothing new is sealed for the erased either")

	// When it is told, it stops at once.
	second := keystest.Subject(2)
	box, err = s.Seal(ctx, second, place, []byte("x"))
	require.NoError(t, err)
	a.Destroy(second)
	s.Forget(second)
	_, err = s.Open(ctx, place, box)
	require.ErrorIs(t, err, keys.ErrDestroyed)

	// One erased subject doesn't keep others from being prefetched.
	require.NoError(t, s.Prefetch(ctx, []string{subject, second, keystest.Subject(3)}))
	_, err = s.Seal(ctx, keystest.Subject(3), place, nil)
	require.NoError(t, err)
}

func TestLostKeyIsNotCalledForged(t *testing.T) {
	a := keystest.New()
	s := keys.NewSealer(a, keys.SealerOptions{})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("x"))
	require.NoError(t, err)
	a.Lose(keystest.Subject(1))
	s.Forget(keystest.Subject(1))
	_, err = s.Open(ctx, place, box)
	require.ErrorIs(t, err, keys.ErrNoKey)
}

func TestCacheIsUsedAndBounded(t *testing.T) {
	a := keystest.New()
	s := keys.NewSealer(a, keys.SealerOptions{MaxKeys: 10})
	var subjects []string
	for n := range 10 {
		subjects = append(subjects, keystest.Subject(n))
	}
	require.NoError(t, s.Prefetch(ctx, append(subjects, subjects...)))
	require.Equal(t, 1, a.Calls(), "one call for all")
	for _, subject := range subjects {
		_, err := s.Seal(ctx, subject, place, nil)
		require.NoError(t, err)
	}
	require.NoError(t, s.Prefetch(ctx, subjects))
	require.Equal(t, 1, a.Calls())
	// The eleventh pushes the least recently used out, and no other.
	_, err := s.Seal(ctx, keystest.Subject(99), place, nil)
	require.NoError(t, err)
	_, err = s.Seal(ctx, subjects[9], place, nil)
	require.NoError(t, err)
	require.Equal(t, 2, a.Calls())
	_, err = s.Seal(ctx, subjects[0], place, nil)
	require.NoError(t, err)
	require.Equal(t, 3, a.Calls())
}

func TestClosedSealerServesNobody(t *testing.T) {
	s := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("x"))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = s.Open(ctx, place, box)
	require.ErrorIs(t, err, keys.ErrClosed)
}

func TestSealRefusals(t *testing.T) {
	a := keystest.New()
	s := keys.NewSealer(a, keys.SealerOptions{})
	_, err := s.Seal(ctx, "Jane Roe", place, nil)
	require.True(t, problem.Is(err, problem.Invalid))
	require.NotContains(t, err.Error(), "Jane")
	_, err = s.Seal(ctx, keystest.Subject(1), place, make([]byte, keys.MaxPlaintext+1))
	require.True(t, problem.Is(err, problem.Invalid))
	box, err := s.Seal(ctx, keystest.Subject(1), place, make([]byte, keys.MaxPlaintext))
	require.NoError(t, err)
	require.Len(t, box.GetBox(), 921600, "the largest fits the field")
	a.SetAway(true)
	_, err = s.Seal(ctx, keystest.Subject(2), place, nil)
	require.True(t, problem.Is(err, problem.Unavailable), "an authority that is away is the caller's to retry")
}

func FuzzOpen(f *testing.F) {
	s := keys.NewSealer(keystest.New(), keys.SealerOptions{})
	box, err := s.Seal(ctx, keystest.Subject(1), place, []byte("seed"))
	require.NoError(f, err)
	f.Add(box.GetBox())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		plaintext, err := s.Open(ctx, place, &typev1.Sealed{Subject: keystest.Subject(1), KeyVersion: 1, Box: b})
		if string(b) == string(box.GetBox()) {
			require.NoError(t, err)
			return
		}
		require.ErrorIs(t, err, keys.ErrForged)
		require.Nil(t, plaintext)
	})
}

var opaque = regexp.MustCompile(`^(sub|fil|clm)_[a-z2-7]{26}$`)

func TestIndex(t *testing.T) {
	x, y := keys.NewIndex([32]byte{1}), keys.NewIndex([32]byte{2})
	// Given spellings of one person, then they are one person.
	id := x.Person("P1", "W123", "1980-02-29", "José  Ángel")
	require.Regexp(t, opaque, id)
	require.True(t, keys.ValidSubject(id))
	require.Equal(t, id, x.Person(" p1", "w123 ", "1980-02-29", "JOSE ANGEL"))
	require.Equal(t, id, x.Person("P1", "W123", "1980-02-29", norm.NFD.String("josé\tángel")))
	// Given anything else, then it is another.
	for _, other := range []string{
		x.Person("P2", "W123", "1980-02-29", "JOSE ANGEL"), x.Person("P1", "W124", "1980-02-29", "JOSE ANGEL"),
		x.Person("P1", "W123", "1980-02-28", "JOSE ANGEL"), x.Person("P1", "W123", "1980-02-29", "JOSE"),
		x.Person("P1W", "123", "1980-02-29", "JOSE ANGEL"), y.Person("P1", "W123", "1980-02-29", "JOSE ANGEL"),
		x.Subscriber("P1", "W123"), x.ID("sub", "person", "P1", "W123", "1980-02-29", "JOSE ANGEL"),
	} {
		require.Regexp(t, opaque, other)
		require.NotEqual(t, id, other)
	}
	require.Len(t, x.BirthIndex("P1", "W123", "1980-02-29"), 32)
	require.NotEqual(t, x.BirthIndex("P1", "W123", "1980-02-29"), x.PersonIndex("P1", "W123", "1980-02-29", ""))
	require.Equal(t, x.Authorization("p1", " a-1"), x.Authorization("P1", "A-1"))
	require.Regexp(t, opaque, x.File("prov-1", []byte{1}))
	require.NotEqual(t, x.File("prov-1", []byte{1}), x.File("prov-2", []byte{1}))
	require.Equal(t, x.ID("clm", "a", "b"), x.ID("clm", "a", "b"))
	require.NotEqual(t, x.ID("clm", "a", "b"), x.ID("clm", "ab"))
	require.NotEqual(t, x.ID("clm", "a")[4:], x.ID("rem", "a")[4:], "the prefix is part of the domain")
}

// Ids and indexes are on the ledger for good: the same key finds them forever.
func TestIndexIsFixed(t *testing.T) {
	x := keys.NewIndex([32]byte{1, 2, 3})
	require.Equal(t, goldenIndex, []string{
		x.Subscriber("P1", "W123"),
		x.Person("P1", "W123", "1980-02-29", "Ana"),
		hex.EncodeToString(x.BirthIndex("P1", "W123", "1980-02-29")),
		hex.EncodeToString(x.PersonIndex("P1", "W123", "1980-02-29", "Ana")),
		hex.EncodeToString(x.Authorization("P1", "A1")),
		x.File("prov-1", []byte{1, 2}),
		x.ID("clm", "prov-1", "req-1"),
	})
}

func TestFold(t *testing.T) {
	for in, want := range map[string]string{
		"":                     "",
		" \t\n ":               "",
		"  o’brien   \u00a0jr": "O'BRIEN JR",
		"Müller-Lüdenscheidt":  "MULLER-LUDENSCHEIDT",
		"Straße":               "STRASSE",
		"Łukasz Ørsted Æsa":    "LUKASZ ORSTED AESA",
		"ﬁsher":                "FISHER",
		"李小龍":                  "李小龍",
		"a\x00b":               "A B",
	} {
		require.Equal(t, want, keys.Fold(in), "%q", in)
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := rapid.String().Draw(rt, "s")
		folded := keys.Fold(s)
		require.Equal(rt, folded, keys.Fold(folded), "folding twice is folding once")
		require.Equal(rt, folded, keys.Fold(norm.NFD.String(s)))
		require.Equal(rt, folded, keys.Fold(norm.NFC.String(s)))
		require.Equal(rt, folded, keys.Fold("  "+s+" "))
	})
}

func TestKeyFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "index.key")
	made, fresh, err := keys.EnsureKeyFile(path)
	require.NoError(t, err)
	require.True(t, fresh)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, fs.FileMode(0o600), info.Mode().Perm())
	read, fresh, err := keys.EnsureKeyFile(path)
	require.NoError(t, err)
	require.False(t, fresh)
	require.Equal(t, made, read)
	_, err = keys.GenerateKeyFile(path)
	require.ErrorIs(t, err, fs.ErrExist, "a key is never replaced")
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 1, "nothing is left lying about")

	good := base64.StdEncoding.EncodeToString(made[:])
	for name, c := range map[string]struct {
		text string
		mode fs.FileMode
	}{
		"readable by others": {good + "\n", 0o644},
		"writable by group":  {good + "\n", 0o660},
		"short":              {good[:40], 0o600},
		"long":               {good + "AAAA", 0o600},
		"blank line":         {good + "\n\n", 0o600},
		"line break inside":  {good[:20] + "\n" + good[20:43], 0o600},
		"not base64":         {strings.Repeat("*", 44), 0o600},
		"url alphabet":       {strings.Repeat("-_", 21) + "8=", 0o600},
		"zeros":              {base64.StdEncoding.EncodeToString(make([]byte, 32)), 0o600},
		"empty":              {"", 0o600},
	} {
		bad := filepath.Join(t.TempDir(), "key")
		require.NoError(t, os.WriteFile(bad, []byte(c.text), c.mode))
		require.NoError(t, os.Chmod(bad, c.mode))
		_, err := keys.ReadKeyFile(bad)
		require.Error(t, err, name)
		require.NotContains(t, err.Error(), good[:20], "the key is in no error")
	}
	require.NoError(t, os.Chmod(path, 0o440))
	_, err = keys.ReadKeyFile(path)
	require.NoError(t, err, "as Kubernetes mounts it under fsGroup")
	_, err = keys.ReadKeyFile(dir)
	require.Error(t, err)
}

// goldenBox and goldenIndex are what the first release made; they were
// recomputed once from RFC 5869, RFC 2104 and SP 800-38D by other code.
const goldenBox = "01000102030405060708090a0b0c0d0e0f1011121314151617" + // version, salt
	"416aa7fd899e937c18b160bc500758f7ab878ca942d38a782812b774f27ebf47" + // commitment
	"4702714c86b3902f3f0a9e0ce27d281c53e4ee56c6ca33425b"

var goldenIndex = []string{
	"sub_p5mu4hj26anuq6gp2vr2kqknjy",
	"sub_gjqnpzwxiyels3uwbood3eeyci",
	"cd19c32e6991f717e43dfc0e33fd5109cb4dc8f891ce1610ed033cdcd2bb8c2b",
	"903d09cf50c38d6cce1f30a55c15f64e919032d0e5ff96c1096f12d129f4047a",
	"12fb3e3e54cf88a0715a25313e821e278292a198dace79baba4afb67e4acb659",
	"fil_otm7uwgk3ncfrcagd4k7g4kuk7",
	"clm_4fcvzayxoq6lere6jfcczdak7x",
}
