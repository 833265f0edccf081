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
	"github.com/probity-health/probity/services/ledger/tiles"
)

// catchUp fills an empty data directory from the first peer that can prove
// what it feeds. Without one the node reads everything from Kafka, so it is
// never an error that a peer is away; but what a peer fed wrongly must go, and
// so must what a node was still being fed when it stopped: nothing vouches for
// that yet.
func (c Config) catchUp(ctx context.Context, key *receipt.SigningKey, policy receipt.Policy) error {
	unproven := filepath.Join(c.DataDir, unprovenFile)
	switch _, err := os.Stat(unproven); {
	case err == nil:
		c.Logger.Warn("the node stopped while it caught up from a peer: beginning anew")
		if err := c.discard(); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(filepath.Join(c.DataDir, "store")); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(c.Peers) == 0 {
		return nil
	}
	if err := os.MkdirAll(c.DataDir, 0o700); err != nil {
		return err
	}
	disk := tiles.Disk{}
	if err := disk.WriteFile(c.DataDir, unprovenFile, nil); err != nil {
		return err
	}
	if err := c.catchUpFromAny(ctx, key, policy); err != nil {
		return err
	}
	if err := os.Remove(unproven); err != nil {
		return err
	}
	return disk.SyncFolder(c.DataDir)
}

// unprovenFile stands in the data directory while what a peer feeds is not
// proved.
const unprovenFile = "unproven"

// discard deletes what derives from the topics. The memory of what was signed
// stays.
func (c Config) discard() error {
	var err error
	for _, dir := range []string{"store", replica.CommitsDir, "tiles"} {
		err = errors.Join(err, os.RemoveAll(filepath.Join(c.DataDir, dir)))
	}
	return err
}

func (c Config) catchUpFromAny(ctx context.Context, key *receipt.SigningKey, policy receipt.Policy) error {
	for _, name := range slices.Sorted(maps.Keys(c.Peers)) {
		began := time.Now()
		height, err := c.salvage(ctx, name, key, policy)
		if err == nil && height == 0 {
			height, err = c.catchUpFrom(ctx, peerFeed{c.Peers[name]}, key, policy)
		}
		if err == nil && height > 0 {
			c.Logger.Info("caught up from a peer", "peer", name, "height", height, "took", time.Since(began))
			return nil
		}
		if errors.Is(err, replica.ErrFeed) && !errors.Is(err, replica.ErrFeedShort) {
			c.Logger.Error("a peer fed what no quorum cosigned", "peer", name, "error", err)
		} else if err != nil {
			c.Logger.Warn("could not catch up from a peer", "peer", name, "error", err)
		}
		if err := c.discard(); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return nil
}

// salvage catches up from a peer with what is still sound in SalvageDir. It
// returns 0 where there is no such directory, and where what is there doesn't
// lead to what is final: then the peer alone is asked.
func (c Config) salvage(ctx context.Context, name string, key *receipt.SigningKey, policy receipt.Policy) (height uint64, err error) {
	if c.SalvageDir == "" || c.StartFromRows {
		return 0, nil
	}
	feed := replica.NewSalvage(tiles.Disk{}, c.SalvageDir, peerFeed{c.Peers[name]})
	height, err = c.catchUpFrom(ctx, feed, key, policy)
	if err = errors.Join(err, feed.Close()); errors.Is(err, replica.ErrFeed) {
		c.Logger.Warn("what is left in the data directory of before is not what a quorum cosigned: asking the peer for everything",
			"dir", c.SalvageDir, "peer", name, "error", err)
		return 0, c.discard()
	}
	if err == nil && height > 0 {
		c.Logger.Info("kept what was sound of the data directory of before", "dir", c.SalvageDir, "kept", feed.Taken, "fetched", feed.Asked)
	}
	return height, err
}

func (c Config) catchUpFrom(ctx context.Context, feed replica.Feed, key *receipt.SigningKey, policy receipt.Policy) (height uint64, err error) {
	store, err := replica.OpenStore(filepath.Join(c.DataDir, "store"), c.Logger)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	open := func(name string, index int, source replica.Source) (*replica.Shard, error) {
		// Nothing follows a shard's topic here, so those have no source.
		return replica.OpenShard(replica.ShardConfig{
			Log: name, Shard: uint32(index), Store: store, Dir: filepath.Join(c.DataDir, "tiles"), Source: source, Logger: c.Logger,
		})
	}
	var shards []*replica.Shard
	for _, name := range c.logNames() {
		for i := range c.Logs[name] {
			s, err := open(name, i, nil)
			if err != nil {
				return 0, err
			}
			shards = append(shards, s)
		}
	}
	client, hangUp := c.client(nil)
	defer hangUp()
	blockLog, err := open(replica.BlockLog, 0, &replica.KafkaSource{Client: client, Topic: c.topic(replica.BlockLog)})
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
	if height, err = blocks.CatchUp(ctx, feed, c.StartFromRows); err != nil || height == 0 {
		return height, err
	}
	comparing, cancel := context.WithTimeout(ctx, compareTimeout)
	defer cancel()
	if err := blocks.Compare(comparing, time.Now); errors.Is(err, replica.ErrFeed) {
		return 0, err
	} else if err != nil {
		c.Logger.Warn("the block log from a peer was not compared with its topic yet", "error", err)
	}
	return height, nil
}

// compareTimeout bounds how long a node that caught up waits for the topic of
// the block log, to compare what it was fed. What is left is compared later.
const compareTimeout = 2 * time.Minute

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

// Rows implements replica.Feed.
func (f peerFeed) Rows(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	answer, err := f.peer.GetRows(ctx, &ledgerv1.GetRowsRequest{Log: log, Shard: shard, FromIndex: from, MaxCount: 4096})
	return answer.GetRows(), answer.GetNextOffset(), err
}

// Commits implements replica.Feed.
func (f peerFeed) Commits(ctx context.Context, log string, shard uint32, from uint64) ([][]byte, int64, error) {
	ctx, cancel := context.WithTimeout(ctx, feedTimeout)
	defer cancel()
	answer, err := f.peer.GetCommits(ctx, &ledgerv1.GetCommitsRequest{Log: log, Shard: shard, FromIndex: from, MaxCount: 1024})
	return answer.GetCommits(), answer.GetNextOffset(), err
}
