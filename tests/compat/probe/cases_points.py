"""The points on which home-made brokers are bitten, a step for each.

Several of them are asked in more ways elsewhere; here each has its number, so that a reader finds it.
"""

from __future__ import annotations

import base64
import struct
import time
from collections.abc import Callable
from typing import Any

from batches import CONTROL, GZIP, batch, message_set, values
from cases_groups import Member, wait_beat
from cases_log import fetch_body, old_produce
from cases_txn import Transactional, settled
from probe import UNKNOWN_ID, Body, Closed, Probe, Silent


def points(p: Probe) -> None:
    for number, (title, play) in POINTS.items():
        try:
            said = play(p)
        except Closed:
            said = "connection closed"
        except Silent:
            said = "no answer"
        except Exception as error:
            said = f"unexpected: {type(error).__name__}: {str(error)[:200]}"
        p.say(f"point {number:02}: {title}", said)


def code(p: Probe, answer: Body) -> str:
    return p.error(answer["responses"][0]["partitionResponses"][0]["errorCode"])


def sent(p: Probe, topic: str, data: bytes, version: int = 9) -> list[Any]:
    (found,) = p.ask("PRODUCE", p.produced(topic, data), version)["responses"][0][
        "partitionResponses"
    ]
    return [p.error(found["errorCode"]), found["baseOffset"], len(found.get("recordErrors", []))]


def fetched(p: Probe, topic: str, offset: int, version: int = 12, **more: Any) -> Any:
    return p.plain(p.ask("FETCH", fetch_body(p, topic, offset, **more), version))["responses"][0][
        "partitions"
    ][0]


def unknown_version(p: Probe) -> Any:
    with p.connect() as connection:
        connection.send_frame(struct.pack(">hhih", 18, 35, 7, -1) + b"\x00" * 4)
        frame = connection.receive_frame()
    correlation, error, count = struct.unpack_from(">ihi", frame)
    return {
        "correlation": correlation,
        "error": p.error(error),
        "apis": count == len(p.advertised),
        "size": len(frame) == 10 + count * 6,
    }


def header_of_versions(p: Probe) -> Any:
    """The answer to version 3 has a header without tags, and no tagged field of a single byte."""
    with p.connect() as connection:
        connection.send(
            "API_VERSIONS", 3, {"clientSoftwareName": "p", "clientSoftwareVersion": "1"}
        )
        frame = connection.receive_frame()
    answer = p.ask("API_VERSIONS", {"clientSoftwareName": "p", "clientSoftwareVersion": "1"}, 4)
    return {
        "second field is the error": frame[4:6] == b"\x00\x00",
        "finalized": {
            f["name"]: f["maxVersionLevel"]
            for f in answer["finalizedFeatures"]
            if f["name"] in ("transaction.version", "group.version")
        },
        "supported": sorted(f["name"] for f in answer["supportedFeatures"]),
    }


def other_version(p: Probe) -> Any:
    with p.connect() as connection:
        connection.send_frame(struct.pack(">hhih", 3, 99, 7, -1))
        return connection.receive_frame().hex()


def bounded(p: Probe) -> Any:
    said = []
    for body in (struct.pack(">i", 0x7FFFFFFF), struct.pack(">ih", 2, 0x7FFF)):
        try:
            with p.connect() as connection:
                connection.limit(5)
                connection.send_frame(struct.pack(">hhih", 3, 1, 7, -1) + body)
                connection.receive_frame()
                said.append("answered")
        except (Closed, Silent) as error:
            said.append(type(error).__name__)
    return said + ["apiKeys" in p.ask("API_VERSIONS", {}, 0)]


def join_waits_alone(p: Probe) -> Any:
    one, two = (Member(p, "p-point-5", version=3) for _ in range(2))
    waiting = one.start_join()
    began = time.monotonic()
    p.ask("METADATA", {"topics": []}, 9)
    quick = time.monotonic() - began < 1
    said = p.plain(one.end_join(waiting))["errorCode"]
    two.connection.__exit__()
    return {"others are served meanwhile": quick, "join": said}


def middle(p: Probe) -> Any:
    return fetched(p, p.filled("p-point-6", (5, 5)), 7)["records"]["batches"][0]["base"]


