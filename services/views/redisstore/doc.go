// Package redisstore keeps the tables of views in Redis, where any number of
// processes read and write them.
//
// One script compares the stored offset of (view, shard), applies a batch and
// advances, so a batch that arrives twice, or from two processes at once,
// changes nothing the second time. All keys of (view, shard) share a hash tag
// and so a Redis Cluster slot.
//
// Layout, where {view:shard} is the hash tag, N the projection's version and
// G the generation:
//
//	pv:{view}:shards               set: the shards of the log
//	pv:{view:shard}:meta           hash: live, the version that readers use; gen
//	pv:{view:shard}:vN.G:offset    string: next index of the shard to apply
//	pv:{view:shard}:vN.G:parked    hash: index of a parked commit to the reason's class
//	pv:{view:shard}:vN.G:d:<key>   what the projection writes
//
// What is deleted is never written to again, because the script is told the
// generation, so deleting can't take half of what is being built. Redis must
// not evict (maxmemory-policy noeviction): an evicted key is a wrong answer
// that nobody notices.
package redisstore
