//go:build js && wasm

// Package browser is the receipt verifier for a web page: package receipt,
// compiled to WebAssembly. `make wasm` builds bin/receipt.wasm; a page loads it
// with the wasm_exec.js that comes with Go:
//
//	const go = new Go();
//	const { instance } = await WebAssembly.instantiateStreaming(fetch("receipt.wasm"), go.importObject);
//	go.run(instance);
//	const answer = probity.verifyReceipt(receipt, policy, commit);
//
// receipt and policy are strings, the documents as `probity receipt` and the
// ledger's operator hand them out. Where keys are all that is known, policy is
// {origin, quorum, keys: [vkey, …]} instead. commit is a Uint8Array, or left out when
// only the place is to be proved. Nothing leaves the page: there is no clock,
// network or store in it.
//
// The answer is {ok: true, log, shard, index, height, cosigners} or
// {ok: false, error}. index and height are strings, for they may pass what a
// JavaScript number holds exactly. probity.verifySealed takes the same and
// accepts a receipt that no quorum has cosigned yet.
package main

import (
	"errors"
	"strconv"
	"syscall/js"

	"github.com/probity-health/probity/services/ledger/receipt"
)

// maxDocument bounds what a page may hand in: receipts are a few KiB, commits
// at most a Kafka record.
const maxDocument = 4 << 20

func main() {
	js.Global().Set("probity", map[string]any{
		"verifyReceipt": verifier(receipt.Verify),
		"verifySealed":  verifier(receipt.VerifySealed),
	})
	select {} // the page calls for as long as it lives
}

func verifier(verify func([]byte, receipt.Policy) (receipt.Verified, error)) js.Func {
	return js.FuncOf(func(_ js.Value, args []js.Value) any {
		failed := func(message string) any { return map[string]any{"ok": false, "error": message} }
		if len(args) < 2 || args[0].Type() != js.TypeString {
			return failed("give the receipt as a string, the policy, and the commit as a Uint8Array where there is one")
		}
		document := args[0].String()
		if len(document) > maxDocument {
			return failed("the receipt is larger than any that a ledger hands out")
		}
		policy, err := policyOf(args[1])
		if err != nil {
			return failed(err.Error())
		}
		v, err := verify([]byte(document), policy)
		if err != nil {
			return failed(err.Error())
		}
		if len(args) > 2 && !args[2].IsUndefined() && !args[2].IsNull() {
			if !args[2].InstanceOf(js.Global().Get("Uint8Array")) || args[2].Length() > maxDocument {
				return failed("the commit is a Uint8Array")
			}
			commit := make([]byte, args[2].Length())
			js.CopyBytesToGo(commit, args[2])
			if err := receipt.VerifyCommit(v, commit); err != nil {
				return failed(err.Error())
			}
		}
		cosigners := make([]any, len(v.Signers))
		for i, s := range v.Signers {
			cosigners[i] = s
		}
		return map[string]any{
			"ok": true, "log": v.Log, "shard": int(v.Shard),
			"index": strconv.FormatUint(v.Index, 10), "height": strconv.FormatUint(v.Height, 10),
			"cosigners": cosigners,
		}
	})
}

// policyOf reads a policy file, or bare keys.
func policyOf(v js.Value) (receipt.Policy, error) {
	switch v.Type() {
	case js.TypeString:
		return receipt.ParsePolicy([]byte(v.String()))
	case js.TypeObject:
		origin, quorum, list := v.Get("origin"), v.Get("quorum"), v.Get("keys")
		if origin.Type() != js.TypeString || quorum.Type() != js.TypeNumber || !list.InstanceOf(js.Global().Get("Array")) || list.Length() > maxKeys {
			break
		}
		keys := make([]string, list.Length())
		for i := range keys {
			if list.Index(i).Type() != js.TypeString {
				return receipt.Policy{}, errPolicy
			}
			keys[i] = list.Index(i).String()
		}
		return receipt.NewPolicy(origin.String(), quorum.Int(), keys...)
	}
	return receipt.Policy{}, errPolicy
}

var errPolicy = errors.New("the policy is a policy file's text, or {origin, quorum, keys: [vkey, ...]}")

// maxKeys bounds a list of bare keys; no ledger has so many parties.
const maxKeys = 1000
