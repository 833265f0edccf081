package receipt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
)

const (
	promiseMagic = "probity promise v1"
	// promiseSuffix makes the first line of a promise's note differ from a
	// checkpoint's, so that neither can be passed off as the other.
	promiseSuffix = "/promise"
)

// Promise is a shard owner's signature over a group commit with one commit's
// path in it. One signature serves the whole group: the commits' leaves form
// a small RFC 6962 tree of their own, whose root is signed.
//
//	probity promise v1
//	position <log> <shard> <index>
//	entry <leaf entry, base64>
//	proof <n>
//	<n hashes, base64: the leaf in the group's tree>
//	note
//	<signed note: "<origin>/promise", "<log> <shard> <first index> <count>", root>
type Promise struct {
	Log   string
	Shard uint32
	Index uint64
	Entry []byte
	Proof []Hash
	Note  []byte
}

// Group is what a promise's note signs: count commits of one shard, from
// index First on, whose leaves have the given root.
type Group struct {
	Origin string
	Log    string
	Shard  uint32
	First  uint64
	Count  uint64
	Root   Hash
}

// Sign returns the group's signed note.
func (g Group) Sign(signer note.Signer) ([]byte, error) {
	return note.Sign(&note.Note{Text: string(g.text())}, signer)
}

func (g Group) text() []byte {
	var w writer
	w.line(g.Origin + promiseSuffix)
	w.line(fmt.Sprintf("%s %d %d %d", g.Log, g.Shard, g.First, g.Count))
	w.hash(g.Root)
	return w.buf
}

func parseGroup(text string) (Group, error) {
	r := reader{rest: []byte(text)}
	origin, ok := strings.CutSuffix(r.line(), promiseSuffix)
	if !ok || !ValidOrigin(origin) {
		r.fail("not a promise")
	}
	f := r.fields(4)
	g := Group{Origin: origin, Log: f[0], Shard: r.parse32(f[1]), First: r.parse(f[2]), Count: r.parse(f[3]), Root: r.hash()}
	if r.err == nil && string(g.text()) != text {
		r.fail("not in canonical form")
	}
	return g, r.err
}

// Marshal returns the document.
func (p *Promise) Marshal() []byte {
	// An append answers with one of these: it is built in one piece.
	w := writer{make([]byte, 0, 256+len(p.Log)+len(p.Proof)*46+len(p.Note))}
	w.line(promiseMagic)
	w.buf = append(append(append(w.buf, "position "...), p.Log...), ' ')
	w.buf = append(strconv.AppendUint(w.buf, uint64(p.Shard), 10), ' ')
	w.number(p.Index)
	w.buf = append(base64.StdEncoding.AppendEncode(append(w.buf, "entry "...), p.Entry), '\n')
	w.proof(p.Proof)
	w.line("note")
	w.buf = append(w.buf, p.Note...)
	return w.buf
}

// ParsePromise reads a document without verifying it.
func ParsePromise(document []byte) (*Promise, error) {
	if len(document) > MaxSize {
		return nil, fmt.Errorf("receipt: promise is longer than %d bytes", MaxSize)
	}
	r := reader{rest: document}
	p := &Promise{}
	r.expect(promiseMagic)
	p.Log, p.Shard, p.Index = r.position()
	p.Entry = r.decode(r.labelled("entry"))
	p.Proof = r.proof()
	r.expect("note")
	p.Note = bytes.Clone(r.rest)
	if r.err == nil && !bytes.Equal(p.Marshal(), document) {
		r.fail("not in canonical form")
	}
	if r.err != nil {
		return nil, fmt.Errorf("receipt: promise: %w", r.err)
	}
	return p, nil
}

// VerifyPromise checks a promise: one of the policy's members signed the
// group that holds the commit. The quorum does not apply, for a promise is
// its signer's word alone.
func VerifyPromise(document []byte, policy Policy) (Verified, error) {
	if len(policy.versions) == 0 {
		return Verified{}, errors.New("receipt: the policy is empty")
	}
	p, err := ParsePromise(document)
	if err != nil {
		return Verified{}, err
	}
	text, signers, err := open(p.Note, policy.members(), PublicKey.Notes, 1)
	if err != nil {
		return Verified{}, err
	}
	g, err := parseGroup(text)
	if err != nil {
		return Verified{}, fmt.Errorf("receipt: promise: %w", err)
	}
	if g.Origin != policy.Origin() || g.Log != p.Log || g.Shard != p.Shard || p.Index < g.First {
		return Verified{}, errors.New("receipt: promise is for another group of commits")
	}
	if len(p.Entry) != EntrySize || p.Entry[0] != EntryVersion {
		return Verified{}, errors.New("receipt: leaf entry is of an unknown version")
	}
	if err := included(p.Index-g.First, g.Count, LeafHash(p.Entry), p.Proof, g.Root); err != nil {
		return Verified{}, fmt.Errorf("receipt: commit is not in the promised group: %w", err)
	}
	return Verified{Origin: g.Origin, Log: p.Log, Shard: p.Shard, Index: p.Index, Entry: p.Entry, Signers: signers}, nil
}
