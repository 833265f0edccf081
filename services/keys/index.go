package keys

import (
	"encoding/base32"
	"encoding/hex"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// Index makes the opaque ids and blind indexes by which protected data is
// found again: HMAC-SHA-256 under one 32-byte key, each kind in its own
// domain. Without the key they can't be computed, so a dictionary of member
// ids and birth dates finds nobody; with another key everything is lost, so
// the index key lives as long as the ledger. It is safe for concurrent use.
type Index struct{ key [32]byte }

// NewIndex makes an Index of a key, as ReadKeyFile returns it.
func NewIndex(key [32]byte) *Index { return &Index{key: key} }

// Subscriber is the opaque id of the holder of a member id at a payer:
// "sub_…". It is also the family's routing key.
func (x *Index) Subscriber(payerID, memberID string) string {
	return "sub_" + letters(x.mac("subscriber", Fold(payerID), Fold(memberID)))
}

// Person is the opaque id of one person under a member id: "sub_…".
// birthDate is ISO 8601.
func (x *Index) Person(payerID, memberID, birthDate, firstName string) string {
	return "sub_" + letters(x.mac("person", Fold(payerID), Fold(memberID), Fold(birthDate), Fold(firstName)))
}

// BirthIndex finds people by member id and birth date: 32 bytes. Twins share it.
func (x *Index) BirthIndex(payerID, memberID, birthDate string) []byte {
	return x.mac("birth-index", Fold(payerID), Fold(memberID), Fold(birthDate))
}

// PersonIndex finds one person by member id, birth date and first name: 32
// bytes. It isn't the bytes of Person's id: an index may be published where
// the id is not, and neither gives the other.
func (x *Index) PersonIndex(payerID, memberID, birthDate, firstName string) []byte {
	return x.mac("person-index", Fold(payerID), Fold(memberID), Fold(birthDate), Fold(firstName))
}

// Authorization finds a prior authorisation by its number: 32 bytes.
func (x *Index) Authorization(payerID, number string) []byte {
	return x.mac("authorization", Fold(payerID), Fold(number))
}

// File is the opaque id of a file's content, by its SHA-256, as sent by an
// organisation: "fil_…". The same bytes of the same sender are the same file.
func (x *Index) File(org string, digest []byte) string {
	return "fil_" + letters(x.mac("file", org, hex.EncodeToString(digest)))
}

// ID is a deterministic opaque id: prefix, "_" and 26 letters. The same parts
// give the same id, so a repeated request names the same thing. Parts are
// taken exactly, without folding.
func (x *Index) ID(prefix string, id ...string) string {
	return prefix + "_" + letters(x.mac(append([]string{"id", prefix}, id...)...))
}

func (x *Index) mac(ss ...string) []byte {
	m := appendParts(make([]byte, macBlock, 512), "probity/keys/index/1")
	sum := macPadded(x.key[:], appendParts(m, ss...))
	return sum[:]
}

// letters are the first 130 bits in lower-case base32 (RFC 4648): 26 of a-z2-7.
func letters(mac []byte) string {
	return strings.ToLower(base32.StdEncoding.EncodeToString(mac))[:26]
}

// folded are letters that Unicode doesn't decompose into a base letter and a
// mark, as passports transliterate them (ICAO Doc 9303 part 3, section 6).
var folded = strings.NewReplacer(
	"Æ", "AE", "Œ", "OE", "Ø", "O", "Ł", "L", "Đ", "D", "Ð", "D", "Þ", "TH", "ß", "SS", "ẞ", "SS", "Ħ", "H", "Ŧ", "T", "Ŋ", "N", "ı", "I", "ĸ", "Q",
	"’", "'", "‘", "'", "‐", "-", "‑", "-", "–", "-",
)

// Fold brings spellings of one value together: upper case, Latin letters
// without their accents, one space between words and none around. Composed
// and decomposed Unicode fold alike. Letters of other scripts stay.
func Fold(s string) string {
	if out, ok := foldASCII(s); ok {
		return out
	}
	s = folded.Replace(strings.ToUpper(norm.NFKD.String(s)))
	// Upper-casing may bring forth what decomposes again, and the other way round.
	s = strings.ToUpper(norm.NFKD.String(s))
	var b strings.Builder
	space := false
	for _, r := range s {
		switch {
		case unicode.Is(unicode.Mn, r):
		case unicode.IsSpace(r) || unicode.IsControl(r):
			space = b.Len() > 0
		default:
			if space {
				b.WriteByte(' ')
				space = false
			}
			b.WriteRune(r)
		}
	}
	return b.String()
}

// foldASCII is Fold of what is all ASCII, as almost everything is: nothing of
// it decomposes or is transliterated.
func foldASCII(s string) (string, bool) {
	out, space := make([]byte, 0, 64), false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return "", false
		case c <= ' ' || c == 0x7f:
			space = len(out) > 0
		default:
			if space {
				out, space = append(out, ' '), false
			}
			if 'a' <= c && c <= 'z' {
				c -= 'a' - 'A'
			}
			out = append(out, c)
		}
	}
	if string(out) == s {
		return s, true
	}
	return string(out), true
}
