#!/usr/bin/env bash
# `make bench-kafka`: Holdfast beside Apache Kafka. Arguments go to compare.py (see its --help).
# Needs java 17, Maven and python3.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"

"$here/fetch.sh"
exec python3 "$here/compare.py" "$@"
