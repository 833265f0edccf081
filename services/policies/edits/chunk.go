package edits

import (
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"sync"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	policiesv1 "github.com/probity-health/probity/proto/probity/policies/v1"
	"github.com/probity-health/probity/services/claims/adjudication"
)

// Chunk is a run of rows as it is recorded.
type Chunk struct {
	SHA256  [32]byte // of the uncompressed content
	Content []byte   // zstd of an EditChunk
	Rows    int
}

// Rows of a chunk. It ends where a new first code begins whose hash says so,
// about every 8,000 rows, or at maxChunk. So a row added or dropped changes
// the chunk it stands in and no other.
const (
	minChunk = 2_000
	maxChunk = 20_000
	endsIn   = 64 // of the codes, one in so many ends a chunk
)

var encoder = sync.OnceValues(func() (*zstd.Encoder, error) { return zstd.NewWriter(nil) })

// Chunks cuts a table into chunks, in order.
func (t *Table) Chunks() ([]Chunk, error) {
	var out []Chunk
	rows := t.Rows()
	first := func(i int) Code {
		if i < len(t.Pairs) {
			return t.Pairs[i].One
		}
		return t.Units[i].Procedure
	}
	for from := 0; from < rows; {
		to := from + 1
		for to < rows && to-from < maxChunk {
			if to-from >= minChunk && first(to) != first(to-1) && ends(first(to)) {
				break
			}
			to++
		}
		c, err := t.chunk(from, to)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
		from = to
	}
	return out, nil
}

func ends(c Code) bool {
	h := fnv.New32a()
	_, _ = h.Write(c[:])
	return h.Sum32()%endsIn == 0
}

func (t *Table) chunk(from, to int) (Chunk, error) {
	m := &policiesv1.EditChunk{}
	local := map[uint16]uint32{}
	text := func(i uint16) uint32 {
		if at, ok := local[i]; ok {
			return at
		}
		at := uint32(len(m.Rationales))
		local[i], m.Rationales = at, append(m.Rationales, t.Rationales[i])
		return at
	}
	for i := from; i < to; i++ {
		if HoldsPairs(t.Kind) {
			p := t.Pairs[i]
			m.Pairs = append(m.Pairs, &policiesv1.PairEdit{ColumnOne: p.One.String(), ColumnTwo: p.Two.String(),
				Effective: p.Effective, Deletion: p.Deletion, ModifierIndicator: uint32(p.Indicator), Rationale: text(p.Rationale)})
			continue
		}
		u := t.Units[i]
		m.Units = append(m.Units, &policiesv1.UnitEdit{Procedure: u.Procedure.String(), Units: u.Units, Indicator: uint32(u.Indicator), Rationale: text(u.Rationale)})
	}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Chunk{}, err
	}
	z, err := encoder()
	if err != nil {
		return Chunk{}, err
	}
	return Chunk{SHA256: sha256.Sum256(raw), Content: z.EncodeAll(raw, nil), Rows: to - from}, nil
}

// maxContent bounds what one chunk unpacks to: maxChunk rows of at most 60
// bytes and its rationales.
const maxContent = 4 << 20

var decoder = sync.OnceValues(func() (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderMaxMemory(maxContent), zstd.WithDecoderConcurrency(1))
})

// Open unpacks a chunk's content and checks it against its hash.
func Open(content []byte, sum []byte) (*policiesv1.EditChunk, error) {
	z, err := decoder()
	if err != nil {
		return nil, err
	}
	raw, err := z.DecodeAll(content, nil)
	if err != nil {
		return nil, fmt.Errorf("edits: a chunk can't be unpacked: %w", err)
	}
	if got := sha256.Sum256(raw); string(got[:]) != string(sum) {
		return nil, fmt.Errorf("edits: a chunk isn't what its hash says")
	}
	m := &policiesv1.EditChunk{}
	if err := proto.Unmarshal(raw, m); err != nil {
		return nil, fmt.Errorf("edits: a chunk can't be read: %w", err)
	}
	return m, nil
}

// Fill hands a chunk's rows to the engine's builder.
func Fill(b *adjudication.EditsBuilder, kind policiesv1.EditTable, m *policiesv1.EditChunk) error {
	reasons := make([]adjudication.PairReason, len(m.GetRationales()))
	for i, r := range m.GetRationales() {
		reasons[i] = Reason(r)
	}
	setting := Setting(kind)
	for _, p := range m.GetPairs() {
		if int(p.GetRationale()) >= len(reasons) {
			return fmt.Errorf("edits: a row names a rationale that its chunk hasn't")
		}
		if err := b.Pair(adjudication.Pair{
			Setting: setting, Column1: p.GetColumnOne(), Column2: p.GetColumnTwo(), Period: period(p.GetEffective(), p.GetDeletion()),
			Indicator: adjudication.PairIndicator(p.GetModifierIndicator()), Reason: reasons[p.GetRationale()],
		}); err != nil {
			return err
		}
	}
	for _, u := range m.GetUnits() {
		if err := b.Limit(adjudication.UnitLimit{
			Setting: setting, Procedure: u.GetProcedure(), Units: int64(u.GetUnits()), Indicator: adjudication.LimitIndicator(u.GetIndicator()),
		}); err != nil {
			return err
		}
	}
	return nil
}

// period of two days that Read has checked.
func period(from, to uint32) adjudication.Period {
	p := adjudication.Period{Start: day(from)}
	if to != 0 {
		p.End = day(to)
	}
	return p
}

func day(n uint32) adjudication.Date {
	return adjudication.DateOf(int(n/10000), time.Month(n/100%100), int(n%100))
}