def first_over_limit(p: Probe) -> Any:
    topic = p.filled("p-point-7", (3, 3, 3))
    counts = [
        len(fetched(p, topic, 0, maxBytes=n, partitionMaxBytes=m)["records"]["batches"])
        for n, m in ((1, 1), (1, 1 << 20), (1 << 20, 1))
    ]
    return counts


def long_poll(p: Probe) -> Any:
    topic = p.filled("p-point-8", (1,))
    took = []
    for level in (0, 1):
        began = time.monotonic()
        fetched(p, topic, 1, maxWaitMs=600, isolationLevel=level)
        took.append(0.55 < time.monotonic() - began < 3)
    return took


def recreated(p: Probe) -> Any:
    name = p.create("p-point-9")
    old = p.ids[name]
    p.ask("DELETE_TOPICS", {"topics": [{"name": name}], "timeoutMs": 5000})
    p.create(name)
    body = fetch_body(p, name, 0)
    body["topics"][0]["topicId"] = old
    said = [p.error(p.ask("FETCH", body, 16)["responses"][0]["partitions"][0]["errorCode"])]
    body["topics"][0]["topicId"] = UNKNOWN_ID
    said.append(p.error(p.ask("FETCH", body, 16)["responses"][0]["partitions"][0]["errorCode"]))
    return [*said, "new id" if p.ids[name] != old else "same id"]


def fetch_sessions(p: Probe) -> Any:
    topic = p.filled("p-point-10", (2,))
    with p.connect() as connection:
        first = connection.ask("FETCH", 12, fetch_body(p, topic, 2, sessionId=0, sessionEpoch=0))
        more = {"maxWaitMs": 10, "minBytes": 1, "maxBytes": 1000, "sessionId": first["sessionId"]}
        quiet = connection.ask("FETCH", 12, {**more, "sessionEpoch": 1})
        wrong = connection.ask("FETCH", 12, {**more, "sessionEpoch": 7})
        unknown = connection.ask(
            "FETCH", 12, {**more, "sessionId": first["sessionId"] + 99, "sessionEpoch": 1}
        )
    return [
        first["sessionId"] != 0,
        len(quiet["responses"]),
        p.error(wrong["errorCode"]),
        p.error(unknown["errorCode"]),
    ]


