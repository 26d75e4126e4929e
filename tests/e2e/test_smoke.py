"""The shortest proof that the doors lead to the same log: one message through each of them."""

from __future__ import annotations

import requests
from confluent_kafka import Producer
from conftest import Node, as_json, eventually, kcat, mosquitto_pub, query_store, read_topic


def reading(device: str, reading_id: str, power: float = 41.5) -> dict[str, object]:
    return {
        "id": reading_id,
        "device_id": device,
        "device_ts": "2026-03-20T10:15:30Z",
        "ts": "2026-03-20T10:15:30Z",
        "power": power,
    }


def test_health_is_public_and_ok(shared_node: Node) -> None:
    answer = requests.get(shared_node.url("/health"), timeout=10)
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    assert body["log"]["durability"] == "fsync"


def test_an_endpoint_behind_the_token_refuses_strangers(shared_node: Node) -> None:
    assert requests.get(shared_node.url("/topics/summary"), timeout=10).status_code == 401
    assert shared_node.get("/topics/summary").status_code == 200


def test_what_mqtt_acknowledged_a_kafka_consumer_reads(shared_node: Node) -> None:
    payload = as_json(reading("inv-7", "smoke-mqtt"))
    mosquitto_pub(shared_node, "telemetry/inverters/inv-7", payload)
    records = [r for r in read_topic(shared_node, "telemetry.raw") if r.key == b"inv-7"]
    assert [r.value for r in records] == [payload.encode()]
    headers = dict(records[0].headers)
    assert headers["kind"] == b"inverters"
    assert headers["mqtt.topic"] == b"telemetry/inverters/inv-7"
    assert headers["mqtt.qos"] == b"1"


def test_what_kcat_produced_kcat_reads_back(shared_node: Node) -> None:
    kcat(shared_node, "-P", "-t", "smoke-kcat", "-K", ":", stdin="a:one\nb:two\n")
    read = kcat(
        shared_node, "-C", "-t", "smoke-kcat", "-o", "beginning", "-e", "-q", "-f", "%k:%s\n"
    )
    assert sorted(read.splitlines()) == ["a:one", "b:two"]


def test_an_ingested_record_is_in_the_log_and_in_the_store(shared_node: Node) -> None:
    answer = shared_node.post(
        "/ingest",
        {
            "records": [
                {
                    "topic": "inverters",
                    "id": "smoke-http",
                    "payload": reading("inv-8", "smoke-http"),
                }
            ]
        },
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["accepted"] == 1
    logged = [
        r
        for r in read_topic(shared_node, "telemetry.raw")
        if dict(r.headers).get("id") == b"smoke-http"
    ]
    assert len(logged) == 1
    eventually(
        lambda: (
            query_store(
                shared_node,
                "select count(*) from normalized_records where record_id = ?",
                ("smoke-http",),
            )
            == [(1,)]
        ),
        within_s=20,
        what="the ingested record in normalized_records",
    )


def test_a_clean_stop_and_start_keeps_the_log(node: Node) -> None:
    producer = Producer({"bootstrap.servers": node.bootstrap, "enable.idempotence": True})
    for number in range(100):
        producer.produce("smoke-restart", key=str(number), value=f"value {number}")
    assert producer.flush(30) == 0
    before = read_topic(node, "smoke-restart")
    assert len(before) == 100
    node.restart()
    assert read_topic(node, "smoke-restart") == before
