package claims

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	eventsv1 "github.com/probity-health/probity/proto/probity/events/v1"
	typev1 "github.com/probity-health/probity/proto/probity/type/v1"
	"github.com/probity-health/probity/services/eventstore"
	"github.com/probity-health/probity/services/keys"
	"github.com/probity-health/probity/services/problem"
)

// rawPart is how many bytes of a file go into one FileContent. Each part is
// compressed by itself, so that part n always opens to the same raw bytes:
// an upload that was interrupted can be completed by another build of this
// program. It is a fact of the recorded format and never changes.
const rawPart = 512 << 10

// commitPayload is how much sealed content one commit carries, below the
// ledger's 900 KiB with room for the envelope.
const commitPayload = 700 << 10

const fieldContent = "content"

// fileTenant is the tenant of a file's content: its claims may have several payers.
const fileTenant = "-"

// spool seals a file's content part by part into a temporary file that has no
// name, so that nothing is on the ledger before the whole content is known to
// be what its SHA-256 says, and no plaintext is ever on disk. One goroutine
// uses it.
type spool struct {
	service *Service
	fileID  string
	file    *os.File
	out     *bufio.Writer
	zip     *zstd.Encoder

	raw    []byte // of the part being filled
	parts  uint32
	size   int64
	digest [sha256.Size]byte // set by finish
	hash   interface {
		io.Writer
		Sum([]byte) []byte
	}
}

func (s *Service) newSpool(fileID string) (*spool, error) {
	f, err := os.CreateTemp(s.config.SpoolDir, "probity-sealed-*")
	if err != nil {
		return nil, spoolProblem(err)
	}
	// Unlinked while open: it goes with the process, however that ends.
	if err := os.Remove(f.Name()); err != nil {
		return nil, errors.Join(spoolProblem(err), f.Close())
	}
	zip, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return nil, errors.Join(spoolProblem(err), f.Close())
	}
	return &spool{service: s, fileID: fileID, file: f, out: bufio.NewWriter(f), zip: zip, raw: make([]byte, 0, rawPart), hash: sha256.New()}, nil
}

