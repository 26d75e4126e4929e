"""Kafka Connect, standalone: a file through a topic into another file, over a restart, line for line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from steps import BOOTSTRAP, client, step, until
from worker import WORK, Worker, free_port, properties

SOURCE, SINK = WORK / "source.txt", WORK / "sink.txt"
WITHIN_S = 90


def worker() -> Worker:
    settings = {
        "bootstrap.servers": BOOTSTRAP,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.storage.file.filename": str(WORK / "offsets"),
        "offset.flush.interval.ms": "500",
        "listeners": f"http://127.0.0.1:{free_port()}",
        "plugin.discovery": "only_scan",
        "consumer.auto.offset.reset": "earliest",
    }
    connector = "org.apache.kafka.connect.file.FileStream"
    return Worker(
        "org.apache.kafka.connect.cli.ConnectStandalone",
        properties(WORK / "worker.properties", settings),
        properties(WORK / "source.properties", {"name": "file-source", "connector.class": f"{connector}SourceConnector", "tasks.max": "1", "file": str(SOURCE), "topic": "connected"}),
        properties(WORK / "sink.properties", {"name": "file-sink", "connector.class": f"{connector}SinkConnector", "tasks.max": "1", "file": str(SINK), "topics": "connected"}),
        name="connect",
    )  # fmt: skip


def append(first: int, count: int) -> None:
    with SOURCE.open("a") as file:
        file.writelines(f"line {n}\n" for n in range(first, first + count))


def arrived(count: int, running: Worker) -> int:
    def lines() -> int:
        running.alive()
        found = SINK.read_text().splitlines() if SINK.exists() else []
        return len(found) if len(found) >= count else 0

    return until(lines, within_s=WITHIN_S, what=f"{count} lines", every_s=0.2)


def first_run() -> int:
    append(0, 500)
    with worker() as running:
        arrived(500, running)
        append(500, 250)
        return arrived(750, running)


def second_run() -> int:
    append(750, 250)
    with worker() as running:
        return arrived(1000, running)


def main() -> None:
    (jar,) = Path(os.environ["COMPAT_CLASSPATH"].rsplit(":", 1)[1].rstrip("*")).glob(
        "connect-runtime-*.jar"
    )
    client("Kafka Connect", jar.stem.removeprefix("connect-runtime-"))
    step("lines through a topic", first_run)
    step("stopped, more lines, started again", second_run)
    step("exactly the lines, in order", lambda: SINK.read_text() == SOURCE.read_text())
    kept = subprocess.run(
        ["kcat", "-b", BOOTSTRAP, "-C", "-t", "connected", "-e", "-q"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    step("exactly the lines in the topic", lambda: kept.stdout == SOURCE.read_text())


if __name__ == "__main__":
    main()
