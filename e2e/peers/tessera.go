package peers

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// Tessera's settings: a batch as large as there are callers leaves nobody
// waiting for its age, and its checkpoints can't be closer than 100 ms.
const (
	tesseraBatchAge   = 5 * time.Millisecond
	tesseraCheckpoint = 100 * time.Millisecond
	tesseraPoll       = 5 * time.Millisecond
)

type tesseraLog struct {
	appender *tessera.Appender
	awaiter  *tessera.PublicationAwaiter
	shutdown func(context.Context) error
	stop     context.CancelFunc
	serial   atomic.Uint64
}

func openTessera(ctx context.Context, dir string, callers int) (*tesseraLog, error) {
	skey, _, err := note.GenerateKey(rand.Reader, "bench.probity.test/tessera")
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(skey)
	if err != nil {
		return nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: dir})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, tessera.NewAppendOptions().
		WithCheckpointSigner(signer).WithBatching(uint(callers), tesseraBatchAge).WithCheckpointInterval(tesseraCheckpoint))
	if err != nil {
		stop()
		return nil, err
	}
	return &tesseraLog{
		appender: appender, shutdown: shutdown, stop: stop,
		awaiter: tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, tesseraPoll),
	}, nil
}

func (l *tesseraLog) add(ctx context.Context, payload []byte) tessera.IndexFuture {
	// Entries differ, or they would count as one.
	entry := append(binary.BigEndian.AppendUint64(nil, l.serial.Add(1)), payload[8:]...)
	return l.appender.Add(ctx, tessera.NewEntry(entry))
}

// append returns when the entry has its place and is integrated.
func (l *tesseraLog) append(ctx context.Context, payload []byte) error {
	_, err := l.add(ctx, payload)()
	return err
}

func (l *tesseraLog) close() error {
	defer l.stop()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := l.shutdown(ctx); err != nil {
		slog.Warn("tessera did not shut down in time", "error", err)
	}
	return nil
}

// published returns when a checkpoint covers the entry.
type published struct{ *tesseraLog }

func (l published) append(ctx context.Context, payload []byte) error {
	_, _, err := l.awaiter.Await(ctx, l.add(ctx, payload))
	return err
}

func (published) close() error { return nil } // the log beneath is closed once
