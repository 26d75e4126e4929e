"""Acknowledged means on disk: `kill -9` under load, ten times, at each door.

Real clients write without a pause while the node is killed at random moments and started again
on the same data. Afterwards a Kafka consumer reads the log and SQLite the telemetry store:

- what was acknowledged is in the log, byte for byte, and nothing is there that was never sent;
- a message may be in the log twice only where its acknowledgement was lost in a crash (MQTT QoS 1
  and HTTP deliver at least once); an idempotent Kafka producer's is there once, and in order;
- the telemetry store has each of them exactly once.

The seed of the kill moments is printed; HOLDFAST_SEED repeats it.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import paho.mqtt.client as mqtt
import pytest
import requests
from confluent_kafka import KafkaError, Message, Producer
from conftest import Node, as_json, bearer, create_topic, eventually, query_store, read_topic

KILLS = int(os.environ.get("HOLDFAST_KILLS", "10"))
# The longest that a kill waits after the load is seen to be moving again.
KILL_DELAY_S_MAX = 1.0
# How many of the restarts are killed too, at a random moment of their recovery.
KILLED_AGAIN = 0.4
RECOVERY_S = 0.3
# How many acknowledgements show that it is moving.
MOVING_ACKS = 50
DRAIN_S_MAX = 60

# A kill and what follows it take a few seconds.
pytestmark = pytest.mark.timeout(180 + 15 * KILLS)


# --- the load, whichever door it goes through -------------------------------------------------


@dataclass
class Sent:
    """One message and what became of it."""

    value: bytes
    device: str
    event_ms: int
    # How often the node had been killed when it was handed over, and when it was acknowledged.
    sent_in_life: int
    acked_in_life: int | None = None

    @property
    def outlived_a_kill(self) -> bool:
        return self.acked_in_life != self.sent_in_life


@dataclass
class Load:
    """Everything that was sent, by its bytes. Written by the loader, read once it has stopped."""

    door: str
    sent: dict[bytes, Sent] = field(default_factory=dict)
    acks: int = 0
    # Even while the node runs, odd while it is being killed: whatever straddles a change of it
    # may have lost its acknowledgement.
    life: int = 0
    # Every life that may not continue: what went wrong in the loader itself.
    failures: list[str] = field(default_factory=list)

    def message(self, device: str, number: int) -> Sent:
        """A telemetry event that no other one equals, valid for the kind `devices`."""
        moment = START + timedelta(milliseconds=number)
        text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        body = {
            "device_id": device,
            "device_ts": text,
            "power": number,
            "note": f"{device}/{number}",
        }
        event_ms = int(START.timestamp() * 1000) + number
        sent = Sent(as_json(body).encode(), device, event_ms, self.life)
        assert sent.value not in self.sent
        self.sent[sent.value] = sent
        return sent

    def acknowledged(self, sent: Sent) -> None:
        if sent.acked_in_life is None:
            sent.acked_in_life = self.life
            self.acks += 1

    def acked(self) -> list[Sent]:
        return [sent for sent in self.sent.values() if sent.acked_in_life is not None]


START = datetime(2026, 3, 20, 10, 0, 0, tzinfo=UTC)


@contextmanager
def running(
    step: Callable[[threading.Event], None], load: Load, threads: int = 1
) -> Iterator[None]:
    """Runs the loader beside the kills; on leaving, it has drained and ended."""
    stop = threading.Event()

    def guarded() -> None:
        try:
            step(stop)
        except BaseException as error:
            load.failures.append(repr(error))
            raise

    workers = [threading.Thread(target=guarded, daemon=True) for _ in range(threads)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        stop.set()
        for worker in workers:
            worker.join(DRAIN_S_MAX + 10)
    assert not load.failures, load.failures
    assert not any(worker.is_alive() for worker in workers), "the loader did not end"


def kill_again_and_again(node: Node, load: Load, seed: int) -> None:
    """Ten kills, each at a random moment after the load was seen to move again."""
    moments = random.Random(seed)
    for number in range(KILLS):
        await_progress(load, f"before kill {number + 1}")
        time.sleep(moments.uniform(0, KILL_DELAY_S_MAX))
        load.life += 1
        node.kill()
        if moments.random() < KILLED_AGAIN:
            node.spawn()
            time.sleep(moments.uniform(0, RECOVERY_S))
            node.kill()
        load.life += 1
        node.start()
    await_progress(load, "after the last kill")


def await_progress(load: Load, when: str) -> None:
    goal = load.acks + MOVING_ACKS
    eventually(
        lambda: load.failures or load.acks >= goal,
        within_s=60,
        what=f"{MOVING_ACKS} acknowledgements {when}",
        every_s=0.005,
    )
    assert not load.failures, load.failures


def check_log(load: Load, values: Iterable[bytes | None], *, at_least_once: bool) -> None:
    """The log holds what was acknowledged, exactly as sent, and nothing of its own making."""
    logged = Counter(values)
    acked = load.acked()
    unknown = [value for value in logged if value not in load.sent]
    missing = [sent.value for sent in acked if sent.value not in logged]
    twice = [
        load.sent[value] for value, times in logged.items() if times > 1 and value in load.sent
    ]
    print(
        f"{load.door}: {len(load.sent)} sent, {len(acked)} acknowledged, {sum(logged.values())} "
        f"in the log, {len(twice)} of them more than once, over {KILLS} kills"
    )
    assert not missing, f"{len(missing)} acknowledged messages are lost, such as {missing[:3]}"
    assert not unknown, f"{len(unknown)} records were never sent, such as {unknown[:3]}"
    if at_least_once:
        unexcused = [sent for sent in twice if not sent.outlived_a_kill]
        assert not unexcused, f"{len(unexcused)} logged twice without a crash: {unexcused[:3]}"
    else:
        assert not twice, f"{len(twice)} logged more than once, such as {twice[:3]}"


def check_store(node: Node, load: Load) -> None:
    """The telemetry store has every acknowledged message once, and each at most once."""
    expected = {(sent.device, sent.event_ms) for sent in load.acked()}

    def rows() -> Counter[tuple[str, int]]:
        found = query_store(
            node,
            "select device_id, event_ms from telemetry where device_id like ?",
            (f"crash-{load.door}-%",),
        )
        return Counter((device, moment) for device, moment in found)

    def none_missing() -> bool:
        missing = expected - rows().keys()
        if missing:
            raise LookupError(
                f"{len(missing)} of {len(expected)} missing, such as {sorted(missing)[:3]}"
            )
        return True

    eventually(
        none_missing, within_s=DRAIN_S_MAX, every_s=0.5, what="every acknowledged message stored"
    )
    found = rows()
    repeated = {row: times for row, times in found.items() if times > 1}
    assert not repeated, (
        f"{len(repeated)} stored more than once, such as {list(repeated.items())[:3]}"
    )
    sent = {(each.device, each.event_ms) for each in load.sent.values()}
    assert not found.keys() - sent, "the store has rows that were never sent"


@pytest.fixture
def crashing(tmp_path: Path) -> Iterator[Node]:
    """A node on fixed ports: its clients keep connecting while it is down."""
    with Node(tmp_path, name="crashing", fixed_ports=True) as node:
        yield node.start()


# --- MQTT ---------------------------------------------------------------------------------------


class Device:
    """One MQTT client at QoS 1 with a bounded window; half of them speak MQTT 5."""

    WINDOW = 8

    def __init__(self, number: int, port: int, load: Load, progress: threading.Event) -> None:
        self.name = f"crash-mqtt-{number:02}"
        self.load = load
        self.published = 0
        self.pending: dict[int, Sent] = {}
        # The client's own thread must not wait for ours, which may be inside `publish`.
        self.answers: deque[tuple[int, bool]] = deque()
        self.progress = progress
        version = mqtt.MQTTv5 if number % 2 else mqtt.MQTTv311
        session: dict[str, Any] = {} if number % 2 else {"clean_session": False}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=self.name, protocol=version, **session
        )
        self.client.max_inflight_messages_set(self.WINDOW)
        self.client.reconnect_delay_set(min_delay=0.05, max_delay=0.2)
        self.client.on_publish = self._answered
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _answered(self, _client: Any, _data: Any, mid: int, reason: Any, _properties: Any) -> None:
        self.answers.append((mid, reason.is_failure))
        self.progress.set()

    def settle(self) -> None:
        """Takes in the acknowledgements that have come."""
        while self.answers:
            mid, failed = self.answers.popleft()
            sent = self.pending.pop(mid)
            assert not failed, f"the node refused {sent.value!r}"
            self.load.acknowledged(sent)

    def fill_window(self) -> None:
        while len(self.pending) < self.WINDOW:
            sent = self.load.message(self.name, self.published)
            self.published += 1
            info = self.client.publish(f"devices/{self.name}/telemetry", sent.value, qos=1)
            self.pending[info.mid] = sent

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


def test_no_puback_is_a_lie(crashing: Node, seed: int) -> None:
    load = Load("mqtt")
    progress = threading.Event()
    devices = [Device(number, crashing.mqtt_port, load, progress) for number in range(20)]

    def publish(stop: threading.Event) -> None:
        deadline = None
        while True:
            progress.clear()
            for device in devices:
                device.settle()
                if not stop.is_set():
                    device.fill_window()
            if stop.is_set():
                deadline = deadline or time.monotonic() + DRAIN_S_MAX
                open_still = sum(len(device.pending) for device in devices)
                if not open_still:
                    return
                assert time.monotonic() < deadline, f"{open_still} messages never acknowledged"
            progress.wait(0.05)

    try:
        with running(publish, load):
            kill_again_and_again(crashing, load, seed)
    finally:
        for device in devices:
            device.close()
    check_log(load, (r.value for r in read_topic(crashing, "telemetry.raw")), at_least_once=True)
    check_store(crashing, load)


# --- Kafka --------------------------------------------------------------------------------------


def test_no_produce_answer_is_a_lie(crashing: Node, seed: int) -> None:
    load = Load("kafka")
    topic = "crash-kafka"
    create_topic(crashing, topic, partitions=6)
    in_flight_max = 400

    def produce(stop: threading.Event) -> None:
        """Two idempotent producers, one of them compressing."""
        waiting = 0
        failures: list[KafkaError] = []

        def delivered(sent: Sent) -> Callable[[KafkaError | None, Message], None]:
            def report(error: KafkaError | None, _message: Message) -> None:
                nonlocal waiting
                waiting -= 1
                if error is None:
                    load.acknowledged(sent)
                else:
                    failures.append(error)

            return report

        producers = [
            Producer(
                {
                    "bootstrap.servers": crashing.bootstrap,
                    "enable.idempotence": True,
                    "compression.type": compression,
                    "linger.ms": 2,
                    "message.timeout.ms": 120_000,
                    "reconnect.backoff.ms": 20,
                    "reconnect.backoff.max.ms": 200,
                    "log_level": 0,
                }
            )
            for compression in ("none", "lz4")
        ]
        number = 0
        while not stop.is_set() and not failures:
            for index, producer in enumerate(producers):
                while waiting < in_flight_max * (index + 1) // len(producers):
                    device = f"crash-kafka-{index}-{number % 24}"
                    sent = load.message(device, number)
                    number += 1
                    waiting += 1
                    producer.produce(topic, sent.value, key=device, on_delivery=delivered(sent))
                producer.poll(0.005)
        for producer in producers:
            left = producer.flush(DRAIN_S_MAX)
            assert left == 0 or failures, f"{left} messages never acknowledged"
        assert not failures, f"an idempotent producer was refused: {failures[0]}"

    with running(produce, load):
        kill_again_and_again(crashing, load, seed)
    records = read_topic(crashing, topic)
    check_log(load, (record.value for record in records), at_least_once=False)
    order: dict[bytes | None, list[int]] = defaultdict(list)
    for record in sorted(records, key=lambda r: (r.partition, r.offset)):
        assert record.value is not None
        order[record.key].append(load.sent[record.value].event_ms)
    assert all(events == sorted(events) for events in order.values()), (
        "a key's records are out of order"
    )
    places = [(record.partition, record.offset) for record in records]
    assert len(places) == len(set(places)), "two records at one offset"


# --- HTTP ---------------------------------------------------------------------------------------


def test_no_ingest_answer_is_a_lie(crashing: Node, seed: int) -> None:
    load = Load("http")
    bearer(crashing)
    clients = 6
    batch = 10
    names = iter(range(clients))
    turn = threading.Lock()

    def ingest(stop: threading.Event) -> None:
        """One client: a batch at a time, the same batch again until it is answered with 200."""
        with turn:
            name = f"crash-http-{next(names)}"
        number = 0
        while not stop.is_set():
            with turn:
                sent = [load.message(name, number + step) for step in range(batch)]
            number += batch
            post_until_accepted(crashing, sent)
            with turn:
                for each in sent:
                    load.acknowledged(each)

    with running(ingest, load, threads=clients):
        kill_again_and_again(crashing, load, seed)
    check_log(load, (r.value for r in read_topic(crashing, "telemetry.raw")), at_least_once=True)
    check_store(crashing, load)


def post_until_accepted(node: Node, sent: list[Sent]) -> None:
    """Redelivers one batch, as a store-and-forward client does, until the node says 200."""
    # Put together by hand: the record's value is the payload's JSON text, as it stands here.
    records = ",".join(
        f'{{"topic":"devices","id":"{each.device}/{each.event_ms}","payload":{each.value.decode()}}}'
        for each in sent
    )
    body = f'{{"records":[{records}]}}'

    def accepted() -> bool:
        headers = {**bearer(node), "Content-Type": "application/json"}
        answer = requests.post(node.url("/ingest"), data=body, headers=headers, timeout=10)
        if answer.status_code == 401:
            node._token = None
        assert answer.status_code in (200, 401, 503), f"{answer.status_code} {answer.text}"
        if answer.status_code == 200:
            counted = answer.json()
            # What an earlier try has left in the store is a duplicate; nothing may be refused.
            assert counted["accepted"] + counted["duplicates"] == len(sent), counted
        return answer.status_code == 200

    eventually(accepted, within_s=DRAIN_S_MAX, what="200 from /ingest")
