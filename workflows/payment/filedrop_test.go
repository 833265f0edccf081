package payment

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func anOrder(letter string) Order {
	id := ""
	for range 26 {
		id += letter
	}
	return Order{PaymentID: "pay_" + id, RemittanceID: "rem_" + id, PayerID: "KEYSTONE", PayeeNPI: "1600100014", AmountCents: 12345, PaymentDate: "2026-11-21", TraceNumber: "TRACE"}
}

func newDrop(t testing.TB, dir string, o FileDropOptions) *FileDrop {
	t.Helper()
	d, err := NewFileDrop(dir, o)
	require.NoError(t, err)
	return d
}

// take is whoever moves the money: it takes the orders out of the outbox.
func take(t testing.TB, dir string) []Order {
	t.Helper()
	var out []Order
	files, err := os.ReadDir(filepath.Join(dir, "outbox"))
	require.NoError(t, err)
	for _, f := range files {
		path := filepath.Join(dir, "outbox", f.Name())
		raw, err := os.ReadFile(path)
		require.NoError(t, err)
		var o Order
		require.NoError(t, json.Unmarshal(raw, &o), "an order is there whole or not at all")
		out = append(out, o)
		require.NoError(t, os.Remove(path))
	}
	return out
}

func TestAnOrderIsDroppedOnceEvenAfterItWasTaken(t *testing.T) {
	dir := t.TempDir()
	d := newDrop(t, dir, FileDropOptions{Advices: true})
	o := anOrder("a")
	written := 0
	advice := func(_ context.Context, w io.Writer) error {
		written++
		_, err := io.WriteString(w, "ISA*835~")
		return err
	}
	first, err := d.Pay(t.Context(), o, advice)
	require.NoError(t, err)
	require.Equal(t, Receipt{Reference: "outbox/" + o.PaymentID + ".json", Made: true}, first)
	require.Equal(t, []Order{o}, take(t, dir))

	again, err := newDrop(t, dir, FileDropOptions{Advices: true}).Pay(t.Context(), o, advice)
	require.NoError(t, err)
	require.Equal(t, first, again)
	require.Empty(t, take(t, dir), "it doesn't come back")
	receipt, made, err := d.Withdraw(t.Context(), o)
	require.NoError(t, err)
	require.True(t, made, "what was dropped can't be withdrawn")
	require.Equal(t, first, receipt)
	require.Equal(t, 1, written)

	other := o
	other.AmountCents++
	_, err = d.Pay(t.Context(), other, advice)
	require.Error(t, err, "one id is one order")

	t.Run("nobody else reads it", func(t *testing.T) {
		require.NoError(t, filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			require.NoError(t, err)
			info, err := e.Info()
			require.NoError(t, err)
			if path != dir {
				require.Zero(t, info.Mode().Perm()&0o077, path)
			}
			return nil
		}))
	})
}

func TestAWithdrawnOrderIsNeverDropped(t *testing.T) {
	dir := t.TempDir()
	d := newDrop(t, dir, FileDropOptions{AwaitConfirmation: true})
	for range 2 {
		_, made, err := d.Withdraw(t.Context(), anOrder("b"))
		require.NoError(t, err)
		require.False(t, made)
		_, err = d.Pay(t.Context(), anOrder("b"), nil)
		require.ErrorIs(t, err, ErrWithdrawn)
	}
	require.Empty(t, take(t, dir))
	r, err := d.Pay(t.Context(), anOrder("c"), nil)
	require.NoError(t, err)
	require.False(t, r.Made, "somebody confirms it later")
}

func TestAnIdThatLeadsElsewhereIsRefused(t *testing.T) {
	d := newDrop(t, t.TempDir(), FileDropOptions{})
	for _, id := range []string{"", "pay_", "pay_../../etc", "pay_A", "pay_a/b", "rem_aaaa", "pay_*"} {
		_, err := d.Pay(t.Context(), Order{PaymentID: id}, nil)
		require.Error(t, err, id)
		_, _, err = d.Withdraw(t.Context(), Order{PaymentID: id})
		require.Error(t, err, id)
	}
}

var errCrash = errors.New("crash")

