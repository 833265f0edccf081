package receipt

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
)

// Signature types of C2SP signed-note and tlog-cosignature. The type is part
// of a key's id, so one key pair has a distinct id for each.
const (
	algEd25519     = 0x01
	algCosignature = 0x04
)

// PublicKey is a party's Ed25519 key with its name, which C2SP asks to be a
// schema-less URL. One key pair serves three kinds of statement that cannot
// be taken for each other: cosignatures of checkpoints (cosignature/v1, whose
// message begins with a fixed line), and plain note signatures of promises
// and of policies, whose first lines no checkpoint can have.
type PublicKey struct {
	Name string
	Key  [ed25519.PublicKeySize]byte
}

// ParsePublicKey reads a verifier key ("<name>+<key id>+<base64>") of type
// cosignature/v1.
func ParsePublicKey(vkey string) (PublicKey, error) {
	f := strings.SplitN(vkey, "+", 3)
	if len(f) != 3 || !ValidOrigin(f[0]) {
		return PublicKey{}, errors.New("receipt: verifier key is not <name>+<key id>+<key>")
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(f[2])
	if err != nil || len(raw) != 1+ed25519.PublicKeySize || raw[0] != algCosignature {
		return PublicKey{}, fmt.Errorf("receipt: verifier key of %s is not of type cosignature/v1", f[0])
	}
	k := PublicKey{Name: f[0], Key: [ed25519.PublicKeySize]byte(raw[1:])}
	if k.String() != vkey {
		return PublicKey{}, fmt.Errorf("receipt: verifier key of %s has a key id of another key", f[0])
	}
	return k, nil
}

// String returns the verifier key.
func (k PublicKey) String() string {
	raw := append([]byte{algCosignature}, k.Key[:]...)
	return fmt.Sprintf("%s+%08x+%s", k.Name, k.id(algCosignature), encode(raw))
}

// LogKey returns the plain Ed25519 verifier key of the same key under a log's
// name, for tlog clients that know no cosignatures.
func (k PublicKey) LogKey(origin string) string {
	k.Name = origin
	raw := append([]byte{algEd25519}, k.Key[:]...)
	return fmt.Sprintf("%s+%08x+%s", origin, k.id(algEd25519), encode(raw))
}

func (k PublicKey) id(alg byte) uint32 {
	h := sha256.New()
	h.Write([]byte(k.Name))
	h.Write([]byte{'\n', alg})
	h.Write(k.Key[:])
	return binary.BigEndian.Uint32(h.Sum(nil))
}

// Cosignatures returns the verifier of the key's cosignatures.
func (k PublicKey) Cosignatures() note.Verifier {
	return verifier{k.Name, k.id(algCosignature), func(msg, sig []byte) bool {
		if len(sig) != 8+ed25519.SignatureSize {
			return false
		}
		at := binary.BigEndian.Uint64(sig)
		return at < 1<<63 && ed25519.Verify(k.Key[:], cosigned(at, msg), sig[8:])
	}}
}

// Notes returns the verifier of the key's plain note signatures.
func (k PublicKey) Notes() note.Verifier {
	return verifier{k.Name, k.id(algEd25519), func(msg, sig []byte) bool {
		return ed25519.Verify(k.Key[:], msg, sig)
	}}
}

// cosigned is the message a cosignature/v1 signs.
func cosigned(at uint64, checkpoint []byte) []byte {
	msg := strconv.AppendUint([]byte("cosignature/v1\ntime "), at, 10)
	return append(append(msg, '\n'), checkpoint...)
}

type verifier struct {
	name   string
	id     uint32
	verify func(msg, sig []byte) bool
}

func (v verifier) Name() string                { return v.name }
func (v verifier) KeyHash() uint32             { return v.id }
func (v verifier) Verify(msg, sig []byte) bool { return v.verify(msg, sig) }

// SigningKey is a party's private key.
type SigningKey struct {
	public  PublicKey
	private ed25519.PrivateKey
}

// ParseSigningKey reads a signer key in note's form ("PRIVATE+KEY+<name>+…").
// The error never quotes the key.
func ParseSigningKey(skey string) (*SigningKey, error) {
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, errors.New("receipt: not a note signer key")
	}
	if !ValidOrigin(signer.Name()) {
		return nil, errors.New("receipt: the signer key's name is not printable ASCII without spaces and plus")
	}
	// PRIVATE+KEY+<name>+<id>+<base64 of type and seed>; base64 may hold a plus.
	f := strings.SplitN(skey, "+", 5)
	raw, err := base64.StdEncoding.DecodeString(f[len(f)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, errors.New("receipt: not an Ed25519 signer key")
	}
	k := &SigningKey{private: ed25519.NewKeyFromSeed(raw[1:])}
	k.public = PublicKey{Name: signer.Name(), Key: [ed25519.PublicKeySize]byte(k.private.Public().(ed25519.PublicKey))}
	return k, nil
}

// Public returns the public key.
func (k *SigningKey) Public() PublicKey { return k.public }

// Cosigner returns a signer of checkpoints whose cosignatures say at, in
// whole seconds. A cosignature states that the checkpoint is the largest
// consistent one its signer has seen: who signs must see to that.
func (k *SigningKey) Cosigner(at time.Time) note.Signer {
	return signer{k.public.Name, k.public.id(algCosignature), func(msg []byte) []byte {
		t := uint64(max(0, at.Unix()))
		return append(binary.BigEndian.AppendUint64(nil, t), ed25519.Sign(k.private, cosigned(t, msg))...)
	}}
}

// Notes returns a plain note signer, for promises and policies.
func (k *SigningKey) Notes() note.Signer {
	return signer{k.public.Name, k.public.id(algEd25519), func(msg []byte) []byte { return ed25519.Sign(k.private, msg) }}
}

// LogSigner returns the signer that LogKey verifies: C2SP tlog-checkpoint
// wants a checkpoint to carry a signature under the log's own name.
func (k *SigningKey) LogSigner(origin string) note.Signer {
	named := PublicKey{Name: origin, Key: k.public.Key}
	return signer{origin, named.id(algEd25519), func(msg []byte) []byte { return ed25519.Sign(k.private, msg) }}
}

type signer struct {
	name string
	id   uint32
	sign func(msg []byte) []byte
}

func (s signer) Name() string                    { return s.name }
func (s signer) KeyHash() uint32                 { return s.id }
func (s signer) Sign(msg []byte) ([]byte, error) { return s.sign(msg), nil }
