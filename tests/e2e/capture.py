"""Valid traffic, recorded from real clients while they talk to a real node.

Owns how a conversation is recorded and cut into frames; knows nothing of what is done with the
frames. Nothing recorded is kept in the repository, so the captures never go stale.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import Any

import paho.mqtt.client as mqtt
import requests
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import IncompatibleBrokerVersion
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import NewTopic as RdNewTopic
from conftest import Node, bearer, eventually
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from websockets.sync.client import connect as websocket

FRAME_BYTES_MAX = 1 << 20
PUBLISH_QOS_1 = 0x32


class Recorder:
    """A loopback relay to one port that keeps what clients sent, a byte string per connection.

    `readdress` is for Kafka, whose clients go on to the address that the broker names: where the
    node names its own, the relay names itself.
    """

    def __init__(self, port: int, *, readdress: bool = False) -> None:
        self.target = port
        self.conversations: list[bytearray] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.named = (b"127.0.0.1" + struct.pack(">i", port)) if readdress else None
        self.sockets: list[socket.socket] = [self.listener]
        self.threads: list[threading.Thread] = []
        self._spawn(self._accept)

    def _spawn(self, work: Any, *arguments: Any) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
                self.sockets += [client, server]
                said = bytearray()
                self.conversations.append(said)
                self._spawn(self._ask, client, server, said)
                self._spawn(self._answer, server, client)

    @staticmethod
    def _ask(client: socket.socket, server: socket.socket, said: bytearray) -> None:
        with contextlib.suppress(OSError):
            while chunk := client.recv(65536):
                said += chunk
                server.sendall(chunk)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        own = b"127.0.0.1" + struct.pack(">i", self.port)
        with contextlib.suppress(OSError):
            while chunk := server.recv(65536):
                client.sendall(chunk.replace(self.named, own) if self.named else chunk)
            client.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self.threads:
            thread.join(10)


@contextlib.contextmanager
def recorded(port: int, *, readdress: bool = False) -> Iterator[Recorder]:
    recorder = Recorder(port, readdress=readdress)
    try:
        yield recorder
    finally:
        recorder.close()


# --- MQTT ---------------------------------------------------------------------------------------


def mqtt_frames(node: Node) -> list[bytes]:
    """Control packets of both versions: CONNECT with a will, QoS 0 and 1, the subscriptions; and
    the QoS 2 exchange, which a client asks for only where it is offered."""
    with recorded(node.mqtt_port) as recorder:
        for version in (mqtt.MQTTv311, mqtt.MQTTv5):
            _mqtt_conversation(recorder.port, version)
    said = [bytes(each) for each in recorder.conversations]
    frames = [frame for stream in said for frame in split_mqtt(stream)]
    return frames + [
        extra for frame in frames if frame[0] == PUBLISH_QOS_1 for extra in qos_2(frame)
    ]


def qos_2(publish: bytes) -> list[bytes]:
    """A QoS 1 PUBLISH as QoS 2, and the packets that would follow (MQTT 3.1.1, section 4.3.3)."""
    _, width = remaining_length(publish, 1)
    (topic_length,) = struct.unpack_from(">H", publish, 1 + width)
    packet_id = publish[3 + width + topic_length :][:2]
    answers = [bytes([kind, 2]) + packet_id for kind in (0x50, 0x62, 0x70)]
    return [bytes([PUBLISH_QOS_1 + 2]) + publish[1:], *answers]


def _mqtt_conversation(port: int, version: int) -> None:
    name = f"captured-{version}"
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id=name, protocol=version)
    client.will_set(f"devices/{name}/gone", b"bye", qos=1, retain=True)
    properties = None
    if version == mqtt.MQTTv5:
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = "application/json"
        properties.ResponseTopic = "captured/answers"
        properties.CorrelationData = b"\x00\x01\x02"
        properties.UserProperty = [("site", "north"), ("site", "south")]
        properties.MessageExpiryInterval = 60
    subscribed = threading.Event()
    received: list[int] = []
    client.on_subscribe = lambda *_: subscribed.set()
    client.on_message = lambda _c, _d, message: received.append(message.qos)
    client.connect("127.0.0.1", port, keepalive=30)
    client.loop_start()
    topic = f"devices/{name}/telemetry"
    client.subscribe([(topic, 2), ("captured/+/status", 1), ("captured/#", 0)])
    assert subscribed.wait(20), "no SUBACK"
    payload = json.dumps({"device_id": name, "device_ts": "2026-03-20T10:15:30Z", "power": 1.5})
    for qos in (0, 1):
        info = client.publish(topic, payload, qos=qos, properties=properties)
        info.wait_for_publish(20)
    eventually(lambda: len(received) >= 2, within_s=20, what="the two own messages")
    client.publish(topic, payload, qos=1, retain=True).wait_for_publish(20)
    client.unsubscribe("captured/#")
    client.disconnect()
    client.loop_stop()


def split_mqtt(said: bytes) -> list[bytes]:
    """Cuts a client's byte stream into control packets (MQTT 3.1.1, section 2.2)."""
    frames = []
    at = 0
    while at < len(said):
        length, width = remaining_length(said, at + 1)
        end = at + 1 + width + length
        frames.append(said[at:end])
        at = end
    assert at == len(said) and len(frames) > 3, f"{len(frames)} packets, {at} of {len(said)} bytes"
    return frames


