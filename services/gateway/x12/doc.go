// Package x12 reads health claims from X12 interchanges and writes the
// answers to them. It follows the implementation guides
//
//	837P 005010X222A1, X222A2    claims, professional (read)
//	837I 005010X223A2, X223A3    claims, institutional (read)
//	834  005010X220A1            benefit enrolment and maintenance (read)
//	999  005010X231A1            syntax acknowledgement (written)
//	277CA 005010X214             claim acknowledgement (written)
//	835  005010X221A1            remittance advice (written, read for balance)
//
// and the envelope rules of X12.5 and X12.6.
//
// Reading takes two passes. ParseFile checks the whole file in flat memory
// and says what stands where; File.Claims then yields any range of claims by
// ordinal, starting at the nearest of the places ParseFile remembered.
//
// Invariants:
//   - An error rejects the smallest thing that contains it: a claim, the
//     claims of a subscriber, a transaction set, a group, an interchange. What
//     stands beside it proceeds.
//   - Ordinals count the claims of accepted transaction sets only, in the
//     order of the file, from 0. A claim rejected by itself keeps its ordinal.
//   - A problem names segments, elements, rules and codes, never a value.
//   - Every input is bounded: segment, element counts, problems kept.
//   - Writers are deterministic: control numbers and times are given.
//
// The package has no clock, no randomness, no transport and no store.
package x12
