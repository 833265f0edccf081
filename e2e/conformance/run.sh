#!/usr/bin/env bash
# Holds the X12 that Probity writes, and its verdicts on the X12 it reads,
# against pyx12, an independent validator. Needs python3 with venv; installs
# pinned packages into .cache/conformance. Exits non-zero on any difference
# that is not written down as known.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${CONFORMANCE_VENV:-$PWD/.cache/conformance/venv}"
want=e2e/conformance/requirements.txt
if ! cmp -s "$want" "$venv/installed.txt"; then
	echo "conformance: installing pyx12 into $venv"
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$want"
	cp "$want" "$venv/installed.txt"
fi
echo "conformance: writing documents and comparing verdicts"
PROBITY_PYX12="$venv/bin/python" go test -tags conformance -count=1 -v ./e2e/conformance
echo "conformance: the sample file, read by pyx12"
PATH="$venv/bin:$PATH" go test -count=1 -v -run '^TestAnIndependentReaderAcceptsTheClaimsFile$' ./services/sample
