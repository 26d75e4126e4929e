"""Holdfast beside Apache Kafka, on this machine, under Kafka's own load programs.

Every round gives every broker a fresh process and a fresh data directory, in an order that
rotates from round to round, and measures: the time to the first answer; an unthrottled produce;
a throttled one, for latencies that are not those of a full queue; a fetch of everything from the
start. Prints medians over the rounds, with what each broker promises on the same line.

Client and broker share the machine's cores, so throughput is that of the pair; CPU seconds per
GB are the broker's alone.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from peers import Holdfast, Kafka, Peer, Running, java, run
from proc import machine, rss_bytes, usage

REPOSITORY = Path(__file__).resolve().parents[2]
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


def scratch() -> Path:
    """Data lies under target/, on the disk that the project is on, never in a RAM disk."""
    path = REPOSITORY / "target" / "bench-kafka"
    path.mkdir(parents=True, exist_ok=True)
    return path


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

Column = tuple[str, Callable[[Measured], str]]
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


def median(rounds: list[Measured]) -> Measured:
    columns = zip(*(asdict(measured).values() for measured in rounds), strict=True)
    return Measured(*(statistics.median(column) for column in columns))


def table(rows: dict[Peer, Measured], columns: tuple[Column, ...]) -> str:
    """A Markdown table; every line names what the broker promises."""
    cells = [["broker", "when it acknowledges", *(title for title, _ in columns)]]
    for peer, measured in rows.items():
        cells.append([peer.name, peer.durability, *(show(measured) for _, show in columns)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def report(results: dict[Peer, list[Measured]], load: Load, busy: float) -> str:
    medians = {peer: median(rounds) for peer, rounds in results.items()}
    rounds = min(map(len, results.values()))
    short = lambda command: " ".join(command).replace(str(REPOSITORY) + "/", "")  # noqa: E731
    return "\n".join(
        [
            f"machine: {machine(scratch())}; load average before the first round: {busy:.2f}",
            f"load: {load.records:,} records of {RECORD_BYTES} bytes, {PARTITIONS} partitions, "
            f"{load.payload_bytes / 1e6:,.0f} MB; paced: {load.paced_records_s:,} records/s for "
            f"{load.paced_s} s; medians of {rounds} interleaved rounds; MB = 10^6 bytes",
            f"command: {' '.join(['python3', 'benches/kafka/compare.py', *sys.argv[1:]])}",
            f"produce: {short(producer_command('BROKER', 'measured', load.records))}",
            f"fetch: {short(consumer_command('BROKER', 'measured', load.records))}",
            "",
            table(medians, PRODUCE),
            "",
            table(medians, REST),
        ]
    )


# --- the run --------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--records", type=int, default=300_000, help="of the unthrottled produce")
    parser.add_argument("--warmup-records", type=int, default=100_000)
    parser.add_argument("--paced-records-s", type=int, default=2_000)
    parser.add_argument("--paced-s", type=int, default=10)
    parser.add_argument(
        "--holdfast", type=Path, default=REPOSITORY / "target" / "release" / "holdfast"
    )
    parser.add_argument("--without-holdfast", action="store_true", help="Kafka alone")
    return parser.parse_args()


def main() -> None:
    given = arguments()
    load = Load(given.records, given.warmup_records, given.paced_records_s, given.paced_s)
    if load.disk_bytes > DISK_BYTES_MAX:
        sys.exit(f"{load.disk_bytes:,} bytes of payload are more than {DISK_BYTES_MAX:,}")
    # A broker may write its payload twice, and the disk is not ours alone.
    if shutil.disk_usage(scratch()).free < 3 * load.disk_bytes:
        sys.exit(f"less than {3 * load.disk_bytes:,} bytes free at {scratch()}")
    peers: list[Peer] = [Kafka(flush_each_append=False), Kafka(flush_each_append=True)]
    if not given.without_holdfast:
        if not given.holdfast.is_file():
            sys.exit(f"no release build at {given.holdfast}: cargo build --release")
        peers.append(Holdfast(given.holdfast.resolve()))
    results: dict[Peer, list[Measured]] = {peer: [] for peer in peers}
    busy = os.getloadavg()[0]
    for number in range(given.rounds):
        for step in range(len(peers)):
            peer = peers[(number + step) % len(peers)]
            measured = measure(peer, load)
            results[peer].append(measured)
            print(
                f"round {number + 1}/{given.rounds} {peer.name} ({peer.durability}): "
                f"produce {measured.produce_mb_s:.1f} MB/s, fetch {measured.fetch_mb_s:.1f} MB/s, "
                f"load average {os.getloadavg()[0]:.1f}",
                file=sys.stderr,
                flush=True,
            )
    printed = report(results, load, busy)
    print(printed)
    rounds = {peer.name: [asdict(m) for m in measured] for peer, measured in results.items()}
    (scratch() / "rounds.json").write_text(json.dumps(rounds, indent=2))
    (scratch() / "report.md").write_text(printed + "\n")


if __name__ == "__main__":
    main()
