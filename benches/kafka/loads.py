"""What our own loader asks of a broker: small requests, idle connections, groups that rebalance.

The loader (`benches/kafka/load`, a bench target) sends each broker the same requests and prints
one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figures import Bar, Column, Results, medians, table
from peers import Holdfast, Kafka, Peer, run
from scratch import scratch, short


class Loader:
    """One part of the comparison that is the loader's."""

    name: str
    #: The loader's.
    subcommand: str

    def __init__(self, peers: Sequence[Peer], given: argparse.Namespace) -> None:
        if given.loader is None or not given.loader.is_file():
            raise SystemExit(
                "--loader: the executable of `cargo bench --bench kafka_load --no-run`"
            )
        self.loader = given.loader.resolve()
        self.peers = list(peers)

    def options(self) -> list[str]:
        raise NotImplementedError

    def command(self, bootstrap: str, pid: str) -> list[str]:
        address = ["--broker", bootstrap, "--pid", pid]
        return [str(self.loader), self.subcommand, *address, *self.options()]

    def load(self, peer: Peer, workdir: Path) -> dict[str, Any]:
        """A fresh broker under the load, once."""
        broker = peer.start(workdir)
        try:
            # What earlier parts and brokers left in the page cache is not this one's burden.
            os.sync()
            said: dict[str, Any] = json.loads(run(self.command(broker.bootstrap, str(broker.pid))))
            return said
        finally:
            broker.stop()

    def workdir(self) -> tempfile.TemporaryDirectory[str]:
        return tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=scratch())


# --- small requests -------------------------------------------------------------------------


@dataclass(frozen=True)
class SmallMeasured:
    requests_s: float
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    loader_cpus: float
    broker_cpus: float
    broker_cpu_us_per_request: float
    fdatasync_p50_us: float
    fdatasync_growing_p50_us: float


SMALL: tuple[Column, ...] = (
    ("requests/s", lambda m: f"{m.requests_s:,.0f}"),
    ("p50 ms", lambda m: f"{m.p50_us / 1e3:.2f}"),
    ("p90 ms", lambda m: f"{m.p90_us / 1e3:.2f}"),
    ("p99 ms", lambda m: f"{m.p99_us / 1e3:.2f}"),
    ("p99.9 ms", lambda m: f"{m.p999_us / 1e3:.2f}"),
    ("max ms", lambda m: f"{m.max_us / 1e3:.2f}"),
    ("fdatasync p50 us", lambda m: f"{m.fdatasync_p50_us:.0f}"),
    ("growing file p50 us", lambda m: f"{m.fdatasync_growing_p50_us:.0f}"),
    ("broker CPU us/request", lambda m: f"{m.broker_cpu_us_per_request:.1f}"),
    ("broker cores", lambda m: f"{m.broker_cpus:.2f}"),
    ("loader cores", lambda m: f"{m.loader_cpus:.2f}"),
)


