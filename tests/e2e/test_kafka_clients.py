"""Kafka clients as people use them: kcat and confluent-kafka (librdkafka), aiokafka and KafkaJS.

Every test is strict about content, order and number: what comes back is exactly what went in.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka import TopicPartition as AioTopicPartition
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from conftest import Node, create_topic, eventually, kcat, read_topic, run

CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
#: The first rebalance of a group waits 3 s for more members, never in proportion to a time-out.
FIRST_JOIN_S = 8.0
#: Well below the session time-out (45 s): a rebalance that only they end is too slow.
PROMPT_S = 15.0


def lines(first: int, count: int) -> list[str]:
    """Values that compress well and cannot be mistaken for one another."""
    return [f"value {n} {'holdfast ' * 8}".strip() for n in range(first, first + count)]


def as_text(values: Iterable[str]) -> str:
    return "".join(f"{value}\n" for value in values)


def produce(node: Node, topic: str, values: Iterable[str], **options: Any) -> None:
    """Produces in order, and returns once every record is acknowledged."""
    failures: list[KafkaError] = []
    producer = Producer({"bootstrap.servers": node.bootstrap, "enable.idempotence": True})
    for value in values:
        producer.produce(
            topic,
            value=value,
            on_delivery=lambda error, _: failures.append(error) if error else None,
            **options,
        )
        producer.poll(0)
    assert producer.flush(30) == 0
    assert not failures, failures[:3]


def topic_size_bytes(node: Node, topic: str) -> int:
    (found,) = [t for t in node.get("/api/v1/topics").json() if t["name"] == topic]
    return sum(partition["size_bytes"] for partition in found["partitions"])


# --- kcat -----------------------------------------------------------------------------------


def test_kcat_lists_the_broker_and_its_topics(shared_node: Node) -> None:
    create_topic(shared_node, "listed", partitions=3)
    metadata = json.loads(kcat(shared_node, "-L", "-J"))
    assert [broker["name"] for broker in metadata["brokers"]] == [shared_node.bootstrap]
    (broker_id,) = [broker["id"] for broker in metadata["brokers"]]
    assert metadata["controllerid"] == broker_id
    (topic,) = [t for t in metadata["topics"] if t["topic"] == "listed"]
    assert [p["partition"] for p in topic["partitions"]] == [0, 1, 2]
    for partition in topic["partitions"]:
        assert partition["leader"] == broker_id
        assert [r["id"] for r in partition["replicas"]] == [broker_id]
        assert [r["id"] for r in partition["isrs"]] == [broker_id]


def test_kcat_round_trips_every_codec_and_the_log_keeps_it_compressed(shared_node: Node) -> None:
    values = lines(0, 2_000)
    sizes = {}
    for codec in CODECS:
        topic = f"codec-{codec}"
        kcat(shared_node, "-P", "-t", topic, "-p", "0", "-z", codec, stdin=as_text(values))
        read = kcat(
            shared_node, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o %s\n"
        )
        assert read == as_text(f"0 {n} {value}" for n, value in enumerate(values)), codec
        sizes[codec] = topic_size_bytes(shared_node, topic)
    for codec in CODECS[1:]:
        assert sizes[codec] < sizes["none"] / 2, sizes


def test_kcat_reads_from_where_it_is_told(shared_node: Node) -> None:
    topic = "positions"
    create_topic(shared_node, topic, partitions=1)
    first_ms = 1_700_000_000_000
    producer = Producer({"bootstrap.servers": shared_node.bootstrap, "enable.idempotence": True})
    for n in range(20):
        producer.produce(topic, f"value {n}", timestamp=first_ms + n * 10)
    assert producer.flush(30) == 0

    def read(*position: str) -> list[str]:
        where = [argument for p in position for argument in ("-o", p)]
        return kcat(shared_node, "-C", "-t", topic, "-e", "-q", *where).splitlines()

    def values(*numbers: int) -> list[str]:
        return [f"value {n}" for n in numbers]

    assert read("beginning") == values(*range(20))
    assert read("7") == values(*range(7, 20))
    assert read("-5") == values(*range(15, 20))
    assert read("end") == []
    assert read(f"s@{first_ms + 120}") == values(*range(12, 20)), "at the timestamp of a record"
    assert read(f"s@{first_ms + 121}") == values(*range(13, 20)), "between two timestamps"
    assert read(f"s@{first_ms + 1_000}") == [], "after the last one"
    assert read(f"s@{first_ms + 50}", f"e@{first_ms + 80}") == values(5, 6, 7)


def test_kcat_at_the_end_sees_exactly_what_comes_after(shared_node: Node) -> None:
    topic = "tail"
    create_topic(shared_node, topic, partitions=1)
    produce(shared_node, topic, ["before"])
    with subprocess.Popen(
        ["kcat", "-b", shared_node.bootstrap, "-C", "-t", topic, "-o", "end", "-c", "2", "-u"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reader:
        try:
            assert reader.stderr is not None
            assert any("Reached end of topic" in line for line in reader.stderr)
            produce(shared_node, topic, ["after 1", "after 2"])
            out, _ = reader.communicate(timeout=30)
        finally:
            reader.kill()
    assert out == "after 1\nafter 2\n"


def test_kcat_group_goes_on_where_it_left_off(shared_node: Node) -> None:
    topic = "kcat-group"
    create_topic(shared_node, topic, partitions=1)
    values = lines(0, 100)
    produce(shared_node, topic, values)

    def read(count: int) -> list[str]:
        setting = "auto.offset.reset=earliest"
        group = ("-G", "kcat-readers", topic)
        return kcat(shared_node, "-q", "-c", str(count), "-X", setting, *group).splitlines()

    assert read(40) == values[:40]
    assert read(60) == values[40:]


# --- confluent-kafka: producer --------------------------------------------------------------


def test_an_idempotent_producer_is_answered_the_offsets_its_records_have(
    shared_node: Node,
) -> None:
    topic = "idempotent"
    create_topic(shared_node, topic, partitions=3)
    producer = Producer({"bootstrap.servers": shared_node.bootstrap, "enable.idempotence": True})
    delivered: dict[tuple[int, int], bytes] = {}
    failures: list[KafkaError] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        if error:
            failures.append(error)
            return
        place = (message.partition(), message.offset())
        assert place not in delivered, f"two records at {place}"
        delivered[place] = message.value()

    sent: dict[bytes, list[bytes]] = {}
    for n in range(20_000):
        key, value = f"key {n % 50}".encode(), f"value {n}".encode()
        sent.setdefault(key, []).append(value)
        while True:
            try:
                producer.produce(topic, key=key, value=value, on_delivery=on_delivery)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(60) == 0
    assert not failures, failures[:3]
    records = read_topic(shared_node, topic)
    assert {(r.partition, r.offset): r.value for r in records} == delivered
    for partition in range(3):
        offsets = [r.offset for r in records if r.partition == partition]
        assert offsets == list(range(len(offsets))), f"partition {partition} has gaps"
    received: dict[bytes, list[bytes]] = {}
    for record in records:
        assert record.key is not None and record.value is not None
        received.setdefault(record.key, []).append(record.value)
    assert received == sent, "every key has its values, once and in order"


def test_every_part_of_a_record_comes_back(shared_node: Node) -> None:
    topic = "parts"
    create_topic(shared_node, topic, partitions=1)
    headers = [("a", b"1"), ("b", None), ("a", b"2"), ("empty", b""), ("bytes", bytes(range(256)))]
    sent: list[dict[str, Any]] = [
        {"key": b"k", "value": b"v", "headers": headers, "timestamp": 1_700_000_000_123},
        {"key": None, "value": b"keyless", "timestamp": 1_700_000_000_124},
        {"key": b"tombstone", "value": None, "timestamp": 1_700_000_000_125},
        {"key": b"", "value": b"", "timestamp": 1_700_000_000_126},
        {"key": b"\x00\xff", "value": os.urandom(900_000), "timestamp": 1_700_000_000_127},
    ]
    producer = Producer({"bootstrap.servers": shared_node.bootstrap, "enable.idempotence": True})
    for record in sent:
        producer.produce(topic, **record)
    assert producer.flush(30) == 0
    read = read_topic(shared_node, topic)
    assert [(r.key, r.value, list(r.headers), r.timestamp_ms) for r in read] == [
        (r["key"], r["value"], r.get("headers", []), r["timestamp"]) for r in sent
    ]


def test_a_record_over_the_limit_is_refused_and_harms_no_other(shared_node: Node) -> None:
    topic = "too-large"
    create_topic(shared_node, topic, partitions=1)
    producer = Producer(
        {
            "bootstrap.servers": shared_node.bootstrap,
            "enable.idempotence": False,
            "message.max.bytes": 8_000_000,
        }
    )
    outcomes: list[tuple[int, int]] = []

    def on_delivery(error: KafkaError | None, message: Message) -> None:
        outcomes.append((len(message.value()), error.code() if error else 0))

    for size in (10, 3_000_000, 20):
        producer.produce(topic, value=b"x" * size, on_delivery=on_delivery)
        assert producer.flush(30) == 0
    assert outcomes == [(10, 0), (3_000_000, KafkaError.MSG_SIZE_TOO_LARGE), (20, 0)]
    assert [len(r.value or b"") for r in read_topic(shared_node, topic)] == [10, 20]


def test_a_producer_outlives_a_restart_without_loss_or_duplicates(tmp_path: Path) -> None:
    with Node(tmp_path, fixed_ports=True) as node:
        node.start()
        create_topic(node, "through", partitions=2)
        producer = Producer({"bootstrap.servers": node.bootstrap, "enable.idempotence": True})
        failures: list[KafkaError] = []
        delivered = 0

        def on_delivery(error: KafkaError | None, _: Message) -> None:
            nonlocal delivered
            delivered += 1
            if error:
                failures.append(error)

        def send(first: int, count: int) -> None:
            for n in range(first, first + count):
                value = f"value {n}"
                producer.produce("through", value, key=str(n % 10), on_delivery=on_delivery)
                producer.poll(0)

        send(0, 1_000)
        eventually(
            lambda: (producer.poll(0.1), delivered >= 500)[1], within_s=30, what="the first half"
        )
        node.kill()
        send(1_000, 1_000)
        node.start()
        assert producer.flush(90) == 0
        assert not failures, failures[:3]
        by_key: dict[bytes, list[int]] = {}
        for record in read_topic(node, "through"):
            assert record.key is not None and record.value is not None
            by_key.setdefault(record.key, []).append(int(record.value.split()[1]))
        expected = {str(k).encode(): list(range(k, 2_000, 10)) for k in range(10)}
        assert by_key == expected


# --- confluent-kafka: groups ----------------------------------------------------------------


#: A commit that comes too late for its generation: the record will be read again.
TOO_LATE = (
    KafkaError.UNKNOWN_MEMBER_ID,
    KafkaError.ILLEGAL_GENERATION,
    KafkaError.REBALANCE_IN_PROGRESS,
)


class Member:
    """A group member that commits each record before it reads on, and notes what it committed."""

    def __init__(self, node: Node, topic: str, group: str, **settings: Any) -> None:
        self.topic = topic
        self.seen: list[tuple[int, int, bytes]] = []
        self.assigned = 0
        self.revoked = 0
        self.lost = 0
        self.too_late = 0
        self.consumer = Consumer(
            {
                "bootstrap.servers": node.bootstrap,
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "reconnect.backoff.max.ms": 1_000,
                **{name.replace("_", "."): value for name, value in settings.items()},
            }
        )
        self.consumer.subscribe(
            [topic], on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _on_assign(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.assigned += 1

    def _on_revoke(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.revoked += 1

    def _on_lost(self, _: Consumer, partitions: list[TopicPartition]) -> None:
        self.lost += 1

    @property
    def partitions(self) -> set[int]:
        return {p.partition for p in self.consumer.assignment()}

    def poll(self) -> None:
        """Reads at most one record, and commits it."""
        message = self.consumer.poll(0.05)
        if message is None:
            return
        if message.error():
            if message.error().retriable() or message.error().code() in (
                KafkaError._TRANSPORT,
                KafkaError._ALL_BROKERS_DOWN,
            ):
                return
            raise KafkaException(message.error())
        try:
            self.consumer.commit(message=message, asynchronous=False)
        except KafkaException as error:
            if error.args[0].code() not in TOO_LATE:
                raise
            self.too_late += 1
            return
        self.seen.append((message.partition(), message.offset(), message.value()))

    def close(self) -> None:
        self.consumer.close()


@pytest.fixture
def members() -> Iterator[list[Member]]:
    """Members to be closed at the end, whatever happens."""
    started: list[Member] = []
    yield started
    for member in started:
        member.close()


def poll_until(members: list[Member], condition: Any, *, within_s: float, what: str) -> None:
    """Polls every member in turn until the condition holds; what a member raises fails the test."""
    deadline = time.monotonic() + within_s
    while not condition():
        for member in members:
            member.poll()
        if time.monotonic() >= deadline:
            seen = [(sorted(m.partitions), len(m.seen)) for m in members]
            pytest.fail(f"{what}: not within {within_s} s; (partitions, records read): {seen}")


def read_values(*members: Member) -> list[str]:
    return sorted(value.decode() for member in members for _, _, value in member.seen)


def assert_in_order(member: Member) -> None:
    """Within a partition a member reads every offset once, upwards."""
    last: dict[int, int] = {}
    for partition, offset, _ in member.seen:
        assert offset > last.get(partition, -1), f"partition {partition}: {offset} after {last}"
        last[partition] = offset


def spread(node: Node, topic: str, first: int, count: int, partitions: int) -> list[str]:
    """Produces `count` values over all partitions, and returns them sorted."""
    values = [f"value {n:06}" for n in range(first, first + count)]
    for partition in range(partitions):
        produce(node, topic, values[partition::partitions], partition=partition)
    return values


@pytest.mark.parametrize("strategy", ["range", "roundrobin", "cooperative-sticky"])
def test_two_members_share_and_the_survivor_takes_over(
    shared_node: Node, members: list[Member], strategy: str
) -> None:
    topic = group = f"pair-{strategy}"
    create_topic(shared_node, topic, partitions=4)
    settings = {"partition_assignment_strategy": strategy}
    first = Member(shared_node, topic, group, **settings)
    members.append(first)
    poll_until(
        [first], lambda: first.partitions == {0, 1, 2, 3}, within_s=FIRST_JOIN_S, what="all four"
    )
    second = Member(shared_node, topic, group, **settings)
    members.append(second)
    both = [first, second]
    poll_until(
        both,
        lambda: (len(first.partitions), len(second.partitions)) == (2, 2),
        within_s=PROMPT_S,
        what="two partitions each",
    )
    assert first.partitions | second.partitions == {0, 1, 2, 3}
    values = spread(shared_node, topic, 0, 200, 4)
    poll_until(both, lambda: len(read_values(*both)) >= 200, within_s=30, what="every record")
    assert read_values(*both) == values, "every record, once"
    assert {p for p, _, _ in first.seen}.isdisjoint({p for p, _, _ in second.seen})

    members.remove(second)
    second.close()
    poll_until(
        [first], lambda: first.partitions == {0, 1, 2, 3}, within_s=PROMPT_S, what="the takeover"
    )
    values += spread(shared_node, topic, 200, 100, 4)
    poll_until([first], lambda: len(read_values(*both)) >= 300, within_s=30, what="the rest")
    assert read_values(*both) == values, "nothing lost, nothing read twice"
    assert_in_order(first)
    assert_in_order(second)
    assert (first.lost, second.lost) == (0, 0)
    assert (first.too_late, second.too_late) == (0, 0)


def test_a_killed_member_is_replaced_when_its_session_ends(
    shared_node: Node, members: list[Member]
) -> None:
    topic = group = "killed"
    create_topic(shared_node, topic, partitions=2)
    command = ["kcat", "-b", shared_node.bootstrap, "-u", "-X", "session.timeout.ms=6000"]
    with subprocess.Popen(
        [*command, "-X", "auto.offset.reset=earliest", "-G", group, topic],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as victim:
        try:
            assert victim.stdout is not None
            produce(shared_node, topic, ["for the victim"], partition=0)
            assert victim.stdout.readline() == "for the victim\n"
        finally:
            victim.kill()
            victim.wait(10)
    killed = time.monotonic()
    survivor = Member(shared_node, topic, group)
    members.append(survivor)
    produce(shared_node, topic, ["for the survivor"], partition=1)
    poll_until(
        [survivor],
        lambda: "for the survivor" in read_values(survivor),
        within_s=30,
        what="the survivor's record",
    )
    assert survivor.partitions == {0, 1}
    assert time.monotonic() - killed < PROMPT_S, "not much longer than the session time-out"


def test_a_static_member_that_restarts_moves_nobody(
    shared_node: Node, members: list[Member]
) -> None:
    topic = group = "static"
    create_topic(shared_node, topic, partitions=4)
    first = Member(shared_node, topic, group, group_instance_id="box-1")
    second = Member(shared_node, topic, group, group_instance_id="box-2")
    members += [first, second]
    poll_until(
        [first, second],
        lambda: (len(first.partitions), len(second.partitions)) == (2, 2),
        within_s=PROMPT_S,
        what="two partitions each",
    )
    before, rebalances = second.partitions, first.assigned
    members.remove(second)
    second.close()
    again = Member(shared_node, topic, group, group_instance_id="box-2")
    members.append(again)
    poll_until(
        [first, again], lambda: again.partitions == before, within_s=PROMPT_S, what="its partitions"
    )
    values = spread(shared_node, topic, 0, 40, 4)
    poll_until(
        [first, again],
        lambda: len(read_values(first, again)) >= 40,
        within_s=30,
        what="all records",
    )
    assert read_values(first, again) == values
    assert (first.assigned, first.revoked) == (rebalances, 0), "the other member never noticed"


def test_a_second_client_with_the_same_instance_id_fences_the_first(
    shared_node: Node, members: list[Member]
) -> None:
    topic = group = "fenced"
    create_topic(shared_node, topic, partitions=1)
    first = Member(shared_node, topic, group, group_instance_id="box")
    members.append(first)
    poll_until([first], lambda: first.partitions == {0}, within_s=PROMPT_S, what="the partition")
    twin = Member(shared_node, topic, group, group_instance_id="box")
    members.append(twin)
    with pytest.raises(KafkaException) as fenced:
        poll_until([twin, first], lambda: False, within_s=30, what="a fenced twin")
    assert fenced.value.args[0].code() == KafkaError._FATAL
    poll_until(
        [twin], lambda: twin.partitions == {0}, within_s=PROMPT_S, what="the twin's partition"
    )


def test_a_group_lives_on_through_a_restart_of_the_node(
    tmp_path: Path, members: list[Member]
) -> None:
    with Node(tmp_path, fixed_ports=True) as node:
        node.start()
        topic = group = "lives-on"
        create_topic(node, topic, partitions=2)
        values = spread(node, topic, 0, 60, 2)
        member = Member(node, topic, group)
        members.append(member)
        poll_until([member], lambda: len(member.seen) >= 60, within_s=30, what="the first records")
        node.restart()
        values += spread(node, topic, 60, 40, 2)
        poll_until([member], lambda: len(member.seen) >= 100, within_s=60, what="the later records")
        assert read_values(member) == values, "from the committed offsets on, once each"
        node.kill()
        node.start()
        values += spread(node, topic, 100, 20, 2)
        poll_until([member], lambda: len(member.seen) >= 120, within_s=60, what="those after a kill")
        assert read_values(member) == values, "the same after a crash"
        assert_in_order(member)
        assert (member.assigned, member.revoked, member.lost) == (1, 0, 0), "nobody moved"
        members.remove(member)
        member.close()
        node.kill()
        node.start()
        values += spread(node, topic, 120, 20, 2)
        newcomer = Member(node, topic, group)
        members.append(newcomer)
        poll_until([newcomer], lambda: len(newcomer.seen) >= 20, within_s=30, what="the last ones")
        assert read_values(newcomer) == values[120:], "commits survive a crash"


def test_commits_keep_their_metadata_and_the_lag_is_what_is_left(node: Node) -> None:
    topic, group = "lagging", "laggards"
    create_topic(node, topic, partitions=2)
    spread(node, topic, 0, 50, 2)
    settings = {"bootstrap.servers": node.bootstrap, "group.id": group}
    consumer = Consumer({**settings, "enable.auto.commit": False})
    try:
        asked = [TopicPartition(topic, 0), TopicPartition(topic, 1)]
        assert [p.offset for p in consumer.committed(asked, 20)] == [-1001, -1001]
        consumer.assign(asked)
        done = consumer.commit(
            offsets=[TopicPartition(topic, 0, 10, metadata="as far as ä")], asynchronous=False
        )
        assert [(p.partition, p.offset, p.error) for p in done] == [(0, 10, None)]
        committed = consumer.committed(asked, 20)
        assert [p.offset for p in committed] == [10, -1001]
        assert committed[0].metadata == "as far as ä"
        assert consumer.get_watermark_offsets(TopicPartition(topic, 0), 20) == (0, 25)
    finally:
        consumer.close()
    (listed,) = [g for g in node.get("/api/v1/groups").json() if g["group"] == group]
    (partition,) = [p for p in listed["topics"] if (p["topic"], p["partition"]) == (topic, 0)]
    assert (partition["committed_offset"], partition["high_watermark"]) == (10, 25)
    assert partition["lag"] == 15


def test_a_simple_commit_into_an_active_group_is_refused(
    shared_node: Node, members: list[Member]
) -> None:
    topic = group = "occupied"
    create_topic(shared_node, topic, partitions=1)
    produce(shared_node, topic, lines(0, 5))
    member = Member(shared_node, topic, group)
    members.append(member)
    poll_until([member], lambda: len(member.seen) == 5, within_s=30, what="five records")
    stranger = Consumer({"bootstrap.servers": shared_node.bootstrap, "group.id": group})
    try:
        with pytest.raises(KafkaException) as refused:
            stranger.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
        assert refused.value.args[0].code() == KafkaError.UNKNOWN_MEMBER_ID
        (committed,) = stranger.committed([TopicPartition(topic, 0)], 20)
        assert committed.offset == 5
    finally:
        stranger.close()


# --- aiokafka -------------------------------------------------------------------------------


@pytest.mark.parametrize("codec", [None, "gzip"])
def test_aiokafka_round_trips_in_order(shared_node: Node, codec: str | None) -> None:
    topic = f"aiokafka-{codec}"
    create_topic(shared_node, topic, partitions=3)
    sent = [(f"key {n % 20}".encode(), f"value {n}".encode()) for n in range(2_000)]

    async def produce_all() -> dict[tuple[int, int], bytes]:
        async with AIOKafkaProducer(
            bootstrap_servers=shared_node.bootstrap, enable_idempotence=True, compression_type=codec
        ) as producer:
            queued = [
                await producer.send(topic, value, key, headers=[("n", b"1")]) for key, value in sent
            ]
            answers = await asyncio.gather(*queued)
        return {(a.partition, a.offset): value for a, (_, value) in zip(answers, sent, strict=True)}

    async def consume_all() -> list[Any]:
        read: list[Any] = []
        async with AIOKafkaConsumer(
            topic,
            bootstrap_servers=shared_node.bootstrap,
            group_id=f"readers-of-{topic}",
            auto_offset_reset="earliest",
        ) as consumer:
            while len(read) < len(sent):
                for records in (await consumer.getmany(timeout_ms=1_000)).values():
                    read.extend(records)
        return read

    delivered = asyncio.run(asyncio.wait_for(produce_all(), 60))
    read = asyncio.run(asyncio.wait_for(consume_all(), 60))
    assert {(r.partition, r.offset): r.value for r in read} == delivered
    assert all(list(r.headers) == [("n", b"1")] for r in read)
    for key in {key for key, _ in sent}:
        assert [r.value for r in read if r.key == key] == [v for k, v in sent if k == key]


def test_aiokafka_members_share_a_topic_and_resume(shared_node: Node) -> None:
    topic = group = "aiokafka-group"
    create_topic(shared_node, topic, partitions=4)
    values = spread(shared_node, topic, 0, 200, 4)

    def new_consumer() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            topic,
            bootstrap_servers=shared_node.bootstrap,
            group_id=group,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )

    async def read(consumer: AIOKafkaConsumer, into: list[str]) -> None:
        for records in (await consumer.getmany(timeout_ms=200)).values():
            into.extend(record.value.decode() for record in records)
            assert [r.offset for r in records] == list(
                range(records[0].offset, records[0].offset + len(records))
            )
        if consumer.assignment():
            await consumer.commit()

    async def wait_for_shares(*consumers: AIOKafkaConsumer) -> None:
        while [len(c.assignment()) for c in consumers] != [4 // len(consumers)] * len(consumers):
            await asyncio.sleep(0.05)

    async def play() -> None:
        seen: list[str] = []
        first, second = new_consumer(), new_consumer()
        await asyncio.gather(first.start(), second.start())
        try:
            await asyncio.wait_for(wait_for_shares(first, second), PROMPT_S)
            shares = [{p.partition for p in c.assignment()} for c in (first, second)]
            assert shares[0] | shares[1] == {0, 1, 2, 3}
            while len(seen) < 200:
                await asyncio.gather(read(first, seen), read(second, seen))
        finally:
            await second.stop()
        try:
            assert sorted(seen) == values
            await asyncio.wait_for(wait_for_shares(first), PROMPT_S)
            values.extend(await asyncio.to_thread(spread, shared_node, topic, 200, 40, 4))
            while len(seen) < 240:
                await read(first, seen)
            assert sorted(seen) == values
            for partition in range(4):
                assert await first.committed(AioTopicPartition(topic, partition)) == 60
        finally:
            await first.stop()

    asyncio.run(asyncio.wait_for(play(), 90))


# --- KafkaJS --------------------------------------------------------------------------------


def kafkajs_produce(clients: Path, node: Node, topic: str, *arguments: str) -> list[dict[str, Any]]:
    script = [str(clients / "produce.js"), node.bootstrap, topic]
    answered: list[dict[str, Any]] = json.loads(run(["node", *script, *arguments], timeout_s=90))
    return answered


def kafkajs_consume(clients: Path, node: Node, topic: str, group: str, count: int) -> list[Any]:
    script = [str(clients / "consume.js"), node.bootstrap, topic, group, str(count)]
    printed = run(["node", *script], timeout_s=90).splitlines()
    assert printed[0] == "joined"
    return [json.loads(line) for line in printed if line != "joined"]


@pytest.mark.parametrize("codec", ["None", "GZIP"])
def test_kafkajs_creates_its_topic_and_round_trips(
    shared_node: Node, node_clients: Path, codec: str
) -> None:
    topic, group = f"kafkajs-{codec}", f"kafkajs-readers-{codec}"
    answered = kafkajs_produce(node_clients, shared_node, topic, "0", "500", codec)
    assert [int(a["baseOffset"]) for a in answered] == list(range(0, 500, 50))
    expected = [
        {
            "partition": 0,
            "offset": n,
            "key": f"key {n % 7}",
            "value": f"value {n}",
            "number": str(n),
        }
        for n in range(600)
    ]
    assert kafkajs_consume(node_clients, shared_node, topic, group, 500) == expected[:500]
    kafkajs_produce(node_clients, shared_node, topic, "500", "100", codec)
    resumed = kafkajs_consume(node_clients, shared_node, topic, group, 100)
    assert resumed == expected[500:], "the group goes on from its committed offset"
    assert [r.value for r in read_topic(shared_node, topic)] == [
        f"value {n}".encode() for n in range(600)
    ]


def test_kafkajs_consumer_creates_its_topic_and_gets_what_comes(
    shared_node: Node, node_clients: Path
) -> None:
    topic = "kafkajs-subscribed-first"
    script = [str(node_clients / "consume.js"), shared_node.bootstrap, topic, "kafkajs-early", "100"]
    said: list[str] = []
    with subprocess.Popen(
        ["node", *script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as consumer:
        assert consumer.stdout is not None and consumer.stderr is not None
        errors = consumer.stderr
        complaints: list[str] = []
        listener = threading.Thread(target=lambda: complaints.extend(errors), daemon=True)
        listener.start()
        try:
            said.append(consumer.stdout.readline())
            assert said == ["joined\n"], complaints
            kafkajs_produce(node_clients, shared_node, topic, "0", "100")
            said += [line for line in consumer.stdout if line != "joined\n"]
            assert consumer.wait(30) == 0, complaints
        finally:
            consumer.kill()
            listener.join(10)
    records = [json.loads(line) for line in said[1:]]
    assert [(r["offset"], r["value"]) for r in records] == [(n, f"value {n}") for n in range(100)]


def test_platformatic_creates_its_topic_and_its_group_goes_on(
    shared_node: Node, node_clients: Path
) -> None:
    topic = "platformatic"

    def played(first: int, count: int) -> dict[str, Any]:
        script = [str(node_clients / "platformatic.js"), shared_node.bootstrap, topic, "platformatic"]
        said = run(["node", *script, str(first), str(count)], timeout_s=90)
        answered: dict[str, Any] = json.loads(said.splitlines()[-1])
        return answered

    def expected(first: int, count: int) -> list[dict[str, Any]]:
        return [
            {
                "partition": 0,
                "offset": n,
                "key": f"key {n % 7}",
                "value": f"value {n}",
                "number": str(n),
            }
            for n in range(first, first + count)
        ]

    assert played(0, 500) == {"bases": list(range(0, 500, 50)), "records": expected(0, 500)}
    assert played(500, 100) == {"bases": [500, 550], "records": expected(500, 100)}


# --- between clients ------------------------------------------------------------------------


def test_what_one_client_writes_every_other_reads(shared_node: Node, node_clients: Path) -> None:
    topic = "mixed"
    kafkajs_produce(node_clients, shared_node, topic, "0", "10")
    kcat(shared_node, "-P", "-t", topic, "-p", "0", "-z", "zstd", stdin="from kcat\n")
    produce(shared_node, topic, ["from confluent"], partition=0)
    records = read_topic(shared_node, topic)
    assert [r.offset for r in records] == list(range(12))
    texts = [(r.value or b"").decode() for r in records]
    assert texts == [*(f"value {n}" for n in range(10)), "from kcat", "from confluent"]
    listed = kcat(shared_node, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%s\n")
    assert listed.splitlines() == texts


def test_timestamps_are_the_producers(shared_node: Node) -> None:
    topic = "stamped"
    create_topic(shared_node, topic, partitions=1)
    produce(shared_node, topic, ["old"], timestamp=1_000_000_000_000)
    before_ms = int(time.time() * 1_000)
    produce(shared_node, topic, ["new"])
    after_ms = int(time.time() * 1_000)
    consumer = Consumer({"bootstrap.servers": shared_node.bootstrap, "group.id": "stamps"})
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        stamps: list[tuple[int, int]] = []
        while len(stamps) < 2:
            message = consumer.poll(20)
            assert message is not None and not message.error()
            stamps.append(message.timestamp())
        (found,) = consumer.offsets_for_times([TopicPartition(topic, 0, before_ms)], 20)
    finally:
        consumer.close()
    assert stamps[0] == (TIMESTAMP_CREATE_TIME, 1_000_000_000_000)
    assert stamps[1][0] == TIMESTAMP_CREATE_TIME
    assert before_ms <= stamps[1][1] <= after_ms
    assert found.offset == 1
