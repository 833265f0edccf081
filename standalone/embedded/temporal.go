package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/cluster"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/persistence/sql/sqlplugin/sqlite"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/primitives/timestamp"
	sqliteschema "go.temporal.io/server/schema/sqlite"
	"go.temporal.io/server/temporal"

	"github.com/probity-health/probity/workflows/setup"
)

// Namespace is the Temporal namespace of every Probity workflow.
const Namespace = "probity"

// historyShards bounds concurrent workflow transactions. SQLite has one
// writer anyway; the number is fixed in the file at its creation.
const historyShards = 4

// TemporalOptions says where the server keeps its file and listens.
type TemporalOptions struct {
	// Dir holds temporal.db; made when absent.
	Dir string
	// Port of the frontend on loopback; 0 picks a free one.
	Port int
	// System also runs the server's own workflows, which schedules, worker
	// deployments and the deletion of namespaces need. It triples the time to
	// start (0.2 to 0.6 s on two cores).
	System bool
	// Logger gets the server's warnings and errors, and its info as debug; nil discards.
	Logger *slog.Logger
}

// Temporal is a running server.
type Temporal struct {
	hostPort string
	server   temporal.Server
	release  func() error
	stop     func() error
}

// StartTemporal starts the server on a free port; see TemporalOptions.Start.
func StartTemporal(ctx context.Context, dir string, logger *slog.Logger) (*Temporal, error) {
	return TemporalOptions{Dir: dir, Logger: logger}.Start(ctx)
}

// Start starts the Temporal server and returns when its frontend accepts
// calls. A file left by an earlier process, however it ended, is continued:
// open workflows resume. A file of another schema version isn't migrated;
// remove it and the follower starts what is missing from the ledger.
func (o TemporalOptions) Start(ctx context.Context) (_ *Temporal, err error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if err := portTaken("Temporal", o.Port); err != nil {
		return nil, err
	}
	release, err := claimDir(o.Dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, release())
		}
	}()

	services := o.services()
	ports, err := freePorts(len(services))
	if err != nil {
		return nil, err
	}
	if o.Port != 0 {
		ports[0] = o.Port
	}
	cfg := serverConfig(filepath.Join(o.Dir, "temporal.db"), services, ports)
	fresh, err := prepareFile(cfg.Persistence.DataStores[sqlite.PluginName].SQL)
	if err != nil {
		return nil, err
	}

	// Where the worker doesn't run the server still asks for its place.
	hosts := map[primitives.ServiceName]static.Hosts{primitives.WorkerService: {All: []string{loopback + ":1"}}}
	for i, name := range services {
		addr := fmt.Sprintf("%s:%d", loopback, ports[i])
		hosts[name] = static.Hosts{All: []string{addr}, Self: addr}
	}
	server, err := temporal.NewServer(
		temporal.WithConfig(cfg),
		temporal.ForServices(names(services)),
		temporal.WithStaticHosts(hosts),
		temporal.WithLogger(temporalLogger{o.Logger}),
		temporal.WithAuthorizer(authorization.NewNoopAuthorizer()),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return authorization.NewNoopClaimMapper() }),
		temporal.WithDynamicConfigClient(tuning()),
	)
	if err != nil {
		return nil, fmt.Errorf("embedded: Temporal: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := server.Start(); err != nil {
		return nil, fmt.Errorf("embedded: starting Temporal: %w", err)
	}
	t := &Temporal{hostPort: fmt.Sprintf("%s:%d", loopback, ports[0]), server: server, release: release}
	t.stop = sync.OnceValue(func() error { return errors.Join(server.Stop(), release()) })
	if !fresh {
		if err := t.update(ctx); err != nil {
			return nil, errors.Join(err, server.Stop())
		}
	}
	return t, nil
}

