"""The MQTT and HTTP doors under access rules and TLS, with real clients.

One node has rules in force (`admin` is its super user, everybody else may do what a test allows)
and a listener with TLS at every door. Certificates are made by openssl for the run.
"""

from __future__ import annotations

import json
import os
import queue
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPSConnection
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import pytest
import requests
from confluent_kafka.admin import (
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)
from conftest import Node, eventually, run
from paho.mqtt.packettypes import PacketTypes
from security import OF_CLIENT, OF_NODE, allow, issue, make_authority, make_certificates, rule
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

WAIT_S = 30
NOT_AUTHORIZED = 0x87
SERVER_BUSY = 0x89
PREFIXED = ResourcePatternType.PREFIXED
DENY = AclPermissionType.DENY
READ, WRITE = AclOperation.READ, AclOperation.WRITE
VERSIONS = pytest.mark.parametrize("version", [paho.MQTTv311, paho.MQTTv5], ids=["311", "5"])
PASSWORDS = {"admin": "correct horse", "alice": "pencil", "bob": "battery staple"}
AUTH = """
[auth]
authorizer = "acl"
super_users = ["User:admin"]
password_hash_memory_bytes = 7340032
failures_max = 100000
"""
FILES = """listen = "127.0.0.1:0"
certificate_file = "{dir}/node.pem"
private_key_file = "{dir}/node.key"
"""
ASKS = """client_auth = "{client_auth}"
client_ca_file = "{dir}/ca.pem"
principal_mapping_rules = "RULE:^CN=([a-z]+).*$/$1/, DEFAULT"
"""
KAFKA = """
[[kafka.listeners]]
name = "SASL"
listen = "127.0.0.1:0"
security = "sasl_plaintext"

[[kafka.listeners]]
name = "SECURE"
listen = "127.0.0.1:0"
security = "sasl_ssl"
[kafka.listeners.tls]
certificate_file = "{dir}/node.pem"
private_key_file = "{dir}/node.key"
"""
DOORS = "[mqtt.tls]\n" + FILES + ASKS + "[http.tls]\n" + FILES + ASKS
WITH_TLS = ("mqtt/tls", "http/tls", "kafka/SECURE")


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with rules, users, and TLS at every door."""
    directory = tmp_path_factory.mktemp("secured")
    make_certificates(directory)
    config = (AUTH + KAFKA + DOORS).format(dir=directory, client_auth="requested")
    with Node(directory, config=config) as node:
        for name, password in PASSWORDS.items():
            node.create_user(name, password)
        yield node.start()


@pytest.fixture
def admin(secured: Node) -> Iterator[AdminClient]:
    """The super user at the Kafka door; its rules go with the test."""
    client = AdminClient(
        {
            "bootstrap.servers": f"127.0.0.1:{secured.ports['kafka/SASL']}",
            "security.protocol": "sasl_plaintext",
            "sasl.mechanism": "PLAIN",
            "sasl.username": "admin",
            "sasl.password": PASSWORDS["admin"],
        }
    )
    yield client
    every = AclBindingFilter(
        ResourceType.ANY,
        None,
        ResourcePatternType.ANY,
        None,
        None,
        AclOperation.ANY,
        AclPermissionType.ANY,
    )
    for deleted in client.delete_acls([every]).values():
        deleted.result(30)


def context(node: Node, client: str | None = None) -> ssl.SSLContext:
    """A client's TLS: it trusts the node's authority and may have a certificate."""
    made = ssl.create_default_context(cafile=str(node.workdir / "ca.pem"))
    if client is not None:
        made.load_cert_chain(node.workdir / f"{client}.pem", node.workdir / f"{client}.key")
    return made


class Device:
    """A paho client; what it is told is queued."""

    def __init__(
        self,
        node: Node,
        name: str,
        version: int = paho.MQTTv5,
        *,
        user: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.messages: queue.Queue[paho.MQTTMessage] = queue.Queue()
        self.disconnects: queue.Queue[int] = queue.Queue()
        self.acknowledged: queue.Queue[int] = queue.Queue()
        self._subscribed: queue.Queue[list[int]] = queue.Queue()
        self._published: queue.Queue[tuple[int, int]] = queue.Queue()
        self.paho = paho.Client(
            paho.CallbackAPIVersion.VERSION2,
            client_id=name,
            protocol=version,
            reconnect_on_failure=False,
        )
        self.paho.max_inflight_messages_set(1000)
        if user is not None:
            self.paho.username_pw_set(user, PASSWORDS[user])
        if tls is not None:
            self.paho.tls_set_context(tls)
        self.paho.on_connect = lambda c, u, f, reason, p: self.acknowledged.put(reason.value)
        self.paho.on_message = lambda c, u, message: self.messages.put(message)
        self.paho.on_subscribe = lambda c, u, m, reasons, p: self._subscribed.put(
            [reason.value for reason in reasons]
        )
        self.paho.on_publish = lambda c, u, mid, reason, p: self._published.put((mid, reason.value))
        self.paho.on_disconnect = lambda c, u, f, reason, p: self.disconnects.put(reason.value)
        self.port = node.ports["mqtt" if tls is None else "mqtt/tls"]

    def connect(self, **options: Any) -> int:
        """The reason code of the CONNACK."""
        self.paho.connect("localhost", self.port, **options)
        self.paho.loop_start()
        return self.acknowledged.get(timeout=WAIT_S)

    def subscribe(self, *filters: str) -> list[int]:
        self.paho.subscribe([(text, 1) for text in filters])
        return self._subscribed.get(timeout=WAIT_S)

    def publish(self, topic: str, payload: str | bytes, *, retain: bool = False) -> int:
        """At QoS 1; the reason code of the PUBACK."""
        sent = self.paho.publish(topic, payload, 1, retain=retain)
        while True:
            # paho says that of messages of QoS 0, too.
            mid, reason = self._published.get(timeout=WAIT_S)
            if mid == sent.mid:
                return reason

    def receive(self) -> tuple[str, bytes]:
        message = self.messages.get(timeout=WAIT_S)
        return message.topic, message.payload

    def close(self) -> None:
        self.paho.disconnect()
        self.paho.loop_stop()


@contextmanager
def device(*arguments: Any, **options: Any) -> Iterator[Device]:
    """A device that is connected."""
    made = Device(*arguments, **options)
    assert made.connect() == 0
    try:
        yield made
    finally:
        made.close()


def health(node: Node, door: str) -> dict[str, Any]:
    return requests.get(node.url("/health"), timeout=30).json()[door]


# --- rules at the MQTT door -----------------------------------------------------------------


def test_mqtt_5_is_told_what_it_may_not(secured: Node, admin: AdminClient) -> None:
    denied = health(secured, "mqtt")["denied"]
    allow(
        admin,
        rule("alice", WRITE, "plant/1/", pattern=PREFIXED),
        rule("alice", WRITE, "plant/1/closed", permission=DENY),
        rule("alice", READ, "plant/", pattern=PREFIXED),
        rule("alice", READ, "plant/secret/", pattern=PREFIXED, permission=DENY),
    )
    with (
        device(secured, "alice-5", user="alice") as alice,
        device(secured, "admin-5", user="admin") as boss,
    ):
        assert alice.publish("plant/1/a", "x") == 0
        assert alice.publish("plant/1/closed", "x") == NOT_AUTHORIZED
        assert alice.publish("plant/2/a", "x") == NOT_AUTHORIZED
        assert alice.subscribe("plant/#", "plant/secret/+", "other", "plant/1/a") == [
            1,
            NOT_AUTHORIZED,
            NOT_AUTHORIZED,
            1,
        ]
        for topic in ("plant/secret/x", "other", "plant/2/x"):
            assert boss.publish(topic, topic) == 0
        assert alice.receive() == ("plant/2/x", b"plant/2/x")
        # A change of the rules holds for the next message.
        allow(admin, rule("alice", READ, "plant/2/", pattern=PREFIXED, permission=DENY))
        assert boss.publish("plant/2/y", "y") == 0
        assert boss.publish("plant/3/y", "y") == 0
        assert alice.receive() == ("plant/3/y", b"y")
    seen = health(secured, "mqtt")
    assert seen["denied"] == denied + 4
    assert seen["unreadable"] >= 1
    assert "not authorized" in secured.stderr_tail()


def test_mqtt_3_1_1_is_closed_rather_than_told_a_lie(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("alice", AclOperation.ALL, "open"))
    with device(secured, "alice-311", paho.MQTTv311, user="alice") as alice:
        assert alice.subscribe("open", "closed") == [1, 0x80]
        alice.paho.publish("closed", "dropped", 0)
        assert alice.publish("open", "kept") == 0
        assert alice.receive() == ("open", b"kept")
        assert alice.disconnects.empty()
        sent = alice.paho.publish("closed", "x", 1)
        alice.disconnects.get(timeout=WAIT_S)
        assert not sent.is_published()


@VERSIONS
def test_who_has_no_rule_and_who_gives_no_name_may_nothing(secured: Node, version: int) -> None:
    refused = NOT_AUTHORIZED if version == paho.MQTTv5 else 0x80
    for user in ("bob", None):
        with device(secured, f"nobody-{user}-{version}", version, user=user) as client:
            assert client.subscribe("#", "a") == [refused, refused]
    wrong = Device(secured, f"wrong-{version}", version, user="bob")
    wrong.paho.username_pw_set("bob", "wrong")
    # paho tells 3.1.1's "not authorized" or "bad credentials" by MQTT 5's codes.
    assert wrong.connect() in (0x86, NOT_AUTHORIZED)
    wrong.close()


def test_retained_messages_and_wills_are_asked_for(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("alice", READ, "kept/", pattern=PREFIXED), rule("bob", WRITE, "will/open"))
    with device(secured, "admin-r", user="admin") as boss:
        assert boss.publish("kept/a", "1", retain=True) == 0
        with device(secured, "alice-r", user="alice") as alice:
            assert alice.publish("kept/a", "", retain=True) == NOT_AUTHORIZED
            assert alice.subscribe("kept/#") == [1]
            assert alice.receive() == ("kept/a", b"1")
        with device(secured, "bob-r", user="bob") as bob:
            assert bob.subscribe("kept/#") == [NOT_AUTHORIZED]

        boss.subscribe("will/#")
        for number, topic in enumerate(("will/closed", "will/open")):
            dying = Device(secured, f"dying-{number}", user="bob")
            dying.paho.will_set(topic, "gone", 1)
            assert dying.connect() == 0
            # With its will: "disconnect with will message".
            dying.paho.disconnect(reasoncode=paho.ReasonCode(PacketTypes.DISCONNECT, identifier=4))
            dying.close()
        assert boss.receive() == ("will/open", b"gone")
        assert boss.publish("kept/a", "", retain=True) == 0


def test_mosquitto_is_told(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("alice", AclOperation.ALL, "m/", pattern=PREFIXED))
    port = str(secured.mqtt_port)
    login = ["-h", "127.0.0.1", "-p", port, "-u", "alice", "-P", PASSWORDS["alice"], "-V", "5"]
    run(["mosquitto_pub", *login, "-t", "m/a", "-q", "1", "-m", "x"])
    refused = subprocess.run(
        ["mosquitto_pub", *login, "-t", "n/a", "-q", "1", "-m", "x"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Not authorized" in refused.stderr
    refused = subprocess.run(
        ["mosquitto_sub", *login, "-t", "n/#", "-q", "1", "-C", "1", "-W", "20"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "denied" in refused.stderr


# --- rules at the HTTP door -----------------------------------------------------------------


def bearer_of(node: Node, user: str) -> dict[str, str]:
    credentials = {"client_id": user, "client_secret": PASSWORDS[user]}
    answer = requests.post(node.url("/auth"), json=credentials, timeout=30)
    assert answer.status_code == 200, answer.text
    return {"Authorization": f"Bearer {answer.json()['access_token']}"}


def calls(node: Node, user: str) -> dict[str, Callable[[], requests.Response]]:
    headers = bearer_of(node, user)

    def get(path: str) -> Callable[[], requests.Response]:
        return lambda: requests.get(node.url(path), headers=headers, timeout=30)

    def post(path: str, body: Any) -> Callable[[], requests.Response]:
        return lambda: requests.post(node.url(path), headers=headers, json=body, timeout=30)

    return {
        "/ingest": post("/ingest", [{"device_id": "d", "device_ts": "2026-01-01T00:00:00Z"}]),
        "/speed": post("/speed", {"sensor_id": "s", "speed": 1, "ts": 1_700_000_000}),
        "/topics/summary": get("/topics/summary"),
        "/invalid/recent": get("/invalid/recent"),
        "/api/v1/topics": get("/api/v1/topics"),
    }


def test_http_refuses_and_serves_by_the_rules(secured: Node, admin: AdminClient) -> None:
    denied = health(secured, "http")["denied_total"]
    call = calls(secured, "alice")
    asked = {
        "/ingest": (WRITE, "telemetry.raw", "write to"),
        "/speed": (WRITE, "speed-events", "write to"),
        "/topics/summary": (READ, "telemetry.cleaned", "read"),
        "/invalid/recent": (READ, "telemetry.dlq", "read"),
    }
    for path, (_, topic, verb) in asked.items():
        answer = call[path]()
        assert answer.status_code == 403, path
        assert answer.json() == {"error": f"not authorized to {verb} the topic {topic}"}
    assert call["/api/v1/topics"]().json() == []
    assert health(secured, "http")["denied_total"] == denied + len(asked)

    allow(
        admin,
        rule("alice", WRITE, "telemetry.", pattern=PREFIXED),
        rule("alice", READ, "telemetry.", pattern=PREFIXED),
        rule("alice", READ, "telemetry.dlq", permission=DENY),
        rule("alice", WRITE, "speed-events"),
    )
    for path, expected in {
        "/ingest": 200,
        "/speed": 202,
        "/topics/summary": 200,
        "/invalid/recent": 403,
    }.items():
        assert call[path]().status_code == expected, path
    names = {topic["name"] for topic in call["/api/v1/topics"]().json()}
    assert names == {"telemetry.raw", "telemetry.cleaned", "telemetry.dlq", "speed-events"}
    boss = calls(secured, "admin")
    assert all(boss[path]().ok for path in boss)


def hello(socket_: ClientConnection, token: str) -> None:
    socket_.send(json.dumps({"type": "hello", "token": token}))
    assert json.loads(socket_.recv(WAIT_S)) == {"type": "welcome"}


def test_live_rooms_and_the_gauge_ask_the_rules(secured: Node, admin: AdminClient) -> None:
    token = bearer_of(secured, "alice")
    address = f"ws://127.0.0.1:{secured.http_port}"
    with pytest.raises(InvalidStatus) as refused:
        connect(f"{address}/ws/speed", additional_headers=token)
    assert refused.value.response.status_code == 403
    with connect(f"{address}/ws/live") as live:
        hello(live, token["Authorization"].removeprefix("Bearer "))

        def subscribe(room: str) -> dict[str, Any]:
            live.send(json.dumps({"type": "subscribe", "rooms": [room]}))
            return json.loads(live.recv(WAIT_S))

        for room in ("overview", "topic:speed-events"):
            assert subscribe(room) == {"type": "error", "room": room, "error": "not authorized"}
        allow(
            admin,
            rule("alice", AclOperation.DESCRIBE, "kafka-cluster", kind=ResourceType.BROKER),
            rule("alice", READ, "speed-events"),
        )
        assert subscribe("overview")["type"] == "update"
    with connect(f"{address}/ws/speed", additional_headers=token) as gauge:
        event = {"sensor_id": "gauged", "speed": 42, "ts": int(time.time())}
        posted = requests.post(
            secured.url("/speed"), headers=bearer_of(secured, "admin"), json=event, timeout=30
        )
        assert posted.status_code == 202
        while gauge.recv(WAIT_S) != "42":
            pass


# --- TLS ------------------------------------------------------------------------------------


@VERSIONS
def test_mqtt_through_tls(secured: Node, admin: AdminClient, version: int) -> None:
    topic = f"tls/{version}"
    allow(admin, rule("alice", AclOperation.ALL, topic))
    tls = context(secured)
    with device(secured, f"tls-{version}", version, user="alice", tls=tls) as alice:
        assert alice.subscribe(topic) == [1]
        # More than what waits in TLS and in the sockets' buffers together.
        payloads = [b"%d " % n + os.urandom(60_000) for n in range(200)]
        for payload in payloads:
            alice.paho.publish(topic, payload, 1)
        assert [alice.receive()[1] for _ in payloads] == payloads


def test_mosquitto_through_tls(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("alice", WRITE, "tls/mosquitto"), rule("carol", WRITE, "tls/carol"))
    files = secured.workdir
    common = ["mosquitto_pub", "-h", "localhost", "-p", str(secured.ports["mqtt/tls"])]
    common += ["--cafile", str(files / "ca.pem"), "-q", "1", "-m", "x", "-V", "5"]
    run([*common, "-u", "alice", "-P", PASSWORDS["alice"], "-t", "tls/mosquitto"])
    certificate = ["--cert", str(files / "carol.pem"), "--key", str(files / "carol.key")]
    run([*common, *certificate, "-t", "tls/carol"])


def test_a_certificate_names_the_mqtt_client(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("carol", AclOperation.ALL, "carols"), rule("alice", WRITE, "alices"))
    with device(secured, "carol", tls=context(secured, "carol")) as carol:
        assert carol.subscribe("carols") == [1]
        assert carol.publish("carols", "x") == 0
        assert carol.receive() == ("carols", b"x")
        assert carol.publish("alices", "x") == NOT_AUTHORIZED
    # Who signs in is who that says.
    with device(secured, "alice-c", user="alice", tls=context(secured, "carol")) as alice:
        assert alice.publish("alices", "x") == 0
        assert alice.publish("carols", "x") == NOT_AUTHORIZED


def test_https_and_wss(secured: Node, admin: AdminClient) -> None:
    allow(admin, rule("carol", READ, "speed-events"))
    files = secured.workdir
    base = f"https://localhost:{secured.ports['http/tls']}"
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(files / "ca.pem")
        assert session.get(f"{base}/health", timeout=30).json()["status"] == "ok"
        assert session.get(f"{base}/api/v1/topics", timeout=30).status_code == 401
        credentials = {"client_id": "admin", "client_secret": PASSWORDS["admin"]}
        signed_in = session.post(f"{base}/auth", json=credentials, timeout=30)
        token = signed_in.json()["access_token"]
        headers = {"Authorization": f"Bearer {token}"}
        listed = session.get(f"{base}/api/v1/topics", headers=headers, timeout=30).json()
        assert len(listed) > 1
    with requests.Session() as session:
        session.trust_env = False
        session.verify = str(files / "ca.pem")
        session.cert = (str(files / "carol.pem"), str(files / "carol.key"))
        seen = session.get(f"{base}/api/v1/topics", timeout=30).json()
        assert [topic["name"] for topic in seen] == ["speed-events"]
        assert session.post(f"{base}/ingest", json=[], timeout=30).status_code == 403
        foreign = {"Origin": "https://evil.example"}
        assert session.get(f"{base}/api/v1/topics", headers=foreign, timeout=30).status_code == 401

    address = base.replace("https", "wss") + "/ws/live"
    with connect(address, ssl=context(secured)) as live:
        hello(live, token)
        live.send(json.dumps({"type": "subscribe", "rooms": ["overview"]}))
        assert json.loads(live.recv(WAIT_S))["room"] == "overview"
    with connect(address, ssl=context(secured, "carol")) as live:
        hello(live, "")
        live.send(json.dumps({"type": "subscribe", "rooms": ["overview", "speed"]}))
        frames = [json.loads(live.recv(WAIT_S)) for _ in range(2)]
        assert sorted((f["type"], f["room"]) for f in frames) == [
            ("error", "overview"),
            ("update", "speed"),
        ]
    with pytest.raises(ConnectionClosed), connect(address, ssl=context(secured)) as live:
        live.send(json.dumps({"type": "hello", "token": ""}))
        live.recv(WAIT_S)


@pytest.mark.parametrize("door", ["mqtt/tls", "http/tls"])
def test_who_speaks_no_tls_or_brings_a_foreign_certificate_is_not_served(
    secured: Node, tmp_path: Path, door: str
) -> None:
    refused = health(secured, door.removesuffix("/tls"))
    refused = refused.get("tls_refused", refused.get("tls_refused_total"))
    address = ("localhost", secured.ports[door])
    with socket.create_connection(address, WAIT_S) as plain:
        plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = plain.recv(1000)
        # At most a TLS alert.
        assert answer == b"" or answer[0] == 21
    make_authority(tmp_path)
    issue(tmp_path, "mallory", OF_CLIENT)
    foreign = context(secured)
    foreign.load_cert_chain(tmp_path / "mallory.pem", tmp_path / "mallory.key")
    with (
        socket.create_connection(address, WAIT_S) as raw,
        pytest.raises((ssl.SSLError, ConnectionError)),
        foreign.wrap_socket(raw, server_hostname="localhost") as stream,
    ):
        stream.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert stream.recv(1000) == b"", "served"
        raise ConnectionError("closed")
    seen = health(secured, door.removesuffix("/tls"))
    assert seen.get("tls_refused", seen.get("tls_refused_total")) == refused + 2


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node whose TLS listeners need certificates, with small limits."""
    directory = tmp_path_factory.mktemp("strict")
    make_certificates(directory)
    limits = "[mqtt]\nconnections_max = 2\nhandshake_timeout_ms = 1000\n"
    limits += "[http]\nconnections_max = 2\nhead_timeout_s = 1\n"
    config = limits + DOORS.format(dir=directory, client_auth="required")
    with Node(directory, config=config) as node:
        yield node.start()


