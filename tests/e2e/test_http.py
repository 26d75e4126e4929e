"""The HTTP door: sign-in, tokens, the node's own routes, and the WebSockets a page lives on."""

from __future__ import annotations

import base64
import json
import socket
from pathlib import Path
from typing import Any, Iterator

import pytest
import requests
from confluent_kafka import Consumer, Producer, TopicPartition
from conftest import Node, as_json, bearer, eventually, free_low_port, mosquitto_pub, token
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

WAIT_S = 20


def ws_url(node: Node, path: str, port: int | None = None) -> str:
    return f"ws://127.0.0.1:{port or node.http_port}{path}"


def sign_in(node: Node, secret: str, client_id: str | None = None) -> requests.Response:
    body = {"client_id": client_id or node.credentials.client_id, "client_secret": secret}
    return requests.post(node.url("/auth"), json=body, timeout=10)


def sentence(answer: requests.Response) -> str:
    """The sentence of an error; fails where an error is anything but JSON with one."""
    assert answer.headers["content-type"].startswith("application/json"), answer.headers
    text = answer.json()["error"]
    assert isinstance(text, str) and text
    return text


class Page:
    """What a dashboard does: hello, rooms, frames."""

    def __init__(self, node: Node, *rooms: str) -> None:
        self.node = node
        self.rooms = list(rooms)
        self.connection = connect(ws_url(node, "/ws/live"), max_size=None)
        self.socket: ClientConnection

    def __enter__(self) -> "Page":
        self.socket = self.connection.__enter__()
        self.say(type="hello", token=token(self.node))
        assert self.frame() == {"type": "welcome"}
        if self.rooms:
            self.say(type="subscribe", rooms=self.rooms)
        return self

    def __exit__(self, *error: Any) -> None:
        self.connection.__exit__(*error)

    def say(self, **message: Any) -> None:
        self.socket.send(json.dumps(message))

    def frame(self) -> dict[str, Any]:
        return json.loads(self.socket.recv(timeout=WAIT_S))

    def update(self, room: str) -> Any:
        """The data of the room's next update; other frames are passed over."""
        while True:
            frame = self.frame()
            assert frame["type"] != "error", frame
            if frame["type"] == "update" and frame["room"] == room:
                return frame["data"]

    def updates(self, room: str) -> Iterator[Any]:
        while True:
            yield self.update(room)


def close_code(node: Node, path: str, *messages: str) -> int:
    """Says the messages and returns the code with which the node closes."""
    with connect(ws_url(node, path)) as socket_:
        for message in messages:
            socket_.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            socket_.recv(timeout=WAIT_S)
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def speed(node: Node, sensor: str, value: float, ts: int = 1_700_000_000) -> requests.Response:
    body = {"sensor_id": sensor, "speed": value, "ts": ts}
    return requests.post(node.url("/speed"), json=body, timeout=10)


# --- sign-in and tokens ---------------------------------------------------------------------


def test_health_is_public_and_names_the_node(shared_node: Node) -> None:
    answer = requests.get(shared_node.url("/health"), timeout=10)
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    log = body["log"]
    assert (log["state"], log["durability"]) == ("accepting", "fsync")
    assert log["durability_os_topics"] == []
    assert (log["damaged_bytes"], log["damage"], log["disk_refusals_total"]) == (0, [], 0)
    assert log["disk_free_bytes"] > log["disk_reserve_bytes"] > 0
    assert body["cluster_id"] and body["version"]
    assert isinstance(body["leader_epoch"], int) and isinstance(body["uptime_s"], int)


def test_a_secret_buys_a_token(shared_node: Node) -> None:
    answer = sign_in(shared_node, shared_node.credentials.client_secret)
    assert answer.status_code == 200
    body = answer.json()
    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 3600
    headers = {"Authorization": f"Bearer {body['access_token']}"}
    assert requests.get(shared_node.url("/api/v1/topics"), headers=headers, timeout=10).status_code == 200


def test_wrong_secrets_and_unknown_clients_are_refused_alike(shared_node: Node) -> None:
    wrong = sign_in(shared_node, "wrong")
    unknown = sign_in(shared_node, shared_node.credentials.client_secret, "nobody")
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert sentence(wrong) == sentence(unknown)


@pytest.mark.parametrize(
    "path", ["/api/v1/topics", "/api/v1/groups", "/topics/summary", "/invalid/recent"]
)
def test_the_api_needs_the_token(shared_node: Node, path: str) -> None:
    stranger = requests.get(shared_node.url(path), timeout=10)
    assert stranger.status_code == 401
    assert stranger.headers["www-authenticate"] == "Bearer"
    assert "POST /auth" in sentence(stranger)
    assert shared_node.get(path).status_code == 200


