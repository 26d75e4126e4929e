"""Transactions as clients use them: librdkafka, aiokafka and KafkaJS against one node.

The promise: what was committed is read by everybody, what was not is read by nobody who asks for
committed records, whatever happens to the node in between.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer
from confluent_kafka import (
    Consumer,
    IsolationLevel,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from conftest import Node, binary, create_topic, eventually, run

STEP_S = 20.0


def transactional(node: Node, transactional_id: str, **options: object) -> Producer:
    """A producer that has begun under its id."""
    producer = Producer(
        {
            "bootstrap.servers": node.bootstrap,
            "transactional.id": transactional_id,
            **options,
        }
    )
    producer.init_transactions(STEP_S)
    return producer


def read(node: Node, topic: str, partitions: int, isolation: str) -> list[str]:
    """Every value, by a client of its own, up to where the partitions end for it."""
    consumer = Consumer(
        {
            "bootstrap.servers": node.bootstrap,
            "group.id": "reads-without-a-group",
            "enable.auto.commit": False,
            "isolation.level": isolation,
            "enable.partition.eof": True,
        }
    )
    consumer.assign([TopicPartition(topic, p, 0) for p in range(partitions)])
    values: list[str] = []
    ended: set[int] = set()
    deadline = time.monotonic() + STEP_S
    while len(ended) < partitions:
        assert time.monotonic() < deadline, f"{topic}: only {ended} ended"
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            ended.add(message.partition())
        else:
            values.append(message.value().decode())
    consumer.close()
    return values


def send(producer: Producer, topic: str, values: list[str]) -> None:
    for value in values:
        producer.produce(topic, key=value, value=value)
    assert producer.flush(STEP_S) == 0


def test_committed_records_are_read_and_aborted_ones_are_not(shared_node: Node) -> None:
    create_topic(shared_node, "outcomes", partitions=3)
    producer = transactional(shared_node, "outcomes")
    wanted = []
    for n in range(12):
        values = [f"{n}-{i}" for i in range(20)]
        producer.begin_transaction()
        send(producer, "outcomes", values)
        if n % 3 == 2:
            producer.abort_transaction(STEP_S)
        else:
            producer.commit_transaction(STEP_S)
            wanted += values
    assert sorted(read(shared_node, "outcomes", 3, "read_committed")) == sorted(wanted)
    assert len(read(shared_node, "outcomes", 3, "read_uncommitted")) == 240


def test_readers_of_committed_records_wait_for_an_open_transaction(shared_node: Node) -> None:
    create_topic(shared_node, "open", partitions=1)
    producer = transactional(shared_node, "open")
    producer.begin_transaction()
    send(producer, "open", ["first"])
    plain = Producer({"bootstrap.servers": shared_node.bootstrap})
    send(plain, "open", ["second"])
    assert read(shared_node, "open", 1, "read_committed") == []
    assert read(shared_node, "open", 1, "read_uncommitted") == ["first", "second"]
    producer.commit_transaction(STEP_S)
    assert read(shared_node, "open", 1, "read_committed") == ["first", "second"]


def test_offsets_are_committed_with_the_records_they_stand_for(shared_node: Node) -> None:
    """Consume, transform, produce: with a third of the transactions aborted, and the member
    rewound, every input has exactly one output."""
    create_topic(shared_node, "source", partitions=1)
    create_topic(shared_node, "sink", partitions=1)
    source = Producer({"bootstrap.servers": shared_node.bootstrap})
    send(source, "source", [str(n) for n in range(300)])
    consumer = Consumer(
        {
            "bootstrap.servers": shared_node.bootstrap,
            "group.id": "transforms",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    consumer.subscribe(["source"])
    producer = transactional(shared_node, "transforms")
    partition = TopicPartition("source", 0)
    turn = 0
    deadline = time.monotonic() + 60
    while consumer.committed([partition], STEP_S)[0].offset < 300:
        assert time.monotonic() < deadline
        messages = [m for m in consumer.consume(25, 1.0) if not m.error()]
        if not messages:
            continue
        turn += 1
        producer.begin_transaction()
        for message in messages:
            producer.produce("sink", value=b"out " + message.value())
        position = [TopicPartition("source", 0, messages[-1].offset() + 1)]
        producer.send_offsets_to_transaction(
            position, consumer.consumer_group_metadata(), STEP_S
        )
        if turn % 3 == 0:
            producer.abort_transaction(STEP_S)
            consumer.seek(TopicPartition("source", 0, messages[0].offset()))
        else:
            producer.commit_transaction(STEP_S)
    consumer.close()
    assert read(shared_node, "sink", 1, "read_committed") == [f"out {n}" for n in range(300)]


def test_a_zombie_is_fenced_and_its_transaction_aborted(shared_node: Node) -> None:
    create_topic(shared_node, "fenced", partitions=1)
    zombie = transactional(shared_node, "fenced")
    zombie.begin_transaction()
    send(zombie, "fenced", ["zombie"])
    successor = transactional(shared_node, "fenced")
    with pytest.raises(KafkaException) as refused:
        zombie.commit_transaction(STEP_S)
    assert refused.value.args[0].name() == "_FENCED"
    successor.begin_transaction()
    send(successor, "fenced", ["successor"])
    successor.commit_transaction(STEP_S)
    assert read(shared_node, "fenced", 1, "read_committed") == ["successor"]


def test_a_transaction_that_nobody_ends_times_out(tmp_path: Path) -> None:
    config = "[kafka.transactions]\ntimeout_check_interval_ms = 100\n"
    with Node(tmp_path, config=config) as node:
        node.start()
        create_topic(node, "late", partitions=1)
        producer = transactional(node, "late", **{"transaction.timeout.ms": 1000})
        producer.begin_transaction()
        send(producer, "late", ["late"])
        plain = Producer({"bootstrap.servers": node.bootstrap})
        send(plain, "late", ["plain"])
        eventually(
            lambda: read(node, "late", 1, "read_committed") == ["plain"],
            within_s=STEP_S,
            what="the transaction is aborted",
        )
        with pytest.raises(KafkaException):
            producer.commit_transaction(STEP_S)
        assert read(node, "late", 1, "read_committed") == ["plain"]


def test_transactions_outlive_kills_of_the_node(tmp_path: Path, seed: int) -> None:
    """A producer goes on with its transaction over a node that is killed under it: whatever its
    commit was told is so, and a transaction is never there in part."""
    chance = random.Random(seed)
    with Node(tmp_path, fixed_ports=True) as node:
        node.start()
        create_topic(node, "killed", partitions=2)
        stop = threading.Event()

        def kill_now_and_then() -> None:
            for _ in range(4):
                if stop.wait(chance.uniform(0.4, 1.2)):
                    return
                node.kill()
                node.start()

        killer = threading.Thread(target=kill_now_and_then)
        killer.start()
        certain: list[str] = []
        tried: list[list[str]] = []
        n = 0
        while killer.is_alive():
            producer = Producer(
                {"bootstrap.servers": node.bootstrap, "transactional.id": "killed"}
            )
            try:
                retried(lambda p=producer: p.init_transactions(5.0))
                while killer.is_alive():
                    n += 1
                    values = [f"{n}-{i}" for i in range(10)]
                    producer.begin_transaction()
                    for value in values:
                        producer.produce("killed", key=value, value=value)
                    tried.append(values)
                    retried(lambda p=producer: p.commit_transaction(5.0))
                    certain += values
            except KafkaException:
                # A new producer aborts what this one left.
                continue
        killer.join()
        stop.set()
        transactional(node, "killed")
        found = sorted(read(node, "killed", 2, "read_committed"))
        assert set(certain) <= set(found)
        assert len(set(found)) == len(found), "nothing twice"
        for values in tried:
            there = set(values) & set(found)
            assert there in (set(), set(values)), "all of a transaction or nothing"
        assert len(certain) >= 20, "it went on between the kills"


def retried(step: Callable[[], None]) -> None:
    """Until it is done, or can never be."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return step()
        except KafkaException as error:
            if not error.args[0].retriable() or time.monotonic() > deadline:
                raise


