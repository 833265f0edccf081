// Package problem is the one error type of Probity's domains.
//
// A problem says what is wrong and what to do next. It names rules, fields
// and classes of value; it never carries health data, so it may be logged,
// traced and returned as it is. Package server maps it to RPC codes and
// details at the edge; nothing is lost there but the cause, which stays in
// the server's log.
package problem

import (
	"errors"
	"fmt"
	"strings"
)

// Kind is the class of an error. It decides the RPC code, the CLI's exit
// code and whether a caller may retry.
type Kind string

// The kinds.
const (
	Invalid         Kind = "invalid"         // the request breaks a rule; fix and resend
	NotFound        Kind = "not_found"       // no such thing, or not for this caller
	Conflict        Kind = "conflict"        // the state differs from what the caller believed
	Unauthenticated Kind = "unauthenticated" // no valid token
	Forbidden       Kind = "forbidden"       // the policy set says no
	Exhausted       Kind = "exhausted"       // a bounded resource is full; retry later
	Unavailable     Kind = "unavailable"     // a dependency is away; safe to retry
	Internal        Kind = "internal"        // a defect; nothing the caller can do
)

// Problem is one thing that is wrong.
type Problem struct {
	RuleID    string // stable, "x12.envelope.se-count"
	FieldPath string // "claim.lines[1].procedure"
	X12Path   string // "ST 0001 / segment 23 / SV101"
	Code      string // CARC, RARC, 277 or 999 code where one applies
	Message   string // what is wrong
	Fix       string // what to do next
	// Line and Column, from 1, are the place in a document that was sent as
	// text; 0 where there is none.
	Line, Column int
}

// Error is a refusal: a kind and the problems found, in order.
type Error struct {
	Kind     Kind
	Problems []Problem
	// Cause is for the log of the process that saw it; it doesn't cross RPC.
	Cause error
}

// New makes an error of one problem.
func New(kind Kind, p Problem) *Error { return &Error{Kind: kind, Problems: []Problem{p}} }

// Invalidf makes an Invalid error of one rule and a message.
func Invalidf(ruleID, fieldPath, format string, args ...any) *Error {
	return New(Invalid, Problem{RuleID: ruleID, FieldPath: fieldPath, Message: fmt.Sprintf(format, args...)})
}

// Because returns e with its cause set.
func (e *Error) Because(cause error) *Error {
	c := *e
	c.Cause = cause
	return &c
}

// Error joins the messages; it doesn't print the cause.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(string(e.Kind))
	for i, p := range e.Problems {
		if i == 0 {
			b.WriteString(": ")
		} else {
			b.WriteString("; ")
		}
		b.WriteString(p.Message)
		if p.RuleID != "" {
			b.WriteString(" (" + p.RuleID + ")")
		}
	}
	return b.String()
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Retryable tells whether the same request may succeed later unchanged.
func (e *Error) Retryable() bool { return e.Kind == Unavailable || e.Kind == Exhausted }

// As returns err's *Error, or an Internal one that hides err's text.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return New(Internal, Problem{
		RuleID:  "internal",
		Message: "something went wrong inside the service",
		Fix:     "retry; if it persists give the request id to the operator",
	}).Because(err)
}

// Is tells whether err is an *Error of the kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}