def test_a_certificate_can_be_required(strict: Node) -> None:
    base = f"https://localhost:{strict.ports['http/tls']}"
    ca = str(strict.workdir / "ca.pem")
    with pytest.raises(requests.exceptions.RequestException):
        requests.get(f"{base}/health", verify=ca, timeout=30)
    own = (str(strict.workdir / "carol.pem"), str(strict.workdir / "carol.key"))
    answer = requests.get(f"{base}/api/v1/topics", verify=ca, cert=own, timeout=30)
    assert answer.status_code == 200
    with device(strict, "carol", tls=context(strict, "carol")) as carol:
        assert carol.publish("any", "x") == 0
    stranger = Device(strict, "stranger", tls=context(strict))
    stranger.paho.connect("localhost", stranger.port)
    # TLS 1.3 tells the client after its side of the handshake.
    stranger.paho.loop_start()
    stranger.disconnects.get(timeout=WAIT_S)
    assert stranger.acknowledged.empty()
    stranger.close()


@pytest.mark.parametrize("door", ["mqtt/tls", "http/tls"])
def test_a_handshake_has_its_time(strict: Node, door: str) -> None:
    with socket.create_connection(("localhost", strict.ports[door]), WAIT_S) as idle:
        began = time.monotonic()
        assert idle.recv(1) == b""
        assert 0.5 < time.monotonic() - began < 15