def test_administrators_see_transactions(shared_node: Node) -> None:
    create_topic(shared_node, "watched", partitions=1)
    producer = transactional(shared_node, "watched")
    producer.begin_transaction()
    send(producer, "watched", ["x"])
    admin = AdminClient({"bootstrap.servers": shared_node.bootstrap})

    def end(level: IsolationLevel) -> int:
        asked = {TopicPartition("watched", 0): OffsetSpec.latest()}
        futures = admin.list_offsets(asked, isolation_level=level)
        return next(iter(futures.values())).result(STEP_S).offset

    assert end(IsolationLevel.READ_COMMITTED) == 0
    assert end(IsolationLevel.READ_UNCOMMITTED) == 1
    producer.commit_transaction(STEP_S)
    assert end(IsolationLevel.READ_COMMITTED) == 2


def test_the_command_line_shows_committed_records(shared_node: Node) -> None:
    create_topic(shared_node, "shown", partitions=1)
    producer = transactional(shared_node, "shown")
    for value, commits in (("no", False), ("yes", True), ("open", None)):
        producer.begin_transaction()
        send(producer, "shown", [value])
        if commits is not None:
            (producer.commit_transaction if commits else producer.abort_transaction)(STEP_S)
    command = [str(binary()), "consume", "shown", "--format", "value"]
    shown = run([*command, "--kafka", shared_node.bootstrap])
    assert shown.split() == ["yes"]


def test_aiokafka_transactions(shared_node: Node) -> None:
    create_topic(shared_node, "aio-transactions", partitions=2)

    async def play() -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=shared_node.bootstrap, transactional_id="aio"
        )
        async with producer:
            async with producer.transaction():
                for n in range(20):
                    await producer.send_and_wait("aio-transactions", f"yes {n}".encode())
            with pytest.raises(ZeroDivisionError):
                async with producer.transaction():
                    await producer.send_and_wait("aio-transactions", b"no")
                    raise ZeroDivisionError

    asyncio.run(play())
    found = read(shared_node, "aio-transactions", 2, "read_committed")
    assert sorted(found) == sorted(f"yes {n}" for n in range(20))


def test_kafkajs_transactions(shared_node: Node, node_clients: Path) -> None:
    create_topic(shared_node, "js-transactions", partitions=1)
    script = [str(node_clients / "transactions.js"), shared_node.bootstrap]
    committed = run(["node", *script, "js-transactions", "js-group"], timeout_s=90)
    assert json.loads(committed) == ["2"]
    assert read(shared_node, "js-transactions", 1, "read_committed") == ["yes", "again"]
