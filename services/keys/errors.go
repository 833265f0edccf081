package keys

import (
	"errors"

	"github.com/probity-health/probity/services/problem"
)

// What an error of this package is, by errors.Is. Each comes wrapped in a
// *problem.Error, which may cross RPC as it is.
var (
	// ErrDestroyed: the subject's key was destroyed; what it sealed is erased, for good.
	ErrDestroyed = errors.New("keys: subject's key destroyed")
	// ErrForged: place, key or box don't fit each other. Somebody moved or changed the box.
	ErrForged = errors.New("keys: sealed box doesn't open in this place")
	// ErrNoKey: the authority has no key of that version, so it can't have made
	// the box: its store was lost or restored from an older copy.
	ErrNoKey = errors.New("keys: no such key")
	// ErrClosed: the sealer has wiped its keys and serves no more.
	ErrClosed = errors.New("keys: sealer closed")
)

// DestroyedError names the subjects whose keys were destroyed; it matches ErrDestroyed.
type DestroyedError struct{ Subjects []string }

// Error gives no subject: one opaque id a line is noise, and many are a list.
func (e *DestroyedError) Error() string { return ErrDestroyed.Error() }

// Is matches ErrDestroyed.
func (e *DestroyedError) Is(target error) bool { return target == ErrDestroyed }

// Destroyed is the error of subjects that have been erased. A Kind of
// NotFound: for every reader the data is no longer there.
func Destroyed(subjects ...string) error {
	return problem.New(problem.NotFound, problem.Problem{
		RuleID:  "keys.destroyed",
		Message: "the health data was erased: its key has been destroyed",
		Fix:     "nothing can bring it back; the ledger's proofs of it stay valid",
	}).Because(&DestroyedError{Subjects: subjects})
}

func forged() error {
	return problem.New(problem.Internal, problem.Problem{
		RuleID:  "keys.forged",
		Message: "sealed health data doesn't open in the place where it was found",
		Fix:     "treat it as tampering: compare the event with its receipt, and tell the operator",
	}).Because(ErrForged)
}

func noKey() error {
	return problem.New(problem.Internal, problem.Problem{
		RuleID:  "keys.missing",
		Message: "the key authority doesn't hold the key of sealed health data",
		Fix:     "check that the consent service runs on its newest key store and not on an older copy",
	}).Because(ErrNoKey)
}

func closed() error {
	return problem.New(problem.Unavailable, problem.Problem{
		RuleID:  "keys.closed",
		Message: "the service is shutting down",
		Fix:     "send the request again",
	}).Because(ErrClosed)
}