class Small(Loader):
    """One-record produces over many connections; the disk's fdatasync right before."""

    name = subcommand = "small"

    def __init__(self, peers: Sequence[Peer], given: argparse.Namespace) -> None:
        super().__init__(peers, given)
        self.given = given

    def options(self) -> list[str]:
        given = self.given
        return [
            "--connections", str(given.connections), "--in-flight", str(given.in_flight),
            "--warmup-s", str(given.small_warmup_s), "--seconds", str(given.small_s),
        ]  # fmt: skip

    def measure(self, peer: Peer) -> SmallMeasured:
        with self.workdir() as directory:
            disk = json.loads(run([str(self.loader), "disk", "--directory", directory]))
            said = self.load(peer, Path(directory))
        return SmallMeasured(
            **said,
            fdatasync_p50_us=disk["in_place_p50_us"],
            fdatasync_growing_p50_us=disk["growing_p50_us"],
        )

    def said(self, measured: SmallMeasured) -> str:
        return f"{measured.requests_s:,.0f} requests/s"

    def report(self, results: Results) -> list[str]:
        given = self.given
        return [
            f"load: produces of one record of 100 bytes, acks=all, {given.connections} connections "
            f"with {given.in_flight} in flight each, 16 partitions, {given.small_s} s after "
            f"{given.small_warmup_s} s of warm-up; fdatasync after 4 KiB, same disk, just before",
            f"broker and loader share {os.cpu_count()} cores, and the loader has one thread: where "
            "its column nears 1.00, or both columns together the cores, the broker could do more",
            f"command: {short(self.command('BROKER', 'PID'))}",
            "",
            table(medians(results), SMALL),
        ]

    def bars(self, results: Results) -> list[Bar]:
        """Against the Kafka that promises the same."""
        rows = medians(results)
        kafka = rows[Kafka(flush_each_append=True)]
        return [
            Bar(
                "small requests per second",
                ours.requests_s / kafka.requests_s,
                " times Kafka's with flush.messages=1",
                at_least=3,
            )
            for peer, ours in rows.items()
            if isinstance(peer, Holdfast)
        ]


# --- idle connections -----------------------------------------------------------------------


@dataclass(frozen=True)
class IdleMeasured:
    connections: float
    opened_s: float
    rss_fresh_mb: float
    rss_before_mb: float
    rss_open_mb: float
    rss_closed_mb: float
    rss_more_mb: float
    rss_more_than_fresh_mb: float
    pss_more_mb: float
    rss_more_kib_each: float
    silent_cpus: float


IDLE: tuple[Column, ...] = (
    ("RSS fresh MB", lambda m: f"{m.rss_fresh_mb:.1f}"),
    ("RSS before MB", lambda m: f"{m.rss_before_mb:.1f}"),
    ("RSS open MB", lambda m: f"{m.rss_open_mb:.1f}"),
    ("more MB", lambda m: f"{m.rss_more_mb:.1f}"),
    ("more than fresh MB", lambda m: f"{m.rss_more_than_fresh_mb:.1f}"),
    ("PSS more MB", lambda m: f"{m.pss_more_mb:.1f}"),
    ("KiB a connection", lambda m: f"{m.rss_more_kib_each:.1f}"),
    ("RSS closed MB", lambda m: f"{m.rss_closed_mb:.1f}"),
    ("opened in s", lambda m: f"{m.opened_s:.2f}"),
    ("cores while silent", lambda m: f"{m.silent_cpus:.3f}"),
)


class Idle(Loader):
    """The memory of connections that are silent. Durability plays no part."""

    name = subcommand = "idle"

    def __init__(self, peers: Sequence[Peer], given: argparse.Namespace) -> None:
        super().__init__([p for p in peers if p != Kafka(flush_each_append=True)], given)
        self.connections = given.idle_connections

    def options(self) -> list[str]:
        return ["--connections", str(self.connections)]

    def measure(self, peer: Peer) -> IdleMeasured:
        with self.workdir() as directory:
            return IdleMeasured(**self.load(peer, Path(directory)))

    def said(self, measured: IdleMeasured) -> str:
        return f"{measured.rss_more_mb:.1f} MB more"

    def report(self, results: Results) -> list[str]:
        return [
            f"load: {self.connections:,} connections, each ApiVersions and Metadata, then silent, "
            "after as many that came and went one at a time; memory of the broker's process; "
            "MB = 10^6 bytes",
            "the JVM has its heap before it needs it: what a connection takes there adds nothing "
            "to RSS while pages are left: look at the whole, too",
            f"command: {short(self.command('BROKER', 'PID'))}",
            "",
            table(medians(results), IDLE, durability=False),
        ]

    def bars(self, results: Results) -> list[Bar]:
        rows = medians(results)
        kafka = rows[Kafka(flush_each_append=False)].rss_more_mb
        what = f"memory of {self.connections:,} idle connections"
        return [
            Bar(what, m.rss_more_mb, f" MB, Kafka's {kafka:.1f} MB", at_most=60)
            for peer, m in rows.items()
            if isinstance(peer, Holdfast)
        ]


