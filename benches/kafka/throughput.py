"""Records of 1 KiB under Kafka's own load programs.

Each round measures: the time to the first answer; an unthrottled produce; a throttled one, for
latencies that are not those of a full queue; a fetch of everything from the start.

Client and broker share the machine's cores, so throughput is that of the pair; CPU seconds per
GB are the broker's alone.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from figures import Bar, Column, Results, medians, table
from peers import Holdfast, Kafka, Peer, Running, java, run
from proc import rss_bytes, usage
from scratch import scratch, short

RECORD_BYTES = 1024
PARTITIONS = 16
# Kafka 4's own defaults, spelt out so that the printed command says all.
PRODUCER = ("acks=all", "compression.type=none", "batch.size=16384", "linger.ms=5")
# One in so many records of each produce only warms the client up.
WARMUP_SHARE = 5
DISK_BYTES_MAX = 3 * 2**30


@dataclass(frozen=True)
class Measured:
    """One round of one broker."""

    start_s: float
    produce_mb_s: float
    produce_records_s: float
    produce_p50_ms: float
    produce_p99_ms: float
    paced_p50_ms: float
    paced_p99_ms: float
    fetch_mb_s: float
    cpu_s_per_gb_in: float
    cpu_s_per_gb_out: float
    written_per_payload_byte: float
    rss_idle_mib: float
    rss_loaded_mib: float


@dataclass(frozen=True)
class Load:
    records: int
    warmup_records: int
    paced_records_s: int
    paced_s: int

    @property
    def payload_bytes(self) -> int:
        return self.records * RECORD_BYTES

    @property
    def disk_bytes(self) -> int:
        """At most this much payload lies on the disk at a time."""
        paced = self.paced_records_s * self.paced_s
        return (self.records + self.warmup_records + paced) * RECORD_BYTES


def measure(peer: Peer, load: Load) -> Measured:
    """One round: a fresh process, a warm-up of the broker, then the measured phases."""
    with tempfile.TemporaryDirectory(prefix="holdfast-bench-", dir=scratch()) as directory:
        broker = peer.start(Path(directory))
        try:
            idle = rss_bytes(broker.pid)
            for topic in ("warm-up", "measured", "paced"):
                create_topic(broker, topic)
            produce(broker, "warm-up", load.warmup_records)
            fetch(broker, "warm-up", load.warmup_records)
            # What earlier phases and brokers left in the page cache is not this one's burden.
            os.sync()
            before = usage(broker.pid)
            produced = produce(broker, "measured", load.records)
            after_produce = usage(broker.pid)
            spent_in = after_produce.since(before)
            paced = produce(
                broker, "paced", load.paced_records_s * load.paced_s, load.paced_records_s
            )
            before_fetch = usage(broker.pid)
            fetched_mb_s = fetch(broker, "measured", load.records)
            spent_out = usage(broker.pid).since(before_fetch)
            loaded = rss_bytes(broker.pid)
        finally:
            broker.stop()
    gigabytes = load.payload_bytes / 1e9
    return Measured(
        start_s=broker.start_s,
        produce_mb_s=produced.records_s * RECORD_BYTES / 1e6,
        produce_records_s=produced.records_s,
        produce_p50_ms=produced.p50_ms,
        produce_p99_ms=produced.p99_ms,
        paced_p50_ms=paced.p50_ms,
        paced_p99_ms=paced.p99_ms,
        fetch_mb_s=fetched_mb_s,
        cpu_s_per_gb_in=spent_in.cpu_s / gigabytes,
        cpu_s_per_gb_out=spent_out.cpu_s / gigabytes,
        written_per_payload_byte=spent_in.written_bytes / load.payload_bytes,
        rss_idle_mib=idle / 2**20,
        rss_loaded_mib=loaded / 2**20,
    )


# --- Kafka's own programs -------------------------------------------------------------------


def create_topic(broker: Running, topic: str) -> None:
    run(
        java(
            "org.apache.kafka.tools.TopicCommand", "--bootstrap-server", broker.bootstrap,
            "--create", "--topic", topic, "--partitions", str(PARTITIONS),
            "--replication-factor", "1",
        )
    )  # fmt: skip


@dataclass(frozen=True)
class Produced:
    records_s: float
    p50_ms: float
    p99_ms: float


STEADY = re.compile(
    r"^(?P<records>\d+) steady state records sent, (?P<rate>[\d.]+) records/sec .* "
    r"(?P<p50>\d+) ms 50th, \d+ ms 95th, (?P<p99>\d+) ms 99th",
    re.MULTILINE,
)


def producer_command(bootstrap: str, topic: str, records: int, records_s: int = -1) -> list[str]:
    return java(
        "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", bootstrap,
        "--topic", topic, "--num-records", str(records), "--record-size", str(RECORD_BYTES),
        "--warmup-records", str(records // WARMUP_SHARE), "--throughput", str(records_s),
        "--command-property", *PRODUCER,
    )  # fmt: skip


def produce(broker: Running, topic: str, records: int, records_s: int = -1) -> Produced:
    """Rates and latencies once the client's JVM is warm: before, they are not the broker's."""
    printed = run(producer_command(broker.bootstrap, topic, records, records_s))
    found = STEADY.search(printed)
    if found is None or int(found["records"]) != records - records // WARMUP_SHARE:
        raise RuntimeError(f"no summary of {records} records in:\n{printed}")
    return Produced(float(found["rate"]), float(found["p50"]), float(found["p99"]))


def consumer_command(bootstrap: str, topic: str, records: int) -> list[str]:
    return java(
        "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", bootstrap,
        "--topic", topic, "--num-records", str(records), "--timeout", "60000",
    )  # fmt: skip


def fetch(broker: Running, topic: str, records: int) -> float:
    """MB/s of fetching a topic from its start, the time to join the group left out."""
    printed = run(consumer_command(broker.bootstrap, topic, records))
    header, values = (line.split(", ") for line in printed.strip().splitlines()[-2:])
    row = dict(zip(header, values, strict=True))
    if int(row["data.consumed.in.nMsg"]) < records:
        raise RuntimeError(f"fewer than {records} records fetched:\n{printed}")
    return float(row["fetch.nMsg.sec"]) * RECORD_BYTES / 1e6


# --- what is printed ------------------------------------------------------------------------

PRODUCE: tuple[Column, ...] = (
    ("produce MB/s", lambda m: f"{m.produce_mb_s:.1f}"),
    ("records/s", lambda m: f"{m.produce_records_s:,.0f}"),
    ("p50 ms", lambda m: f"{m.produce_p50_ms:.0f}"),
    ("p99 ms", lambda m: f"{m.produce_p99_ms:.0f}"),
    ("paced p50 ms", lambda m: f"{m.paced_p50_ms:.0f}"),
    ("paced p99 ms", lambda m: f"{m.paced_p99_ms:.0f}"),
    ("CPU s/GB in", lambda m: f"{m.cpu_s_per_gb_in:.2f}"),
    ("written/payload", lambda m: f"{m.written_per_payload_byte:.2f}"),
)
REST: tuple[Column, ...] = (
    ("fetch MB/s", lambda m: f"{m.fetch_mb_s:.1f}"),
    ("CPU s/GB out", lambda m: f"{m.cpu_s_per_gb_out:.2f}"),
    ("RSS idle MiB", lambda m: f"{m.rss_idle_mib:.0f}"),
    ("RSS after load MiB", lambda m: f"{m.rss_loaded_mib:.0f}"),
    ("start-up s", lambda m: f"{m.start_s:.3f}"),
)


class Throughput:
    """The part `throughput` of the comparison."""

    name = "throughput"

    def __init__(self, peers: Sequence[Peer], given: argparse.Namespace) -> None:
        self.peers = list(peers)
        self.load = Load(given.records, given.warmup_records, given.paced_records_s, given.paced_s)
        disk_bytes = self.load.disk_bytes
        if disk_bytes > DISK_BYTES_MAX:
            raise SystemExit(f"{disk_bytes:,} bytes of payload are more than {DISK_BYTES_MAX:,}")
        # A broker may write its payload twice, and the disk is not ours alone.
        if shutil.disk_usage(scratch()).free < 3 * disk_bytes:
            raise SystemExit(f"less than {3 * disk_bytes:,} bytes free at {scratch()}")

    def measure(self, peer: Peer) -> Measured:
        return measure(peer, self.load)

    def said(self, measured: Measured) -> str:
        return f"produce {measured.produce_mb_s:.1f} MB/s, fetch {measured.fetch_mb_s:.1f} MB/s"

    def report(self, results: Results) -> list[str]:
        load, rows = self.load, medians(results)
        return [
            f"load: {load.records:,} records of {RECORD_BYTES} bytes, {PARTITIONS} partitions, "
            f"{load.payload_bytes / 1e6:,.0f} MB; paced: {load.paced_records_s:,} records/s for "
            f"{load.paced_s} s; MB = 10^6 bytes",
            f"produce: {short(producer_command('BROKER', 'measured', load.records))}",
            f"fetch: {short(consumer_command('BROKER', 'measured', load.records))}",
            "",
            table(rows, PRODUCE),
            "",
            table(rows, REST),
        ]

    def bars(self, results: Results) -> list[Bar]:
        """Against Kafka as it ships: it spends less than with `flush.messages=1`."""
        rows = medians(results)
        kafka = rows[Kafka(flush_each_append=False)]
        bars = []
        for peer, ours in rows.items():
            if isinstance(peer, Holdfast):
                spent_in = ours.cpu_s_per_gb_in / kafka.cpu_s_per_gb_in
                spent_out = ours.cpu_s_per_gb_out / kafka.cpu_s_per_gb_out
                of = " of Kafka's as it ships"
                bars += [
                    Bar("broker CPU per GB produced", spent_in, of, at_most=0.5),
                    Bar("broker CPU per GB fetched", spent_out, of, at_most=0.7),
                ]
        return bars
