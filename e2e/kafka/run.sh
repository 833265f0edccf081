#!/usr/bin/env bash
# Holds the ledger against real Apache Kafka brokers. Needs Java 17 and Maven,
# and installs Debian's where they are missing; fetches the brokers from Maven
# Central into .cache/kafka and compares every file with artifacts.sha256.
# Arguments go to go test; SHORT=1 leaves out what takes longest.
set -euo pipefail
cd "$(dirname "$0")/../.."
here=e2e/kafka
if ! command -v java >/dev/null || ! command -v mvn >/dev/null || ! command -v ip >/dev/null; then
	echo "kafka: installing java, maven and iproute2"
	sudo=$([ "$(id -u)" = 0 ] || echo sudo)
	$sudo apt-get update -qq >/dev/null
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq default-jre-headless maven iproute2 >/dev/null
fi
libs="${KAFKA_LIBS:-$PWD/.cache/kafka}"
if ! cmp -s "$here/artifacts.sha256" "$libs/verified"; then
	rm -rf "$libs"
	mkdir -p "$libs"
	tools/progress "fetching Apache Kafka from Maven Central" \
		mvn -B -C -f "$here/pom.xml" dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs"
	(cd "$libs" && sha256sum --quiet --strict -c "$OLDPWD/$here/artifacts.sha256")
	if [ "$(find "$libs" -name '*.jar' | wc -l)" != "$(wc -l <"$here/artifacts.sha256")" ]; then
		echo "kafka: Maven resolved other files than $here/artifacts.sha256 names" >&2
		exit 1
	fi
	cp "$here/artifacts.sha256" "$libs/verified"
fi
cp "$here/log4j2.properties" "$libs/"
echo "kafka: testing on $(basename "$libs"/kafka_2.13-*.jar .jar | sed 's/kafka_2.13-/Apache Kafka /')"
log="$libs/last.log"
status=0
# Everything goes to a file; what passes by is each test's beginning and end.
PROBITY_KAFKA_LIBS="$libs" go test -count=1 -timeout 15m ${SHORT:+-short} -v "$@" "./$here" 2>&1 |
	tee "$log" | grep --line-buffered -E '^(=== RUN   [^/]*$|--- |ok |FAIL|panic:)|^ +--- (FAIL|SKIP)|^#' || status=$?
if grep -q 'NOT TESTED' "$log"; then
	printf 'kafka: %s\n' '****************************************************************' >&2
	grep -h 'NOT TESTED' "$log" | sed 's/^ *[a-z_]*\.go:[0-9]*: */kafka: /' >&2
	printf 'kafka: %s\n' '****************************************************************' >&2
fi
if [ "$status" -ne 0 ] || grep -q '^FAIL' "$log"; then
	echo "kafka: failed; all output is in $log, the failures with their messages:" >&2
	grep -E -A12 'Error Trace|--- FAIL|^panic:' "$log" | tail -120 >&2
	exit 1
fi
