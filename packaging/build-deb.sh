#!/usr/bin/env bash
# Builds the Debian package: target/debian/holdfast_VERSION_ARCH.deb.
# Installs the pinned cargo-deb into .tools/ on first use; the metadata is in Cargo.toml.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CARGO_DEB_VERSION=3.8.0
readonly CARGO_DEB=.tools/bin/cargo-deb

if [[ "$($CARGO_DEB --version 2>/dev/null || true)" != *"$CARGO_DEB_VERSION"* ]]; then
    cargo install --root .tools --locked "cargo-deb@$CARGO_DEB_VERSION"
fi

if [[ ! -f ui/dist/index.html ]]; then
    echo "ui/dist is missing: the package would carry no dashboard; run 'make ui' first" >&2
    exit 1
fi

cargo build --release --locked --bin holdfast

# The manual's options and the completions are written by the binary itself, so that they never disagree with it.
readonly GENERATED=target/packaging
mkdir -p "$GENERATED"
# The names of functions stay, for backtraces; the tables of lines are four fifths of the file.
objcopy --strip-debug target/release/holdfast "$GENERATED/holdfast"
for shell in bash zsh fish; do
    target/release/holdfast completions "$shell" >"$GENERATED/holdfast.$shell"
done
{
    target/release/holdfast man
    cat packaging/holdfast-sections.1
} >"$GENERATED/holdfast.1"

rm -rf target/debian
"$CARGO_DEB" deb --no-build --locked --output target/debian/
ls -l target/debian/*.deb