def test_connections_through_tls_count_as_others(strict: Node) -> None:
    tls = context(strict, "carol")
    with device(strict, "one"), device(strict, "two", tls=tls):
        third = Device(strict, "three", tls=tls)
        assert third.connect() == SERVER_BUSY
        third.close()

    address = ("localhost", strict.ports["http/tls"])
    with tls.wrap_socket(
        socket.create_connection(address, WAIT_S), server_hostname="localhost"
    ) as one:
        with socket.create_connection(("localhost", strict.http_port), WAIT_S) as two:
            # Answered, so that it has been taken in; it stays.
            two.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert two.recv(1 << 16).startswith(b"HTTP/1.1 ")
            one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n")
            own = (str(strict.workdir / "carol.pem"), str(strict.workdir / "carol.key"))
            answer = requests.get(
                f"https://localhost:{address[1]}/health",
                verify=str(strict.workdir / "ca.pem"),
                cert=own,
                timeout=30,
            )
            assert answer.status_code == 503


# --- new certificates -----------------------------------------------------------------------


def certificate_seen(node: Node, listener: str) -> bytes:
    """The certificate that a new connection is shown (DER)."""
    with (
        socket.create_connection(("localhost", node.ports[listener]), WAIT_S) as raw,
        context(node).wrap_socket(raw, server_hostname="localhost") as stream,
    ):
        seen = stream.getpeercert(binary_form=True)
        assert seen is not None
        return seen


