package keys

import (
	"bytes"
	"container/list"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/problem"
)

// A box, version 1:
//
//	version    1 byte, 0x01
//	salt       24 bytes, random
//	commitment 32 bytes
//	ciphertext AES-256-GCM, with its 16-byte tag
//
// HKDF-SHA-256 (RFC 5869) derives the box's own encryption key and the
// commitment from subject key and salt. With a key for each box the GCM nonce
// may be constant and never repeats under one key; two boxes share a key only
// if 192 random bits collide. The commitment is a one-way function of the
// key, so no second key opens the box (GCM alone would allow one). What is
// authenticated beside the plaintext: see associated.
const (
	boxVersion     = 1
	saltSize       = 24
	commitmentSize = sha256.Size
	headSize       = 1 + saltSize + commitmentSize
	tagSize        = 16
	// maxBox is Sealed.box's limit (type.proto).
	maxBox = 921600

	infoEncrypt = "probity/keys/box/1/encrypt"
	infoCommit  = "probity/keys/box/1/commit"
)

// MaxPlaintext is what fits one box, in bytes.
const MaxPlaintext = maxBox - headSize - tagSize

// Defaults of a KeyCache.
const (
	// DefaultTTL bounds how long an erased subject's key can outlive its
	// destruction in a service that nobody told.
	DefaultTTL = 5 * time.Minute
	// DefaultMaxKeys is about 20 MB.
	DefaultMaxKeys = 100_000
)

// SealerOptions configure NewSealer; the zero value is usable.
type SealerOptions struct {
	// Now is the clock of the cache's TTL; nil is time.Now.
	Now func() time.Time
	// Random is where salts come from; nil is crypto/rand.
	Random io.Reader
	// TTL and MaxKeys bound the cache; 0 is the default.
	TTL     time.Duration
	MaxKeys int
}

// CachingSealer is the Sealer of a service.
type CachingSealer struct {
	authority Authority
	random    io.Reader
	cache     *keyCache
}

var _ Sealer = (*CachingSealer)(nil)

// NewSealer makes a Sealer whose keys come from authority. Close wipes them.
func NewSealer(authority Authority, o SealerOptions) *CachingSealer {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Reader
	}
	if o.TTL <= 0 {
		o.TTL = DefaultTTL
	}
	if o.MaxKeys <= 0 {
		o.MaxKeys = DefaultMaxKeys
	}
	return &CachingSealer{authority: authority, random: o.Random, cache: &keyCache{
		now: o.Now, ttl: o.TTL, limit: o.MaxKeys, byUse: list.New(), bySubject: map[string]*list.Element{},
	}}
}

// Seal implements Sealer.
func (s *CachingSealer) Seal(ctx context.Context, subject string, at Place, plaintext []byte) (*typev1.Sealed, error) {
	if len(plaintext) > MaxPlaintext {
		return nil, problem.Invalidf("keys.size", at.Field, "the protected data is %d bytes; at most %d fit one event", len(plaintext), MaxPlaintext)
	}
	key, err := s.key(ctx, subject, true)
	if err != nil {
		return nil, err
	}
	defer wipe(&key)
	box := make([]byte, headSize, headSize+len(plaintext)+tagSize)
	box[0] = boxVersion
	salt := box[1 : 1+saltSize]
	if _, err := io.ReadFull(s.random, salt); err != nil {
		return nil, problem.As(err)
	}
	aead, commitment, err := derive(&key, salt)
	if err != nil {
		return nil, err
	}
	copy(box[1+saltSize:], commitment[:])
	box = aead.Seal(box, make([]byte, aead.NonceSize()), plaintext, associated(at, subject, key.Version))
	return &typev1.Sealed{Subject: subject, KeyVersion: key.Version, Box: box}, nil
}

// Open implements Sealer.
func (s *CachingSealer) Open(ctx context.Context, at Place, box *typev1.Sealed) ([]byte, error) {
	b := box.GetBox()
	if len(b) < headSize+tagSize || len(b) > maxBox || b[0] != boxVersion || !ValidSubject(box.GetSubject()) {
		return nil, forged()
	}
	key, err := s.key(ctx, box.GetSubject(), false)
	if err != nil {
		return nil, err
	}
	defer wipe(&key)
	if key.Version != box.GetKeyVersion() {
		return nil, noKey()
	}
	aead, commitment, err := derive(&key, b[1:1+saltSize])
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(commitment[:], b[1+saltSize:headSize]) != 1 {
		return nil, forged()
	}
	plaintext, err := aead.Open(nil, make([]byte, aead.NonceSize()), b[headSize:], associated(at, box.GetSubject(), key.Version))
	if err != nil {
		return nil, forged()
	}
	return plaintext, nil
}

