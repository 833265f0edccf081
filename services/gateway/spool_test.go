package gateway

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"testing"

	"pgregory.net/rapid"
)

// What is spooled is read back from any place, and is on no disk in clear.
func TestTheSpoolReadsBackWhatWasWritten(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		s, err := newSpool(dir, 1<<20)
		if err != nil {
			rt.Fatal(err)
		}
		defer s.close()
		var want []byte
		for _, part := range rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 300), 1, 8).Draw(rt, "parts") {
			if _, err := s.Write(part); err != nil {
				rt.Fatal(err)
			}
			want = append(want, part...)
		}
		off := rapid.IntRange(0, len(want)).Draw(rt, "offset")
		got, err := io.ReadAll(io.NewSectionReader(s, int64(off), s.size))
		if err != nil || !bytes.Equal(got, want[off:]) {
			rt.Fatalf("%v: read something else from %d of %d", err, off, len(want))
		}
	})
	s, err := newSpool(dir, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer s.close()
	secret := []byte("NM1*IL*1*SECRET*NAME")
	if _, err := s.Write(secret); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, len(secret))
	if _, err := s.file.ReadAt(raw, 0); err != nil || bytes.Contains(raw, []byte("SECRET")) {
		t.Errorf("%v: on disk in clear", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v: %d files can be opened by name", err, len(left))
	}
	if _, err := s.Write(make([]byte, 81)); err == nil {
		t.Error("wrote beyond the limit")
	}
}

func TestTheShelfKeepsWhatIsInUse(t *testing.T) {
	dir := t.TempDir()
	shelf := newShelf(1, 1<<20)
	fetches := 0
	fetch := func(context.Context) (*openFile, error) {
		fetches++
		s, err := newSpool(dir, 100)
		if err != nil {
			return nil, err
		}
		_, err = s.Write([]byte("content"))
		return &openFile{spool: s}, err
	}
	take := func(id string) (*openFile, func()) {
		f, done, err := shelf.take(t.Context(), id, fetch)
		if err != nil {
			t.Fatal(err)
		}
		return f, done
	}
	readable := func(f *openFile) bool {
		_, err := f.spool.ReadAt(make([]byte, 7), 0)
		return err == nil
	}
	a, doneA := take("a")
	b, doneB := take("b") // more than the shelf holds, but both are in use
	if !readable(a) || !readable(b) {
		t.Fatal("a file in use was closed")
	}
	doneA()
	doneA() // twice is once
	if _, err := a.spool.ReadAt(make([]byte, 7), 0); err == nil {
		t.Error("the file used least recently was kept beyond the bound")
	}
	doneB()
	_, done := take("b")
	done()
	if fetches != 2 {
		t.Errorf("%d fetches", fetches)
	}
	if _, _, err := shelf.take(t.Context(), "c", func(context.Context) (*openFile, error) { return nil, errors.New("away") }); err == nil {
		t.Error("a failed fetch gave a file")
	}
	_, done = take("c") // a failure isn't remembered
	shelf.close()
	done()
}
