package peers

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is one file stream with a subject an event, synced before each
// acknowledgement; the expected sequence is what a revision is to the ledger.
type jetStream struct {
	server *server.Server
	conn   *nats.Conn
	js     jetstream.JetStream
	serial atomic.Uint64
}

func openJetStream(ctx context.Context, dir string) (*jetStream, error) {
	s, err := server.NewServer(&server.Options{
		Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir, SyncAlways: true, NoLog: true, NoSigs: true,
	})
	if err != nil {
		return nil, err
	}
	s.Start()
	if !s.ReadyForConnections(10 * time.Second) {
		return nil, errors.New("JetStream did not start")
	}
	conn, err := nats.Connect(s.ClientURL())
	if err != nil {
		return nil, err
	}
	js, err := jetstream.New(conn)
	if err != nil {
		return nil, err
	}
	_, err = js.CreateStream(ctx, jetstream.StreamConfig{Name: "BENCH", Subjects: []string{"b.*"}, Storage: jetstream.FileStorage})
	return &jetStream{server: s, conn: conn, js: js}, err
}

func (j *jetStream) append(ctx context.Context, payload []byte) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	_, err := j.js.Publish(ctx, "b."+strconv.FormatUint(j.serial.Add(1), 36), payload, jetstream.WithExpectLastSequencePerSubject(0))
	return err
}

func (j *jetStream) close() error {
	j.conn.Close()
	j.server.Shutdown()
	j.server.WaitForShutdown()
	return nil
}
