"""The MQTT door as its users meet it: mosquitto's clients and paho, MQTT 3.1.1 and 5.

What the door keeps is read back through the Kafka door, by kcat: the two must agree.
"""

from __future__ import annotations

import json
import queue
import socket
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import paho.mqtt.client as paho
import pytest
from conftest import Node, eventually, kcat, mosquitto_pub, run
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

VERSIONS = pytest.mark.parametrize("version", ["311", "5"])
WAIT_S = 30
PROTOCOL = {"311": paho.MQTTv311, "5": paho.MQTTv5}


def unique(prefix: str) -> str:
    """A name no other test of the shared node uses."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def records(node: Node, topic: str, key: str) -> list[dict[str, Any]]:
    """The records of a key, as kcat sees them, with their headers as a dictionary."""
    listed = kcat(node, "-C", "-t", topic, "-o", "beginning", "-e", "-q", "-J").splitlines()
    found = [record for record in map(json.loads, listed) if record["key"] == key]
    for record in found:
        flat = record.get("headers", [])
        record["headers"] = dict(zip(flat[::2], flat[1::2], strict=True))
    return found


class Client:
    """A paho client that queues what it receives."""

    def __init__(self, node: Node, version: str, name: str) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.disconnects: queue.Queue[Any] = queue.Queue()
        self._subscribed: queue.Queue[int] = queue.Queue()
        self._connected: queue.Queue[Any] = queue.Queue()
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=PROTOCOL[version],
            reconnect_on_failure=False,
        )
        self.paho.max_inflight_messages_set(1000)
        self.paho.on_connect = lambda c, u, flags, reason, props: self._connected.put(
            (flags, reason, props)
        )
        self.paho.on_message = lambda c, u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda c, u, mid, reasons, props: self._subscribed.put(reasons)
        self.paho.on_disconnect = lambda c, u, flags, reason, props: self.disconnects.put(reason)
        self._node = node

    def connect(self, **options: Any) -> tuple[Any, Any, Any]:
        self.paho.connect("127.0.0.1", self._node.mqtt_port, **options)
        self.paho.loop_start()
        return self._connected.get(timeout=WAIT_S)

    def subscribe(self, *arguments: Any, **options: Any) -> list[int]:
        self.paho.subscribe(*arguments, **options)
        return [reason.value for reason in self._subscribed.get(timeout=WAIT_S)]

    def publish(self, topic: str, payload: str | bytes, qos: int = 1, **options: Any) -> None:
        sent = self.paho.publish(topic, payload, qos, **options)
        sent.wait_for_publish(WAIT_S)
        assert sent.is_published()

    def receive(self) -> paho.MQTTMessage:
        return self.messages.get(timeout=WAIT_S)


@contextmanager
def connected(
    node: Node, version: str = "5", name: str | None = None, **options: Any
) -> Iterator[Client]:
    client = Client(node, version, name or unique("paho"))
    try:
        _, reason, _ = client.connect(**options)
        assert reason.value == 0, reason
        yield client
    finally:
        client.paho.disconnect()
        client.paho.loop_stop()


@VERSIONS
def test_a_publish_of_mosquitto_is_in_the_log_once_acknowledged(
    shared_node: Node, version: str
) -> None:
    device = unique("inv")
    mosquitto_pub(shared_node, f"telemetry/inverters/{device}", "{}", "-V", version)
    (record,) = records(shared_node, "telemetry.raw", device)
    assert record["payload"] == "{}"
    assert record["headers"]["kind"] == "inverters"
    assert record["headers"]["mqtt.topic"] == f"telemetry/inverters/{device}"
    assert record["headers"]["mqtt.qos"] == "1"
    assert record["headers"]["mqtt.retain"] == "false"
    assert record["headers"]["received_at"].endswith("Z")


@VERSIONS
def test_mosquitto_sub_sees_wildcard_matches_live(shared_node: Node, version: str) -> None:
    site = unique("site")
    # Its output goes through a pipe, which it would fill before it writes.
    command = [
        "stdbuf",
        "-oL",
        "mosquitto_sub",
        "-h",
        "127.0.0.1",
        "-p",
        str(shared_node.mqtt_port),
        "-V",
        version,
    ]
    with subprocess.Popen(
        [*command, "-t", f"{site}/+/power", "-q", "1", "-C", "2", "-W", str(WAIT_S), "-v", "-d"],
        stdout=subprocess.PIPE,
        text=True,
    ) as subscriber:
        assert subscriber.stdout is not None
        said = []
        for line in subscriber.stdout:
            said.append(line)
            if "Subscribed" in line:
                break
        mosquitto_pub(shared_node, f"{site}/a/power", "1", "-V", version)
        mosquitto_pub(shared_node, f"{site}/a/voltage", "unheard", "-V", version)
        mosquitto_pub(shared_node, f"{site}/b/power", "2", "-V", version)
        said.extend(subscriber.stdout)
        assert subscriber.wait(WAIT_S) == 0
    heard = [line.strip() for line in said if line.startswith(f"{site}/")]
    assert heard == [f"{site}/a/power 1", f"{site}/b/power 2"]


@VERSIONS
def test_a_thousand_in_flight_publishes_of_paho_are_all_kept_in_order(
    shared_node: Node, version: str
) -> None:
    sensor = unique("sensor")
    with connected(shared_node, version) as client:
        sent = [client.paho.publish(f"speed/{sensor}", str(n), 1) for n in range(1000)]
        for one in sent:
            one.wait_for_publish(WAIT_S)
            assert one.is_published()
    kept = records(shared_node, "speed-events", sensor)
    assert [record["payload"] for record in kept] == [str(n) for n in range(1000)]


def test_properties_of_mqtt_5_arrive_live_and_as_record_headers(shared_node: Node) -> None:
    sensor = unique("sensor")
    properties = Properties(PacketTypes.PUBLISH)
    properties.ContentType = "application/json"
    properties.ResponseTopic = "re/ply"
    properties.CorrelationData = b"request-1"
    properties.PayloadFormatIndicator = 1
    properties.UserProperty = [("site", "nörd"), ("line", "2")]
    with (
        connected(shared_node) as subscriber,
        connected(shared_node, "311") as old,
        connected(shared_node) as publisher,
    ):
        wanted = Properties(PacketTypes.SUBSCRIBE)
        wanted.SubscriptionIdentifier = 7
        assert subscriber.subscribe(
            f"speed/{sensor}", options=SubscribeOptions(qos=1), properties=wanted
        ) == [1]
        assert old.subscribe(f"speed/{sensor}", 1) == [1]
        publisher.publish(f"speed/{sensor}", "{}", properties=properties)
        heard = subscriber.receive()
        assert old.receive().payload == b"{}"
    assert heard.properties is not None
    assert heard.properties.ContentType == "application/json"
    assert heard.properties.ResponseTopic == "re/ply"
    assert heard.properties.CorrelationData == b"request-1"
    assert heard.properties.PayloadFormatIndicator == 1
    assert heard.properties.UserProperty == [("site", "nörd"), ("line", "2")]
    assert heard.properties.SubscriptionIdentifier == [7]
    (record,) = records(shared_node, "speed-events", sensor)
    headers = record["headers"]
    assert headers["mqtt.content_type"] == "application/json"
    assert headers["mqtt.response_topic"] == "re/ply"
    assert headers["mqtt.correlation_data"] == "request-1"
    assert headers["mqtt.payload_format"] == "1"
    assert headers["mqtt.user.site"] == "nörd"
    assert headers["mqtt.user.line"] == "2"


def test_the_connack_of_mqtt_5_tells_what_is_offered(shared_node: Node) -> None:
    client = Client(shared_node, "5", "")
    asked = Properties(PacketTypes.CONNECT)
    asked.SessionExpiryInterval = 3600
    flags, reason, told = client.connect(clean_start=False, properties=asked)
    client.paho.disconnect()
    client.paho.loop_stop()
    assert reason.value == 0
    assert not flags.session_present
    assert told.SessionExpiryInterval == 0
    assert told.MaximumQoS == 1
    assert told.AssignedClientIdentifier
    assert told.ReceiveMaximum > 0
    assert told.MaximumPacketSize > 0
    assert told.SharedSubscriptionAvailable == 1
    assert told.WildcardSubscriptionAvailable == 1


@VERSIONS
def test_a_retained_message_waits_for_subscribers_and_survives_a_kill(
    node: Node, version: str
) -> None:
    topic = unique("retained")
    mosquitto_pub(node, topic, "kept", "-r", "-V", version)
    node.kill()
    node.start()
    with connected(node, version) as subscriber:
        subscriber.subscribe(topic, 1)
        heard = subscriber.receive()
    assert (heard.payload, heard.retain) == (b"kept", True)


@VERSIONS
def test_a_will_is_published_and_kept_when_its_client_vanishes(
    shared_node: Node, version: str
) -> None:
    sensor = unique("dead")
    with connected(shared_node, version) as watcher:
        watcher.subscribe(f"speed/{sensor}", 1)
        dying = Client(shared_node, version, unique("dying"))
        dying.paho.will_set(f"speed/{sensor}", "gone", qos=1)
        dying.connect()
        # The connection is cut under the client, so that no DISCONNECT is sent.
        connection = dying.paho.socket()
        assert connection is not None
        connection.shutdown(socket.SHUT_RDWR)
        assert watcher.receive().payload == b"gone"
        dying.paho.loop_stop()
    assert [record["payload"] for record in records(shared_node, "speed-events", sensor)] == [
        "gone"
    ]


def test_the_newest_connection_of_a_client_takes_over(shared_node: Node) -> None:
    name = unique("twin")
    first = Client(shared_node, "5", name)
    first.connect()
    with connected(shared_node, "5", name) as second:
        assert first.disconnects.get(timeout=WAIT_S).value == 0x8E
        second.publish("speed/twin", "second lives")
    first.paho.loop_stop()


@VERSIONS
def test_malformed_bytes_end_one_connection_only(shared_node: Node, version: str) -> None:
    with connected(shared_node, version) as bystander:
        topic = unique("bystander")
        bystander.subscribe(topic, 1)
        for bad in (
            b"\x00\x00",
            b"\xf0\x05hello",
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x10\xff\xff\xff\xff\x01",
        ):
            with socket.create_connection(("127.0.0.1", shared_node.mqtt_port), WAIT_S) as hostile:
                hostile.sendall(bad)
                assert hostile.recv(16) == b"", "closed without an answer"
        bystander.publish(topic, "still here")
        assert bystander.receive().payload == b"still here"


@VERSIONS
def test_qos_2_is_refused_and_not_stored(shared_node: Node, version: str) -> None:
    sensor = unique("exactly")
    client = Client(shared_node, version, unique("q2"))
    client.connect()
    refused = False
    try:
        client.paho.publish(f"speed/{sensor}", "x", 2)
        client.disconnects.get(timeout=WAIT_S)
        refused = True
    except ValueError:
        # paho reads the maximum QoS of the CONNACK by itself.
        refused = True
    client.paho.loop_stop()
    assert refused
    assert records(shared_node, "speed-events", sensor) == []


def test_a_shared_subscription_gives_each_message_to_one_member(shared_node: Node) -> None:
    topic = unique("jobs")
    with (
        connected(shared_node) as one,
        connected(shared_node) as two,
        connected(shared_node, "311") as publisher,
    ):
        for member in (one, two):
            assert member.subscribe(f"$share/workers/{topic}", 1) == [1]
        for n in range(100):
            publisher.publish(topic, str(n))
        eventually(
            lambda: one.messages.qsize() + two.messages.qsize() == 100,
            within_s=WAIT_S,
            what="100 messages at the members",
        )
        assert one.messages.qsize() == two.messages.qsize() == 50
        heard = {client.receive().payload for client in (one, two) for _ in range(50)}
    assert len(heard) == 100


@VERSIONS
def test_credentials_are_checked_when_given(shared_node: Node, version: str) -> None:
    good = shared_node.credentials
    base = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(shared_node.mqtt_port), "-V", version]
    base += ["-t", "speed/auth", "-m", "x", "-q", "1", "-u", good.client_id]
    run([*base, "-P", good.client_secret])
    refused = subprocess.run(
        [*base, "-P", "wrong"], capture_output=True, timeout=WAIT_S, check=False
    )
    assert refused.returncode != 0


@VERSIONS
def test_what_no_route_takes_is_kept_in_mqtt_unrouted(shared_node: Node, version: str) -> None:
    topic = unique("else/where")
    mosquitto_pub(shared_node, topic, "one", "-V", version)
    (record,) = records(shared_node, "mqtt.unrouted", topic)
    assert record["payload"] == "one"
    assert "kind" not in record["headers"]
