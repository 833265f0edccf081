package replica

import "github.com/probity-health/probity/services/ledger/tiles"

// behind does one thing at a time beside its caller, or before it goes on
// where the disk does one operation at a time.
type behind struct{ done chan error }

// wait returns when nothing is under way, with what came of it.
func (b *behind) wait() error {
	if b.done == nil {
		return nil
	}
	err := <-b.done
	b.done = nil
	return err
}

// result is wait where nothing is under way any more, and nil where it is.
func (b *behind) result() error {
	if b.busy() {
		return nil
	}
	return b.wait()
}

// busy tells whether something is under way.
func (b *behind) busy() bool { return b.done != nil && len(b.done) == 0 }

// start begins something; nothing may be under way.
func (b *behind) start(disk tiles.Disk, do func() error) error {
	if disk.Serial {
		return do()
	}
	done := make(chan error, 1)
	b.done = done
	go func() { done <- do() }()
	return nil
}
