package replica

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/probity-health/probity/services/ledger/receipt"
	"github.com/probity-health/probity/services/problem"
)

// awaited bounds how long Run waits for commits that a block seals. What a
// proposer saw acknowledged is in the topic, so the follower gets there,
// unless it halts.
const awaited = 2 * time.Minute

// scrubRest is how many times as long as a step of the sweep took Run rests
// after it: what is read is cold, and neither the blocks, which wait for it,
// nor the caches shall feel it.
const scrubRest = 50

// Run follows the block log until ctx ends (no error) or sealing halts, and
// sweeps what is stored on the way.
func (b *Blocks) Run(ctx context.Context) error {
	var (
		waiting  waitingFor
		patience <-chan time.Time
		sweep    <-chan time.Time
	)
	if b.cfg.ScrubInterval > 0 {
		sweep = time.After(b.cfg.ScrubInterval)
	}
	for ctx.Err() == nil {
		changed, wake, damaged := b.cfg.Log.Changed.Wait(), b.wake.Wait(), b.cfg.Store.damage.found.Wait()
		moved, err := b.Step(ctx)
		var wait *waitingFor
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &wait):
			if patience == nil || *wait != waiting {
				waiting, patience = *wait, time.After(awaited)
			}
			s := b.shard(wait.log, wait.shard)
			changed = s.Changed.Wait()
			if s.Head().Next >= wait.size || s.Halted() != nil {
				continue // since Step looked
			}
		case err != nil:
			return err
		case moved:
			continue // there may be more, and nobody else to say so
		default:
			patience = nil
		}
		select {
		case <-changed:
		case <-wake:
		case <-damaged:
		case <-sweep:
			began := time.Now()
			if _, err := b.Scrub(); err != nil {
				return err
			}
			sweep = time.After(max(b.cfg.ScrubInterval, scrubRest*time.Since(began)))
		case <-patience:
			return b.halt(&waiting)
		case <-ctx.Done():
		}
	}
	return nil
}

// Step takes the block log's new commits in, at most maxBlocks blocks, and
// signs the checkpoint over them, unless a reason to withhold the signature
// holds (see Withheld). It waits for nothing: where a block seals
// commits that this replica has not read, it takes in what comes before and
// returns an error that says NotYet. Any other error has halted sealing. Step
// must have one caller.
func (b *Blocks) Step(ctx context.Context) (moved bool, err error) {
	if err := b.Halted(); err != nil {
		return false, err
	}
	if err := errors.Join(b.cfg.Store.Damaged(), b.tiling.result()); err != nil {
		return false, b.halt(err)
	}
	moved, err = b.follow()
	if moved || b.Withheld() != "" {
		failed := b.seal()
		b.Changed.Broadcast()
		if failed == nil {
			failed = b.publishSome()
		}
		if failed != nil {
			err = failed
		}
	}
	var wait *waitingFor
	if err == nil {
		err = b.cfg.Log.Halted()
	} else if errors.As(err, &wait) {
		// A halted shard gets no further; its halt is looked at first.
		s := b.shard(wait.log, wait.shard)
		if halted := s.Halted(); halted != nil && s.Head().Next < wait.size {
			err = fmt.Errorf("%s: %w", wait.Error(), halted)
		}
	}
	if err != nil && !NotYet(err) && ctx.Err() == nil {
		err = b.halt(err)
	}
	return moved, err
}

// waitingFor is the error of a block that seals commits not read yet.
type waitingFor struct {
	height uint64
	log    string
	shard  uint32
	size   uint64
}

// Error names the block and the shard it waits for.
func (w *waitingFor) Error() string {
	return fmt.Sprintf("replica: block %d seals %d commits of %s/%d, which are not all read yet", w.height, w.size, w.log, w.shard)
}

// NotYet tells whether a Step ended where a block waits for its commits.
func NotYet(err error) bool {
	var w *waitingFor
	return errors.As(err, &w)
}

func (b *Blocks) halt(cause error) error {
	err := problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "ledger.seal.halted",
		Message: "this replica stopped signing checkpoints",
		Fix:     "see its log for the rule that broke; receipts up to the last checkpoint are still served",
	}).Because(cause)
	b.cfg.Logger.Error("SEALING HALTED: this replica signs no more checkpoints", "cause", cause)
	b.mu.Lock()
	b.halted = err
	b.mu.Unlock()
	b.Changed.Broadcast()
	b.Finalised.Broadcast()
	return err
}

// seal reads back what is new in the last block and cosigns the checkpoint
// over it. The order is the crash safety: the commits and the block, from which
// all that a checkpoint commits to derives, are durable before the memory of
// signing it, and that before the signature.
func (b *Blocks) seal() error {
	b.mu.RLock()
	last, policy, sealed := b.last, b.policy, b.sealed
	b.mu.RUnlock()
	if last == nil || (sealed != nil && sealed.Height == last.Height) {
		return nil
	}
	root, err := b.tree.Root(last.Height)
	if err != nil {
		return err
	}
	cp := receipt.Checkpoint{Origin: policy.Origin(), Size: last.Height, Root: root}
	why := b.withhold(policy.At(last.Height), last)
	if why == "" {
		if err := b.readBack(last); err != nil {
			return err
		}
		ok, err := b.signed.advance(cp, b.tree.Root)
		if err != nil {
			return err
		}
		if !ok {
			why = "it is below what was signed or seen before"
		}
	}
	b.mu.Lock()
	changed := b.withheld != why
	b.withheld = why
	b.mu.Unlock()
	if why != "" {
		if changed {
			b.cfg.Logger.Info("not signing for now", "why", why, "height", last.Height)
		}
		return b.settle()
	}
	signed, err := cp.Sign(b.cfg.Key.Cosigner(b.cfg.Now()))
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.checkpoint, b.sealed = signed, last
	b.mu.Unlock()
	b.tallyMu.Lock()
	_, _, err = b.tally.Add(signed)
	b.tallyMu.Unlock()
	if err != nil {
		return err
	}
	return b.settle()
}
