package embedded

import (
	"context"
	"fmt"
	"log/slog"

	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/log/tag"
)

// temporalLogger hands the server's messages to slog. Its info level tells of
// every shard and queue it opens, so it is debug here.
type temporalLogger struct{ slog *slog.Logger }

var _ log.WithLogger = temporalLogger{}

func (l temporalLogger) Debug(msg string, tags ...tag.Tag) { l.log(slog.LevelDebug, msg, tags) }
func (l temporalLogger) Info(msg string, tags ...tag.Tag)  { l.log(slog.LevelDebug, msg, tags) }
func (l temporalLogger) Warn(msg string, tags ...tag.Tag)  { l.log(slog.LevelWarn, msg, tags) }
func (l temporalLogger) Error(msg string, tags ...tag.Tag) { l.log(slog.LevelError, msg, tags) }
func (l temporalLogger) DPanic(msg string, tags ...tag.Tag) {
	l.log(slog.LevelError, msg, tags)
}

// Panic and Fatal mean that the server can't go on; in a shared process that
// is a panic, which unwinds and names its cause, rather than a bare exit.
func (l temporalLogger) Panic(msg string, tags ...tag.Tag) {
	l.log(slog.LevelError, msg, tags)
	panic("temporal: " + msg)
}

func (l temporalLogger) Fatal(msg string, tags ...tag.Tag) { l.Panic(msg, tags...) }

func (l temporalLogger) With(tags ...tag.Tag) log.Logger {
	return temporalLogger{slog.New(l.slog.Handler().WithAttrs(attrs(tags)))}
}

func (l temporalLogger) log(level slog.Level, msg string, tags []tag.Tag) {
	if !l.slog.Enabled(context.Background(), level) {
		return
	}
	l.slog.LogAttrs(context.Background(), level, "temporal: "+msg, attrs(tags)...)
}

func attrs(tags []tag.Tag) []slog.Attr {
	out := make([]slog.Attr, len(tags))
	for i, t := range tags {
		switch v := t.Value().(type) {
		case error, fmt.Stringer:
			out[i] = slog.String(t.Key(), fmt.Sprint(v))
		default:
			out[i] = slog.Any(t.Key(), v)
		}
	}
	return out
}