// update gives the namespace of an older file what this build's workflows want of it.
func (t *Temporal) update(ctx context.Context) error {
	c, err := client.NewLazyClient(client.Options{HostPort: t.hostPort, Namespace: Namespace, Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	if err != nil {
		return fmt.Errorf("embedded: Temporal: %w", err)
	}
	defer c.Close()
	_, err = setup.Apply(ctx, c, setup.Want{Namespace: Namespace})
	return err
}

// HostPort is the frontend's address, for client.Options.HostPort.
func (t *Temporal) HostPort() string { return t.hostPort }

// Stop stops the server and gives up the directory. It may be called more than once.
func (t *Temporal) Stop() error { return t.stop() }

// services in the order of their ports. The frontend's is the first.
func (o TemporalOptions) services() []primitives.ServiceName {
	all := []primitives.ServiceName{primitives.FrontendService, primitives.HistoryService, primitives.MatchingService}
	if o.System {
		all = append(all, primitives.WorkerService)
	}
	return all
}

func names(services []primitives.ServiceName) []string {
	names := make([]string, len(services))
	for i, s := range services {
		names[i] = string(s)
	}
	return names
}

// prepareFile makes schema and namespace in a new file, and tells whether it is one. The schema is built
// beside, without a sync for each of its hundred statements, and made durable
// and renamed into place at the end, so a crash can't leave half of one behind.
func prepareFile(sql *config.SQL) (fresh bool, err error) {
	_, err = os.Stat(sql.DatabaseName)
	if fresh = errors.Is(err, os.ErrNotExist); fresh {
		draft := *sql
		draft.DatabaseName += ".new"
		draft.ConnectAttributes = map[string]string{"mode": "rwc", "journal_mode": "memory", "synchronous": "off"}
		if err := os.Remove(draft.DatabaseName); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fresh, fmt.Errorf("embedded: Temporal file: %w", err)
		}
		if err := sqliteschema.SetupSchema(&draft); err != nil {
			return fresh, fmt.Errorf("embedded: Temporal schema: %w", err)
		}
		if err := install(draft.DatabaseName, sql.DatabaseName); err != nil {
			return fresh, fmt.Errorf("embedded: Temporal file: %w", err)
		}
	} else if err != nil {
		return fresh, fmt.Errorf("embedded: Temporal file: %w", err)
	}
	ns, err := sqliteschema.NewNamespaceConfig(clusterName, Namespace, false, setup.Attributes())
	if err != nil {
		return fresh, fmt.Errorf("embedded: Temporal namespace: %w", err)
	}
	ns.Detail.Config.Retention = timestamp.DurationFromDays(int32(setup.DefaultRetention / (24 * time.Hour)))
	if err := sqliteschema.CreateNamespaces(sql, ns); err != nil {
		return fresh, fmt.Errorf("embedded: Temporal namespace: %w", err)
	}
	return fresh, nil
}

// install makes a file durable, then gives it its name.
func install(draft, name string) error {
	f, err := os.OpenFile(draft, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(draft, name)
}

const clusterName = "active"

func serverConfig(file string, services []primitives.ServiceName, ports []int) *config.Config {
	sql := config.SQL{
		PluginName:   sqlite.PluginName,
		DatabaseName: file,
		// One connection: SQLite has one writer, and deferred transactions of
		// several would fail as busy. WAL with synchronous=normal survives the
		// process's death; a power cut may lose the newest transactions, which
		// the follower and the ledger's request ids make good.
		MaxConns:     1,
		MaxIdleConns: 1,
		ConnectAttributes: map[string]string{
			"mode": "rwc", "journal_mode": "wal", "synchronous": "normal",
			"busy_timeout": "10000", "cache_size": "-8000", "temp_store": "memory",
		},
	}
	frontend := fmt.Sprintf("%s:%d", loopback, ports[0])
	cfg := &config.Config{
		Persistence: config.Persistence{
			DefaultStore: sqlite.PluginName, VisibilityStore: sqlite.PluginName,
			NumHistoryShards: historyShards,
			DataStores:       map[string]config.DataStore{sqlite.PluginName: {SQL: &sql}},
		},
		ClusterMetadata: &cluster.Config{
			FailoverVersionIncrement: 10,
			MasterClusterName:        clusterName, CurrentClusterName: clusterName,
			ClusterInformation: map[string]cluster.ClusterInformation{
				clusterName: {Enabled: true, InitialFailoverVersion: 1, RPCAddress: frontend},
			},
		},
		DCRedirectionPolicy: config.DCRedirectionPolicy{Policy: "noop"},
		PublicClient:        config.PublicClient{HostPort: frontend},
		Services:            map[string]config.Service{},
		Archival: config.Archival{
			History:    config.HistoryArchival{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchival{State: config.ArchivalDisabled},
		},
		NamespaceDefaults: config.NamespaceDefaults{Archival: config.ArchivalNamespaceDefaults{
			History:    config.HistoryArchivalNamespaceDefaults{State: config.ArchivalDisabled},
			Visibility: config.VisibilityArchivalNamespaceDefaults{State: config.ArchivalDisabled},
		}},
	}
	cfg.Global.Membership = config.Membership{MaxJoinDuration: 10 * time.Second, BroadcastAddress: loopback}
	for i, name := range services {
		cfg.Services[string(name)] = config.Service{RPC: config.RPC{GRPCPort: ports[i], BindOnIP: loopback}}
	}
	return cfg
}

// tuning fits the server's caches and partitions, sized for a cluster, to one
// machine: fewer task queue partitions also mean that a task meets its poller
// without being forwarded.
func tuning() dynamicconfig.StaticClient {
	return dynamicconfig.StaticClient{
		dynamicconfig.HistoryCacheHostLevelMaxSize.Key():        2000,
		dynamicconfig.EventsHostLevelCacheMaxSizeBytes.Key():    8 << 20,
		dynamicconfig.EventsCacheMaxSizeBytes.Key():             1 << 20,
		dynamicconfig.MatchingNumTaskqueueReadPartitions.Key():  1,
		dynamicconfig.MatchingNumTaskqueueWritePartitions.Key(): 1,
		// A slow disk must not make the frontend refuse what it can queue.
		dynamicconfig.FrontendMaxNamespaceRPSPerInstance.Key(): 20000,
		dynamicconfig.FrontendRPS.Key():                        20000,
		dynamicconfig.HistoryRPS.Key():                         20000,
		// Lists are asked for by few here, but not ten times a second in all.
		dynamicconfig.FrontendMaxNamespaceVisibilityRPSPerInstance.Key(): 200,
	}
}
