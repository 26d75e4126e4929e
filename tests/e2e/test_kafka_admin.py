"""Administration with librdkafka's AdminClient: configurations, partitions, groups, the cluster."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import (
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    OffsetSpec,
    ResourceType,
)
from conftest import Node, create_topic, eventually, kcat, query_store
from test_telemetry import device_reading

WITHIN_S = 30


def admin(node: Node) -> AdminClient:
    return AdminClient({"bootstrap.servers": node.bootstrap})


def only(futures: dict[Any, Any]) -> Any:
    (future,) = futures.values()
    return future.result()


def ask(node: Node, question: Callable[[AdminClient], dict[Any, Any]]) -> Any:
    """What one call answers; the client has to live until then."""
    client = admin(node)
    return only(question(client))


def describe(node: Node, kind: ResourceType, name: str) -> dict[str, ConfigEntry]:
    return ask(node, lambda client: client.describe_configs([ConfigResource(kind, name)]))


def alter(node: Node, topic: str, steps: list[tuple[str, AlterConfigOpType, str | None]]) -> None:
    entries = [
        ConfigEntry(key, value, incremental_operation=operation) for key, operation, value in steps
    ]
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=entries)
    ask(node, lambda client: client.incremental_alter_configs([resource]))


def produce(node: Node, topic: str, partition: int, values: list[str], **more: Any) -> None:
    producer = Producer({"bootstrap.servers": node.bootstrap})
    failures: list[KafkaError] = []

    def told(error: KafkaError | None, _: object) -> None:
        if error:
            failures.append(error)

    for value in values:
        producer.produce(topic, value=value, partition=partition, on_delivery=told, **more)
    assert producer.flush(WITHIN_S) == 0
    if failures:
        raise KafkaException(failures[0])


def test_a_topics_configuration_changes_and_survives_a_restart(node: Node) -> None:
    create_topic(node, "t", partitions=1)
    before = describe(node, ResourceType.TOPIC, "t")
    assert before["retention.ms"].value == "604800000"
    assert before["retention.ms"].source == ConfigSource.DEFAULT_CONFIG.value
    alter(
        node,
        "t",
        [
            ("cleanup.policy", AlterConfigOpType.APPEND, "compact"),
            ("max.message.bytes", AlterConfigOpType.SET, "2000"),
            ("segment.bytes", AlterConfigOpType.SET, "2000000"),
        ],
    )
    with pytest.raises(KafkaException) as refused:
        produce(node, "t", 0, ["x" * 3000], key="k")
    assert refused.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    with pytest.raises(KafkaException) as refused:
        produce(node, "t", 0, ["keyless"])
    assert refused.value.args[0].code() == KafkaError.INVALID_RECORD
    for key, value in [("retention.ms", "soon"), ("retention.hours", "1")]:
        with pytest.raises(KafkaException) as refused:
            alter(node, "t", [(key, AlterConfigOpType.SET, value)])
        assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
        assert key in refused.value.args[0].str()
    node.kill()
    node.start()
    after = describe(node, ResourceType.TOPIC, "t")
    own = {
        key: entry.value
        for key, entry in after.items()
        if entry.source == ConfigSource.DYNAMIC_TOPIC_CONFIG.value
    }
    assert own == {
        "cleanup.policy": "delete,compact",
        "max.message.bytes": "2000",
        "segment.bytes": "2000000",
    }
    alter(node, "t", [("max.message.bytes", AlterConfigOpType.DELETE, None)])
    produce(node, "t", 0, ["x" * 3000], key="k")


def test_retention_that_is_shortened_takes_effect_on_what_is_there(node: Node) -> None:
    create_topic(node, "t", partitions=1)
    produce(node, "t", 0, ["old"] * 10)
    consumer = Consumer({"bootstrap.servers": node.bootstrap, "group.id": "g"})
    assert consumer.get_watermark_offsets(TopicPartition("t", 0)) == (0, 10)
    alter(node, "t", [("retention.ms", AlterConfigOpType.SET, "1")])
    eventually(
        lambda: consumer.get_watermark_offsets(TopicPartition("t", 0)) == (10, 10),
        within_s=WITHIN_S,
        what="the records are gone",
    )
    consumer.close()


def test_the_broker_is_described_and_configured_by_its_file_alone(shared_node: Node) -> None:
    broker = describe(shared_node, ResourceType.BROKER, "1")
    assert broker["node.id"].value == "1"
    assert broker["message.max.bytes"].value == "1048588"
    assert broker["default.replication.factor"].value == "1"
    assert all(entry.is_read_only for entry in broker.values())
    entry = ConfigEntry("log.cleaner.threads", "2", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.BROKER, "1", incremental_configs=[entry])
    with pytest.raises(KafkaException) as refused:
        ask(shared_node, lambda client: client.incremental_alter_configs([resource]))
    assert refused.value.args[0].code() == KafkaError.INVALID_REQUEST


def test_new_partitions_reach_consumers_and_the_pipeline(node: Node) -> None:
    create_topic(node, "t", partitions=1)
    consumer = Consumer(
        {
            "bootstrap.servers": node.bootstrap,
            "group.id": "g",
            "auto.offset.reset": "earliest",
            "topic.metadata.refresh.interval.ms": 500,
        }
    )
    consumer.subscribe(["t"])
    eventually(
        lambda: consumer.poll(0.1) is None and consumer.assignment(),
        within_s=WITHIN_S,
        what="an assignment",
    )
    client = admin(node)
    only(client.create_partitions([NewPartitions("t", 3)]))
    produce(node, "t", 2, ["in the new one"])
    seen = eventually(
        lambda: (message := consumer.poll(1.0)) and not message.error() and message.value(),
        within_s=WITHIN_S,
        what="a record of the new partition",
    )
    assert seen == b"in the new one"
    consumer.close()
    with pytest.raises(KafkaException) as refused:
        only(client.create_partitions([NewPartitions("t", 2)]))
    assert refused.value.args[0].code() == KafkaError.INVALID_PARTITIONS

    raw = len(client.list_topics("telemetry.raw").topics["telemetry.raw"].partitions)
    only(client.create_partitions([NewPartitions("telemetry.raw", raw + 1)]))
    kcat(node, "-P", "-t", "telemetry.raw", "-p", str(raw), stdin=device_reading("dev-new", 1))
    eventually(
        lambda: query_store(
            node, "select 1 from normalized_records where device_id = ?", ("dev-new",)
        ),
        within_s=WITHIN_S,
        what="the record of the new partition in the store",
    )


def test_groups_are_listed_described_and_deleted(node: Node) -> None:
    create_topic(node, "t", partitions=2)
    for partition in (0, 1):
        produce(node, "t", partition, ["v"])
    member = Consumer(
        {"bootstrap.servers": node.bootstrap, "group.id": "g", "auto.offset.reset": "earliest"}
    )
    member.subscribe(["t"])
    values = []
    deadline = time.monotonic() + WITHIN_S
    while len(values) < 2 and time.monotonic() < deadline:
        message = member.poll(0.5)
        if message and not message.error():
            values.append(message.value())
    assert len(values) == 2
    member.commit(asynchronous=False)

    client = admin(node)
    (listed,) = client.list_consumer_groups().result().valid
    assert (listed.group_id, listed.state) == ("g", ConsumerGroupState.STABLE)
    described = only(client.describe_consumer_groups(["g"]))
    (found,) = described.members
    assert {(p.topic, p.partition) for p in found.assignment.topic_partitions} == {
        ("t", 0),
        ("t", 1),
    }
    with pytest.raises(KafkaException) as refused:
        only(client.delete_consumer_groups(["g"]))
    assert refused.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    member.close()

    to = ConsumerGroupTopicPartitions("g", [TopicPartition("t", 0, 0)])
    only(client.alter_consumer_group_offsets([to]))
    offsets = only(client.list_consumer_group_offsets([ConsumerGroupTopicPartitions("g")]))
    assert {(p.partition, p.offset) for p in offsets.topic_partitions} == {(0, 0), (1, 1)}
    only(client.delete_consumer_groups(["g"]))
    assert client.list_consumer_groups().result().valid == []
    with pytest.raises(KafkaException) as refused:
        only(client.delete_consumer_groups(["g"]))
    assert refused.value.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND


def test_the_cluster_and_its_offsets_are_described(shared_node: Node) -> None:
    create_topic(shared_node, "described", partitions=1)
    produce(shared_node, "described", 0, ["a", "b"])
    client = admin(shared_node)
    cluster = client.describe_cluster().result()
    assert [node.id for node in cluster.nodes] == [1]
    assert cluster.controller.id == 1
    ends = client.list_offsets({TopicPartition("described", 0): OffsetSpec.latest()})
    assert only(ends).offset == 2
