// Package views keeps read models: answers that the ledger's events imply, in
// the shape that a page asks for. They can be thrown away at any time; the
// events are the truth and make them again.
//
// Invariants:
//
//   - A commit's commands are applied once and together. A Store compares the
//     stored offset of a build, applies and advances, so a batch that arrives
//     twice, or from two runners at once, changes nothing the second time.
//   - Nothing is skipped. A batch that doesn't join what is stored is refused
//     and followed again from the stored offset; a commit that a projection
//     can't apply is parked where an operator finds it, and alarmed.
//   - Keys and values hold opaque ids, codes, dates and amounts: no name, no
//     member id, no diagnosis, no free text.
//
// What a projection writes is kept by (view, shard, version, generation), a
// Build. A new version is built beside the live one and readers are switched
// when it has caught up, shard by shard; the old one is deleted after a grace.
// DropAll raises the generation; what is deleted is never written to again,
// because a writer names its generation, so deleting can't take half of what
// is being built.
//
// Where tables are kept is a Store: redisstore for services in processes of
// their own, localstore for all of them in one.
package views
