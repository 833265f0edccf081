package x12_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"buf.build/go/protovalidate"

	"github.com/probity-health/probity/services/gateway/x12"
	"github.com/probity-health/probity/services/gateway/x12/x12test"
)

// Whatever the bytes: no panic, the second pass yields what the first counted,
// a claim without problems is one that may be submitted, and the
// acknowledgement can be written.
func FuzzParseFile(f *testing.F) {
	f.Add(x12test.Professional(2, nil))
	f.Add(mixed())
	f.Add([]byte("ISA*00*"))
	f.Add(bytes.ReplaceAll(x12test.Professional(1, nil), []byte(v222), []byte("005010X223A2")))
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := x12.ParseFile(bytes.NewReader(b), x12.Limits{SegmentBytes: 4096, Problems: 50})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for c, err := range file.Claims(bytes.NewReader(b), 0, file.ClaimCount) {
			if err != nil {
				t.Fatal(err)
			}
			if c.Ordinal != n {
				t.Fatalf("claim %d follows %d", c.Ordinal, n-1)
			}
			n++
			if len(c.Problems) == 0 {
				if err := protovalidate.Validate(c.Claim); err != nil {
					t.Fatalf("a claim without problems can't be submitted: %v", err)
				}
			}
		}
		if n != file.ClaimCount {
			t.Fatalf("%d claims counted, %d read", file.ClaimCount, n)
		}
		if file.Refused() && len(file.Problems()) == 0 {
			t.Fatal("refused and no reason given")
		}
		if len(file.Interchanges) > 0 {
			if err := x12.Write999(io.Discard, file, env); err != nil {
				t.Fatal(err)
			}
			_ = x12.RefusedFile(file.Kind(), file.Problems())
		}
	})
}

// The 835 reader neither panics nor balances what overflows.
func FuzzParseAdvice(f *testing.F) {
	rem, list := remittance(f, 2)
	_, out := write835(f, rem, list)
	f.Add(out)
	f.Add([]byte(strings.ReplaceAll(string(out), "7000", "-9223372036854775808")))
	f.Fuzz(func(t *testing.T, b []byte) {
		advices, err := x12.ParseAdvice(bytes.NewReader(b), x12.Limits{SegmentBytes: 4096})
		if err != nil {
			return
		}
		for _, a := range advices {
			if len(x12.CheckBalance835(a)) == 0 {
				if err := x12.Write835(io.Discard, env, a); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

func BenchmarkParseFile(b *testing.B) {
	file := x12test.Professional(10_000, nil)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := x12.ParseFile(bytes.NewReader(file), x12.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
