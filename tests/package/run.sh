#!/usr/bin/env bash
# The package as an operator meets it: installed into a clean Debian, started by systemd under its
# real unit, used through every door, killed, upgraded, stopped, removed and purged.
#
#   tests/package/run.sh [PACKAGE.deb]      default: the one in target/debian/
#
# Needs root, debootstrap and a Debian mirror in the machine's own apt sources. Debian lives in
# target/deb-root (made once) and boots in namespaces of its own: its network has nothing but a
# loopback, so the default ports are free, and nothing outside target/ is written.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly SUITE=bookworm
readonly PRISTINE=target/deb-root
readonly ROOT=$PWD/target/deb-root.run
readonly CGROUP=/sys/fs/cgroup/unified/holdfast-package-$$
readonly CGROUP_V2_ONLY=/sys/fs/cgroup/holdfast-package-$$
# systemd's own measure of how much a service may do, of 100: 20 is its "OK".
readonly EXPOSURE_MAX=20

step() { printf '== %s\n' "$*"; }
die() { printf 'FAILED: %s\n' "$*" >&2; exit 1; }

[[ $EUID -eq 0 ]] || die "needs root: it makes namespaces and a Debian root"
for tool in debootstrap unshare nsenter setpriv mosquitto_pub kcat curl jq; do
    command -v "$tool" >/dev/null || die "$tool is missing"
done

package="${1:-$(compgen -G 'target/debian/*.deb' | head -n 1 || true)}"
[[ -f "$package" ]] || die "no package: run packaging/build-deb.sh first"

# --- a clean Debian ---------------------------------------------------------------------------

if [[ ! -e $PRISTINE/.complete ]]; then
    mirror="$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' | awk -v s=$SUITE '$2 == s && $3 == "main" { print $1; exit }')"
    [[ -n "$mirror" ]] || die "this machine's apt sources name no mirror of $SUITE"
    step "debootstrap $SUITE into $PRISTINE"
    rm -rf "$PRISTINE"
    mkdir -p target
    debootstrap --variant=minbase --include=systemd,systemd-sysv $SUITE "$PRISTINE" "$mirror" \
        >target/debootstrap.log 2>&1 || { tail -n 20 target/debootstrap.log >&2; die debootstrap; }
    touch "$PRISTINE/.complete"
fi

# --- boot it ----------------------------------------------------------------------------------

outer=
init=
group=$CGROUP
[[ -d /sys/fs/cgroup/unified ]] || group=$CGROUP_V2_ONLY

# shellcheck disable=SC2317 # called by the trap
clean_up() {
    local code=$?
    if [[ $code -ne 0 && -n "$init" ]]; then
        in_debian journalctl --no-pager --unit holdfast --lines 60 >&2 || true
    fi
    # The end of a pid namespace's init is the end of everything in it.
    [[ -z "$init" ]] || kill -KILL "$init" 2>/dev/null || true
    [[ -z "$outer" ]] || wait "$outer" 2>/dev/null || true
    if [[ -d $group ]]; then
        find "$group" -depth -type d -exec rmdir {} + 2>/dev/null || true
    fi
    rm -rf "$ROOT"
    exit "$code"
}
trap clean_up EXIT

in_debian() { nsenter --target "$init" --all -- "$@"; }
# A client outside of the package's Debian, on the same loopback.
beside() { nsenter --target "$init" --net -- "$@"; }
property() { in_debian systemctl show --value --property "$1" holdfast; }

# Polls a condition that can be observed; nothing here waits for a span of time to pass.
eventually() {
    local what="$1" deadline=$((SECONDS + 60))
    shift
    until "$@"; do
        ((SECONDS < deadline)) || die "$what: not within 60 s"
        sleep 0.1
    done
}

step "boot"
rm -rf "$ROOT"
cp -a --reflink=auto "$PRISTINE" "$ROOT"
rm "$ROOT/.complete"
cp "$package" "$ROOT/root/holdfast.deb"
mkdir "$group"
(
    echo "$BASHPID" >"$group/cgroup.procs"
    exec unshare --cgroup --mount --pid --net --uts --ipc --fork --kill-child \
        tests/package/boot.sh "$ROOT"
) >target/deb-root.boot.log 2>&1 </dev/null &
outer=$!
init_started() { init="$(tr -d ' ' <"/proc/$outer/task/$outer/children")" && [[ -n "$init" ]]; }
eventually "an init process" init_started
is_init() { [[ "$(cat "/proc/$init/comm" 2>/dev/null)" == systemd ]]; }
eventually "systemd as init ($(tail -n 3 target/deb-root.boot.log))" is_init
booted() { [[ "$(in_debian systemctl is-system-running 2>/dev/null)" == running ]]; }
eventually "a booted system" booted

# Every file but what dpkg and systemd write about any package at all.
inventory() {
    in_debian find / -xdev \
        \( -path /var/lib/dpkg -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd \
        -o -path /var/tmp -o -path /root \) -prune -o -not -name '*-' -printf '%p\n' | sort
    in_debian cut -d : -f 1 /etc/passwd /etc/group | sed 's/^/account /' | sort
}
before="$(inventory)"

# --- install ----------------------------------------------------------------------------------

step "install: $(basename "$package")"
in_debian dpkg --install /root/holdfast.deb
[[ "$(property ActiveState)" == active ]] || die "installed, but not running"
in_debian systemctl is-enabled --quiet holdfast || die "not enabled for the next boot"
in_debian systemd-analyze verify --man=no /lib/systemd/system/holdfast.service
in_debian systemd-analyze security --no-pager --threshold=$EXPOSURE_MAX holdfast | tail -n 1
for page in usr/share/man/man1/holdfast.1.gz usr/share/bash-completion/completions/holdfast \
    usr/share/zsh/vendor-completions/_holdfast usr/share/fish/vendor_completions.d/holdfast.fish \
    etc/holdfast/holdfast.toml; do
    [[ -s $ROOT/$page ]] || die "$page is missing or empty"
