package receipt

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
)

// maxProof bounds an inclusion proof's hashes: a tree of 2^63 leaves has 63.
const maxProof = 63

func encode(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// writer builds a document line by line.
type writer struct{ buf []byte }

func (w *writer) line(s string)   { w.buf = append(append(w.buf, s...), '\n') }
func (w *writer) number(n uint64) { w.buf = append(strconv.AppendUint(w.buf, n, 10), '\n') }
func (w *writer) hash(h Hash) {
	w.buf = append(base64.StdEncoding.AppendEncode(w.buf, h[:]), '\n')
}

func (w *writer) proof(hashes []Hash) {
	w.line("proof " + strconv.Itoa(len(hashes)))
	for _, h := range hashes {
		w.hash(h)
	}
}

// reader takes a document apart line by line. The first failure sticks, and
// every later read returns zero values, so callers check err once.
type reader struct {
	rest []byte
	err  error
}

func (r *reader) fail(msg string) {
	if r.err == nil {
		r.err = errors.New(msg)
	}
}

func (r *reader) line() string {
	if r.err != nil {
		return ""
	}
	line, rest, ok := bytes.Cut(r.rest, []byte{'\n'})
	if !ok {
		r.fail("ends in the middle of a line")
		return ""
	}
	r.rest = rest
	return string(line)
}

func (r *reader) expect(want string) {
	if got := r.line(); r.err == nil && got != want {
		r.fail("expected the line " + strconv.Quote(want))
	}
}

// labelled reads "<label> <value>".
func (r *reader) labelled(label string) string {
	value, ok := strings.CutPrefix(r.line(), label+" ")
	if !ok {
		r.fail("expected " + strconv.Quote(label) + " and a value")
	}
	return value
}

// fields reads a line of exactly n fields; on failure they are empty.
func (r *reader) fields(n int) []string {
	f := strings.Split(r.line(), " ")
	if len(f) != n {
		r.fail("expected " + strconv.Itoa(n) + " fields")
		return make([]string, n)
	}
	return f
}

func (r *reader) parse(s string) uint64 {
	n, err := strconv.ParseUint(s, 10, 63)
	if err != nil {
		r.fail("expected a number below 2^63")
	}
	return n
}

func (r *reader) parse32(s string) uint32 {
	n, err := strconv.ParseUint(s, 10, 31)
	if err != nil {
		r.fail("expected a number below 2^31")
	}
	return uint32(n)
}

func (r *reader) parseHash(s string) (h Hash) {
	b := r.decode(s)
	if r.err == nil && len(b) != HashSize {
		r.fail("expected a hash of 32 bytes")
	}
	copy(h[:], b)
	return h
}

func (r *reader) decode(s string) []byte {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		r.fail("expected base64")
	}
	return b
}

func (r *reader) number() uint64 { return r.parse(r.line()) }
func (r *reader) hash() Hash     { return r.parseHash(r.line()) }

func (r *reader) origin() string {
	s := r.line()
	if r.err == nil && !ValidOrigin(s) {
		r.fail("origin is not a key name")
	}
	return s
}

// bytes returns the next n bytes.
func (r *reader) bytes(n uint64) []byte {
	if r.err == nil && n > uint64(len(r.rest)) {
		r.fail("ends too early")
	}
	if r.err != nil {
		return nil
	}
	out := bytes.Clone(r.rest[:n])
	r.rest = r.rest[n:]
	return out
}

func (r *reader) proof() []Hash { return r.hashes(maxProof) }

// longProof reads a consistency proof, which has at most one hash more a level.
func (r *reader) longProof() []Hash { return r.hashes(2 * maxProof) }

func (r *reader) hashes(most uint64) []Hash {
	n := r.parse(r.labelled("proof"))
	if n > most {
		r.fail("proof is too long")
		return nil
	}
	var out []Hash
	for range n {
		if r.err != nil {
			return nil
		}
		out = append(out, r.hash())
	}
	return out
}

// ValidOrigin tells whether s can name a ledger: a C2SP key name of at most
// 200 bytes, printable ASCII without spaces and plus.
func ValidOrigin(s string) bool {
	if s == "" || len(s) > 200 {
		return false
	}
	for _, c := range []byte(s) {
		if c <= ' ' || c >= 0x7f || c == '+' {
			return false
		}
	}
	return true
}

func validLog(s string) bool {
	if s == "" || len(s) > 32 {
		return false
	}
	for _, c := range []byte(s) {
		if c < 'a' || c > 'z' {
			return false
		}
	}
	return true
}
