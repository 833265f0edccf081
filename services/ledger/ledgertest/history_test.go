package ledgertest

import (
	"testing"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/require"
)

// tell builds a history by hand: every operation begins and ends at the given
// times.
type tell struct {
	h     *History
	final streams2
}

func (b *tell) op(call, end int64, in, out any) {
	b.h.ops = append(b.h.ops, porcupine.Operation{Input: in, Call: call, Output: out, Return: end})
}

func one(number uint32, expected int64) appending {
	return appending{key: "k", number: number, writes: [2]bool{true, false}, expected: [2]int64{expected, -1}}
}

func both(number uint32, expected int64) appending {
	return appending{key: "k", number: number, writes: [2]bool{true, true}, expected: [2]int64{expected, expected}}
}

func at(a, b int64) told { return told{conflict: -1, revisions: [2]int64{a, b}} }

func of(stream int, shows int64) reading { return reading{key: "k", stream: stream, shows: shows} }

func list(ns ...uint32) (out numbers) {
	for _, n := range ns {
		out = out.with(n)
	}
	return out
}

const never = int64(1) << 62

// What the checker must accept and what it must not: it is no use unless it
// can fail.
func TestTheCheckerTellsGoodHistoriesFromBad(t *testing.T) {
	unknown := told{conflict: -1, unknown: true}
	for _, c := range []struct {
		name string
		good bool
		tell func(b *tell)
	}{
		{"one after the other", true, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, 0), at(1, 0))
			b.op(5, 6, of(0, 1), list(1, 2))
		}},
		{"a lost append", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, -1), at(0, 0))
		}},
		{"an append that is read twice", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(1, 6, of(0, 0), list(1, 1))
		}},
		{"an acknowledged append that a later read does not show", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, 0), at(1, 0))
			b.op(3, 6, of(0, 1), list(1))
		}},
		{"a read without a token may be old", true, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, 0), at(1, 0))
			b.op(0, 6, of(0, -1), list(1))
		}},
		{"a read without a token shows nothing that never was", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, 0), at(1, 0))
			b.op(0, 6, of(0, -1), list(2))
		}},
		{"a lost answer whose append was made", true, func(b *tell) {
			b.op(1, never, one(1, -1), unknown)
			b.op(3, 4, one(1, -1), told{conflict: -1, replayed: true})
			b.final[0] = list(1)
		}},
		{"a repetition of what never was", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(2, 0), told{conflict: -1, replayed: true})
			b.final[0] = list(1)
		}},
		{"many attempts of unknown outcome, one of which was made", true, func(b *tell) {
			for i := range int64(30) {
				b.op(i, never, one(1, -1), unknown)
			}
			b.op(40, 41, one(2, 0), at(1, 0))
			b.op(42, 43, one(1, -1), told{conflict: -1, replayed: true})
			b.final[0] = list(1, 2)
		}},
		{"an append that was refused and stands in the end", false, func(b *tell) {
			b.op(1, never, one(1, -1), unknown)
			b.op(2, 3, one(2, -1), at(0, 0))
			b.op(4, 5, one(1, 0), told{actual: 0})
			b.final[0] = list(2, 1)
		}},
		{"a first answer that claims to be a repetition", false, func(b *tell) {
			b.op(1, 2, one(1, -1), told{conflict: -1, replayed: true})
			b.final[0] = list(1)
		}},
		{"a repetition that claims to be the first answer", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(1, -1), at(0, 0))
		}},
		{"a request id that appends twice", false, func(b *tell) {
			b.op(1, 2, one(1, -1), at(0, 0))
			b.op(3, 4, one(1, 0), at(1, 0))
		}},
		{"a conflict with an append in flight that was made", true, func(b *tell) {
			b.op(1, never, one(1, -1), unknown)
			b.op(3, 4, one(2, -1), told{actual: 0})
			b.final[0] = list(1)
		}},
		{"a conflict with an append that never was", false, func(b *tell) {
			b.op(1, never, one(1, -1), unknown)
			b.op(3, 4, one(2, -1), told{actual: 0})
			b.op(5, 6, one(3, -1), at(0, 0))
			b.final[0] = list(3)
		}},
		{"half of an append", false, func(b *tell) {
			b.op(1, 2, both(1, -1), at(0, 0))
			b.op(3, 4, of(1, -1), list())
		}},
		{"a zombie's append after its successor's", false, func(b *tell) {
			b.op(1, never, one(1, -1), unknown)
			b.op(3, 4, one(2, -1), at(0, 0))
			b.op(3, 9, of(0, 0), list(1, 2))
			b.final[0] = list(1, 2)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := &tell{h: NewHistory("claims")}
			c.tell(b)
			err := b.h.verify(t.TempDir(), map[string]streams2{"k": b.final})
			if c.good {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "not linearizable")
			}
		})
	}
}
