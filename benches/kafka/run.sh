#!/usr/bin/env bash
# `make bench-kafka`: Holdfast beside Apache Kafka. Arguments go to compare.py (see its --help).
# Needs java 17, Maven and python3; fetches Kafka into benches/kafka/.lib on first use.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

version="$(sed -n 's:.*<kafka.version>\(.*\)</kafka.version>.*:\1:p' "$here/pom.xml")"
if [[ ! -f "$here/.lib/kafka-clients-$version.jar" ]]; then
    rm -rf "$here/.lib"
    mvn --batch-mode --no-transfer-progress --quiet --file "$here/pom.xml" \
        dependency:copy-dependencies -DoutputDirectory="$here/.lib" -DincludeScope=runtime
fi

exec python3 "$here/compare.py" "$@"
