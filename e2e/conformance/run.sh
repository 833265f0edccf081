#!/usr/bin/env bash
# Holds the X12 that Probity writes, and its verdicts on the X12 it reads,
# against pyx12, an independent validator, which install.sh installs. Exits
# non-zero on any difference
# that is not written down as known.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="$(e2e/conformance/install.sh)"
echo "conformance: writing documents and comparing verdicts"
PROBITY_PYX12="$python" go test -tags conformance -count=1 -v ./e2e/conformance
echo "conformance: the sample file, read by pyx12"
PATH="$(dirname "$python"):$PATH" go test -count=1 -v -run '^TestAnIndependentReaderAcceptsTheClaimsFile$' ./services/sample
