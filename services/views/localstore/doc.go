// Package localstore keeps the tables of views in this process: for a program
// that is one process, where Redis would be a wire to itself.
//
// What finds rows is in memory, in a form that the collector has nothing to
// follow in: names are numbered, a name's places in the tables are a few bytes
// each, sorted sets are blocks of differences. Values are in a file, which is
// at the same time the journal from which a start makes the memory again and
// goes on at the stored offset. A claim of the claims view takes some 200
// bytes of memory.
//
// Nothing is synced: what a crash of the machine takes is followed anew from
// the ledger. A frame of the journal whose sum is wrong ends it there. A file
// only grows; it is deleted with its build, and its length is bounded by what
// the log said.
//
// Files are in one directory that belongs to one Store at a time:
//
//	heads.json                 the shards of each view, and what their readers use
//	<view>.<shard>.vN.G.rows   the journal of a build
package localstore
