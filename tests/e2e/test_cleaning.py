"""Compaction, disks that are full, times and durability of a topic: seen by Kafka clients, /health and
the command line."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from confluent_kafka import (
    OFFSET_END,
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import Node, bearer, binary, eventually

# Segments as small as they can be, and a cleaner that does not let the test wait.
SMALL = """
[log]
segment_bytes = 1048576
batch_bytes_max = 524288
retention_check_interval_ms = 200
disk_reserve_bytes = 2097152
"""
MB = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, config=SMALL) as node:
        yield node.start()


def create(node: Node, topic: str, config: dict[str, str]) -> None:
    client = AdminClient({"bootstrap.servers": node.bootstrap})
    client.create_topics([NewTopic(topic, 1, 1, config=config)])[topic].result(timeout=10)


def produce(
    node: Node, topic: str, records: list[tuple[str, bytes | None]], **config: object
) -> list[KafkaError]:
    """The errors, by record."""
    settings = {
        "bootstrap.servers": node.bootstrap,
        "message.timeout.ms": 5000,
        "batch.size": 200_000,
        **config,
    }
    producer = Producer(settings)
    errors: list[KafkaError] = []
    for key, value in records:
        producer.produce(
            topic,
            key=key,
            value=value,
            on_delivery=lambda error, _: errors.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    return errors


def read(node: Node, topic: str) -> list[tuple[int, str, bytes | None]]:
    """Offset, key and value of everything that can be read."""
    consumer = Consumer(
        {"bootstrap.servers": node.bootstrap, "group.id": "reader", "check.crcs": True}
    )
    try:
        place = TopicPartition(topic, 0)
        start, end = consumer.get_watermark_offsets(place, timeout=10)
        consumer.assign([TopicPartition(topic, 0, start)])
        found = []
        while consumer.position([place])[0].offset < end:
            message = consumer.poll(10)
            # What follows may have been compacted away: the position only moves with a record.
            if message is None:
                break
            assert message.error() is None, message.error()
            found.append((message.offset(), message.key().decode(), message.value()))
            if message.offset() + 1 >= end:
                break
        return found
    finally:
        consumer.close()


def log_health(node: Node) -> dict[str, object]:
    return node.get("/health").json()["log"]


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_a_compacted_topic_keeps_the_newest_of_every_key(small: Node, codec: str) -> None:
    create(small, "state", {"cleanup.policy": "compact", "delete.retention.ms": "100"})
    values: dict[str, bytes | None] = {}
    records: list[tuple[str, bytes | None]] = []
    for n in range(6000):
        key = f"key-{n % 50}"
        records.append((key, os.urandom(700) + str(n).encode()))
    records.append(("key-7", None))
    values.update(records)
    config = {"compression.type": codec, "linger.ms": 20}
    assert produce(small, "state", records, **config) == []
    # What is in the head is not compacted: other keys push it out.
    tail = [(f"tail-{n}", os.urandom(1000)) for n in range(3000)]
    assert produce(small, "state", tail, **config) == []
    eventually(
        lambda: log_health(small)["compacted_records_total"] >= 5900,
        within_s=30,
        what="5,900 records compacted away",
    )

    def newest_only() -> bool:
        found = read(small, "state")
        assert [offset for offset, _, _ in found] == sorted({offset for offset, _, _ in found})
        kept = [(key, value) for _, key, value in found if key.startswith("key-")]
        keys = [key for key, _ in kept]
        for key, value in kept:
            assert value == values[key] or keys.count(key) > 1
        return len(keys) == len(set(keys))

    eventually(newest_only, within_s=30, what="one record of every key")
    before = read(small, "state")
    assert {key for _, key, _ in before} >= {f"key-{n}" for n in range(50) if n != 7}
    # A tombstone may be there or have gone; what it deletes is not there.
    assert [value for _, key, value in before if key == "key-7"] in ([], [None])
    small.kill()
    small.start()
    after = read(small, "state")
    assert [record for record in after if record[1] != "key-7"] == [
        record for record in before if record[1] != "key-7"
    ]


def test_a_compacted_topic_refuses_a_record_without_a_key(small: Node) -> None:
    create(small, "state", {"cleanup.policy": "compact"})
    producer = Producer({"bootstrap.servers": small.bootstrap})
    errors: list[KafkaError] = []
    producer.produce("state", value=b"x", on_delivery=lambda error, _: errors.append(error))
    producer.flush(10)
    assert [error.code() for error in errors] == [KafkaError.INVALID_RECORD]


def test_what_is_kept_beside_what_is_deleted_is_moved_and_the_space_comes_back(
    small: Node,
) -> None:
    create(small, "kept", {"retention.ms": "-1"})
    create(small, "gone", {})
    for n in range(20):
        assert produce(small, "kept", [(f"k{n}-{m}", os.urandom(1000)) for m in range(200)]) == []
        assert produce(small, "gone", [("g", os.urandom(1000)) for _ in range(800)]) == []
    before = read(small, "kept")
    assert len(before) == 4000
    assert log_health(small)["disk_used_bytes"] > 18 * MB
    client = AdminClient({"bootstrap.servers": small.bootstrap})
    client.delete_topics(["gone"])["gone"].result(timeout=10)
    eventually(
        lambda: log_health(small)["disk_used_bytes"] < 9 * MB,
        within_s=30,
        what="the space of what was deleted",
    )
    assert log_health(small)["relocated_bytes_total"] > 2 * MB
    assert read(small, "kept") == before
    small.kill()
    small.start()
    assert read(small, "kept") == before
    small.terminate()
    doctor = [str(binary()), "doctor", "--data-dir", str(small.data_dir)]
    told = subprocess.run(doctor, capture_output=True, text=True, timeout=60, check=True)
    assert "0 damaged, 0 disagreements" in told.stdout
    assert "bytes live" in told.stdout


def test_a_full_node_refuses_on_every_door_reads_deletes_and_goes_on(tmp_path: Path) -> None:
    with Node(tmp_path, config=SMALL + "disk_bytes_max = 8388608\n") as node:
        node.start()
        create(node, "t", {})
        many = [("k", os.urandom(10_000)) for _ in range(2000)]
        errors = produce(node, "t", many, **{"enable.idempotence": False, "retries": 0})
        assert errors
        assert {error.code() for error in errors} <= {
            KafkaError.KAFKA_STORAGE_ERROR,
            KafkaError._MSG_TIMED_OUT,
        }
        health = node.get("/health")
        assert health.status_code == 503
        assert health.json()["log"]["state"] == "full"
        assert "may have" in health.json()["log"]["reason"]
        body = {"inverter_id": "a", "power_kw": 1.0, "ts": "2026-01-01T12:00:00Z"}
        refused = requests.post(
            node.url("/ingest"), json=body, headers=bearer(node), timeout=10
        )
        assert refused.status_code == 507, refused.text
        kept = read(node, "t")
        assert len(kept) == 2000 - len(errors)
        client = AdminClient({"bootstrap.servers": node.bootstrap})
        place = TopicPartition("t", 0, OFFSET_END)
        next(iter(client.delete_records([place]).values())).result(timeout=10)
        eventually(
            lambda: node.get("/health").status_code == 200, within_s=20, what="room again"
        )
        assert produce(node, "t", [("k", b"x")]) == []


def test_log_append_time_is_the_nodes(small: Node) -> None:
    create(small, "t", {"message.timestamp.type": "LogAppendTime"})
    before = int(time.time() * 1000)
    producer = Producer({"bootstrap.servers": small.bootstrap})
    told = []
    producer.produce("t", value=b"x", timestamp=1000, on_delivery=lambda _, m: told.append(m))
    producer.flush(10)
    after = int(time.time() * 1000)
    consumer = Consumer({"bootstrap.servers": small.bootstrap, "group.id": "g"})
    consumer.assign([TopicPartition("t", 0, 0)])
    message = consumer.poll(10)
    assert message is not None and message.error() is None
    kind, timestamp = message.timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert before <= timestamp <= after
    assert told[0].timestamp() == (TIMESTAMP_LOG_APPEND_TIME, timestamp)
    found = consumer.offsets_for_times([TopicPartition("t", 0, before)], timeout=10)
    assert found[0].offset == 0
    consumer.close()


def test_durability_os_is_a_topics_own_and_said(small: Node) -> None:
    create(small, "quick", {"holdfast.durability": "os"})
    with pytest.raises(KafkaException) as refused:
        create(small, "wrong", {"holdfast.durability": "none"})
    assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
    assert log_health(small)["durability_os_topics"] == ["quick"]
    records = [(f"k{n}", b"x" * 100) for n in range(5000)]
    assert produce(small, "quick", records) == []
    assert len(read(small, "quick")) == 5000
    # A killed process loses nothing of what has reached the page cache.
    small.kill()
    small.start()
    assert len(read(small, "quick")) == 5000
    assert produce(small, "quick", [("k", b"x")]) == []
    assert read(small, "quick")[-1][0] == 5000
