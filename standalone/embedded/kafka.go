package embedded

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaOptions says where the broker keeps its logs and listens.
type KafkaOptions struct {
	// Dir holds topics and offsets; made when absent.
	Dir string
	// Port on loopback; 0 picks a free one.
	Port int
	// Logger gets the broker's warnings and errors; nil discards.
	Logger *slog.Logger
}

// Kafka is a running broker.
type Kafka struct {
	address string
	stop    func() error
}

// StartKafka starts the broker; see KafkaOptions.Start.
func StartKafka(dir string, port int, logger *slog.Logger) (*Kafka, error) {
	return KafkaOptions{Dir: dir, Port: port, Logger: logger}.Start()
}

// Start starts one broker that speaks Kafka's protocol. A produce is written
// and fsynced before it is acknowledged, and a directory left by an earlier
// process, however it ended, is continued: records, offsets, producer epochs.
// Nothing expires: a ledger's topic has no retention.
func (o KafkaOptions) Start() (*Kafka, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := portTaken("Kafka", o.Port); err != nil {
		return nil, err
	}
	release, err := claimDir(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.Port == 0 {
		ports, err := freePorts(1)
		if err != nil {
			return nil, errors.Join(err, release())
		}
		o.Port = ports[0]
	}
	broker, err := kfake.NewCluster(
		kfake.Ports(o.Port),
		kfake.ClusterID("probity-standalone"),
		kfake.DataDir(filepath.Join(o.Dir, "log")),
		kfake.SyncWrites(),
		kfake.WithLogger(kafkaLogger{o.Logger}),
		kfake.BrokerConfigs(map[string]string{
			"log.retention.ms":    "-1",
			"log.retention.bytes": "-1",
			// A group commit of the ledger may hold many commits of up to 1 MiB.
			"message.max.bytes": fmt.Sprint(16 << 20),
		}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("embedded: starting Kafka: %w", err), release())
	}
	k := &Kafka{address: fmt.Sprintf("%s:%d", loopback, o.Port)}
	k.stop = sync.OnceValue(func() error {
		broker.Close()
		return release()
	})
	return k, nil
}

// Address is the broker's bootstrap address.
func (k *Kafka) Address() string { return k.address }

// Stop saves what a clean restart reads faster and closes. It may be called more than once.
func (k *Kafka) Stop() error { return k.stop() }

type kafkaLogger struct{ slog *slog.Logger }

// Logf keeps the levels; info, a line a request, is debug.
func (l kafkaLogger) Logf(level kfake.LogLevel, format string, args ...any) {
	msg := "kafka: " + fmt.Sprintf(format, args...)
	switch level {
	case kfake.LogLevelError:
		l.slog.Error(msg)
	case kfake.LogLevelWarn:
		l.slog.Warn(msg)
	default:
		l.slog.Debug(msg)
	}
}
