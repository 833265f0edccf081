// Package sim runs a whole ledger in one goroutine, seeded, against every
// fault that could be thought of.
//
// What runs is what runs in production: shard.Owner, replica.Shard,
// replica.Blocks with its cosigner, tiles and the pebble store below them, core and
// receipt.
// What is simulated is what they stand on: the clock, the disk, Kafka with its
// producer epochs and its consumer group, the network, the callers. Everything
// that is left to chance is drawn from the seed, so that a seed is a run: the
// same events in the same order, the same trace.
//
// After every step the run is held against what the ledger promises, as
// computed by an oracle of its own from the log alone:
//
//   - every record an owner wrote is valid: dense indexes and revisions, a
//     request id at most once, no commit in a term that no barrier raised;
//   - an acknowledged append stands where it was said to stand, its promise
//     verifies, and it comes after all that was acknowledged before it was sent;
//   - a refusal names a revision that the stream came to, no older than what
//     was acknowledged before, and what was refused never stands on the ledger;
//   - replicas have equal roots at equal sizes;
//   - a replica signs one head a size, never a lower one, and nothing that its
//     stored commits do not hash to; after a crash it knows what it signed and
//     still has it;
//   - no two heads of one size have a quorum of signatures, and what is final
//     stays held by the honest of the quorum;
//   - what a replica holds final was signed by a quorum, and what it keeps as
//     evidence convicts nobody who is honest;
//   - nobody halts whom nobody gave a reason to;
//   - once the faults stop, every append is answered, every replica is level
//     with the log, and everything is final; a replay of the topic comes to the
//     same heads and the same streams.
//
// A broker that loses acknowledged records (Truncate, LoseTopic) may take what
// was not final with it; one replica a run, the victim, may be lied to by the
// broker or its disk and be unable to go on. The other rules hold even then.
package sim
