package ledger

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	ledgerv1 "github.com/probity-health/probity/proto/probity/ledger/v1"
	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/ledger/replica"
)

// catchUp fills an empty data directory from the first peer that can prove
// what it feeds. Without one the node reads everything from Kafka, so it is
// never an error that a peer is away; but what a peer fed wrongly must go.
func (c Config) catchUp(ctx context.Context, key *receipt.SigningKey, policy receipt.Policy) error {
	if _, err := os.Stat(filepath.Join(c.DataDir, "store")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		began := time.Now()
		height, err := c.catchUpFrom(ctx, peerFeed{c.Peers[name]}, key, policy)
		if err == nil && height > 0 {
			c.Logger.Info("caught up from a peer", "peer", name, "height", height, "took", time.Since(began))
			return nil
		}
		if errors.Is(err, replica.ErrFeed) && !errors.Is(err, replica.ErrFeedShort) {
			c.Logger.Error("a peer fed what no quorum cosigned", "peer", name, "error", err)
		} else if err != nil {
			c.Logger.Warn("could not catch up from a peer", "peer", name, "error", err)
		}
		for _, dir := range []string{"store", replica.CommitsDir, "tiles"} {
			if err := os.RemoveAll(filepath.Join(c.DataDir, dir)); err != nil {
				return err
			}
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

func (c Config) catchUpFrom(ctx context.Context, feed replica.Feed, key *receipt.SigningKey, policy receipt.Policy) (height uint64, err error) {
	store, err := replica.OpenStore(filepath.Join(c.DataDir, "store"), c.Logger)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	open := func(name string, index int) (*replica.Shard, error) {
		// Nothing follows a topic here, so there is no source.
		return replica.OpenShard(replica.ShardConfig{
			Log: name, Shard: uint32(index), Store: store, Dir: filepath.Join(c.DataDir, "tiles"), Logger: c.Logger,
		})
	}
	var shards []*replica.Shard
	for _, name := range c.logNames() {
		for i := range c.Logs[name] {
			s, err := open(name, i)
			if err != nil {
				return 0, err
			}
			shards = append(shards, s)
		}
	}
	blockLog, err := open(replica.BlockLog, 0)
	if err != nil {
		return 0, err
	}
	blocks, err := replica.OpenBlocks(replica.BlocksConfig{
		Root: policy.First(), Store: store, Dir: c.DataDir, SignedDir: c.SignedDir, Log: blockLog,
		Shards: shards, Key: key, Now: c.Now, Logger: c.Logger,
	})
	if err != nil {
		return 0, err
	}
	return blocks.CatchUp(ctx, feed)
}

// peerFeed is a peer as a replica catches up from it.
type peerFeed struct{ peer Peer }

// feedTimeout bounds one call to a peer while catching up.
const feedTimeout = 30 * time.Second

// Notes implements replica.Feed.
func (f peerFeed) Notes(ctx context.Context) ([][]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, exchangeTimeout)
	defer cancel()
	answer, err := f.peer.ExchangeCosignatures(ctx, &ledgerv1.ExchangeCosignaturesRequest{})
	return answer.GetNotes(), err
}

// Commits implements replica.Feed.
func (f peerFeed) Commits(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	answer, err := f.peer.GetCommits(ctx, &ledgerv1.GetCommitsRequest{Log: log, Shard: shard, FromIndex: from, MaxCount: 1024})
	return answer.GetCommits(), answer.GetNextOffset(), err
}
