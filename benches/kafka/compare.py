"""Holdfast beside Apache Kafka, on this machine: what each costs, in parts that can be chosen.

| part | what |
|---|---|
| throughput | records of 1 KiB under Kafka's own load programs; broker CPU per GB in and out |
| small | produces of one record over 100 connections, beside the disk's fdatasync |
| idle | memory of 5,000 silent connections |
| groups | 500 groups of 4 members that rebalance at once, as brokers and consumers ship |
| groups-at-once | the same without the wait for latecomers, and with quick heartbeats |

Every round gives every broker a fresh process and a fresh data directory, in an order that
rotates from round to round. Prints medians over the rounds, with what each broker promises on
the same line, and PASS or FAIL for all that Holdfast is held to; a FAIL is a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from figures import Bar, Results
from loads import Groups, GroupsAtOnce, Idle, Small
from peers import Holdfast, Kafka, Peer
from proc import machine
from scratch import REPOSITORY, scratch, short
from throughput import Throughput

PARTS = {part.name: part for part in (Throughput, Small, Idle, Groups, GroupsAtOnce)}


class Part(Protocol):
    """One measurement, and what it is held to."""

    name: str
    peers: list[Peer]

    def measure(self, peer: Peer) -> Any:
        """One round of one broker, a dataclass of numbers."""

    def said(self, measured: Any) -> str:
        """The round in a few words."""

    def report(self, results: Results) -> list[str]:
        """What was asked, and the tables."""

    def bars(self, results: Results) -> list[Bar]: ...


def measure(part: Part, rounds: int) -> Results:
    results: Results = {peer: [] for peer in part.peers}
    for number in range(rounds):
        for step in range(len(part.peers)):
            peer = part.peers[(number + step) % len(part.peers)]
            measured = part.measure(peer)
            results[peer].append(measured)
            print(
                f"{part.name} {number + 1}/{rounds} {peer.name} ({peer.durability}): "
                f"{part.said(measured)}, load average {os.getloadavg()[0]:.1f}",
                file=sys.stderr,
                flush=True,
            )
    return results


def parts(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(PARTS)}")
    return names


def arguments() -> argparse.Namespace:
    description, _, _ = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--parts", type=parts, default=",".join(PARTS), help="with commas between")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--loader", type=Path, help="the executable of the bench kafka_load")
    parser.add_argument(
        "--holdfast", type=Path, default=REPOSITORY / "target" / "release" / "holdfast"
    )
    parser.add_argument("--without-holdfast", action="store_true", help="Kafka alone")
    throughput = parser.add_argument_group("throughput")
    throughput.add_argument("--records", type=int, default=300_000, help="unthrottled")
    throughput.add_argument("--warmup-records", type=int, default=100_000, help="not counted")
    throughput.add_argument("--paced-records-s", type=int, default=2_000, help="throttled")
    throughput.add_argument("--paced-s", type=int, default=10, help="seconds of the throttled")
    loads = parser.add_argument_group("small, idle, groups")
    loads.add_argument("--connections", type=int, default=100, help="of small")
    loads.add_argument("--in-flight", type=int, default=1, help="requests of each of these")
    loads.add_argument("--small-warmup-s", type=int, default=10, help="not counted")
    loads.add_argument("--small-s", type=int, default=10, help="counted")
    loads.add_argument("--idle-connections", type=int, default=5_000)
    loads.add_argument("--groups", type=int, default=500)
    loads.add_argument("--members", type=int, default=4, help="of each group")
    return parser.parse_args()


def allow_files(connections: int) -> None:
    """A file descriptor for each connection, in the brokers and the loader, which inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < connections + 1000:
        sys.exit(f"ulimit -Hn is {hard}: too few files for {connections} connections")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def brokers(given: argparse.Namespace) -> list[Peer]:
    peers: list[Peer] = [Kafka(flush_each_append=False), Kafka(flush_each_append=True)]
    if not given.without_holdfast:
        if not given.holdfast.is_file():
            sys.exit(f"no release build at {given.holdfast}: cargo build --release")
        peers.append(Holdfast(given.holdfast.resolve()))
    return peers


def main() -> None:
    given = arguments()
    allow_files(max(given.idle_connections, given.groups * given.members, given.connections))
    peers = brokers(given)
    chosen = [PARTS[name](peers, given) for name in given.parts]
    command = ["python3", "benches/kafka/compare.py", *sys.argv[1:]]
    said = [
        f"machine: {machine(scratch())}; load average before the first round: "
        f"{os.getloadavg()[0]:.2f}",
        f"command: {short(command)}",
        f"medians of {given.rounds} interleaved rounds",
    ]
    bars, rounds = [], {}
    for part in chosen:
        results = measure(part, given.rounds)
        said += ["", f"## {part.name}", "", *part.report(results)]
        bars += part.bars(results)
        rounds[part.name] = {
            peer.name: [asdict(measured) for measured in measured_rounds]
            for peer, measured_rounds in results.items()
        }
        # Kept part by part: a later one may fail.
        (scratch() / "rounds.json").write_text(json.dumps(rounds, indent=2))
    said += ["", *map(str, bars)]
    printed = "\n".join(said)
    print(printed)
    (scratch() / "report.md").write_text(printed + "\n")
    if not all(bar.is_met for bar in bars):
        sys.exit("Holdfast misses what it is held to")


if __name__ == "__main__":
    main()