def one_epoch(p: Probe) -> Any:
    topic = p.filled("p-point-11", (2,))
    (described,) = p.ask("METADATA", {"topics": [{"name": topic}]}, 12)["topics"][0]["partitions"]
    (listed,) = p.ask(
        "LIST_OFFSETS",
        {
            "replicaId": -1,
            "topics": [{"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}],
        },
        6,
    )["topics"][0]["partitions"]
    end = {
        "replicaId": -1,
        "topics": [
            {
                "topic": topic,
                "partitions": [
                    {
                        "partition": 0,
                        "currentLeaderEpoch": -1,
                        "leaderEpoch": described["leaderEpoch"],
                    }
                ],
            }
        ],
    }
    (ended,) = p.ask("OFFSET_FOR_LEADER_EPOCH", end, 4)["topics"][0]["partitions"]
    stored = fetched(p, topic, 0)["records"]["batches"][0]["leader_epoch"]
    partition = {
        "partitionIndex": 0,
        "committedOffset": 1,
        "committedLeaderEpoch": described["leaderEpoch"],
    }
    p.ask(
        "OFFSET_COMMIT",
        {
            "groupId": "p-point-11",
            "generationIdOrMemberEpoch": -1,
            "topics": [{"name": topic, "partitions": [partition]}],
        },
        9,
    )
    asked = {
        "groups": [{"groupId": "p-point-11", "topics": [{"name": topic, "partitionIndexes": [0]}]}]
    }
    (kept,) = p.ask("OFFSET_FETCH", asked, 8)["groups"][0]["topics"][0]["partitions"]
    numbers = {
        described["leaderEpoch"],
        listed["leaderEpoch"],
        ended["leaderEpoch"],
        kept["committedLeaderEpoch"],
    }
    return {"one number": len(numbers) == 1, "stored": stored, "end": ended["endOffset"]}


def list_offsets(p: Probe) -> Any:
    topic, empty = p.filled("p-point-12", (3, 3)), p.create("p-point-12-empty")
    said = {}
    for name, where, stamp in (
        ("latest", topic, -1), ("earliest", topic, -2), ("largest", topic, -3), ("at a record's time", topic, 1_700_000_002_000),
        ("between", topic, 1_700_000_001_500), ("after all", topic, 1_800_000_000_000), ("largest, empty", empty, -3),
        ("time, empty", empty, 5), ("latest, empty", empty, -1),
    ):  # fmt: skip
        body = {
            "replicaId": -1,
            "topics": [{"name": where, "partitions": [{"partitionIndex": 0, "timestamp": stamp}]}],
        }
        (found,) = p.ask("LIST_OFFSETS", body, 7)["topics"][0]["partitions"]
        said[name] = [p.error(found["errorCode"]), found["offset"], found["timestamp"]]
    return said


def idempotence(p: Probe) -> Any:
    topic = p.create("p-point-13")
    number = p.ask("INIT_PRODUCER_ID", {"transactionTimeoutMs": 1000})["producerId"]
    said = [sent(p, topic, batch(values(1), producer=(number, 0, n))) for n in range(6)]
    said += [sent(p, topic, batch(values(1), producer=(number, 0, n))) for n in (5, 1, 9)]
    return [s[:2] for s in said]


def idle_producer(p: Probe) -> Any:
    """A sequence that begins in the middle is what a broker sees that has forgotten its producer."""
    topic = p.create("p-point-14")
    number = p.ask("INIT_PRODUCER_ID", {"transactionTimeoutMs": 1000})["producerId"]
    return sent(p, topic, batch(values(1), producer=(number, 0, 41)))[:2]


def checks(p: Probe) -> Any:
    topic = p.create("p-point-15")
    marker = batch([(struct.pack(">hh", 0, 1), b"\x00" * 6)], attributes=CONTROL)
    return {
        "checksum": sent(p, topic, batch(values(1), crc=1))[0],
        "magic 1": sent(p, topic, message_set(1, b"k", b"v"))[0],
        "delta": sent(p, topic, batch(values(3), last_delta=5))[0],
        "control": sent(p, topic, marker)[0],
    }


def append_time(p: Probe) -> Any:
    topic = p.create("p-point-16", message_timestamp_type="LogAppendTime")
    sent(p, topic, batch(values(2), base_timestamp=5, max_timestamp=5))
    (found,) = fetched(p, topic, 0)["records"]["batches"]
    return [found["attributes"], found["timestamps"][1], found["crc"]]


def too_large(p: Probe) -> Any:
    return sent(p, p.create("p-point-17", max_message_bytes="500"), batch([(b"k", b"x" * 600)]))


def keyless(p: Probe) -> Any:
    topic = p.create("p-point-18", cleanup_policy="compact")
    mixed = [(None, b"a"), (b"k", b"b"), (None, b"c")]
    return [sent(p, topic, batch(mixed)), sent(p, topic, batch(mixed, attributes=GZIP))]


def unanswered(p: Probe) -> Any:
    topic = p.create("p-point-19")
    with p.connect() as connection:
        connection.send("PRODUCE", 9, p.produced(topic, batch(values(1)), acks=0))
        return "WRONG CORRELATION" not in connection.ask("API_VERSIONS", 0, {})


def made_in_passing(p: Probe) -> Any:
    def ask(name: str, auto: bool) -> str:
        body = {"topics": [{"name": name}], "allowAutoTopicCreation": auto}
        return p.error(p.ask("METADATA", body, 12)["topics"][0]["errorCode"])

    said = [
        ask("p-point-20-no", False),
        ask("p-point-20-no", False),
        ask("a b", True),
        ask("a b", False),
    ]
    ask("p-point-20-yes", True)
    deadline = time.monotonic() + 10
    while (last := ask("p-point-20-yes", False)) != "NONE" and time.monotonic() < deadline:
        time.sleep(0.1)
    return [*said, last]


def first_join(p: Probe) -> Any:
    member = Member(p, "p-point-21", version=9)
    began = time.monotonic()
    member.join(rebalanceTimeoutMs=300_000)
    took = time.monotonic() - began
    return "about 3 s" if 2.5 < took < 6 else f"{took:.0f} s"


def member_errors(p: Probe) -> Any:
    one = Member(p, "p-point-22", version=9)
    said = {"first join": p.error(one.end_join(one.start_join())["errorCode"])}
    one.stable()
    said["unknown member"] = one.beat(memberId="other")
    said["wrong generation"] = one.beat(generationId=one.generation + 1)
    two = Member(p, "p-point-22", version=9)
    two.end_join(two.start_join())
    two.start_join()
    said["rebalance"] = wait_beat(one, "REBALANCE_IN_PROGRESS")
    three, four = (Member(p, "p-point-22-static", "i", version=9) for _ in range(2))
    three.stable()
    four.join()
    said["fenced"] = three.beat()
    return said


def follower_waits(p: Probe) -> Any:
    one, two = (Member(p, "p-point-23", version=3) for _ in range(2))
    sent_by = [m.start_join() for m in (one, two)]
    joined = [m.end_join(n) for m, n in zip((one, two), sent_by, strict=True)]
    while any(a["errorCode"] for a in joined):
        sent_by = [m.start_join() for m in (one, two)]
        joined = [m.end_join(n) for m, n in zip((one, two), sent_by, strict=True)]
    leader, follower = (one, two) if joined[0]["leader"] == one.id else (two, one)
    waiting = follower.start_sync()
    follower.connection.limit(1.5)
    try:
        follower.end_sync(waiting)
        early = True
    except Silent:
        early = False
    follower.connection.limit(20)
    leader.sync(one.id, two.id)
    answer = follower.end_sync(waiting)
    return {
        "answered early": early,
        "error": p.error(answer["errorCode"]),
        "assignment": len(base64.b64decode(answer["assignment"])),
    }


def commit_round_trip(p: Probe) -> Any:
    topic = p.create("p-point-24")
    partition = {
        "partitionIndex": 0,
        "committedOffset": 1,
        "committedLeaderEpoch": p.epoch,
        "committedMetadata": "über",
    }
    p.ask(
        "OFFSET_COMMIT",
        {
            "groupId": "p-point-24",
            "generationIdOrMemberEpoch": -1,
            "topics": [{"name": topic, "partitions": [partition]}],
        },
        9,
    )
    asked = {
        "groups": [{"groupId": "p-point-24", "topics": [{"name": topic, "partitionIndexes": [0]}]}]
    }
    return p.plain(p.ask("OFFSET_FETCH", asked, 8)["groups"][0]["topics"][0]["partitions"])


def aborted_index(p: Probe) -> Any:
    if not p.has("END_TXN"):
        return "no transactions"
    topic = p.create("p-point-25")
    one, two = Transactional(p, "tid-25a"), Transactional(p, "tid-25b")
    for t in (one, two):
        t.add((topic, 0))
    said: list[Any] = [
        one.send(topic),
        two.send(topic),
        one.send(topic),
        one.end(False),
        two.end(True),
        settled(p, topic),
    ]
    found = fetched(p, topic, 0, isolationLevel=1)
    firsts = [a["firstOffset"] for a in found["abortedTransactions"]]
    late = [a["firstOffset"] for a in fetched(p, topic, 4, isolationLevel=1)["abortedTransactions"]]
    past = [a["firstOffset"] for a in fetched(p, topic, 7, isolationLevel=1)["abortedTransactions"]]
    return [*said, firsts, late, past]


def transaction_errors(p: Probe) -> Any:
    if not p.has("END_TXN"):
        return "no transactions"
    topic = p.create("p-point-26")
    old = Transactional(p, "tid-26")
    old.add((topic, 0))
    new = Transactional(p, "tid-26")
    long = {
        "transactionalId": "tid-26-long",
        "transactionTimeoutMs": 99_999_999,
        "producerId": -1,
        "producerEpoch": -1,
    }
    return {
        "fenced": [old.add((topic, 0)), old.end(True), old.send(topic)],
        "time-out": p.error(p.ask("INIT_PRODUCER_ID", long, 4)["errorCode"]),
        "new one": [new.add((topic, 0)), new.end(True)],
    }


def stable_offsets(p: Probe) -> Any:
    if not p.has("END_TXN"):
        return "no transactions"
    topic = p.create("p-point-27")
    t = Transactional(p, "tid-27")
    t.patient("ADD_OFFSETS_TO_TXN", 3, t.who(groupId="p-point-27"))
    offsets = [
        {
            "name": topic,
            "partitions": [{"partitionIndex": 0, "committedOffset": 5, "committedMetadata": ""}],
        }
    ]
    t.patient(
        "TXN_OFFSET_COMMIT",
        3,
        t.who(groupId="p-point-27", generationId=-1, memberId="", topics=offsets),
    )

    def ask(stable: bool) -> Any:
        asked = {
            "groups": [
                {"groupId": "p-point-27", "topics": [{"name": topic, "partitionIndexes": [0]}]}
            ],
            "requireStable": stable,
        }
        (found,) = p.ask("OFFSET_FETCH", asked, 8)["groups"][0]["topics"][0]["partitions"]
        return [p.error(found["errorCode"]), found["committedOffset"]]

    return [ask(True), ask(False), t.end(True)]


def all_keys(p: Probe) -> Any:
    topic = p.create("p-point-28", cleanup_policy="delete")

    def alter(operation: int, value: str) -> str:
        entry = {"name": "cleanup.policy", "configOperation": operation, "value": value}
        body = {"resources": [{"resourceType": 2, "resourceName": topic, "configs": [entry]}]}
        return p.error(p.ask("INCREMENTAL_ALTER_CONFIGS", body)["responses"][0]["errorCode"])

    def describe() -> dict[str, str]:
        body = {
            "resources": [{"resourceType": 2, "resourceName": topic, "configurationKeys": None}]
        }
        return {
            c["name"]: c["value"] for c in p.ask("DESCRIBE_CONFIGS", body)["results"][0]["configs"]
        }

    said = [
        alter(2, "compact"),
        describe()["cleanup.policy"],
        alter(3, "delete"),
        describe()["cleanup.policy"],
    ]
    return [*said, sorted(describe())]


def per_topic(p: Probe) -> Any:
    body = {
        "topics": [
            {"name": "p-point-29", "numPartitions": -1, "replicationFactor": -1},
            {"name": "p-point-29-b", "numPartitions": 1, "replicationFactor": 3},
            {"name": "a b", "numPartitions": 1, "replicationFactor": 1},
        ],
        "timeoutMs": 5000,
    }
    judged = p.ask("CREATE_TOPICS", {**body, "validateOnly": True})
    made = p.ask("CREATE_TOPICS", body)
    return [
        sorted(
            [t["name"], p.error(t["errorCode"]), t["numPartitions"], t["replicationFactor"]]
            for t in a["topics"]
        )
        for a in (judged, made)
    ]


def reachable(p: Probe) -> Any:
    (broker,) = p.ask("METADATA", {"topics": []}, 9)["brokers"]
    from probe import BOOTSTRAP

    return f"{broker['host']}:{broker['port']}" == BOOTSTRAP


def produce_range(p: Probe) -> Any:
    return {"advertised": p.advertised[0], "version 2": old_produce(p, 2)}


POINTS: dict[int, tuple[str, Callable[[Probe], Any]]] = {
    0: ("Produce is advertised from 0, served from 3", produce_range),
    1: ("ApiVersions in an unknown version", unknown_version),
    2: ("header and features of ApiVersions", header_of_versions),
    3: ("any other unknown version", other_version),
    4: ("lengths that lie", bounded),
    5: ("a waiting JoinGroup blocks nobody else", join_waits_alone),
    6: ("a fetch into a batch returns the whole batch", middle),
    7: ("the first batch comes whatever the limit", first_over_limit),
    8: ("long poll, also of committed records", long_poll),
    9: ("id of a topic made again", recreated),
    10: ("fetch sessions", fetch_sessions),
    11: ("one leader epoch everywhere", one_epoch),
    12: ("ListOffsets", list_offsets),
    13: ("idempotence: duplicates and gaps", idempotence),
    14: ("a producer that was forgotten goes on", idle_producer),
    15: ("what is checked of a batch", checks),
    16: ("LogAppendTime", append_time),
    17: ("MESSAGE_TOO_LARGE", too_large),
    18: ("keyless records and compaction", keyless),
    19: ("acks=0 is not answered", unanswered),
    20: ("topics made in passing", made_in_passing),
    21: ("the first rebalance waits about 3 s", first_join),
    22: ("errors of members", member_errors),
    23: ("a follower's SyncGroup waits for the leader", follower_waits),
    24: ("a commit comes back as it was", commit_round_trip),
    25: ("aborted transactions, last stable offset", aborted_index),
    26: ("fencing and time-outs of transactions", transaction_errors),
    27: ("OffsetFetch of stable offsets", stable_offsets),
    28: ("every configuration, APPEND and SUBTRACT", all_keys),
    29: ("a result for each topic", per_topic),
    30: ("the advertised address", reachable),
}
CASES = {"points": points}
