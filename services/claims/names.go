package claims

import (
	"slices"
	"strconv"
	"strings"

	"github.com/probity-health/probity/services/keys"
)

// logName is the log that claims, accumulators, files and remittances live in.
const logName = "claims"

// bucketLetters is how many letters of a subscriber's id choose the routing
// key of the family. Three base32 letters make 32,768 routing keys: many more
// than a log has shards, few enough to say nothing about a person.
const bucketLetters = 3

// submissionID is the name under which an organisation's idempotency key is
// taken. The claim of a file is named by its place in the file instead: the
// file's id stands for its bytes, so that key can't be used for other content.
func submissionID(ix *keys.Index, org, requestID, fileID string, ordinal uint32) string {
	if fileID != "" {
		return ix.ID("sbm", "file", fileID, strconv.FormatUint(uint64(ordinal), 10))
	}
	return ix.ID("sbm", "request", org, requestID)
}

// claimID puts the family's routing bucket into the claim's id, in place of
// the hash's last letters. Whoever holds a claim id can then read the claim
// from the ledger without an index that might be behind or lost; the 115 bits
// that remain of the hash keep ids apart.
func claimID(submission, subscriber string) string {
	_, hash, _ := strings.Cut(submission, "_")
	return "clm_" + hash[:len(hash)-bucketLetters] + bucketOf(subscriber)
}

// bucketOf is the family's bucket: the first letters of the subscriber's id.
func bucketOf(subscriber string) string {
	_, hash, _ := strings.Cut(subscriber, "_")
	return hash[:bucketLetters]
}

// familyKey is the routing key of a subscriber's claims and accumulators,
// which therefore share a shard and can be written in one commit.
func familyKey(subscriber string) string { return "family-" + bucketOf(subscriber) }

// claimKey is the same routing key, from the claim's id.
func claimKey(claim string) string { return "family-" + claim[len(claim)-bucketLetters:] }

// isID tells whether s is an id of the given prefix, so that what a caller
// sends can be cut apart and used in a stream's name.
func isID(prefix, s string) bool {
	rest, ok := strings.CutPrefix(s, prefix+"_")
	return ok && len(rest) == 26 && strings.IndexFunc(rest, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '2' || r > '7')
	}) < 0
}

func claimStream(id string) string               { return "claim-" + id }
func accumulatorStream(subscriber string) string { return "accumulators-" + subscriber }
func submissionStream(id string) string          { return "submission-" + id }
func fileStream(id string) string                { return "file-" + id }
func contentStream(id string) string             { return "filecontent-" + id }
func remittanceStream(id string) string          { return "remittance-" + id }

// refusalStream is where an organisation's refused submissions leave a trace.
// An organisation whose name a stream can't carry is named by its hash.
func refusalStream(ix *keys.Index, org string) string {
	plain := len(org) > 0 && len(org) <= 100 && strings.IndexFunc(org, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_.:-", r))
	}) < 0
	if !plain {
		org = ix.ID("org", org)
	}
	return "refusal-" + org
}

// remittanceID names the part'th remittance of a run for one payer, payee and
// sender.
func remittanceID(ix *keys.Index, scope, run, payer, npi, org string, part int) string {
	return ix.ID("rem", scope, run, payer, npi, org, strconv.Itoa(part))
}

// cycleStream is where a payer's payment cycles are planned, one after the other.
func cycleStream(ix *keys.Index, payer string) string { return "paymentcycle-" + ix.ID("pcy", payer) }

// A payment is named by its remittance and lives under its routing key, so
// that what voids both is one commit.
func paymentID(remittance string) string  { return "pay_" + strings.TrimPrefix(remittance, "rem_") }
func remittanceOf(payment string) string  { return "rem_" + strings.TrimPrefix(payment, "pay_") }
func paymentStream(payment string) string { return "payment-" + payment }

// changeStream is what is recorded of a retroactive change.
func changeStream(id string) string { return "change-" + id }

// cursorStream is where the follower of changes keeps how far it has come.
const cursorStream = "changes-cursor"

// accountStream is the account between a payer and a payee.
func accountStream(ix *keys.Index, payer, npi string) string {
	return "payeeaccount-" + ix.ID("pac", payer, npi)
}

// payeeStream orders the holds of a payee and the clearing of its payments.
func payeeStream(ix *keys.Index, payer, npi string) string {
	return "payee-" + ix.ID("pye", payer, npi)
}

// refusalKey is the idempotency key of a refusal's trace: the same refusal of
// the same submission is recorded once, another one is recorded beside it.
func refusalKey(ix *keys.Index, submission string, rules []string) string {
	rules = slices.Clone(rules)
	slices.Sort(rules)
	return "refused/" + ix.ID("rfs", append([]string{submission}, slices.Compact(rules)...)...)
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
