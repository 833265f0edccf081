package payment

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// FileDrop is the port that leaves one file a payment in a folder, from where
// whoever moves the money takes it. All folders are on one file system that
// knows hard links, and readable by their owner alone (0700, files 0600).
//
//	outbox/pay_….json   orders to be made; the taker may move or remove them
//	record/pay_….json   what became of each payment id, for ever: the order, or
//	                    that it is withdrawn. Never remove these
//	staged/             orders being written
//	advice/rem_….835    the 835s of orders, where Advices is set: they name patients
//	stop/<NPI>          put there by whoever moves the money: orders for that payee
//	                    are refused; its first line is a reason of FailPayment
//
// Exactly once: an order is written and synced under a name of its own in
// staged, then linked to record, which only the first can. That file, and no
// other, is then renamed from staged to outbox: whoever finds it left behind
// does that, and its name can be renamed away only once, so an order that was
// taken out of the outbox doesn't come back.
type FileDrop struct {
	dir     string
	options FileDropOptions
	// step is told what was done, by name; an error ends the call there, as a
	// crash would. For tests; nil does nothing.
	step func(string) error
}

// FileDropOptions say what a drop does beside the order; the zero value is usable.
type FileDropOptions struct {
	// AwaitConfirmation leaves a payment SENT until somebody confirms it;
	// otherwise the drop counts as payment.
	AwaitConfirmation bool
	// Advices writes each order's 835 before the order.
	Advices bool
}

var _ Port = (*FileDrop)(nil)

const (
	dropOutbox = "outbox"
	dropRecord = "record"
	dropStaged = "staged"
	dropAdvice = "advice"
	dropStop   = "stop"
)

// NewFileDrop makes the folders below dir.
func NewFileDrop(dir string, o FileDropOptions) (*FileDrop, error) {
	for _, name := range []string{dropOutbox, dropRecord, dropStaged, dropAdvice, dropStop} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("payment drop: %w", err)
		}
	}
	return &FileDrop{dir: dir, options: o}, nil
}

// withdrawal is what record holds of a payment that is never made.
var withdrawal = []byte("{\n  \"withdrawn\": true\n}\n")

// Pay implements Port.
func (d *FileDrop) Pay(ctx context.Context, o Order, advice Advice) (Receipt, error) {
	name, err := dropName(o.PaymentID)
	if err != nil {
		return Receipt{}, err
	}
	if err := d.stopped(name, o.PayeeNPI); err != nil {
		return Receipt{}, err
	}
	if d.options.Advices && advice != nil {
		if err := d.advise(ctx, o.RemittanceID, advice); err != nil {
			return Receipt{}, err
		}
	}
	order, err := json.MarshalIndent(o, "", "  ")
	if err != nil {
		return Receipt{}, err
	}
	order = append(order, '\n')
	recorded, err := d.record(name, order)
	switch {
	case err != nil:
		return Receipt{}, err
	case bytes.Equal(recorded, withdrawal):
		return Receipt{}, ErrWithdrawn
	case !bytes.Equal(recorded, order):
		return Receipt{}, fmt.Errorf("payment drop: another order was given as %s", o.PaymentID)
	}
	return d.receipt(name), d.release(name)
}

// stopped refuses an order that isn't recorded yet where its payee is stopped.
// What stands there and is no reason is none of ours to repeat: then it is "refused".
func (d *FileDrop) stopped(name, npi string) error {
	if len(npi) != 10 || strings.Trim(npi, "0123456789") != "" {
		return nil
	}
	if _, err := os.Stat(filepath.Join(d.dir, dropRecord, name)); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Open(filepath.Join(d.dir, dropStop, npi))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	first, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return err
	}
	reason, _, _ := strings.Cut(string(first), "\n")
	if reason = strings.TrimSpace(reason); reason != "account-closed" && reason != "account-unknown" {
		reason = "refused"
	}
	return &RefusedError{Reason: reason}
}

// Withdraw implements Port. What is recorded as an order counts as made: it
// may have been taken already, and is released if it was not.
func (d *FileDrop) Withdraw(_ context.Context, o Order) (Receipt, bool, error) {
	name, err := dropName(o.PaymentID)
	if err != nil {
		return Receipt{}, false, err
	}
	d.sweepDrafts("rem_" + strings.TrimPrefix(o.PaymentID, "pay_"))
	recorded, err := d.record(name, withdrawal)
	if err != nil || bytes.Equal(recorded, withdrawal) {
		return Receipt{}, false, err
	}
	return d.receipt(name), true, d.release(name)
}

