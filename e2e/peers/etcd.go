package peers

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// etcd is one member; an append is a transaction on the version of its key.
type etcd struct {
	server *embed.Etcd
	client *clientv3.Client
	serial atomic.Uint64
}

func openEtcd(ctx context.Context, dir string) (*etcd, error) {
	at, _ := url.Parse("http://127.0.0.1:0")
	cfg := embed.NewConfig()
	cfg.Dir, cfg.LogLevel = dir, "panic"
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = []url.URL{*at}, []url.URL{*at}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*at}, []url.URL{*at}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.QuotaBackendBytes = 8 << 30
	s, err := embed.StartEtcd(cfg)
	if err != nil {
		return nil, err
	}
	select {
	case <-s.Server.ReadyNotify():
	case <-time.After(20 * time.Second):
		return nil, errors.New("etcd did not start")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Clients[0].Addr().String()}, Logger: zap.NewNop()})
	return &etcd{server: s, client: client}, err
}

func (e *etcd) append(ctx context.Context, payload []byte) error {
	key := fmt.Sprintf("stream-%016x/0", e.serial.Add(1)*0x9e3779b97f4a7c15)
	res, err := e.client.Txn(ctx).If(clientv3.Compare(clientv3.Version(key), "=", 0)).Then(clientv3.OpPut(key, string(payload))).Commit()
	if err == nil && !res.Succeeded {
		err = errors.New("etcd: the key was there")
	}
	return err
}

func (e *etcd) close() error {
	err := e.client.Close()
	e.server.Close()
	return err
}
