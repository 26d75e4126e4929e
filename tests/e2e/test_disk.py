"""A disk that stalls, fails, or takes no writes, under a running node.

Root only: every test mounts a small ext4 file system of its own on a loop device and unmounts it.
`make test-disk` runs them; `make test` does not.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from confluent_kafka import KafkaError, Producer

from conftest import Node, bearer, binary, create_topic, eventually, read_topic, run, token

MB = 1 << 20
IN_FLIGHT_BYTES = 8 * MB
CONFIG = f"""
[log]
segment_bytes = {4 * MB}
disk_reserve_bytes = {8 * MB}
in_flight_bytes_max = {IN_FLIGHT_BYTES}
"""
READING = {"records": [{"inverter_id": "a", "power_kw": 1.0, "ts": "2026-01-01T12:00:00Z"}]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted file system that belongs to one test."""
    image, mounted = tmp_path / "image", tmp_path / "disk"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(400 * MB)
    run(["mkfs.ext4", "-q", str(image)])
    run(["mount", "-o", "loop", str(image), str(mounted)])
    try:
        yield mounted
    finally:
        run(["umount", str(mounted)])


@contextmanager
def frozen(disk: Path) -> Iterator[None]:
    """Whatever writes to the file system waits, in the middle of its call."""
    run(["fsfreeze", "--freeze", str(disk)])
    try:
        yield
    finally:
        run(["fsfreeze", "--unfreeze", str(disk)])


def on(disk: Path) -> Node:
    """A node that keeps its data on that disk, and writes its messages elsewhere."""
    node = Node(disk.parent, config=CONFIG)
    node.data_dir = disk / "data"
    return node


class Sender:
    """Hands messages to a librdkafka producer and counts what became of them."""

    def __init__(self, node: Node, topic: str) -> None:
        self.acknowledged: list[bytes] = []
        self.failed: list[KafkaError] = []
        self.topic = topic
        self.producer = Producer(
            {
                "bootstrap.servers": node.bootstrap,
                "enable.idempotence": True,
                "queue.buffering.max.kbytes": 256 * 1024,
                # Large requests: five of them are in flight at most.
                "linger.ms": 300,
                "socket.timeout.ms": 60_000,
            }
        )

    def send(self, count: int, payload_bytes: int) -> None:
        for n in range(count):
            value = b"%08d" % n + os.urandom(payload_bytes - 8)
            self.producer.produce(self.topic, value=value, on_delivery=self._told)
            self.producer.poll(0)

    def _told(self, error: KafkaError | None, message: object) -> None:
        if error is None:
            self.acknowledged.append(message.value())  # type: ignore[attr-defined]
        else:
            self.failed.append(error)

    def flush(self, timeout_s: float) -> int:
        return int(self.producer.flush(timeout_s))


def filled(node: Node, records: int) -> Sender:
    """Records of 1 KB that the node has acknowledged. It is ready for HTTP clients, too."""
    sender = Sender(node, "t")
    sender.send(records, 1_000)
    assert sender.flush(30) == 0 and not sender.failed
    token(node)
    return sender


def log_health(node: Node) -> dict[str, object]:
    return dict(requests.get(node.url("/health"), timeout=10).json()["log"])


def test_a_stalled_disk_makes_callers_wait_and_takes_no_memory(disk: Path) -> None:
    with on(disk) as node:
        node.start()
        create_topic(node, "t", partitions=4)
        filled(node, 5_000)
        # Their producer ids are made durable before the disk stalls.
        senders = [filled(node, 1) for _ in range(6)]
        steady = node.rss_bytes()
        answers: list[int] = []

        def ingest() -> None:
            url = node.url("/ingest")
            answers.append(
                requests.post(url, json=READING, headers=bearer(node), timeout=90).status_code
            )

        posting = [threading.Thread(target=ingest) for _ in range(8)]
        with frozen(disk):
            for sender in senders:
                sender.send(20_000, 1_000)
            for thread in posting:
                thread.start()
            # 120 MB are offered; the node takes what may be in flight, and reads no more.
            eventually(
                lambda: int(str(log_health(node)["in_flight_bytes"])) > IN_FLIGHT_BYTES * 3 // 4,
                within_s=20,
                what="the room for bytes in flight is used",
            )
            for sender in senders:
                sender.flush(1.0)
            grown = node.rss_bytes() - steady
            print(f"stalled: {grown / MB:.1f} MB more resident, {log_health(node)['in_flight_bytes']}")
            assert grown < 48 * MB
            assert log_health(node)["state"] == "accepting"
            assert all(len(sender.acknowledged) == 1 for sender in senders)
            assert not answers, "nothing is acknowledged that is not on disk"
            assert len(read_topic(node, "t")) == 5_006, "reads go on"

        for sender in senders:
            assert sender.flush(60) == 0 and not sender.failed
        for thread in posting:
            thread.join(60)
        assert answers == [200] * 8, answers
        assert len(read_topic(node, "t")) == 125_006, "all of it, once"


def test_a_disk_that_turned_read_only_refuses_and_loses_nothing_acknowledged(disk: Path) -> None:
    with on(disk) as node:
        node.start()
        create_topic(node, "t", partitions=1)
        sender = filled(node, 2_000)

        # As after an error of the device: the file system takes no writes any more.
        run(["mount", "-o", "remount,abort", str(disk)])
        refused = requests.post(
            node.url("/ingest"), json=READING, headers=bearer(node), timeout=30
        )
        assert refused.status_code in (503, 507), refused.text
        health = requests.get(node.url("/health"), timeout=10)
        print(health.json()["log"]["state"], health.json()["log"]["reason"])
        assert health.status_code == 503
        assert health.json()["log"]["state"] == "unwritable"
        assert "Read-only file system" in health.json()["log"]["reason"]
        after = Producer({"bootstrap.servers": node.bootstrap, "retries": 0})
        told: list[KafkaError | None] = []
        after.produce("t", value=b"x", on_delivery=lambda error, _: told.append(error))
        assert after.flush(30) == 0
        assert [error.code() for error in told if error] == [KafkaError.KAFKA_STORAGE_ERROR]
        assert len(read_topic(node, "t")) == 2_000, "reads go on"
        node.kill()

        run(["umount", str(disk)])
        image = str(disk.parent / "image")
        subprocess.run(["fsck.ext4", "-y", image], capture_output=True, check=False)
        run(["mount", "-o", "loop", image, str(disk)])
        node.start()
        assert log_health(node)["state"] == "accepting"
        kept = [record.value for record in read_topic(node, "t")]
        assert kept == sender.acknowledged


def test_a_read_only_disk_is_refused_at_the_start_with_a_sentence(disk: Path) -> None:
    with on(disk) as node:
        node.start()
        node.terminate()
    run(["mount", "-o", "remount,ro", str(disk)])
    command = [str(binary()), "serve", "--data-dir", str(node.data_dir)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    print(told.stderr)
    assert told.returncode != 0
    assert "Read-only file system" in told.stderr
    assert str(node.data_dir) in told.stderr