// Whoever pays and withdraws at the same time and crashes at any step, with a
// taker that empties the outbox at any time: an order is taken once and its
// callers say it was made, or never and they say it is withdrawn.
func TestWhateverHappensAnOrderIsMadeOnceOrWithdrawn(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "drop")
		require.NoError(rt, err)
		o := anOrder("d")
		type call struct {
			withdraw bool
			crashAt  string
		}
		calls := rapid.SliceOfN(rapid.Custom(func(rt *rapid.T) call {
			return call{rapid.Bool().Draw(rt, "withdraws"), rapid.SampledFrom([]string{"", "", "staged", "recorded", "released"}).Draw(rt, "crashes at")}
		}), 1, 6).Draw(rt, "calls")
		var wait sync.WaitGroup
		var mu sync.Mutex
		taken, said := 0, map[string]int{}
		do := func(c call) {
			d := newDrop(t, dir, FileDropOptions{})
			d.step = func(step string) error {
				if step == c.crashAt {
					return errCrash
				}
				return nil
			}
			var made bool
			var err error
			if c.withdraw {
				_, made, err = d.Withdraw(context.Background(), o)
			} else {
				_, err = d.Pay(context.Background(), o, nil)
				made = err == nil
			}
			mu.Lock()
			defer mu.Unlock()
			taken += len(take(t, dir))
			switch {
			case errors.Is(err, errCrash):
			case err == nil && made:
				said["made"]++
			case err == nil, errors.Is(err, ErrWithdrawn):
				said["withdrawn"]++
			default:
				said[fmt.Sprint(err)]++
			}
		}
		for _, c := range calls {
			wait.Go(func() { do(c) })
		}
		wait.Wait()
		do(call{withdraw: rapid.Bool().Draw(rt, "the last withdraws")})
		want := map[string]int{"made": said["made"] + said["withdrawn"]}
		if taken == 0 {
			want = map[string]int{"withdrawn": want["made"]}
		}
		require.LessOrEqual(rt, taken, 1)
		require.Equal(rt, want, said)
	})
}

// Whoever moves the money stops a payee: what it has not been given is refused,
// and what it has stands.
func TestOrdersForAStoppedPayeeAreRefused(t *testing.T) {
	dir := t.TempDir()
	d := newDrop(t, dir, FileDropOptions{})
	before, after := anOrder("a"), anOrder("b")
	_, err := d.Pay(t.Context(), before, nil)
	require.NoError(t, err)
	for content, reason := range map[string]string{"account-closed\nsince May\n": "account-closed", "account-unknown": "account-unknown", "": "refused", "MARKER": "refused"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "stop", after.PayeeNPI), []byte(content), 0o600))
		_, err = d.Pay(t.Context(), after, nil)
		var refused *RefusedError
		require.ErrorAs(t, err, &refused)
		require.Equal(t, reason, refused.Reason)
	}
	_, err = d.Pay(t.Context(), before, nil)
	require.NoError(t, err, "it was taken already")
	other := anOrder("c")
	other.PayeeNPI = "../record/x"
	_, err = d.Pay(t.Context(), other, nil)
	require.NoError(t, err, "what is no NPI is no file's name")
	require.NoError(t, os.Remove(filepath.Join(dir, "stop", after.PayeeNPI)))
	_, err = d.Pay(t.Context(), after, nil)
	require.NoError(t, err)
	require.Len(t, take(t, dir), 3)
}

// A worker was killed while it wrote an 835: whoever takes the payment further,
// by making it or withdrawing it, leaves no patient's name behind in staged.
func TestADraftThatAKillLeftIsSweptAway(t *testing.T) {
	for name, further := range map[string]func(*FileDrop, Order) error{
		"paid": func(d *FileDrop, o Order) error {
			_, err := d.Pay(t.Context(), o, func(_ context.Context, w io.Writer) error { _, err := io.WriteString(w, "ISA*835~"); return err })
			return err
		},
		"withdrawn": func(d *FileDrop, o Order) error { _, _, err := d.Withdraw(t.Context(), o); return err },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			d, o := newDrop(t, dir, FileDropOptions{Advices: true}), anOrder("a")
			require.NoError(t, os.WriteFile(filepath.Join(dir, "staged", o.RemittanceID+".835.LEFT"), []byte("NM1*QC*1*DOE"), 0o600))
			require.NoError(t, further(d, o))
			left, err := filepath.Glob(filepath.Join(dir, "staged", "*.835.*"))
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}
