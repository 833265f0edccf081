package payment

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Order is what is to be paid. It names nobody but the payee: its NPI is public.
type Order struct {
	PaymentID    string `json:"paymentId"`    // "pay_…"; the idempotency key
	RemittanceID string `json:"remittanceId"` // "rem_…"
	PayerID      string `json:"payerId"`
	PayeeNPI     string `json:"payeeNpi"`
	AmountCents  int64  `json:"amountCents"` // US cents, above zero
	PaymentDate  string `json:"paymentDate"` // ISO 8601 (BPR16)
	TraceNumber  string `json:"traceNumber"` // TRN02: the 835 bears the same
	// Method that was decided on for the payee: "check", "eft" or "card"; empty
	// is whichever whoever moves the money has for it.
	Method string `json:"method,omitempty"`
}

// Receipt is a port's answer to an order that it has taken.
type Receipt struct {
	// Reference is the port's name for the payment: letters, digits and "._:/-", at most 120.
	Reference string
	// Made is true where the payment is made with that; otherwise somebody
	// confirms it later (ConfirmPayment).
	Made bool
}

// Advice writes the order's 835.
type Advice func(ctx context.Context, w io.Writer) error

// Port hands payments to whoever moves the money.
//
// Invariant, by payment id and for ever: an order is made at most once, it is
// either made or withdrawn and never both, and a repeated or concurrent call
// meets what the first one did. An error other than *RefusedError or
// ErrWithdrawn leaves open whether the payment is made.
type Port interface {
	// Pay has an order made; advice is nil where no 835 goes with it. It returns
	// ErrWithdrawn for a payment that was withdrawn.
	Pay(ctx context.Context, o Order, advice Advice) (Receipt, error)
	// Withdraw sees to it that a payment is never made, unless it was: then it
	// returns its receipt and true.
	Withdraw(ctx context.Context, o Order) (r Receipt, made bool, err error)
}

// ErrWithdrawn is the answer to an order whose payment was withdrawn.
var ErrWithdrawn = errors.New("payment: withdrawn")

// RefusedError says that an order will not be made however often it is given.
type RefusedError struct {
	Reason string // a word of FailPaymentRequest.reason
}

func (e *RefusedError) Error() string { return fmt.Sprintf("payment: refused: %s", e.Reason) }
