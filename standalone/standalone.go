// Package standalone runs the whole of Probity in one process: an embedded
// broker that speaks Kafka's protocol, Temporal on SQLite, a store for the
// lists, every service and the worker. It is for a developer's machine and for
// tests; its keys and users lie in the data directory.
//
// Acknowledged data survives kill -9: the broker syncs before it answers,
// workflows and lists go on from their files.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"github.com/probity-health/probity/services/assembly"
	"github.com/probity-health/probity/services/claims"
	"github.com/probity-health/probity/services/identity"
	"github.com/probity-health/probity/services/identity/issuer"
	"github.com/probity-health/probity/services/server"
	"github.com/probity-health/probity/services/telemetry"
	"github.com/probity-health/probity/standalone/embedded"
)

// Defaults of Config.
const (
	DefaultDataDir = ".probity"
	DefaultListen  = "127.0.0.1:8480"
	// Origin is the checkpoint's first line: which ledger this is.
	Origin = "probity.example/standalone"
)

// Config of the stack. The zero value is usable.
type Config struct {
	// DataDir keeps everything; DefaultDataDir when empty. One process at a time may use it.
	DataDir string
	// Listen is the address of all RPCs, the issuer, tiles and metrics;
	// DefaultListen when empty. Port 0 picks a free one; tokens of an
	// earlier start are then no longer believed.
	Listen string
	// LogLevel is "debug", "info", "warn" or "error"; empty is "error".
	LogLevel string
	// LogOutput defaults to standard error.
	LogOutput io.Writer
	// OTLPEndpoint receives traces; empty records none.
	OTLPEndpoint string
	// Claims are the claims service's bounds; zero is its defaults.
	Claims claims.Config
}

// Stack is a running stack.
type Stack struct {
	// URL of everything that is served.
	URL string
	// DataDir in use.
	DataDir string
	// Temporal is the frontend's address on loopback.
	Temporal string

	issuer *issuer.Issuer
	done   chan struct{}
	err    error // set before done is closed
	stop   context.CancelFunc
}

// Principals of the development issuer beside issuer.Development's: the
// developer may do everything a person may, so that one login tries it all.
const developer = "developer"

func principals() map[string]identity.Principal {
	all := issuer.Development("lakeside-billing")
	all[developer] = identity.Principal{
		Subject: "dev-developer", Org: "lakeside-billing",
		Roles:  []identity.Role{identity.RoleSubmitter, identity.RoleAdjudicator, identity.RoleSupervisor, identity.RolePlanAdmin},
		Payers: []string{identity.AllPayers},
	}
	return all
}

// Start starts the stack and returns when it answers. It stops when ctx ends
// or Stop is called.
func Start(ctx context.Context, cfg Config) (_ *Stack, err error) {
	if cfg.DataDir == "" {
		cfg.DataDir = DefaultDataDir
	}
	if cfg.Listen == "" {
		cfg.Listen = DefaultListen
	}
	if cfg.LogLevel == "" {
		cfg.LogLevel = "error"
	}
	dir, err := filepath.Abs(cfg.DataDir)
	if err != nil {
		return nil, fmt.Errorf("standalone: %w", err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("standalone: %w", err)
	}
	keys, err := openSecrets(filepath.Join(dir, "secrets"))
	if err != nil {
		return nil, err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.Listen)
	if err != nil {
		return nil, fmt.Errorf("standalone: %w; is another one running? choose an address with --listen", err)
	}
	at := &url.URL{Scheme: "http", Host: listener.Addr().String()}
	defer func() {
		if err != nil {
			_ = listener.Close()
		}
	}()

	issuing, err := issuer.New(issuer.Config{URL: at.String() + "/issuer", Dir: filepath.Join(keys.dir, "issuer"), Principals: principals()})
	if err != nil {
		return nil, err
	}
	verifier, err := identity.NewVerifier(identity.VerifierConfig{Issuer: at.String() + "/issuer", Keys: issuing.Keys()})
	if err != nil {
		return nil, err
	}
	process, err := assembly.NewProcessWith(ctx, "standalone", assembly.ProcessConfig{
		Server:    server.Config{Address: cfg.Listen},
		Telemetry: telemetry.Config{LogLevel: cfg.LogLevel, LogOutput: cfg.LogOutput, OTLPEndpoint: cfg.OTLPEndpoint},
	}, verifier, identity.ClientCredentials(issuing.TokenURL(), "service", issuing.SecretFile("service")))
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, process.Close())
		}
	}()
	process.URL = at
	process.Server.MountPublic("/issuer/", issuing.Handler())

	stores, err := startStores(ctx, process, dir)
	if err != nil {
		return nil, err
	}
	if err := assemble(ctx, process, at.String(), dir, keys, stores, cfg.Claims); err != nil {
		return nil, err
	}

	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	s := &Stack{URL: at.String(), DataDir: dir, Temporal: stores.temporal.HostPort(), issuer: issuing, done: make(chan struct{}), stop: stop}
	context.AfterFunc(ctx, stop)
	go func() {
		defer close(s.done)
		s.err = process.Serve(running, listener)
	}()
	if err := s.awaitReady(ctx); err != nil {
		return nil, errors.Join(err, s.Stop())
	}
	return s, nil
}

type stores struct {
	kafka    *embedded.Kafka
	lists    *embedded.Lists
	temporal *embedded.Temporal
}

// startStores starts the three side by side; the process stops them last.
func startStores(ctx context.Context, process *assembly.Process, dir string) (stores, error) {
	var s stores
	log := process.Telemetry.Log
	var starting errgroup.Group
	starting.Go(func() (err error) {
		s.kafka, err = embedded.StartKafka(filepath.Join(dir, "kafka"), 0, log)
		return err
	})
	starting.Go(func() (err error) {
		s.temporal, err = embedded.StartTemporal(ctx, filepath.Join(dir, "temporal"), log)
		return err
	})
	starting.Go(func() (err error) {
		s.lists, err = embedded.OpenLists(filepath.Join(dir, "lists"), log)
		return err
	})
	err := starting.Wait()
	process.Add(assembly.Part{Name: "stores", Close: func(context.Context) error {
		var errs []error
		if s.temporal != nil {
			errs = append(errs, s.temporal.Stop())
		}
		if s.lists != nil {
			errs = append(errs, s.lists.Close())
		}
		if s.kafka != nil {
			errs = append(errs, s.kafka.Stop())
		}
		return errors.Join(errs...)
	}})
	return s, err
}

// Wait blocks until the stack has stopped and returns why, nil after a drain.
func (s *Stack) Wait() error {
	<-s.done
	return s.err
}

// Done is closed when the stack has stopped.
func (s *Stack) Done() <-chan struct{} { return s.done }

// Stop drains and stops. It may be called more than once.
func (s *Stack) Stop() error {
	s.stop()
	return s.Wait()
}
