package sim

import "strings"

// Bug is a bug planted on purpose, to see that a run finds it. It lives in
// what the simulator wraps around the ledger's code, never in that code.
type Bug int

// The planted bugs.
const (
	NoBug          Bug = iota
	SkipLogSync        // the disk says the commits and the store's log are synced and they are not
	SkipSignedSync     // the disk says last-signed is synced and it is not
	SignUnread         // a replica signs blocks without recomputing their roots
	DropBarrier        // a new owner serves without having written a barrier
	ServeUnread        // a new owner serves before it has read up to its barrier
	TrustOffset        // a follower takes the record at a known offset for the one it knew
	GuessAmbiguous     // an owner takes a produce without an answer for a success
	ForgetWritten      // an owner doesn't compare what it reads with what it wrote
	EarlyPolicy        // a replica counts by a policy that is not in force yet
	UnprovenRows       // a replica starts from index rows without holding their roots against a block
	HandEarly          // an owner hands over what the broker has not acknowledged
	SkipAudit          // the audit is shown what was written instead of what the topic holds
	Bugs
)

var bugNames = [Bugs]string{
	"none", "skip the log's fsync", "skip last-signed's fsync", "sign before re-hash", "drop the barrier",
	"serve before reading up to the barrier", "trust an offset", "guess an ambiguous produce", "forget what was written",
	"accept a policy before its activation height",
	"catch up without verifying the state's digest", "hand over before the acknowledgement", "audit without reading",
}

// String names the bug.
func (b Bug) String() string { return bugNames[b] }

// lies returns which syncs a bug makes the disks skip.
func (b Bug) lies() func(string) bool {
	switch b {
	case SkipLogSync:
		return func(p string) bool {
			return strings.HasPrefix(p, storeDir+"/") && strings.HasSuffix(p, ".log") || strings.HasPrefix(p, commitsDir+"/")
		}
	case SkipSignedSync:
		return func(p string) bool { return strings.Contains(p, "last-signed") }
	}
	return nil
}