// Prefetch implements Sealer. A subject that was erased is no error here; Seal
// and Open will say so of it, and the others go on.
func (s *CachingSealer) Prefetch(ctx context.Context, subjects []string) error {
	missing := s.cache.missing(subjects)
	if len(missing) == 0 {
		return nil
	}
	_, _, err := s.fetch(ctx, missing, true)
	return err
}

// Forget wipes a subject's key from the cache: the subject was erased.
func (s *CachingSealer) Forget(subject string) { s.cache.forget(subject) }

// Close wipes every key. Later calls fail with ErrClosed.
func (s *CachingSealer) Close() error {
	s.cache.close()
	return nil
}

// key returns a copy of a subject's key, which the caller wipes.
func (s *CachingSealer) key(ctx context.Context, subject string, create bool) (SubjectKey, error) {
	if !ValidSubject(subject) {
		return SubjectKey{}, problem.Invalidf("keys.subject", "subject", "a subject id is sub_ or fil_ and 26 letters a-z2-7")
	}
	if k, state := s.cache.get(subject); state == keyHeld {
		return k, nil
	} else if state == keyDestroyed {
		return SubjectKey{}, Destroyed(subject)
	}
	found, destroyed, err := s.fetch(ctx, []string{subject}, create)
	if err != nil {
		return SubjectKey{}, err
	}
	if slices.Contains(destroyed, subject) {
		return SubjectKey{}, Destroyed(subject)
	}
	k, ok := found[subject]
	if !ok {
		return SubjectKey{}, noKey()
	}
	return k, nil
}

// fetch asks the authority and fills the cache.
func (s *CachingSealer) fetch(ctx context.Context, subjects []string, create bool) (found map[string]SubjectKey, destroyed []string, err error) {
	epoch, open := s.cache.begin()
	if !open {
		return nil, nil, closed()
	}
	found, err = s.authority.SubjectKeys(ctx, subjects, create)
	if gone, ok := errors.AsType[*DestroyedError](err); ok {
		destroyed, err = gone.Subjects, nil
	}
	if err != nil {
		return nil, nil, err
	}
	s.cache.fill(epoch, found, destroyed)
	return found, destroyed, nil
}

