"""The command line against a real node: what it prints, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import requests
from conftest import Node, binary, eventually, kcat, read_topic, run

RECORDS = [f"key-{n}:value-{n}" for n in range(40)]


def holdfast(
    *arguments: str, stdin: str | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    return subprocess.run(
        [str(binary()), *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def door(node: Node) -> list[str]:
    return ["--kafka", node.bootstrap]


@pytest.fixture(scope="module")
def filled(shared_node: Node) -> Node:
    """A node whose topic `speed-events` holds RECORDS, written by the command line."""
    done = holdfast(
        "produce", "speed-events", "--key-separator", ":", "-H", "from=cli", *door(shared_node),
        stdin="\n".join(RECORDS) + "\n",
    )
    assert done.returncode == 0, done.stderr
    places = done.stdout.splitlines()
    assert len(places) == len(RECORDS)
    assert all(re.fullmatch(r"speed-events-\d@\d+", place) for place in places), places
    return shared_node


def test_produced_lines_are_records_where_the_command_says_they_are(filled: Node) -> None:
    records = read_topic(filled, "speed-events")
    assert sorted((r.key.decode(), r.value.decode()) for r in records) == sorted(
        tuple(line.split(":")) for line in RECORDS
    )
    assert all(record.headers == (("from", b"cli"),) for record in records)


def test_keys_go_where_another_client_sends_them(filled: Node) -> None:
    kcat(filled, "-P", "-t", "speed-events", "-K", ":", "-X", "topic.partitioner=murmur2",
         stdin="key-7:from-kcat\n")
    by_key = {r.partition for r in read_topic(filled, "speed-events") if r.key == b"key-7"}
    assert len(by_key) == 1


def test_consumed_json_has_every_part_of_a_record(filled: Node) -> None:
    done = holdfast("consume", "speed-events", "--format", "json", *door(filled))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    expected = {(r.partition, r.offset, r.key, r.value) for r in read_topic(filled, "speed-events")}
    got = {(x["partition"], x["offset"], x["key"].encode(), x["value"].encode()) for x in lines}
    assert got == expected
    ours = [line for line in lines if line["value"] != "from-kcat"]
    assert all(line["headers"] == [{"name": "from", "value": "cli"}] for line in ours)


def test_consume_begins_where_it_is_told_and_ends_after_a_count(filled: Node) -> None:
    newest = holdfast("consume", "speed-events", "-p", "0", "--from", "-2", "--format", "json", *door(filled))
    in_0 = sorted(r.offset for r in read_topic(filled, "speed-events") if r.partition == 0)
    assert [json.loads(line)["offset"] for line in newest.stdout.splitlines()] == in_0[-2:]
    first = holdfast("consume", "speed-events", "-n", "3", *door(filled))
    assert len(first.stdout.splitlines()) == 3
    nothing = holdfast("consume", "speed-events", "--from", "end", *door(filled))
    assert (nothing.returncode, nothing.stdout) == (0, "")


def test_follow_prints_what_arrives_and_ends_after_its_count(filled: Node) -> None:
    with subprocess.Popen(
        [str(binary()), "consume", "mqtt.unrouted", "--follow", "-n", "2", "--format", "value", *door(filled)],
        stdout=subprocess.PIPE, text=True,
    ) as follower:
        try:
            for value in ("one", "two"):
                done = holdfast("produce", "mqtt.unrouted", value, *door(filled))
                assert done.returncode == 0, done.stderr
            out, _ = follower.communicate(timeout=30)
        finally:
            follower.kill()
    assert out.splitlines() == ["one", "two"]
    assert follower.returncode == 0


def test_a_reader_that_has_gone_is_no_error(filled: Node) -> None:
    done = subprocess.run(
        ["bash", "-c", 'set -o pipefail; "$0" consume speed-events --kafka "$1" | head -n 1',
         str(binary()), filled.bootstrap],
        capture_output=True, text=True, timeout=60, check=False,
    )
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)


def test_topics_are_listed_with_their_records(filled: Node) -> None:
    done = holdfast("topics", "list", *door(filled))
    rows = {row[0]: (int(row[1]), int(row[2])) for row in (r.split() for r in done.stdout.splitlines()[1:])}
    assert rows["speed-events"] == (6, len(read_topic(filled, "speed-events")))
    assert {"telemetry.raw", "telemetry.cleaned", "telemetry.dlq", "mqtt.unrouted"} <= rows.keys()


def test_an_unknown_topic_is_answered_with_the_nearest_one(filled: Node) -> None:
    done = holdfast("consume", "speed-event", *door(filled))
    assert done.returncode == 1
    assert 'no topic "speed-event"; did you mean "speed-events"?' in done.stderr


def test_nobody_listening_is_one_sentence() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
        done = holdfast("topics", "list", "--kafka", address)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"holdfast: connection refused: is a node listening on {address}?\n"
        done = holdfast("simulate", "--mqtt", address, "--duration", "1")
        assert done.returncode == 1
        assert done.stderr == f"holdfast: connection refused: is a broker listening on {address}?\n"


def test_simulated_devices_are_acknowledged_and_stored(node: Node) -> None:
    done = holdfast(
        "simulate", "--mqtt", f"127.0.0.1:{node.mqtt_port}", "--devices", "14", "--rate", "100",
        "--duration", "2", "--seed", "7",
    )
    assert done.returncode == 0, done.stderr
    match = re.search(r"sent (\d+) acked (\d+) resent 0 err 0$", done.stdout.splitlines()[-1])
    assert match and match[1] == match[2], done.stdout
    stored = len(read_topic(node, "telemetry.raw")) + len(read_topic(node, "speed-events"))
    assert stored == int(match[1]) > 100


def test_a_wrong_configuration_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "holdfast.toml"
    file.write_text('[mqtt]\nlsten = "127.0.0.1:0"\n')
    for command in (["serve", "--config", str(file)], ["config", "check", str(file)]):
        done = holdfast(*command)
        assert done.returncode == 78
        assert f'{file}:2:1: there is no key "lsten" in [mqtt]; did you mean "listen"?' in done.stderr


def test_a_wrong_variable_is_refused_with_the_right_one() -> None:
    done = holdfast("config", "check", environment={"HOLDFAST_MQTT_LISTEN": "127.0.0.1:0"})
    assert done.returncode == 78
    assert "did you mean HOLDFAST_MQTT__LISTEN?" in done.stderr


def test_the_environment_is_in_force_and_shown(tmp_path: Path) -> None:
    done = holdfast("config", "show", environment={"HOLDFAST_LOGGING__LEVEL": "warn"})
    assert re.search(r'^level = "warn" +# environment variable HOLDFAST_LOGGING__LEVEL$', done.stdout, re.M)


def test_users_are_edited_on_a_stopped_node_only(node: Node) -> None:
    busy = holdfast("users", "create", "second", "--data-dir", str(node.data_dir))
    assert busy.returncode == 1
    assert "another node is using the data directory" in busy.stderr
    node.terminate()
    assert holdfast("users", "create", "second", "--data-dir", str(node.data_dir)).returncode == 0
    listed = run([str(binary()), "users", "list", "--data-dir", str(node.data_dir)])
    assert [line.split("\t")[0] for line in listed.splitlines()] == ["e2e", "second"]
    assert holdfast("users", "delete", "second", "--data-dir", str(node.data_dir)).returncode == 0
    again = holdfast("users", "delete", "second", "--data-dir", str(node.data_dir))
    assert (again.returncode, again.stderr) == (1, 'holdfast: there is no user "second"\n')


def test_a_password_comes_from_stdin_and_signs_in_at_every_door(node: Node) -> None:
    node.terminate()

    def users(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        return holdfast("users", *arguments, "--data-dir", str(node.data_dir), stdin=given)

    assert users("create", "alice", "--password", given="two words\n").stdout == "created alice\n"
    assert "password, SCRAM-SHA-256, SCRAM-SHA-512" in users("list").stdout
    assert users("create", "alice", "--password", given="x\n").returncode == 1
    assert users("set-password", "alice", "--no-scram").stderr == "holdfast: no password came from stdin\n"
    added = users("add-token", "alice", "--label", "gateway", "--expires-days", "1")
    secret = re.findall(r"^token (\S+)$", added.stdout, re.M)[0]
    listed = re.search(r'token ([0-9a-f]{16}) "gateway" until 20', users("list").stdout)
    assert listed
    node.start()
    for secret_of_alice, status in [("two words", 200), (secret, 200), ("two  words", 401)]:
        body = {"client_id": "alice", "client_secret": secret_of_alice}
        assert requests.post(node.url("/auth"), json=body, timeout=30).status_code == status
    node.terminate()
    assert users("delete-token", "alice", listed[1]).returncode == 0
    assert users("set-password", "alice", "--no-scram", given="three\n").returncode == 0
    assert users("list").stdout.splitlines()[0] == "alice\tpassword"


def test_the_supervisor_hears_when_it_is_ready_and_when_it_stops(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as supervisor:
        supervisor.settimeout(30)
        supervisor.bind(str(tmp_path / "notify"))

        def heard(state: str) -> None:
            while supervisor.recv(256).decode() != state:
                pass

        with Node(tmp_path, environment={"NOTIFY_SOCKET": str(tmp_path / "notify")}) as node:
            node.start()
            heard("READY=1")
            node.terminate()
            heard("STOPPING=1")


def test_json_logging_writes_one_object_a_line(tmp_path: Path) -> None:
    with Node(tmp_path, config='[logging]\nformat = "json"\n') as node:
        node.start()
        node.terminate()
        lines = [json.loads(line) for line in node.stderr_tail().splitlines()]
        assert any("stopping" in line["message"] for line in lines)


def test_a_demo_shows_its_credentials_once(tmp_path: Path) -> None:
    def demo(*arguments: str) -> str:
        ports = [argument for name in ("mqtt", "kafka", "http") for argument in (f"--{name}", "127.0.0.1:0")]
        with subprocess.Popen(
            [str(binary()), "demo", "--data-dir", str(tmp_path / "data"), *ports, *arguments],
            stdout=subprocess.PIPE, stderr=(tmp_path / "stderr").open("a"), text=True,
        ) as process:
            try:
                assert process.stdout is not None
                lines: list[str] = []
                while not lines or lines[-1] != "ready\n":
                    lines.append(process.stdout.readline())
                    assert lines[-1], (tmp_path / "stderr").read_text()
                kafka = next(line.split()[2] for line in lines if line.startswith("listening kafka"))
                eventually(
                    lambda: holdfast("consume", "telemetry.raw", "-n", "1", "--kafka", kafka).stdout,
                    within_s=30, what="a simulated device's record",
                )
                process.send_signal(signal.SIGINT)
                assert process.wait(60) == 0
            finally:
                process.kill()
        return "".join(lines)

    first, second, third = demo(), demo(), demo("--new-credentials")
    secrets = [re.findall(r"^  client_secret (\S+)$", text, re.M) for text in (first, second, third)]
    assert [len(found) for found in secrets] == [1, 0, 1]
    assert secrets[0] != secrets[2]
    assert f"/#client_id=demo&client_secret={secrets[0][0]}" in first
    assert "--new-credentials" in second