def test_ingest_needs_the_token(shared_node: Node) -> None:
    assert requests.post(shared_node.url("/ingest"), json=[], timeout=10).status_code == 401


def test_forged_and_unsigned_tokens_are_refused(shared_node: Node) -> None:
    header, claims, signature = token(shared_node).split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    padded = claims + "=" * (-len(claims) % 4)
    other = base64.urlsafe_b64decode(padded).replace(b'"exp":', b'"exp":9')
    longer = base64.urlsafe_b64encode(other).rstrip(b"=").decode()
    for forged in (
        f"{none}.{claims}.",
        f"{none}.{claims}.{signature}",
        f"{header}.{longer}.{signature}",
        f"{header}.{claims}.",
        "nonsense",
    ):
        headers = {"Authorization": f"Bearer {forged}"}
        answer = requests.get(shared_node.url("/api/v1/topics"), headers=headers, timeout=10)
        assert answer.status_code == 401, forged
        sentence(answer)


def test_a_token_expires(tmp_path: Path) -> None:
    with Node(tmp_path, config="[auth]\ntoken_lifetime_s = 1\n").start() as node:
        assert node.get("/api/v1/topics").status_code == 200
        headers = bearer(node)

        def refusal() -> str | None:
            answer = requests.get(node.url("/api/v1/topics"), headers=headers, timeout=10)
            return sentence(answer) if answer.status_code == 401 else None

        said = eventually(refusal, within_s=30, what="the token being refused", every_s=0.5)
        assert "expired" in said


def test_failed_sign_ins_are_limited_per_address(tmp_path: Path) -> None:
    with Node(tmp_path, config="[auth]\nfailures_max = 3\n").start() as node:
        first = token(node)
        assert [sign_in(node, "wrong").status_code for _ in range(3)] == [401] * 3
        turned_away = sign_in(node, node.credentials.client_secret)
        assert turned_away.status_code == 429
        assert 1 <= int(turned_away.headers["retry-after"]) <= 60
        headers = {"Authorization": f"Bearer {first}"}
        assert requests.get(node.url("/api/v1/topics"), headers=headers, timeout=10).status_code == 200


def test_clients_and_tokens_survive_a_restart(node: Node) -> None:
    before = token(node)
    node.restart()
    headers = {"Authorization": f"Bearer {before}"}
    assert requests.get(node.url("/api/v1/topics"), headers=headers, timeout=10).status_code == 200
    assert sign_in(node, node.credentials.client_secret).status_code == 200


# --- answers --------------------------------------------------------------------------------


def test_every_error_is_json_with_a_sentence(shared_node: Node) -> None:
    url, json_type = shared_node.url, {"Content-Type": "application/json"}
    cases = [
        (requests.get(url("/api/v1/nothing"), timeout=10), 404),
        (requests.post(url("/health"), timeout=10), 405),
        (requests.get(url("/auth"), timeout=10), 405),
        (requests.post(url("/auth"), data="{}", timeout=10), 415),
        (requests.post(url("/auth"), data="{", headers=json_type, timeout=10), 400),
        (requests.post(url("/auth"), json={"client_id": 7}, timeout=10), 422),
        (requests.post(url("/auth"), data=b"x" * 100_000, headers=json_type, timeout=10), 413),
        (requests.get(url("/ws/live"), timeout=10), 400),
    ]
    for answer, status in cases:
        assert answer.status_code == status, f"{answer.request.method} {answer.url}: {answer.text}"
        sentence(answer)


def test_every_answer_carries_the_security_headers(shared_node: Node) -> None:
    for path in ("/", "/health", "/api/v1/topics"):
        headers = requests.get(shared_node.url(path), timeout=10).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"


def test_the_dashboard_is_served_or_says_how_to_get_it(shared_node: Node) -> None:
    answer = requests.get(shared_node.url("/"), timeout=10)
    if answer.status_code == 404:
        assert "make ui" in sentence(answer)
        return
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["cache-control"] == "no-cache"
    assert requests.get(shared_node.url("/quality"), timeout=10).text == answer.text
    again = requests.get(shared_node.url("/"), headers={"If-None-Match": answer.headers["etag"]}, timeout=10)
    assert again.status_code == 304


def test_the_owners_topics_are_listed(shared_node: Node) -> None:
    topics = {topic["name"]: topic for topic in shared_node.get("/api/v1/topics").json()}
    partitions = {name: len(topics[name]["partitions"]) for name in topics}
    expected = {"telemetry.raw": 6, "telemetry.cleaned": 6, "telemetry.dlq": 6, "speed-events": 6}
    assert expected.items() <= partitions.items()
    assert not topics["telemetry.raw"]["internal"]


