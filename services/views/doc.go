// Package views keeps read models in Redis: answers that the ledger's events
// imply, in the shape that a page asks for. They can be thrown away at any
// time; the events are the truth and make them again.
//
// Invariants:
//
//   - A commit's commands are applied once and together. One script compares
//     the stored offset of (view, shard), applies and advances, so a batch that
//     arrives twice, or from two runners at once, changes nothing the second time.
//   - Nothing is skipped. A batch that doesn't join what is stored is refused
//     and followed again from the stored offset; a commit that a projection
//     can't apply is parked where an operator finds it, and alarmed.
//   - All keys of (view, shard) share a hash tag and so a Redis Cluster slot.
//   - Keys and values hold opaque ids, codes, dates and amounts: no name, no
//     member id, no diagnosis, no free text.
//
// Layout, where {view:shard} is the hash tag, N the projection's version and
// G the generation, which DropAll raises:
//
//	pv:{view}:shards               set: the shards of the log
//	pv:{view:shard}:meta           hash: live, the version that readers use; gen
//	pv:{view:shard}:vN.G:offset    string: next index of the shard to apply
//	pv:{view:shard}:vN.G:parked    hash: index of a parked commit to the reason's class
//	pv:{view:shard}:vN.G:d:<key>   what the projection writes
//
// A new version is built beside the live one and readers are switched when it
// has caught up, shard by shard; the old one is deleted after a grace. What is
// deleted is never written to again, because a writer names its generation, so
// deleting can't take half of what is being built. Redis must not evict
// (maxmemory-policy noeviction): an evicted key is a wrong answer that nobody
// notices.
package views
