#!/usr/bin/env bash
# Installs pyx12, pinned, into .cache/conformance and prints the path of a
# python that has it. Needs python3 with venv.
set -euo pipefail
cd "$(dirname "$0")/../.."
venv="${CONFORMANCE_VENV:-$PWD/.cache/conformance/venv}"
want=e2e/conformance/requirements.txt
if ! cmp -s "$want" "$venv/installed.txt"; then
	echo "conformance: installing pyx12 into $venv" >&2
	rm -rf "$venv"
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r "$want" >&2
	cp "$want" "$venv/installed.txt"
fi
echo "$venv/bin/python"
