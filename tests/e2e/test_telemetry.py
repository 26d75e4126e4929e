"""Telemetry (systems 1 and 3) and the speedometer (system 2), from a device to the store.

What the pipeline promises: a record that a door acknowledged is judged once, stored once, and
passed on to `telemetry.cleaned` or `telemetry.dlq` once, over kills and restarts.
"""

from __future__ import annotations

import json
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from conftest import (
    LogRecord,
    Node,
    as_json,
    bearer,
    eventually,
    kcat,
    mosquitto_pub,
    query_store,
    read_topic,
)

T = 1_700_000_000  # 2023-11-14T22:13:20Z
T_TEXT = "2023-11-14T22:13:20.000Z"
WITHIN_S = 30


def device_reading(device: str, n: int, **more: Any) -> str:
    return as_json({"device_id": device, "device_ts": T + n, "n": n, **more})


def summary_of(node: Node, topic: str) -> dict[str, Any]:
    answer = node.get("/topics/summary")
    assert answer.status_code == 200, answer.text
    return next(t for t in answer.json()["topics"] if t["topic"] == topic)


def ingest(node: Node, body: Any) -> dict[str, Any]:
    answer = node.post("/ingest", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def stored(node: Node, device: str) -> list[tuple[Any, ...]]:
    return query_store(
        node,
        "select topic, event_time, payload, missing_fields, timestamp_source"
        " from normalized_records where device_id = ? order by event_time",
        (device,),
    )


def stored_eventually(node: Node, device: str, count: int) -> list[tuple[Any, ...]]:
    return eventually(
        lambda: len(rows := stored(node, device)) == count and rows,
        within_s=WITHIN_S,
        what=f"{count} records of {device} in the store",
    )


def header(record: LogRecord, name: str) -> str:
    return (dict(record.headers)[name] or b"").decode()


def test_a_device_reaches_kafka_the_store_and_the_summary(node: Node) -> None:
    mosquitto_pub(node, "devices/dev-1/telemetry", device_reading("dev-1", 0, temperature=21.50))
    raw = kcat(node, "-C", "-t", "telemetry.raw", "-o", "beginning", "-e", "-q", "-f", "%k %s\n")
    assert raw.startswith("dev-1 {") and '"temperature":21.5' in raw
    ((kind, event_time, payload, missing, source),) = stored_eventually(node, "dev-1", 1)
    assert (kind, event_time, missing, source) == ("devices", T_TEXT, None, "payload")
    assert json.loads(payload)["temperature"] == 21.5
    summary = summary_of(node, "devices")
    assert (summary["count"], summary["accepted"], summary["rejected"]) == (1, 1, 0)
    assert summary["last_event_time"] == T_TEXT
    (cleaned,) = read_topic(node, "telemetry.cleaned")
    assert cleaned.key == b"dev-1"
    assert header(cleaned, "source_topic") == "telemetry.raw"
    assert json.loads(cleaned.value or b"")["event_time"] == T_TEXT


def test_a_bad_record_is_dead_lettered_with_its_bytes_and_its_reason(node: Node) -> None:
    mosquitto_pub(node, "devices/dev-2/telemetry", b'{"device_id": "dev-2"')
    mosquitto_pub(node, "telemetry/pumps/p-1", b"{}")
    page = eventually(
        lambda: (
            len(records := node.get("/invalid/recent").json()["records"]) == 2 and records
        ),
        within_s=WITHIN_S,
        what="two rejected records",
    )
    codes = {record["kind"]: record["errors"][0]["code"] for record in page}
    assert codes == {"devices": "payload_not_json", "pumps": "unsupported_topic"}
    assert {record["payload"] for record in page} == {'{"device_id": "dev-2"', "{}"}
    assert page[0]["source"]["topic"] == "telemetry.raw"
    dead = {record.value: record for record in read_topic(node, "telemetry.dlq")}
    letter = dead[b'{"device_id": "dev-2"']
    assert header(letter, "dlq.error_codes") == "payload_not_json"
    assert header(letter, "mqtt.topic") == "devices/dev-2/telemetry"
    source = (int(header(letter, "dlq.source_partition")), int(header(letter, "dlq.source_offset")))
    raw = {(r.partition, r.offset): r.value for r in read_topic(node, "telemetry.raw")}
    assert raw[source] == letter.value
    most_failing = node.get("/topics/summary").json()["most_failing"]
    assert {entry["error"] for entry in most_failing} == {"payload_not_json", "unsupported_topic"}


def test_a_kafka_producer_needs_no_headers(node: Node) -> None:
    kcat(node, "-P", "-t", "telemetry.raw", stdin=device_reading("dev-3", 1))
    stored_eventually(node, "dev-3", 1)


def test_ingest_answers_with_the_verdict_on_every_record(node: Node) -> None:
    answer = ingest(
        node,
        {
            "records": [
                {"topic": "sites", "payload": {"site_id": "s-1"}, "timestamp": "2023-11-14T22:13:20"},
                {"topic": "sites", "payload": json.dumps({"site_id": "s-2", "ts": T})},
                {"topic": "nonsense", "payload": {}},
                {"topic": "grid"},
                {"topic": "sites", "payload": {"site_id": "s-1"}, "timestamp": "2023-11-14T22:13:20"},
            ]
        },
    )
    assert (answer["accepted"], answer["rejected"], answer["duplicates"]) == (2, 2, 1)
    reasons = {r["index"]: [e["code"] for e in r["errors"]] for r in answer["rejections"]}
    assert reasons == {2: ["unsupported_topic"], 3: ["missing_payload"]}
    assert len(read_topic(node, "telemetry.raw")) == 5
    ((_, event_time, payload, missing, source),) = stored_eventually(node, "s-1", 1)
    assert (event_time, source) == (T_TEXT, "record")
    assert json.loads(missing) == ["power_kw", "energy_kwh", "status"]
    assert json.loads(payload)["status"] is None
    ((_, event_time, _, _, source),) = stored_eventually(node, "s-2", 1)
    assert (event_time, source) == (T_TEXT, "payload")


def test_timestamps_fall_through_to_the_next_rule(node: Node) -> None:
    received = "2026-01-02T03:04:05Z"
    cases = {
        "a": ({"timestamp": "garbage"}, {"ts": T}, T_TEXT, "payload"),
        "b": ({"ts": str(T * 1000)}, {}, T_TEXT, "record"),
        "c": ({"received_at": received}, {"ts": "soon"}, "2026-01-02T03:04:05.000Z", "received_at"),
        "d": ({"timestamp": "1970-01-01T00:00:00Z"}, {"ts": "2023-11-14T23:13:20+01:00"}, T_TEXT, "payload"),
    }
    answer = ingest(
        node,
        [
            {"topic": "sites", "payload": {"site_id": f"t-{name}", **inside}, **outside}
            for name, (outside, inside, _, _) in cases.items()
        ],
    )
    assert answer["accepted"] == len(cases)
    for name, (_, _, event_time, source) in cases.items():
        ((_, stored_time, _, _, stored_source),) = stored_eventually(node, f"t-{name}", 1)
        assert (name, stored_time, stored_source) == (name, event_time, source)
    assert summary_of(node, "sites")["fallback_timestamps"] == 1


def test_a_redelivered_batch_is_not_stored_again_even_after_a_kill(node: Node) -> None:
    batch = [
        {"topic": "sites", "id": f"r-{n}", "payload": {"site_id": "s-9", "ts": T + n}}
        for n in range(50)
    ]
    assert ingest(node, batch)["accepted"] == 50
    assert ingest(node, batch)["duplicates"] == 50
    eventually(
        lambda: summary_of(node, "sites")["count"] == 100,
        within_s=WITHIN_S,
        what="both deliveries counted",
    )
    node.kill()
    node.start()
    assert ingest(node, batch)["duplicates"] == 50
    eventually(
        lambda: summary_of(node, "sites")["duplicates"] == 100,
        within_s=WITHIN_S,
        what="the third delivery counted",
    )
    assert len(stored(node, "s-9")) == 50


def test_a_body_that_is_no_batch_is_refused_and_kept(node: Node) -> None:
    for body in (b"hello", b'{"records": 5}', b"", b"[1,", b"\xff"):
        answer = requests.post(node.url("/ingest"), data=body, headers=bearer(node), timeout=30)
        assert answer.status_code == 400, (body, answer.text)
        assert "body" in answer.json()["error"]
    dead = read_topic(node, "telemetry.dlq")
    assert {record.value for record in dead} == {b"hello", b'{"records": 5}', b"", b"[1,", b"\xff"}
    assert {header(record, "dlq.error_codes") for record in dead} == {"malformed_body"}


def test_kills_in_full_flow_leave_every_record_exactly_once(node: Node) -> None:
    """The node is killed twice while records stream in; what was acknowledged is there once."""
    total = 600

    def send(n: int) -> None:
        bad = n % 10 == 9
        payload = "{" if bad else {"site_id": f"k-{n % 7}", "ts": T + n}
        record = {"topic": "sites", "id": f"k-{n}", "payload": payload}

        # A client that got no answer sends again: at least once, as every sender does.
        def accepted() -> bool:
            return requests.post(
                node.url("/ingest"), json=[record], headers=headers, timeout=10
            ).status_code == 200

        eventually(accepted, within_s=60, what=f"record {n} acknowledged")

    headers = bearer(node)
    for part in range(3):
        numbers = range(part * total // 3, (part + 1) * total // 3)
        with ThreadPoolExecutor(8) as senders:
            sent = [senders.submit(send, n) for n in numbers]
            for future in sent[: len(sent) // 2]:
                future.result()
            if part < 2:
                node.kill()
                node.start()
            for future in sent:
                future.result()
    eventually(
        lambda: query_store(node, "select count(*) from normalized_records")[0][0] == total * 9 // 10,
        within_s=WITHIN_S,
        what="every accepted record in the store",
    )
    ids = query_store(node, "select record_id, count(*) from normalized_records group by 1")
    assert len(ids) == total * 9 // 10 and {count for _, count in ids} == {1}
    sources = Counter(
        (header(r, "source_partition"), header(r, "source_offset"))
        for r in read_topic(node, "telemetry.cleaned")
    )
    assert len(sources) == total * 9 // 10 and set(sources.values()) == {1}
    dead = Counter(
        (header(r, "dlq.source_partition"), header(r, "dlq.source_offset"))
        for r in read_topic(node, "telemetry.dlq")
    )
    assert set(dead.values()) == {1}
    assert query_store(node, "select count(*) from invalid_records") == [(len(dead),)]


def test_the_groups_lag_shows_the_pipeline_caught_up(node: Node) -> None:
    ingest(node, [{"topic": "sites", "payload": {"site_id": "lag", "ts": T}}])

    def lag() -> int | None:
        groups = {group["group"]: group["lag"] for group in node.get("/api/v1/groups").json()}
        return groups.get("telemetry-writer")

    eventually(lambda: lag() == 0, within_s=WITHIN_S, what="telemetry-writer without lag")


def test_speed_is_stored_as_it_was_sent(node: Node) -> None:
    for n in range(5):
        answer = node.post("/speed", {"sensor_id": "sensor-1", "speed": 40 + n, "ts": T + n})
        assert (answer.status_code, answer.json()) == (202, {"status": "accepted"})
    rows = eventually(
        lambda: (
            len(rows := query_store(node, "select sensor_id, speed, ts from speed_readings order by ts")) == 5
            and rows
        ),
        within_s=WITHIN_S,
        what="five speed readings",
    )
    assert rows == [("sensor-1", 40 + n, T + n) for n in range(5)]
    assert {record.key for record in read_topic(node, "speed-events")} == {b"sensor-1"}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        (b"fast", 400, None),
        (b"[]", 400, None),
        (b"{}", 422, "sensor_id"),
        (b'{"sensor_id":"s","speed":-1,"ts":1700000000}', 422, "speed"),
        (b'{"sensor_id":"s","speed":"1","ts":1700000000}', 422, "speed"),
        (b'{"sensor_id":"s","speed":1,"ts":1700000000000}', 422, "ts"),
        (b'{"sensor_id":"s","speed":1}', 422, "ts"),
    ],
)
def test_a_bad_speed_event_is_refused_by_name(
    shared_node: Node, body: bytes, status: int, field: str | None
) -> None:
    answer = requests.post(
        shared_node.url("/speed"), data=body, headers=bearer(shared_node), timeout=30
    )
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]
    if field:
        assert field in answer.json()["fields"]


def test_a_bad_speed_event_over_mqtt_is_dead_lettered(node: Node) -> None:
    mosquitto_pub(node, "speed/sensor-2", b'{"sensor_id":"sensor-2","speed":"fast","ts":1}')
    mosquitto_pub(node, "speed/sensor-2", as_json({"sensor_id": "sensor-2", "speed": 7, "ts": T}))
    eventually(
        lambda: query_store(node, "select sensor_id, speed from speed_readings") == [("sensor-2", 7)],
        within_s=WITHIN_S,
        what="the good reading",
    )
    (record,) = eventually(
        lambda: node.get("/invalid/recent").json()["records"],
        within_s=WITHIN_S,
        what="the bad reading",
    )
    assert record["kind"] == "speed"
    assert {error["code"] for error in record["errors"]} == {"invalid_speed_event"}
