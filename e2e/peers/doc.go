// Package peers measures the ledger beside systems that its users might have
// taken instead, and beside the floor: raw batches to the same broker.
//
// Everything runs on one machine and disk in one run, syncs before it answers,
// and takes events of one size from callers that wait for their answer before
// they send the next. Rounds are interleaved, so that a slow minute of the
// machine falls on all alike; the median of the rounds counts. What the
// machine does in absolute terms says little: read the ratios.
//
// Two ways of measuring, each beside its like. In process: the ledger's
// handler, raw batches and Tessera, called as Go functions. Over loopback: the
// ledger through the client that services use, PostgreSQL, etcd and JetStream
// through theirs.
//
// The module is apart from the others so that its dependencies stay out of
// what ships.
package peers
