// Package receipt proves, offline, that a commit stands on a Probity ledger.
//
// A receipt joins three RFC 6962 facts into one document: the commit's leaf
// is in its shard's tree; that tree's head is in a block; the block is in the
// block log, whose checkpoint is signed by enough of the parties a verifier
// trusts. Verify needs the receipt, the trusted keys and nothing else: no
// network, no ledger, no protobuf.
//
// A promise is the weaker, faster document: the shard owner's signature that
// it accepted the commit at a position. It is returned with the append and
// proves timely filing before the block exists; a promise that no later
// receipt honours convicts its signer.
//
// The package imports the standard library, golang.org/x/mod/sumdb/note and
// transparency-dev/merkle only, so that any party may vendor it.
package receipt

import (
	"crypto/sha256"

	"github.com/transparency-dev/merkle/rfc6962"
)

// HashSize is the size of every hash on the ledger: SHA-256.
const HashSize = sha256.Size

// Hash is a Merkle tree node, leaf or root hash.
type Hash [HashSize]byte

// EntryVersion is the first byte of every leaf entry.
const EntryVersion = 1

// EntrySize is the length of a shard leaf's entry.
const EntrySize = 1 + HashSize

// Entry returns the shard tree's leaf entry for a commit record's value: the
// version byte, then the value's SHA-256. The tree therefore holds no
// payload, and a commit may be withheld while its place stays provable.
func Entry(commit []byte) []byte {
	return AppendEntry(make([]byte, 0, EntrySize), commit)
}

// AppendEntry appends Entry to b.
func AppendEntry(b, commit []byte) []byte {
	sum := sha256.Sum256(commit)
	return append(append(b, EntryVersion), sum[:]...)
}

// LeafHash is RFC 6962 section 2.1's leaf hash: SHA-256(0x00 || entry).
func LeafHash(entry []byte) Hash {
	var buf [1 + EntrySize]byte // most of what is hashed here is a shard leaf's
	if len(entry) > EntrySize {
		return longLeafHash(entry)
	}
	buf[0] = rfc6962.RFC6962LeafHashPrefix
	return sha256.Sum256(buf[:1+copy(buf[1:], entry)])
}

// longLeafHash is LeafHash for which room on the stack is worth clearing.
func longLeafHash(entry []byte) Hash {
	var room [512]byte
	room[0] = rfc6962.RFC6962LeafHashPrefix
	return sha256.Sum256(append(room[:1], entry...))
}

// EmptyRoot is the root of a tree without leaves: SHA-256 of nothing.
func EmptyRoot() Hash { return Hash(rfc6962.DefaultHasher.EmptyRoot()) }