// write takes the next bytes of the file.
func (p *spool) write(ctx context.Context, b []byte) error {
	if p.size += int64(len(b)); p.size > p.service.config.MaxFileBytes {
		return problem.New(problem.Invalid, problem.Problem{
			RuleID: "files.size.max", FieldPath: "data", Message: "the file is larger than this installation takes", Fix: "split it into several files",
		})
	}
	// A hash never fails to be written to.
	_, _ = p.hash.Write(b)
	for len(b) > 0 {
		n := min(len(b), rawPart-len(p.raw))
		p.raw, b = append(p.raw, b[:n]...), b[n:]
		if len(p.raw) == rawPart {
			if err := p.seal(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// seal ends the part being filled.
func (p *spool) seal(ctx context.Context) error {
	packed := p.zip.EncodeAll(p.raw, nil)
	box, err := p.service.sealer.Seal(ctx, p.fileID, partPlace(p.fileID, p.parts), packed)
	if err != nil {
		return sealProblem(err)
	}
	b, err := encode(&eventsv1.FileContent{Part: p.parts, Content: box})
	if err != nil {
		return err
	}
	if _, err := p.out.Write(binary.BigEndian.AppendUint32(nil, uint32(len(b)))); err != nil {
		return spoolProblem(err)
	}
	if _, err := p.out.Write(b); err != nil {
		return spoolProblem(err)
	}
	clear(p.raw)
	p.raw = p.raw[:0]
	p.parts++
	return nil
}

// finish seals what is left and goes back to the start for reading.
func (p *spool) finish(ctx context.Context) error {
	if len(p.raw) > 0 {
		if err := p.seal(ctx); err != nil {
			return err
		}
	}
	p.hash.Sum(p.digest[:0])
	if err := p.out.Flush(); err != nil {
		return spoolProblem(err)
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return spoolProblem(err)
	}
	return nil
}

// close frees the temporary file.
func (p *spool) close() {
	clear(p.raw[:cap(p.raw)])
	// There is nothing left to lose in a file without a name.
	_ = p.file.Close()
	_ = p.zip.Close()
}

// record appends the sealed parts to the content stream, several a commit.
// Parts that an interrupted upload left there are passed over.
func (p *spool) record(ctx context.Context, actor string) error {
	s, in := p.service, bufio.NewReader(p.file)
	have := uint32(0) // parts on the ledger
	var batch []proto.Message
	var first uint32
	size := 0
	flush := func() error {
		for len(batch) > 0 && have < first+uint32(len(batch)) {
			rest := batch[have-first:]
			_, err := s.store.Append(ctx, eventstore.Commit{
				Log: logName, RoutingKey: p.fileID, Actor: actor, Causation: p.fileID,
				RequestID: s.index.ID("prt", p.fileID, itoa(have), itoa(uint32(len(rest)))),
				Writes:    []eventstore.Write{{Stream: contentStream(p.fileID), Expected: int64(have) - 1, Events: rest}},
			})
			// Sealed anew, a part that is there already is refused either way.
			moved, ok := asMoved(err, contentStream(p.fileID), int64(have)+int64(len(rest))-1)
			switch {
			case ok && moved.Actual+1 > int64(have):
				have = uint32(moved.Actual + 1)
			case err != nil:
				return err
			default:
				have += uint32(len(rest))
			}
		}
		batch, size = nil, 0
		return nil
	}
	for n := range p.parts {
		e, err := readPart(in)
		if err != nil {
			return err
		}
		if n < have {
			continue
		}
		weight := len(e.GetContent().GetBox()) + 128
		if size+weight > commitPayload {
			if err := flush(); err != nil {
				return err
			}
			if n < have {
				continue
			}
		}
		if len(batch) == 0 {
			first = n
		}
		batch, size = append(batch, e), size+weight
	}
	return flush()
}

func readPart(in io.Reader) (*eventsv1.FileContent, error) {
	var length [4]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return nil, spoolProblem(err)
	}
	b := make([]byte, binary.BigEndian.Uint32(length[:]))
	if _, err := io.ReadFull(in, b); err != nil {
		return nil, spoolProblem(err)
	}
	e := &eventsv1.FileContent{}
	if err := proto.Unmarshal(b, e); err != nil {
		return nil, spoolProblem(err)
	}
	return e, nil
}

// readContent calls yield with the file's raw bytes, part by part, and checks
// them against the file's SHA-256 when all are there.
func (s *Service) readContent(ctx context.Context, f *FileRecord, yield func([]byte) error) error {
	unzip, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(2*rawPart), zstd.WithDecodeAllCapLimit(true))
	if err != nil {
		return spoolProblem(err)
	}
	defer unzip.Close()
	id := f.File.GetFileId()
	hash := sha256.New()
	plain := make([]byte, 0, rawPart)
	events, err := s.store.Read(ctx, logName, id, contentStream(id), 0)
	if err != nil {
		return err
	}
	if uint32(len(events)) < f.Parts {
		return busy(nil)
	}
	for n, r := range events[:f.Parts] {
		e, ok := r.Event.(*eventsv1.FileContent)
		if !ok || e.GetPart() != uint32(n) {
			return defect("files.content.order", "a file's recorded content is not in order")
		}
		if plain, err = s.openPart(ctx, unzip, id, e.GetPart(), e.GetContent(), plain[:0]); err != nil {
			return err
		}
		// A hash never fails to be written to.
		_, _ = hash.Write(plain)
		if err := yield(plain); err != nil {
			return err
		}
	}
	if string(hash.Sum(nil)) != string(f.File.GetSha256()) {
		return defect("files.content.hash", "a file's recorded content is not what its SHA-256 says")
	}
	return nil
}

func (s *Service) openPart(ctx context.Context, unzip *zstd.Decoder, id string, n uint32, box *typev1.Sealed, into []byte) ([]byte, error) {
	packed, err := s.sealer.Open(ctx, partPlace(id, n), box)
	if err != nil {
		return nil, sealProblem(err)
	}
	out, err := unzip.DecodeAll(packed, into)
	if err != nil {
		return nil, defect("files.content.packed", "a file's recorded content can't be unpacked")
	}
	return out, nil
}

// partPlace is where a part is sealed for: its number is its revision.
func partPlace(id string, n uint32) keys.Place {
	return keys.Place{Tenant: fileTenant, Stream: contentStream(id), Revision: uint64(n), Field: fieldContent}
}

func spoolProblem(cause error) error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "files.spool",
		Message: "the upload could not be held until it was complete",
		Fix:     "send the file again; if it persists the operator should look at the service's temporary folder",
	}).Because(cause)
}
