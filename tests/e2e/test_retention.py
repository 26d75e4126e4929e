"""What is kept, what is deleted, and that its space comes back: seen by clients and on the disk."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from conftest import (
    Node,
    binary,
    create_topic,
    eventually,
    query_store,
    read_topic,
    run,
)

# Segments as small as they can be, and a cleaner that does not let the test wait.
SMALL = """
[log]
segment_bytes = 1048576
batch_bytes_max = 524288
retention_check_interval_ms = 200
"""


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, config=SMALL) as node:
        yield node.start()


def admin(node: Node) -> AdminClient:
    return AdminClient({"bootstrap.servers": node.bootstrap})


def delete_topic(node: Node, topic: str) -> None:
    client = admin(node)
    client.delete_topics([topic])[topic].result(timeout=10)


def create_with(node: Node, topic: str, **config: str) -> None:
    client = admin(node)
    named = {key.replace("_", "."): value for key, value in config.items()}
    client.create_topics([NewTopic(topic, 1, 1, config=named)])[topic].result(timeout=10)


def delete_records(node: Node, topic: str, partition: int, offset: int) -> int:
    """The new log start."""
    client = admin(node)
    futures = client.delete_records([TopicPartition(topic, partition, offset)])
    return next(iter(futures.values())).result(timeout=10).low_watermark


def fill(node: Node, topic: str, megabytes: int, *, partition: int = 0) -> None:
    """Incompressible kilobytes, each of them acknowledged."""
    producer = Producer({"bootstrap.servers": node.bootstrap, "batch.size": 200_000})
    failures: list[KafkaError] = []
    for _ in range(megabytes * 1024):
        producer.produce(
            topic,
            value=os.urandom(1024),
            partition=partition,
            on_delivery=lambda error, _: failures.append(error) if error else None,
        )
        producer.poll(0)
    assert producer.flush(60) == 0
    assert not failures


def watermarks(node: Node, topic: str, partition: int = 0) -> tuple[int, int]:
    consumer = Consumer({"bootstrap.servers": node.bootstrap, "group.id": "watermarks"})
    try:
        return consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
    finally:
        consumer.close()


def segments_bytes(node: Node) -> int:
    """What the segment files take on disk."""
    total = 0
    for path in (node.data_dir / "segments").iterdir():
        try:
            total += path.stat().st_blocks * 512
        except FileNotFoundError:
            pass
    return total


def test_a_deleted_topic_is_gone_and_one_of_its_name_begins_anew(small: Node) -> None:
    create_topic(small, "t", partitions=2)
    create_topic(small, "other", partitions=1)
    fill(small, "t", 8)
    fill(small, "other", 1)
    before = segments_bytes(small)
    delete_topic(small, "t")
    assert "t" not in admin(small).list_topics(timeout=10).topics
    with pytest.raises(KafkaException) as refused:
        delete_topic(small, "t")
    assert refused.value.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART

    create_topic(small, "t", partitions=1)
    fill(small, "t", 1)
    assert watermarks(small, "t") == (0, 1024)
    # The head and the preallocated segment stay.
    eventually(
        lambda: segments_bytes(small) < before - 5 * 1024 * 1024,
        within_s=20,
        what=f"less than the {before} bytes there were",
    )
    small.kill()
    small.start()
    assert watermarks(small, "t") == (0, 1024)
    assert len(read_topic(small, "other")) == 1024


def test_deleted_records_are_gone_up_to_the_offset(small: Node) -> None:
    create_topic(small, "t", partitions=2)
    fill(small, "t", 1, partition=1)
    assert delete_records(small, "t", 1, 1000) == 1000
    assert watermarks(small, "t", 1) == (1000, 1024)
    assert [record.offset for record in read_topic(small, "t")] == list(range(1000, 1024))
    with pytest.raises(KafkaException) as refused:
        delete_records(small, "t", 1, 1025)
    assert refused.value.args[0].code() == KafkaError.OFFSET_OUT_OF_RANGE
    small.kill()
    small.start()
    assert watermarks(small, "t", 1) == (1000, 1024)


def test_what_is_older_than_retention_goes(small: Node) -> None:
    create_with(small, "short", retention_ms="1000")
    create_topic(small, "long", partitions=1)
    fill(small, "short", 6)
    fill(small, "long", 1)
    eventually(
        lambda: watermarks(small, "short") == (6 * 1024, 6 * 1024),
        within_s=20,
        what="an empty topic that remembers its offsets",
    )
    assert watermarks(small, "long") == (0, 1024)
    fill(small, "short", 1)
    assert watermarks(small, "short")[1] == 7 * 1024


def test_what_exceeds_retention_bytes_goes(small: Node) -> None:
    create_with(small, "bounded", retention_bytes=str(3 << 20))
    fill(small, "bounded", 12)

    def kept() -> int:
        start, end = watermarks(small, "bounded")
        return end - start

    eventually(lambda: kept() <= 5 * 1024, within_s=20, what="three to five megabytes")
    assert kept() >= 3 * 1024 - 64
    eventually(
        lambda: segments_bytes(small) < 9 << 20, within_s=20, what="space that came back"
    )


def test_a_wrong_retention_is_refused(small: Node) -> None:
    with pytest.raises(KafkaException) as refused:
        create_with(small, "wrong", retention_ms="a week")
    assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
    assert "-1 for no bound" in refused.value.args[0].str()


def test_the_command_line_makes_and_deletes_topics(small: Node) -> None:
    holdfast = [str(binary()), "topics"]
    door = ["--kafka", small.bootstrap]
    run([*holdfast, "create", "made", "--partitions", "3", "--config", "retention.ms=-1", *door])
    assert len(admin(small).list_topics(timeout=10).topics["made"].partitions) == 3
    run([*holdfast, "delete", "made", *door])
    assert "made" not in admin(small).list_topics(timeout=10).topics


def test_telemetry_goes_on_when_its_topic_was_deleted(small: Node) -> None:
    def publish(device: str) -> bool:
        message = {"inverter_id": device, "power_kw": 1.0, "ts": "2026-01-01T12:00:00Z"}
        command = ["mosquitto_pub", "-p", str(small.mqtt_port), "-q", "1"]
        where = ["-t", f"telemetry/inverters/{device}", "-m", json.dumps(message)]
        return subprocess.run([*command, *where], timeout=60, check=False).returncode == 0

    def stored(device: str) -> bool:
        sql = "SELECT count(*) FROM normalized_records WHERE device_id = ?"
        return query_store(small, sql, (device,)) == [(1,)]

    assert publish("before")
    eventually(lambda: stored("before"), within_s=20, what="the first record in the store")
    delete_topic(small, "telemetry.raw")
    # A device that finds the topic gone is disconnected, without an acknowledgement; then the topic
    # is made again, and what the device sends again is taken.
    eventually(lambda: publish("after"), within_s=20, what="a publish that is taken")
    eventually(lambda: stored("after"), within_s=30, what="the second record in the store")
