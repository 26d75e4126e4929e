"""MirrorMaker 2: a topic with its group's offsets from a real Kafka to the broker under test, and another back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, ResourceType
from steps import BOOTSTRAP, client, step, until
from worker import WORK, Worker, properties

OTHER = os.environ["COMPAT_OTHER"]
WITHIN_S = 120
FIRST, RECORDS, COMMITTED = 100, 200, 190


class Side:
    """One of the two clusters."""

    def __init__(self, name: str, bootstrap: str) -> None:
        self.name, self.bootstrap = name, bootstrap
        self.admin = AdminClient({"bootstrap.servers": bootstrap})

    def create(self, topic: str) -> None:
        (made,) = self.admin.create_topics(
            [NewTopic(topic, 1, 1, config={"retention.ms": "7200000"})]
        ).values()
        made.result(30)
        self.produce(topic, 0, FIRST)

    def produce(self, topic: str, first: int, end: int) -> None:
        """In small batches: MirrorMaker notes which offset became which for a batch at a time."""
        producer = Producer({"bootstrap.servers": self.bootstrap, "enable.idempotence": True})
        for n in range(first, end):
            producer.produce(
                topic, key=f"k{n}", value=f"{self.name} {n}", headers={"n": str(n)}, partition=0
            )
            if n % 10 == 9:
                assert producer.flush(30) == 0

    def commit(self, topic: str, group: str) -> None:
        at = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, COMMITTED)])
        (done,) = self.admin.alter_consumer_group_offsets([at]).values()
        done.result(30)

    def read(self, topic: str) -> list[tuple[str, str, Any]]:
        consumer = Consumer(
            {
                "bootstrap.servers": self.bootstrap,
                "group.id": "unused",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
        seen = []
        try:
            while message := consumer.poll(10):
                if message.error():
                    if message.error().code() == KafkaError._PARTITION_EOF:
                        break
                    return []
                seen.append((message.key().decode(), message.value().decode(), message.headers()))
        finally:
            consumer.close()
        return seen

    def committed(self, group: str, topic: str) -> int:
        (found,) = self.admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(group)]
        ).values()
        return next((p.offset for p in found.result(30).topic_partitions if p.topic == topic), -1)

    def setting(self, topic: str, name: str) -> str:
        (found,) = self.admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return str(found.result(30)[name].value)


def settings(a: Side, b: Side) -> dict[str, str]:
    common = {
        "clusters": "a, b",
        "a.bootstrap.servers": a.bootstrap,
        "b.bootstrap.servers": b.bootstrap,
        "dedicated.mode.enable.internal.rest": "false",
        "tasks.max": "2",
    }
    flow = {
        "enabled": "true",
        "emit.checkpoints.interval.seconds": "1",
        "sync.group.offsets.enabled": "true",
        "sync.group.offsets.interval.seconds": "1",
        "refresh.topics.interval.seconds": "2",
        "refresh.groups.interval.seconds": "2",
        "sync.topic.configs.interval.seconds": "2",
        "sync.topic.acls.enabled": "false",
        "offset.lag.max": "0",
        "groups": "readers-.*",
    }
    for direction, topics in (("a->b", "site"), ("b->a", "home")):
        common |= {f"{direction}.{key}": value for key, value in flow.items()} | {
            f"{direction}.topics": topics
        }
    for name in ("replication", "checkpoints.topic.replication", "heartbeats.topic.replication", "offset-syncs.topic.replication",
                 "offset.storage.replication", "status.storage.replication", "config.storage.replication"):  # fmt: skip
        common[f"{name}.factor"] = "1"
    # The internal topics of Connect have 25 partitions by default; one is enough here, and quicker.
    for cluster in ("a", "b"):
        common |= {
            f"{cluster}.offset.storage.partitions": "1",
            f"{cluster}.status.storage.partitions": "1",
        }
        common |= {
            f"{cluster}.offset.flush.interval.ms": "1000",
            f"{cluster}.consumer.auto.offset.reset": "earliest",
        }
    return common


def mirrored(running: Worker, source: Side, target: Side, topic: str, group: str) -> Any:
    copy = f"{source.name}.{topic}"

    def copied(count: int) -> None:
        def enough() -> bool:
            running.alive()
            return len(target.read(copy)) >= count

        until(
            enough, within_s=WITHIN_S, what=f"{count} records of {copy} on {target.name}", every_s=1
        )

    # Only offsets of records that it saw pass are translated: the group has to go on while it runs.
    copied(FIRST)
    source.produce(topic, FIRST, RECORDS)
    copied(RECORDS)

    def translated() -> int:
        running.alive()
        source.commit(topic, group)
        return max(0, target.committed(group, copy))

    offset = until(
        translated, within_s=WITHIN_S, what=f"offsets of {group} on {target.name}", every_s=1
    )
    return {
        "the same records": target.read(copy) == source.read(topic),
        "the group goes on without a gap": 0 < offset <= COMMITTED,
        "retention.ms": target.setting(copy, "retention.ms"),
    }


def main() -> None:
    (jar,) = Path(os.environ["COMPAT_CLASSPATH"].rsplit(":", 1)[1].rstrip("*")).glob(
        "connect-mirror-4*.jar"
    )
    client("MirrorMaker 2", jar.stem.removeprefix("connect-mirror-"))
    a, b = Side("a", OTHER), Side("b", BOOTSTRAP)
    step("topics to copy", lambda: (a.create("site"), b.create("home"), "made")[2])
    path = properties(WORK / "mirror.properties", settings(a, b))
    with Worker("org.apache.kafka.connect.mirror.MirrorMaker", path, name="mirror") as running:
        step("from a real Kafka", lambda: mirrored(running, a, b, "site", "readers-a"))
        step("and back", lambda: mirrored(running, b, a, "home", "readers-b"))


if __name__ == "__main__":
    main()