# --- groups ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class GroupsMeasured:
    join_p50_s: float
    join_max_s: float
    join_cpu_s: float
    return_p50_s: float
    return_max_s: float
    return_cpu_s: float
    loader_cpu_s: float


GROUPS: tuple[Column, ...] = (
    ("all joined s", lambda m: f"{m.join_max_s:.2f}"),
    ("p50 of a group", lambda m: f"{m.join_p50_s:.2f}"),
    ("broker CPU s", lambda m: f"{m.join_cpu_s:.2f}"),
    ("all settled after a return s", lambda m: f"{m.return_max_s:.2f}"),
    ("p50 of a group", lambda m: f"{m.return_p50_s:.2f}"),
    ("broker CPU s", lambda m: f"{m.return_cpu_s:.2f}"),
    ("loader CPU s", lambda m: f"{m.loader_cpu_s:.2f}"),
)


class Groups(Loader):
    """Groups as brokers and consumers ship: 3 s for latecomers, a heartbeat every 3 s."""

    name = subcommand = "groups"
    heartbeat_ms = 3000
    title = "as shipped: group.initial.rebalance.delay.ms=3000, heartbeat.interval.ms=3000"

    def __init__(self, peers: Sequence[Peer], given: argparse.Namespace) -> None:
        super().__init__([p for p in peers if p != Kafka(flush_each_append=True)], given)
        self.groups, self.members = given.groups, given.members

    def options(self) -> list[str]:
        return [
            "--groups", str(self.groups), "--members", str(self.members),
            "--heartbeat-ms", str(self.heartbeat_ms),
        ]  # fmt: skip

    def configured(self, peer: Peer) -> Peer:
        return peer

    def measure(self, peer: Peer) -> GroupsMeasured:
        with self.workdir() as directory:
            said = self.load(self.configured(peer), Path(directory))
        join, back = said["join"], said["return"]
        return GroupsMeasured(
            join_p50_s=join["p50_s"],
            join_max_s=join["max_s"],
            join_cpu_s=join["broker_cpu_s"],
            return_p50_s=back["p50_s"],
            return_max_s=back["max_s"],
            return_cpu_s=back["broker_cpu_s"],
            loader_cpu_s=join["loader_cpu_s"] + back["loader_cpu_s"],
        )

    def said(self, measured: GroupsMeasured) -> str:
        return f"joined in {measured.join_max_s:.2f} s, back in {measured.return_max_s:.2f} s"

    def report(self, results: Results) -> list[str]:
        return [
            f"load: {self.groups} groups of {self.members} members join at once; then one member "
            f"of each leaves and joins again, at once; {self.title}",
            f"command: {short(self.command('BROKER', 'PID'))}",
            "",
            table(medians(results), GROUPS, durability=False),
        ]

    def bars(self, results: Results) -> list[Bar]:
        rows = medians(results)
        kafka = rows[Kafka(flush_each_append=False)]
        bars = []
        for peer, ours in rows.items():
            if isinstance(peer, Holdfast):
                joined = ours.join_max_s / kafka.join_max_s
                back = ours.return_max_s / kafka.return_max_s
                bars += [
                    Bar(f"{self.name}: all joined", joined, " of Kafka's time", at_most=1),
                    Bar(f"{self.name}: all settled again", back, " of Kafka's time", at_most=1),
                ]
        return bars


class GroupsAtOnce(Groups):
    """The coordinators alone: no wait for latecomers, and members that soon hear of a rebalance."""

    name = "groups-at-once"
    heartbeat_ms = 500
    title = "group.initial.rebalance.delay.ms=0, heartbeat.interval.ms=500"

    def configured(self, peer: Peer) -> Peer:
        return peer.without_rebalance_delay()