done

step "it runs as itself, with no privilege at all"
status="/proc/$(property MainPID)/status"
uid="$(in_debian id -u holdfast)"
in_debian grep -Eq "^Uid:\s+$uid\s+$uid\s+$uid\s+$uid$" "$status" || die "not user holdfast"
for expected in 'CapEff:\s+0+' 'CapBnd:\s+0+' 'NoNewPrivs:\s+1' 'Seccomp:\s+2'; do
    in_debian grep -Eq "^$expected$" "$status" || die "$expected not in $status"
done

# --- use --------------------------------------------------------------------------------------

step "use it: a user, then every door"
in_debian systemctl stop holdfast
made="$(in_debian setpriv --reuid holdfast --regid holdfast --clear-groups \
    holdfast users create operator --data-dir /var/lib/holdfast)"
secret="$(awk '$1 == "token" { print $2 }' <<<"$made")"
[[ -n "$secret" ]] || die "no token in: $made"
in_debian systemctl start holdfast

body="$(jq -nc --arg secret "$secret" '{client_id: "operator", client_secret: $secret}')"
token="$(beside curl -fsS -H 'Content-Type: application/json' -d "$body" \
    http://127.0.0.1:8080/auth | jq -er .access_token)"
event='{"device_id":"pkg-%s","device_ts":"2026-03-20T10:15:30Z","power":1}'
# shellcheck disable=SC2059 # the format is ours
via_http="$(printf "$event" http)" via_mqtt="$(printf "$event" mqtt)"
beside curl -fsS -H "Authorization: Bearer $token" -H 'Content-Type: application/json' \
    -d "[$(jq -nc --argjson p "$via_http" '{topic: "devices", id: "pkg-1", payload: $p}')]" \
    http://127.0.0.1:8080/ingest | jq -e '.accepted == 1' >/dev/null
beside mosquitto_pub -h 127.0.0.1 -q 1 -t devices/pkg-mqtt/telemetry -m "$via_mqtt"
printf 'one\ntwo\n' | beside kcat -b 127.0.0.1:9092 -P -t packaged
beside curl -fsS http://127.0.0.1:8080/ | grep -qi '<!doctype html' || die "no dashboard at /"

logged() {
    local raw packaged
    raw="$(beside kcat -b 127.0.0.1:9092 -C -t telemetry.raw -o beginning -e -q)"
    packaged="$(beside kcat -b 127.0.0.1:9092 -C -t packaged -o beginning -e -q | sort)"
    [[ "$(sort <<<"$raw")" == "$(printf '%s\n' "$via_http" "$via_mqtt" | sort)" ]] &&
        [[ "$packaged" == $'one\ntwo' ]]
}
logged || die "the log does not hold what was acknowledged"

# --- survive ----------------------------------------------------------------------------------

step "kill -9: systemd starts it again, and nothing is lost"
killed="$(property MainPID)"
in_debian systemctl kill --signal=SIGKILL --kill-whom=main holdfast
back() { [[ "$(property ActiveState)" == active && "$(property MainPID)" != "$killed" ]]; }
eventually "a restart" back
logged || die "the log lost something in a crash"

step "upgrade: an edited configuration and the data stay"
in_debian sh -c 'echo "# edited by the operator" >>/etc/holdfast/holdfast.toml'
in_debian dpkg --install /root/holdfast.deb
in_debian grep -q 'edited by the operator' /etc/holdfast/holdfast.toml || die "the edit is lost"
[[ "$(property ActiveState)" == active ]] || die "not running after the upgrade"
logged || die "the log lost something in an upgrade"

step "a refused configuration is not tried for ever"
in_debian cp /etc/holdfast/holdfast.toml /root/good.toml
in_debian sh -c 'echo "[no-such-section]" >>/etc/holdfast/holdfast.toml'
in_debian systemctl stop holdfast
! in_debian systemctl start holdfast 2>/dev/null || die "it took a refused configuration"
[[ "$(property ActiveState) $(property ExecMainStatus)" == "failed 78" ]] ||
    die "exit $(property ExecMainStatus), $(property ActiveState) $(property SubState)"
in_debian cp /root/good.toml /etc/holdfast/holdfast.toml
in_debian systemctl reset-failed holdfast
in_debian systemctl start holdfast
prevented="$(property RestartPreventExitStatus)"
[[ " $prevented " == *" 74 "* ]] || die "a failed log would be restarted: $prevented"

step "stop"
in_debian systemctl stop holdfast
[[ "$(property Result) $(property ExecMainStatus)" == "success 0" ]] ||
    die "stopped with $(property Result), exit $(property ExecMainStatus)"

# --- leave ------------------------------------------------------------------------------------

step "remove: the data stays"
in_debian systemctl start holdfast
in_debian dpkg --remove holdfast
! in_debian sh -c 'grep -qsx holdfast /proc/[0-9]*/comm' || die "removed, but running"
[[ -n "$(ls -A "$ROOT/var/lib/holdfast")" ]] || die "remove took the data"
in_debian getent passwd holdfast >/dev/null || die "remove took the user"

step "purge: nothing stays"
in_debian dpkg --purge holdfast
left="$(comm -13 <(printf '%s\n' "$before") <(inventory))"
[[ -z "$left" ]] || die "purge left behind:"$'\n'"$left"
gone="$(comm -23 <(printf '%s\n' "$before") <(inventory))"
[[ -z "$gone" ]] || die "purge took what it had not brought:"$'\n'"$gone"

step "the package installs, runs, survives, stops and leaves"
echo "1 passed, 0 failed"