def test_a_groups_lag_is_what_it_has_not_committed(shared_node: Node) -> None:
    producer = Producer({"bootstrap.servers": shared_node.bootstrap})
    for number in range(10):
        producer.produce("http-lag", value=str(number), partition=0)
    assert producer.flush(30) == 0
    consumer = Consumer({"bootstrap.servers": shared_node.bootstrap, "group.id": "http-lag-readers"})
    try:
        consumer.commit(offsets=[TopicPartition("http-lag", 0, 4)], asynchronous=False)
    finally:
        consumer.close()
    groups = {group["group"]: group for group in shared_node.get("/api/v1/groups").json()}
    readers = groups["http-lag-readers"]
    assert readers["lag"] == 6
    [line] = [t for t in readers["topics"] if t["partition"] == 0]
    assert (line["topic"], line["committed_offset"], line["high_watermark"], line["lag"]) == ("http-lag", 4, 10, 6)


def test_a_client_that_stops_in_the_middle_of_a_request_is_cut_off(tmp_path: Path) -> None:
    config = "[http]\nhead_timeout_s = 1\nbody_timeout_s = 1\n"
    with Node(tmp_path, config=config).start() as node:
        for started in (
            b"GET /health HTTP/1.1\r\nHost: a\r\nX-Slow: ",
            b"POST /auth HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        ):
            with socket.create_connection(("127.0.0.1", node.http_port), timeout=WAIT_S) as stream:
                stream.sendall(started)
                said = b""
                while piece := stream.recv(4096):
                    said += piece
                assert said == b"" or said.startswith(b"HTTP/1.1 408"), said
        assert requests.get(node.url("/health"), timeout=10).status_code == 200


# --- /ws/live -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    ['{"type":"hello","token":"wrong"}', '{"type":"hello"}', '{"type":"subscribe","rooms":[]}', "nonsense"],
)
def test_only_a_hello_with_a_good_token_is_welcome(shared_node: Node, first: str) -> None:
    assert close_code(shared_node, "/ws/live", first) == 4401


def test_a_socket_that_says_nothing_is_closed(shared_node: Node) -> None:
    assert close_code(shared_node, "/ws/live") == 4401


def test_the_overview_speaks_every_second(shared_node: Node) -> None:
    with Page(shared_node, "overview") as page:
        one, two = page.update("overview"), page.update("overview")
        assert 500 <= two["ts_ms"] - one["ts_ms"] <= 5_000
        assert {"telemetry.raw", "speed-events"} <= {topic["name"] for topic in two["topics"]}
        assert two["log"]["state"] == "accepting"
        assert {"connections", "received_total"} <= two["mqtt"].keys()


def test_what_mqtt_publishes_shows_up_in_the_topics_room(shared_node: Node) -> None:
    with Page(shared_node, "topic:telemetry.raw", "nonsense") as page:
        # The complaint about the second room proves that the first was joined.
        assert page.frame()["type"] == "error"
        payload = as_json({"device_id": "inv-ws", "device_ts": "2026-03-20T10:15:30Z", "power": 1})
        mosquitto_pub(shared_node, "telemetry/inverters/inv-ws", payload)
        for shown in page.updates("topic:telemetry.raw"):
            if shown["key"] == "inv-ws":
                assert (shown["value"], shown["encoding"]) == (payload, "utf-8")
                break


def test_a_rejected_record_reaches_the_invalid_and_quality_rooms(shared_node: Node) -> None:
    with Page(shared_node, "invalid", "quality") as page:
        assert isinstance(page.update("invalid"), list)
        record = {"topic": "no-such-kind", "id": "http-invalid", "payload": {"a": 1}}
        answer = shared_node.post("/ingest", {"records": [record]})
        assert answer.status_code == 200, answer.text
        found = None
        while found is None:
            for one in page.update("invalid"):
                if one["kind"] == "no-such-kind":
                    found = one
        assert found["errors"] and found["source"]["topic"] == "telemetry.raw"
    with Page(shared_node, "invalid", "quality") as late:
        firsts: dict[str, Any] = {}
        while firsts.keys() != {"invalid", "quality"}:
            frame = late.frame()
            firsts.setdefault(frame["room"], frame["data"])
        assert any(one["id"] == found["id"] for one in firsts["invalid"])
        assert firsts["quality"]["most_failing"]


def test_what_makes_no_sense_is_told_and_then_closed(shared_node: Node) -> None:
    with Page(shared_node) as page:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(100):
                page.say(type="dance")
                assert page.frame()["type"] == "error"
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1008


def test_sockets_beyond_the_limit_are_refused(tmp_path: Path) -> None:
    with Node(tmp_path, config="[live]\nsockets_max = 1\n").start() as node, Page(node):
        with pytest.raises(InvalidStatus) as refused, connect(ws_url(node, "/ws/live")):
            pass
        assert refused.value.response.status_code == 503


def test_a_stop_tells_the_sockets(node: Node) -> None:
    with Page(node, "overview") as page:
        page.update("overview")
        node.terminate()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.frame()
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 1001


