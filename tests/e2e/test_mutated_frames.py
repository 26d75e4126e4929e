"""Bad bytes harm only their sender: 10,000 mutated frames at each door.

Valid traffic of real clients is damaged from a printed seed and sent to the door it came from,
over hundreds of connections. Meanwhile healthy clients work at every door and count their own
round trips: they must not lose one, nor their connection, nor wait long. The process stays the
same one, nothing in it panics, and its memory stays bounded.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
import requests
from capture import http_frames, kafka_frames, mqtt_frames
from confluent_kafka import Consumer, KafkaError, Producer
from conftest import Node, bearer, create_topic, eventually
from mutation import batches, mutated_http, mutated_kafka, mutated_mqtt

FRAMES = 10_000
CONNECTIONS_AT_ONCE = 16
# A frame may make the node wait (a fetch does); its sender gives it this long to answer or hang up.
PATIENCE_S = 1.0
ROUND_TRIP_S_MAX = 10.0
MEMORY_GROWTH_BYTES_MAX = 192 << 20

pytestmark = pytest.mark.timeout(300)


# --- the healthy clients ------------------------------------------------------------------------


@dataclass
class Healthy:
    """A client that does one round trip after another until told to stop."""

    door: str
    round_trip: Callable[[], None]
    trips: int = 0
    slowest_s: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def has_moved(self) -> bool:
        return self.trips > 0 or bool(self.complaints)

    def work(self, stop: threading.Event) -> None:
        while not stop.is_set():
            begin = time.monotonic()
            try:
                self.round_trip()
            except Exception as error:
                self.complaints.append(f"{type(error).__name__}: {error}")
                return
            self.slowest_s = max(self.slowest_s, time.monotonic() - begin)
            self.trips += 1


@contextlib.contextmanager
def mqtt_at_work(node: Node) -> Iterator[Healthy]:
    """Publishes at QoS 1 to itself; losing the connection once is a complaint."""
    name = f"healthy-{uuid.uuid4().hex[:8]}"
    arrived = threading.Semaphore(0)
    subscribed = threading.Event()
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name)
    client.on_message = lambda *_: arrived.release()
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", node.mqtt_port)
    client.loop_start()
    client.subscribe(f"speed/{name}", 1)
    assert subscribed.wait(20), "no SUBACK for the healthy client"

    def round_trip() -> None:
        client.publish(f"speed/{name}", b'{"speed": 1}', qos=1).wait_for_publish(ROUND_TRIP_S_MAX)
        if not arrived.acquire(timeout=ROUND_TRIP_S_MAX):
            raise TimeoutError("the message did not come back")

    healthy = Healthy("mqtt", round_trip)
    client.on_disconnect = lambda *_: healthy.complaints.append("disconnected")
    yield healthy
    client.on_disconnect = None
    client.disconnect()
    client.loop_stop()


@contextlib.contextmanager
def kafka_at_work(node: Node) -> Iterator[Healthy]:
    """Produces with acks=all and consumes it in a group; a broken connection is a complaint."""
    topic = f"healthy-{uuid.uuid4().hex[:8]}"
    broken: list[str] = []

    def noticed(error: KafkaError) -> None:
        broken.append(str(error))

    common = {"bootstrap.servers": node.bootstrap, "error_cb": noticed}
    create_topic(node, topic, partitions=1)
    producer = Producer({**common, "enable.idempotence": True, "linger.ms": 0})
    consumer = Consumer({**common, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])

    def round_trip() -> None:
        value = uuid.uuid4().bytes
        producer.produce(topic, value)
        if producer.flush(ROUND_TRIP_S_MAX):
            raise TimeoutError("not acknowledged")
        message = consumer.poll(ROUND_TRIP_S_MAX)
        if message is None or message.error() or message.value() != value:
            raise ValueError(f"read back {message and (message.error() or message.value())!r}")

    healthy = Healthy("kafka", round_trip, complaints=broken)
    # Joining the group takes its time, and is not what is measured.
    round_trip()
    yield healthy
    consumer.close()


@contextlib.contextmanager
def http_at_work(node: Node) -> Iterator[Healthy]:
    """Ingests over one kept-alive connection and asks for the health."""
    session = requests.Session()
    headers = bearer(node)

    def round_trip() -> None:
        record = {
            "topic": "devices",
            "id": uuid.uuid4().hex,
            "payload": {"device_id": "healthy", "device_ts": "2026-03-20T10:15:30Z", "power": 1},
        }
        answer = session.post(
            node.url("/ingest"), json=[record], headers=headers, timeout=ROUND_TRIP_S_MAX
        )
        if answer.status_code != 200 or answer.json()["accepted"] != 1:
            raise ValueError(f"/ingest: {answer.status_code} {answer.text}")
        answer = session.get(node.url("/health"), timeout=ROUND_TRIP_S_MAX)
        if answer.status_code != 200:
            raise ValueError(f"/health: {answer.status_code} {answer.text}")

    yield Healthy("http", round_trip)
    session.close()


@contextlib.contextmanager
def healthy_clients_at_work(node: Node) -> Iterator[list[Healthy]]:
    """One client at each door, working beside whatever happens inside; then it is asked."""
    with mqtt_at_work(node) as one, kafka_at_work(node) as two, http_at_work(node) as three:
        clients = [one, two, three]
        stop = threading.Event()
        threads = [threading.Thread(target=c.work, args=(stop,), daemon=True) for c in clients]
        for thread in threads:
            thread.start()
        for client in clients:
            eventually(client.has_moved, within_s=20, what=f"a first round trip of {client.door}")
        try:
            yield clients
        finally:
            stop.set()
            for thread in threads:
                thread.join(2 * ROUND_TRIP_S_MAX + 5)
        complaints = {client.door: client.complaints for client in clients if client.complaints}
        assert not complaints, f"healthy clients noticed: {complaints}"


# --- the hostile ones ---------------------------------------------------------------------------


@dataclass
class Sent:
    frames: int = 0
    connections: int = 0
    refused: int = 0
    answer_bytes: int = 0


async def send_all(port: int, work: Iterator[list[bytes]], total: int) -> Sent:
    """Sends batches, each over a connection of its own, several at once, until `total` mutated
    frames were handed over before the node hung up; hears the node out each time."""
    sent = Sent()

    async def one(frames: list[bytes]) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        sent.connections += 1
        hearing = asyncio.create_task(hear(reader))
        try:
            for number, frame in enumerate(frames):
                writer.write(frame)
                await writer.drain()
                # The first one of a batch may be a valid greeting.
                sent.frames += number > 0
            if writer.can_write_eof():
                writer.write_eof()
        except OSError:
            sent.refused += 1
        done, _ = await asyncio.wait([hearing], timeout=PATIENCE_S)
        if not done:
            hearing.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            sent.answer_bytes += await hearing
        writer.transport.abort()

    async def worker() -> None:
        while sent.frames < total:
            await one(next(work))

    # The workers draw from one iterator: asyncio runs one of them at a time.
    await asyncio.gather(*(worker() for _ in range(CONNECTIONS_AT_ONCE)))
    return sent


async def hear(reader: asyncio.StreamReader) -> int:
    heard = 0
    with contextlib.suppress(OSError):
        while chunk := await reader.read(65536):
            heard += len(chunk)
    return heard


# --- the tests ----------------------------------------------------------------------------------


DOORS = {
    "mqtt": (mqtt_frames, mutated_mqtt, 0x10),
    "kafka": (kafka_frames, mutated_kafka, None),
    "http": (http_frames, mutated_http, None),
}


@pytest.fixture
def attacked(tmp_path: Path) -> Iterator[Node]:
    with Node(tmp_path, name="attacked") as node:
        yield node.start()


@pytest.mark.parametrize("door", DOORS)
def test_healthy_clients_notice_nothing(attacked: Node, door: str, seed: int) -> None:
    capture, mutated, greeting_byte = DOORS[door]
    frames = capture(attacked)
    greetings = [frame for frame in frames if greeting_byte in (None, frame[0])]
    dice = random.Random(seed)
    pid = attacked.pid

    def attack(total: int) -> Sent:
        work = batches(dice, frames, mutated, greetings=greetings)
        return asyncio.run(send_all(attacked.ports[door], work, total))

    with healthy_clients_at_work(attacked) as clients:
        # What the first connections cost (buffers, caches, arenas) is not growth.
        attack(FRAMES // 10)
        before = attacked.rss_bytes()
        trips = [client.trips for client in clients]
        sent = attack(FRAMES)
        grown = attacked.rss_bytes() - before
        worked = [client.trips - earlier for client, earlier in zip(clients, trips, strict=True)]
    print(
        f"{door}: {len(frames)} captured; {sent.frames} mutated frames over {sent.connections} "
        f"connections, {sent.answer_bytes} bytes of answers, memory grew by {grown >> 10} KiB; "
        + ", ".join(
            f"{client.door} {count} round trips, slowest {client.slowest_s:.2f} s"
            for client, count in zip(clients, worked, strict=True)
        )
    )
    assert sent.frames >= FRAMES
    assert all(worked), f"a healthy client stood still: {worked}"
    slow = {
        client.door: client.slowest_s for client in clients if client.slowest_s > ROUND_TRIP_S_MAX
    }
    assert not slow, f"healthy clients waited: {slow}"
    assert attacked.running and attacked.pid == pid
    panics = [line for line in attacked.stderr_tail(1 << 24).splitlines() if "panicked at" in line]
    assert not panics, f"{len(panics)} panics, such as {panics[:3]}"
    assert grown < MEMORY_GROWTH_BYTES_MAX, f"memory grew by {grown >> 20} MiB"
    attacked.terminate()
