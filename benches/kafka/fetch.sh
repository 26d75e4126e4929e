#!/usr/bin/env bash
# Fetches Apache Kafka and its tools into benches/kafka/.lib, once, and again when pom.xml has changed.
# Shared by `make bench-kafka` and `make compat`; needs Maven.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
stamp="$here/.lib/.fetched"

if [[ ! -f "$stamp" || "$here/pom.xml" -nt "$stamp" ]]; then
    rm -rf "$here/.lib"
    mvn --batch-mode --no-transfer-progress --quiet --file "$here/pom.xml" \
        dependency:copy-dependencies -DoutputDirectory="$here/.lib" -DincludeScope=runtime
    touch "$stamp"
fi
