// Package telemetry sets up traces, metrics and logs of a process.
//
// Nothing is global: the caller passes what Setup returns to those who need
// it. No health data reaches any of the three: span and metric attributes are
// names and codes, and the log handler replaces every structured value that
// is not plainly harmless (see handler.go).
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Config of a process's telemetry. The zero value logs JSON at "info" to
// standard error, keeps metrics for scraping and propagates trace context
// without recording spans.
type Config struct {
	// Service is the name in every span, metric and log line.
	Service string `json:"-"`
	// Version of the build.
	Version string `json:"-"`
	// OTLPEndpoint is an OTLP/HTTP base URL ("http://collector:4318"); empty records no spans.
	OTLPEndpoint string `json:"otlpEndpoint,omitempty"`
	// SampleRatio of traces begun here, 0 to 1; 0 is 1. A caller's decision is followed.
	SampleRatio float64 `json:"sampleRatio,omitempty"`
	// LogLevel is "debug", "info", "warn" or "error"; empty is "info".
	LogLevel string `json:"logLevel,omitempty"`
	// LogFormat is "json" or "text"; empty is "json".
	LogFormat string `json:"logFormat,omitempty"`
	// LogOutput defaults to standard error.
	LogOutput io.Writer `json:"-"`
}

// Telemetry is what a process hands to its parts.
type Telemetry struct {
	Log        *slog.Logger
	Tracer     trace.TracerProvider
	Meter      metric.MeterProvider
	Propagator propagation.TextMapPropagator
	// Registry also takes collectors of libraries that know Prometheus only.
	Registry *prometheus.Registry
	// Metrics answers scrapes.
	Metrics http.Handler

	stop []func(context.Context) error
}

// Setup builds the telemetry; Shutdown flushes it.
func Setup(ctx context.Context, cfg Config) (*Telemetry, error) {
	log, err := newLogger(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return nil, fmt.Errorf("telemetry: sampleRatio %g is outside 0 to 1", cfg.SampleRatio)
	}
	what := resource.NewSchemaless(
		attribute.String("service.name", cfg.Service),
		attribute.String("service.version", cfg.Version),
	)
	t := &Telemetry{
		Log:        log,
		Propagator: propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}),
		Registry:   prometheus.NewRegistry(),
	}
	t.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))

	options := []sdktrace.TracerProviderOption{sdktrace.WithResource(what)}
	if cfg.OTLPEndpoint == "" {
		options = append(options, sdktrace.WithSampler(sdktrace.NeverSample()))
	} else {
		exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.OTLPEndpoint))
		if err != nil {
			return nil, fmt.Errorf("telemetry: OTLP: %w", err)
		}
		ratio := cfg.SampleRatio
		if ratio == 0 {
			ratio = 1
		}
		options = append(options,
			sdktrace.WithBatcher(exporter),
			sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(ratio))))
	}
	tracer := sdktrace.NewTracerProvider(options...)
	t.Tracer = tracer
	t.stop = append(t.stop, tracer.Shutdown)

	reader, err := otelprom.New(otelprom.WithRegisterer(t.Registry))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: prometheus: %w", err), t.Shutdown(ctx))
	}
	meter := sdkmetric.NewMeterProvider(sdkmetric.WithResource(what), sdkmetric.WithReader(reader))
	t.Meter = meter
	t.stop = append(t.stop, meter.Shutdown)
	t.Metrics = promhttp.HandlerFor(t.Registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
	return t, nil
}

// Shutdown flushes and stops, last started first. ctx bounds it.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var errs []error
	for i := len(t.stop) - 1; i >= 0; i-- {
		errs = append(errs, t.stop[i](ctx))
	}
	t.stop = nil
	return errors.Join(errs...)
}

func newLogger(cfg Config) (*slog.Logger, error) {
	level := slog.LevelInfo
	if cfg.LogLevel != "" {
		if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
			return nil, fmt.Errorf("telemetry: logLevel %q is none of debug, info, warn, error", cfg.LogLevel)
		}
	}
	out := cfg.LogOutput
	if out == nil {
		out = os.Stderr
	}
	var sink slog.Handler
	switch options := (&slog.HandlerOptions{Level: level}); cfg.LogFormat {
	case "", "json":
		sink = slog.NewJSONHandler(out, options)
	case "text":
		sink = slog.NewTextHandler(out, options)
	default:
		return nil, fmt.Errorf("telemetry: logFormat %q is neither json nor text", cfg.LogFormat)
	}
	log := slog.New(NewHandler(sink))
	if cfg.Service != "" {
		log = log.With("service", cfg.Service)
	}
	return log, nil
}