# --- the speedometer ------------------------------------------------------------------------


def test_a_gauge_gets_plain_numbers(shared_node: Node) -> None:
    with connect(ws_url(shared_node, "/ws/speed?sensor_id=gauge-1")) as gauge:
        assert speed(shared_node, "gauge-1", 42).json() == {"status": "accepted"}
        assert gauge.recv(timeout=WAIT_S) == "42"
        assert speed(shared_node, "gauge-2", 7).status_code == 202
        assert speed(shared_node, "gauge-1", 43.5).status_code == 202
        assert gauge.recv(timeout=WAIT_S) == "43.5"
    with connect(ws_url(shared_node, "/ws/speed?sensor_id=gauge-1")) as late:
        assert late.recv(timeout=WAIT_S) == "43.5"


def test_the_speed_room_begins_with_the_latest(shared_node: Node) -> None:
    assert speed(shared_node, "room-1", 11).status_code == 202
    with connect(ws_url(shared_node, "/ws/speed?sensor_id=room-1")) as gauge:
        assert gauge.recv(timeout=WAIT_S) == "11"
    with Page(shared_node, "speed") as page:
        latest = {reading["sensor_id"]: reading for reading in page.update("speed")["latest"]}
        assert latest["room-1"] == {"sensor_id": "room-1", "speed": 11, "ts": 1_700_000_000}
        speed(shared_node, "room-1", 12)
        for reading in page.updates("speed"):
            if reading.get("sensor_id") == "room-1":
                assert reading["speed"] == 12
                break


def test_a_socket_that_does_not_read_slows_nobody(shared_node: Node) -> None:
    with Page(shared_node, "speed", "overview"), connect(ws_url(shared_node, "/ws/speed?sensor_id=busy")):
        # Neither of the two reads from here on.
        with requests.Session() as session:
            for number in range(300):
                body = {"sensor_id": "busy", "speed": number, "ts": 1_700_000_000}
                assert session.post(shared_node.url("/speed"), json=body, timeout=10).status_code == 202
        with connect(ws_url(shared_node, "/ws/speed?sensor_id=busy")) as gauge:
            while gauge.recv(timeout=WAIT_S) != "299":
                pass


def test_a_foreign_page_cannot_use_the_open_speed_routes(shared_node: Node) -> None:
    body = {"sensor_id": "s", "speed": 1, "ts": 1_700_000_000}
    foreign = {"Origin": "https://evil.example"}
    assert requests.post(shared_node.url("/speed"), json=body, headers=foreign, timeout=10).status_code == 401
    with_token = {**foreign, **bearer(shared_node)}
    assert requests.post(shared_node.url("/speed"), json=body, headers=with_token, timeout=10).status_code == 202


def test_listeners_that_others_reach_want_a_token_for_speed(tmp_path: Path) -> None:
    loopback, public = free_low_port(), free_low_port()
    config = f'[http]\nextra_listen = ["127.0.0.1:{loopback}", "0.0.0.0:{public}"]\n'
    body = {"sensor_id": "s", "speed": 5, "ts": 1_700_000_000}
    with Node(tmp_path, config=config).start() as node:
        assert requests.post(f"http://127.0.0.1:{loopback}/speed", json=body, timeout=10).status_code == 202
        url = f"http://127.0.0.1:{public}/speed"
        assert requests.post(url, json=body, timeout=10).status_code == 401
        assert requests.post(url, json=body, headers=bearer(node), timeout=10).status_code == 202
        assert requests.get(f"http://127.0.0.1:{public}/health", timeout=10).status_code == 200
        with connect(ws_url(node, "/ws/speed?sensor_id=s", public)) as gauge:
            gauge.send(json.dumps({"type": "hello", "token": token(node)}))
            assert gauge.recv(timeout=WAIT_S) == "5"
        with connect(ws_url(node, "/ws/speed?sensor_id=s", public)) as stranger:
            stranger.send(json.dumps({"type": "hello", "token": "wrong"}))
            with pytest.raises(ConnectionClosed) as closed:
                stranger.recv(timeout=WAIT_S)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_a_page_rebuilds_itself_after_a_restart(tmp_path: Path) -> None:
    with Node(tmp_path, fixed_ports=True).start() as node:
        assert speed(node, "kept", 33).status_code == 202
        node.kill()
        node.start()
        with connect(ws_url(node, "/ws/speed?sensor_id=kept")) as gauge:
            assert gauge.recv(timeout=WAIT_S) == "33"
        with Page(node, "overview", "quality", "invalid", "speed") as page:
            missing = {"overview", "quality", "invalid", "speed"}
            while missing:
                frame = page.frame()
                assert frame["type"] == "update", frame
                missing.discard(frame["room"])