// derive returns a box's cipher and commitment.
func derive(key *SubjectKey, salt []byte) (cipher.AEAD, [commitmentSize]byte, error) {
	secret, commitment := expand(key, salt)
	defer clear(secret[:])
	block, err := aes.NewCipher(secret[:])
	if err != nil {
		return nil, commitment, problem.As(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, commitment, problem.As(err)
	}
	return aead, commitment, nil
}

// expand is HKDF-SHA-256 of the subject's key and the salt, expanded for each
// of the two purposes to the one block that it is of.
func expand(key *SubjectKey, salt []byte) (secret, commitment [sha256.Size]byte) {
	prk := mac(salt, key.Key[:], "")
	defer clear(prk[:])
	return mac(prk[:], nil, infoEncrypt+"\x01"), mac(prk[:], nil, infoCommit+"\x01")
}

// macBlock is SHA-256's block size, which no key here exceeds.
const macBlock = sha256.BlockSize

// mac is HMAC-SHA-256 (RFC 2104) of a message of two parts, together at most a
// block long.
func mac(key, first []byte, second string) [sha256.Size]byte {
	var m [2 * macBlock]byte
	defer clear(m[:])
	n := macBlock + copy(m[macBlock:], first)
	n += copy(m[n:], second)
	return macPadded(key, m[:n])
}

// macPadded is HMAC-SHA-256 (RFC 2104) of what follows the first block of m,
// which it fills. crypto/hmac would allocate a dozen objects for each of the
// fifteen that a claim takes. A key is at most a block.
func macPadded(key, m []byte) [sha256.Size]byte {
	var outer [macBlock + sha256.Size]byte
	defer clear(outer[:])
	copy(outer[:], key)
	for i := range macBlock {
		m[i] = outer[i] ^ 0x36
		outer[i] ^= 0x5c
	}
	inner := sha256.Sum256(m)
	copy(outer[macBlock:], inner[:])
	return sha256.Sum256(outer[:])
}

// associated encodes where a box stands. Every variable part carries its
// length, so no two places share an encoding.
func associated(at Place, subject string, version uint32) []byte {
	b := parts("probity/keys/place/1", at.Tenant, at.Stream, at.Field, subject)
	b = binary.BigEndian.AppendUint64(b, at.Revision)
	return binary.BigEndian.AppendUint32(b, version)
}

// parts joins strings injectively: each with its length before it.
func parts(ss ...string) []byte {
	size := 0
	for _, s := range ss {
		size += 4 + len(s)
	}
	return appendParts(make([]byte, 0, size+12), ss...)
}

func appendParts(b []byte, ss ...string) []byte {
	for _, s := range ss {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	return b
}

func wipe(k *SubjectKey) { clear(k.Key[:]) }

// ValidSubject tells whether s has the form of a subject id: sub_ or fil_ and
// 26 letters of lower-case base32.
func ValidSubject(s string) bool {
	if len(s) != 30 || (s[:4] != "sub_" && s[:4] != "fil_") {
		return false
	}
	return bytes.IndexFunc([]byte(s[4:]), func(r rune) bool { return (r < 'a' || r > 'z') && (r < '2' || r > '7') }) < 0
}

// The states of a cached subject.
type keyState int

const (
	keyUnknown keyState = iota
	keyHeld
	keyDestroyed
)

// keyCache holds keys for a bounded time and number, least recently used out first.
type keyCache struct {
	now   func() time.Time
	ttl   time.Duration
	limit int

	mu        sync.Mutex // guards everything below
	byUse     *list.List // of *cachedKey, newest use in front
	bySubject map[string]*list.Element
	// epoch moves when a subject is forgotten: what was fetched before then
	// may be the destroyed key and isn't cached.
	epoch  uint64
	closed bool
}

type cachedKey struct {
	key       SubjectKey
	destroyed bool // a marker: key is zero
	until     time.Time
}

func (c *keyCache) get(subject string) (SubjectKey, keyState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.bySubject[subject]
	if !ok {
		return SubjectKey{}, keyUnknown
	}
	k := e.Value.(*cachedKey)
	if k.until.Before(c.now()) {
		c.drop(e)
		return SubjectKey{}, keyUnknown
	}
	c.byUse.MoveToFront(e)
	if k.destroyed {
		return SubjectKey{}, keyDestroyed
	}
	return k.key, keyHeld
}

// missing returns the valid subjects that are not cached, each once.
func (c *keyCache) missing(subjects []string) []string {
	var out []string
	for _, s := range subjects {
		if _, state := c.get(s); state == keyUnknown && ValidSubject(s) {
			out = append(out, s)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func (c *keyCache) begin() (epoch uint64, open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.epoch, !c.closed
}

func (c *keyCache) fill(epoch uint64, found map[string]SubjectKey, destroyed []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	until := c.now().Add(c.ttl)
	for _, s := range destroyed {
		c.put(s, &cachedKey{destroyed: true, until: until})
	}
	if epoch != c.epoch {
		return
	}
	for s, k := range found {
		c.put(s, &cachedKey{key: k, until: until})
	}
}

// put replaces an entry and evicts what is too much; mu is held.
func (c *keyCache) put(subject string, k *cachedKey) {
	if e, ok := c.bySubject[subject]; ok {
		c.drop(e)
	}
	k.key.Subject = subject
	c.bySubject[subject] = c.byUse.PushFront(k)
	for c.byUse.Len() > c.limit {
		c.drop(c.byUse.Back())
	}
}

// drop wipes an entry; mu is held.
func (c *keyCache) drop(e *list.Element) {
	k := e.Value.(*cachedKey)
	c.byUse.Remove(e)
	delete(c.bySubject, k.key.Subject)
	wipe(&k.key)
}

func (c *keyCache) forget(subject string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.epoch++
	if e, ok := c.bySubject[subject]; ok {
		c.drop(e)
	}
}

func (c *keyCache) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for c.byUse.Len() > 0 {
		c.drop(c.byUse.Back())
	}
}