func (d *FileDrop) receipt(name string) Receipt {
	return Receipt{Reference: dropOutbox + "/" + name, Made: !d.options.AwaitConfirmation}
}

// dropName is a payment's file name; an id that could lead elsewhere has none.
func dropName(id string) (string, error) {
	rest, ok := strings.CutPrefix(id, "pay_")
	if !ok || rest == "" || strings.Trim(rest, "abcdefghijklmnopqrstuvwxyz234567") != "" {
		return "", errors.New("payment drop: not a payment's id")
	}
	return id + ".json", nil
}

// record makes content the record of a name unless it has one, and returns
// what the record is.
func (d *FileDrop) record(name string, content []byte) ([]byte, error) {
	place := filepath.Join(d.dir, dropRecord, name)
	if recorded, err := os.ReadFile(place); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return recorded, err
	}
	staged := filepath.Join(d.dir, dropStaged, name+"."+rand.Text())
	if err := writeSynced(staged, content); err != nil {
		return nil, err
	}
	if err := d.did("staged"); err != nil {
		return nil, err
	}
	err := os.Link(staged, place)
	switch {
	case err == nil:
		if err := errors.Join(syncDir(filepath.Join(d.dir, dropStaged)), syncDir(filepath.Join(d.dir, dropRecord))); err != nil {
			return nil, err
		}
	// Somebody else was first, and may have swept this one away since.
	case errors.Is(err, fs.ErrExist), errors.Is(err, fs.ErrNotExist):
		_ = os.Remove(staged)
	default:
		return nil, err
	}
	if err := d.did("recorded"); err != nil {
		return nil, err
	}
	return os.ReadFile(place)
}

// release puts the recorded order into the outbox if that wasn't done, and
// sweeps away what others have staged in vain.
func (d *FileDrop) release(name string) error {
	recorded, err := os.Stat(filepath.Join(d.dir, dropRecord, name))
	if err != nil {
		return err
	}
	staged, err := filepath.Glob(filepath.Join(d.dir, dropStaged, name+".*"))
	if err != nil {
		return err
	}
	for _, path := range staged {
		info, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !os.SameFile(info, recorded) {
			_ = os.Remove(path)
			continue
		}
		if err := os.Rename(path, filepath.Join(d.dir, dropOutbox, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err := d.did("released"); err != nil {
			return err
		}
	}
	return errors.Join(syncDir(filepath.Join(d.dir, dropOutbox)), syncDir(filepath.Join(d.dir, dropStaged)))
}

// advise writes a remittance's 835 whole or not at all; it is always the same bytes.
func (d *FileDrop) advise(ctx context.Context, remittance string, advice Advice) error {
	if _, err := dropName("pay_" + strings.TrimPrefix(remittance, "rem_")); err != nil {
		return errors.New("payment drop: not a remittance's id")
	}
	place := filepath.Join(d.dir, dropAdvice, remittance+".835")
	// A process that died while it wrote left its draft, which names patients.
	defer d.sweepDrafts(remittance)
	if _, err := os.Stat(place); err == nil {
		return nil
	}
	draft := filepath.Join(d.dir, dropStaged, remittance+".835."+rand.Text())
	f, err := os.OpenFile(draft, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(draft)
	if err := errors.Join(advice(ctx, f), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(draft, place); err != nil {
		// Another who wrote it too may have been done first and have swept this one.
		if _, there := os.Stat(place); !errors.Is(err, fs.ErrNotExist) || there != nil {
			return err
		}
	}
	return syncDir(filepath.Join(d.dir, dropAdvice))
}

// sweepDrafts removes what is left in staged of a remittance's 835. One that
// another is still writing goes too: it then fails and is tried again, or finds
// the 835 written.
func (d *FileDrop) sweepDrafts(remittance string) {
	drafts, _ := filepath.Glob(filepath.Join(d.dir, dropStaged, remittance+".835.*")) // an id holds no pattern
	for _, draft := range drafts {
		_ = os.Remove(draft)
	}
}

func (d *FileDrop) did(step string) error {
	if d.step == nil {
		return nil
	}
	return d.step(step)
}

func writeSynced(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, bytes.NewReader(content))
	return errors.Join(err, f.Sync(), f.Close())
}

func syncDir(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