def der(path: Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(path.read_text())


def replace(node: Node, name: str, text: str) -> None:
    """As tools do it: whoever looks sees the old file or the new one."""
    fresh = node.workdir / f"{name}.fresh"
    fresh.write_text(text)
    fresh.rename(node.workdir / name)


@pytest.fixture
def renewable(tmp_path: Path) -> Iterator[Node]:
    """A node whose certificates a test may change."""
    make_certificates(tmp_path)
    config = (AUTH.replace('"acl"', '"none"') + KAFKA + DOORS).format(
        dir=tmp_path, client_auth="requested"
    )
    with Node(tmp_path, config=config) as node:
        for name, password in PASSWORDS.items():
            node.create_user(name, password)
        yield node.start()


def said_in_log(node: Node, sentence: str, times: int) -> None:
    eventually(
        lambda: node.stderr_tail().count(sentence) >= times,
        within_s=8,
        what=f"{sentence!r} {times} times in the log",
    )


def test_sighup_reads_certificates_and_connections_go_on(renewable: Node) -> None:
    node = renewable
    first = der(node.workdir / "node.pem")
    assert {certificate_seen(node, listener) for listener in WITH_TLS} == {first}
    port = node.ports["http/tls"]
    with (
        device(node, "old", user="alice", tls=context(node)) as old,
        closing(HTTPSConnection("localhost", port, context=context(node))) as kept,
        connect(f"wss://localhost:{port}/ws/live", ssl=context(node)) as live,
    ):

        def ask_on_the_kept_connection() -> None:
            kept.request("GET", "/health")
            answer = kept.getresponse()
            assert answer.status == 200, answer.read()
            answer.read()

        ask_on_the_kept_connection()
        kept.auto_open = 0
        assert old.publish("a", "before") == 0
        hello(live, bearer_of(node, "alice")["Authorization"].removeprefix("Bearer "))

        spare = node.workdir / "spare"
        spare.mkdir()
        issue(spare, "node", OF_NODE, authority=node.workdir)
        replace(node, "node.pem", (spare / "node.pem").read_text())
        replace(node, "node.key", (spare / "node.key").read_text())
        os.kill(node.pid, signal.SIGHUP)
        said_in_log(node, "SIGHUP: reading certificates again", 1)
        second = der(spare / "node.pem")
        for listener in WITH_TLS:
            eventually(
                lambda listener=listener: certificate_seen(node, listener) == second,
                within_s=8,
                what=f"the new certificate at {listener}",
            )
        assert old.publish("a", "after") == 0
        assert old.disconnects.empty()
        ask_on_the_kept_connection()
        live.send(json.dumps({"type": "subscribe", "rooms": ["overview"]}))
        assert json.loads(live.recv(WAIT_S))["room"] == "overview"
    assert node.running


@pytest.mark.parametrize(
    "wrong", ["no certificate", "another's key", "gone"], ids=["garbage", "mismatch", "gone"]
)
def test_a_wrong_file_leaves_the_old_certificate(renewable: Node, wrong: str) -> None:
    node = renewable
    first = der(node.workdir / "node.pem")
    with device(node, "old", user="alice", tls=context(node)) as old:
        if wrong == "gone":
            shutil.move(node.workdir / "node.pem", node.workdir / "away.pem")
        elif wrong == "another's key":
            replace(node, "node.key", (node.workdir / "carol.key").read_text())
        else:
            replace(node, "node.pem", "nonsense\n")
        os.kill(node.pid, signal.SIGHUP)
        said_in_log(node, "the old certificate stays in force", len(WITH_TLS))
        for listener in WITH_TLS:
            assert certificate_seen(node, listener) == first, listener
        assert old.publish("a", "x") == 0
    assert node.running


def test_a_wrong_certificate_stops_the_start(tmp_path: Path) -> None:
    make_certificates(tmp_path)
    (tmp_path / "node.key").write_text("nonsense\n")
    for section in ("mqtt", "http"):
        config = f"[{section}.tls]\n" + FILES.format(dir=tmp_path)
        node = Node(tmp_path, config=config, name=section)
        node.spawn()
        assert node.process is not None
        assert node.process.wait(60) != 0
        said = node.stderr_tail()
        assert f"{section}.tls: " in said and "node.key: it holds no private key (PEM)" in said