def remaining_length(frame: bytes, at: int) -> tuple[int, int]:
    """A variable byte integer at `at`: its value and its width in bytes."""
    value = 0
    for width in range(1, 5):
        byte = frame[at + width - 1]
        value |= (byte & 0x7F) << (7 * (width - 1))
        if not byte & 0x80:
            return value, width
    raise ValueError("a variable byte integer of more than four bytes")


def as_remaining_length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, low = divmod(value, 128)
        encoded.append(low | (0x80 if value else 0))
        if not value:
            return bytes(encoded)


# --- Kafka --------------------------------------------------------------------------------------


def kafka_frames(node: Node) -> list[bytes]:
    """Requests of admin clients, idempotent producers and consumers in a group, by two client
    families: aiokafka speaks the old versions, librdkafka the flexible ones."""
    with recorded(node.kafka_port, readdress=True) as recorder:
        bootstrap = f"127.0.0.1:{recorder.port}"
        asyncio.run(_aiokafka_conversation(bootstrap))
        _librdkafka_conversation(bootstrap)
    said = [bytes(each) for each in recorder.conversations]
    frames = [frame for stream in said for frame in split_kafka(stream)]
    assert {0, 1, 3, 8, 11, 18, 22} <= {frame[5] for frame in frames}, (
        "a client went round the relay"
    )
    return frames


def _librdkafka_conversation(bootstrap: str) -> None:
    topic = "captured-too"
    common = {"bootstrap.servers": bootstrap}
    admin = AdminClient(common)
    (created,) = admin.create_topics([RdNewTopic(topic, 2, 1)]).values()
    created.result(30)
    for compression in ("none", "lz4"):
        producer = Producer({**common, "enable.idempotence": True, "compression.type": compression})
        for number in range(20):
            producer.produce(topic, f"value {number}", key="key", headers={"kind": b"captured"})
        assert producer.flush(30) == 0
    consumer = Consumer({**common, "group.id": topic, "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    assert len(consumer.consume(40, timeout=30)) == 40
    consumer.commit(asynchronous=False)
    consumer.get_watermark_offsets(TopicPartition(topic, 0), 10)
    consumer.close()
    # What the node does not offer, the client refuses to send.
    with contextlib.suppress(KafkaException):
        admin.list_consumer_groups().result(30)
    with contextlib.suppress(KafkaException):
        admin.describe_cluster().result(30)


async def _aiokafka_conversation(bootstrap: str) -> None:
    topic = "captured"
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, num_partitions=2, replication_factor=1)])
    for compression in (None, "gzip"):
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, enable_idempotence=True, compression_type=compression
        )
        await producer.start()
        for number in range(20):
            await producer.send_and_wait(
                topic, b"value %d" % number, key=b"key", headers=[("kind", b"captured")]
            )
        await producer.stop()
    consumer = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id="captured-group",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    for _ in range(40):
        await asyncio.wait_for(consumer.getone(), 30)
    await consumer.commit()
    await consumer.beginning_offsets(list(consumer.assignment()))
    await consumer.stop()
    with contextlib.suppress(IncompatibleBrokerVersion):
        await admin.list_consumer_groups()
    await admin.describe_cluster()
    await admin.close()


def split_kafka(said: bytes) -> list[bytes]:
    """Cuts a client's byte stream into requests: four bytes of length, then the request."""
    frames = []
    at = 0
    while at < len(said):
        (length,) = struct.unpack_from(">i", said, at)
        assert 8 <= length <= FRAME_BYTES_MAX
        frames.append(said[at : at + 4 + length])
        at += 4 + length
    assert at == len(said), "a request was cut short"
    return frames


# --- HTTP ---------------------------------------------------------------------------------------


def http_frames(node: Node) -> list[bytes]:
    """Whole requests, one connection each, and WebSocket conversations from upgrade to close."""
    captured: list[bytes] = []

    def keep(method: str, path: str, **options: Any) -> None:
        with recorded(node.http_port) as recorder:
            url = f"http://127.0.0.1:{recorder.port}{path}"
            answer = requests.request(method, url, timeout=20, **options)
            assert answer.status_code < 500, f"{path}: {answer.status_code} {answer.text}"
        captured.extend(bytes(said) for said in recorder.conversations)

    token = bearer(node)
    record = {
        "topic": "inverters",
        "id": "captured-1",
        "timestamp": "2026-03-20T10:15:30Z",
        "payload": {
            "device_id": "captured",
            "ts": 1774001730,
            "power": 12.5,
            "note": "näive \\u0000",
        },
    }
    keep("GET", "/health")
    keep("GET", "/topics/summary", headers=token)
    keep("GET", "/invalid/recent?limit=50", headers=token)
    keep("GET", "/api/v1/topics", headers=token)
    keep("GET", "/api/v1/groups", headers=token)
    keep("POST", "/auth", json=vars(node.credentials))
    keep(
        "POST", "/ingest", json={"records": [record, {**record, "id": "captured-2"}]}, headers=token
    )
    keep("POST", "/ingest", json=[record], headers=token)
    keep(
        "POST",
        "/speed",
        json={"sensor_id": "captured", "speed": 42, "ts": 1700000000},
        headers=token,
    )
    with recorded(node.http_port) as recorder:
        with websocket(f"ws://127.0.0.1:{recorder.port}/ws/live", proxy=None) as live:
            live.send(json.dumps({"type": "hello", "token": token["Authorization"].split()[1]}))
            assert json.loads(live.recv(20))["type"] == "welcome"
            live.send(
                json.dumps({"type": "subscribe", "rooms": ["overview", "quality", "invalid"]})
            )
            live.recv(20)
            live.ping().wait(20)
    captured.extend(bytes(said) for said in recorder.conversations)
    return captured
