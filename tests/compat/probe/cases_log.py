"""Cases of what reads and writes the log: Produce, Fetch, ListOffsets, OffsetForLeaderEpoch, DeleteRecords."""

from __future__ import annotations

import struct
import time
from typing import Any

from batches import (
    CONTROL,
    GZIP,
    LOG_APPEND_TIME,
    LZ4,
    SNAPPY,
    TRANSACTIONAL,
    ZSTD,
    batch,
    message_set,
    record,
    text,
    values,
)
from probe import UNKNOWN_ID, ZERO_ID, Body, Probe

HOUR_MS = 3_600_000


def produce(p: Probe) -> None:
    p.create("p-log", partitions=2)
    p.create("p-compacted", cleanup_policy="compact")
    p.create("p-stamped", message_timestamp_type="LogAppendTime")
    p.create("p-small", max_message_bytes="2000")
    p.create("p-strict-time", message_timestamp_before_max_ms="60000")
    p.create("p-gzip", compression_type="gzip")

    def partition(answer: Body) -> Any:
        (topic,) = answer["responses"]
        (found,) = topic["partitionResponses"]
        # Where a batch lands depends on what came before it, in other cases.
        return {k: v for k, v in found.items() if k not in ("baseOffset", "logStartOffset")} | {
            "baseOffset": min(found["baseOffset"], 0)
        }

    def one(case: str, data: bytes | None, topic: str = "p-log", **more: Any) -> None:
        p.each("PRODUCE", case, lambda v: p.produced(topic, data, **more), pick=partition)

    two = values(2)
    one("one batch", batch(two))
    one("acks=1", batch(two), acks=1)
    one("acks=2", batch(two), acks=2)
    one("acks=-2", batch(two), acks=-2)
    one("partition that is not there", batch(two), partition=99)
    one("negative partition", batch(two), partition=-1)
    p.each(
        "PRODUCE",
        "topic that is not there",
        lambda v: p.produced("p-nowhere", batch(two)),
    )
    p.each(
        "PRODUCE",
        "topic without a name",
        lambda v: {
            "acks": -1,
            "topicData": [
                {
                    "name": "",
                    "topicId": ZERO_ID,
                    "partitionData": [{"index": 0, "records": text(batch(two))}],
                }
            ],
        },
    )
    p.each("PRODUCE", "no topics", {"acks": -1, "timeoutMs": 1000, "topicData": []})
    p.each(
        "PRODUCE",
        "no partitions",
        {
            "acks": -1,
            "topicData": [{"name": "p-log", "topicId": p.ids["p-log"], "partitionData": []}],
        },
    )
    p.each(
        "PRODUCE",
        "topic named twice",
        lambda v: {
            "acks": -1,
            "topicData": [
                p.produced("p-log", batch(two), partition=n)["topicData"][0] for n in (0, 1)
            ],
        },
        pick=lambda a: sorted(
            (t.get("name", ""), q["index"], p.error(q["errorCode"]))
            for t in a["responses"]
            for q in t["partitionResponses"]
        ),
    )
    p.each(
        "PRODUCE",
        "one partition good, one not there",
        lambda v: {
            "acks": -1,
            "topicData": [
                {
                    "name": "p-log",
                    "topicId": p.ids["p-log"],
                    "partitionData": [{"index": n, "records": text(batch(two))} for n in (0, 7)],
                }
            ],
        },
        pick=lambda a: sorted(
            (q["index"], p.error(q["errorCode"]))
            for t in a["responses"]
            for q in t["partitionResponses"]
        ),
    )
    p.each(
        "PRODUCE",
        "same partition twice",
        lambda v: {
            "acks": -1,
            "topicData": [
                {
                    "name": "p-log",
                    "topicId": p.ids["p-log"],
                    "partitionData": [{"index": 0, "records": text(batch(two))}] * 2,
                }
            ],
        },
        pick=lambda a: sorted(
            (q["index"], p.error(q["errorCode"]))
            for t in a["responses"]
            for q in t["partitionResponses"]
        ),
    )
    for name in ("__consumer_offsets", "__transaction_state"):
        p.each("PRODUCE", f"to {name}", lambda v, n=name: p.produced(n, batch(two)), high=12)

    # Bytes that are no good batch.
    p.scenario(
        "PRODUCE",
        "records are null",
        lambda v: p.outcome("PRODUCE", v, p.produced("p-log", None), partition),
    )
    one("records are empty", b"")
    one("two batches in one partition", batch(two) + batch(two))
    one("wrong checksum", batch(two, crc=1))
    one("magic 0", message_set(0, b"k", b"v"))
    one("magic 1", message_set(1, b"k", b"v"))
    one("magic 3", batch(two, magic=3))
    one("half a batch", batch(two)[:40])
    one("half a batch with its head whole", batch(two)[:-5])
    one("bytes after the batch", batch(two) + b"\x00" * 7)
    one("length field too small", batch(two, length=10))
    one("length field negative", batch(two, length=-1))
    one("last offset delta too small", batch(values(3), last_delta=0))
    one("last offset delta too large", batch(values(3), last_delta=9))
    one("count too small", batch(values(3), count=1))
    one("count too large", batch(values(3), count=5, last_delta=4))
    one("count zero", batch(b"", count=0, last_delta=-1))
    one("count zero and delta zero", batch(b"", count=0, last_delta=0))
    one("count negative", batch(two, count=-1))
    one("control batch", batch([(struct.pack(">hh", 0, 1), b"\x00" * 6)], attributes=CONTROL))
    one("base offset of the client", batch(two, base_offset=42))
    one("base offset negative", batch(two, base_offset=-7))
    one("leader epoch of the client", batch(two, leader_epoch=42))
    one("unknown attribute bits", batch(two, attributes=0x100))
    for codec in (5, 6, 7):
        one(f"codec {codec}", batch(two, attributes=codec))
    one("gzip", batch(two, attributes=GZIP))
    one("gzip that is not", batch(b"\x1f\x8b nothing of the kind", count=1, attributes=GZIP))
    one("gzip with a wrong count", batch(values(3), attributes=GZIP, count=2, last_delta=1))
    one("gzip with a wrong delta", batch(values(3), attributes=GZIP, last_delta=9))
    for codec, name in ((SNAPPY, "snappy"), (LZ4, "lz4"), (ZSTD, "zstd")):
        one(f"{name} that is not", batch(b"nothing of the kind", count=1, attributes=codec))

    # Records inside.
    one("record length too long", batch(record(b"k", b"v", length=100), count=1))
    one("record length too short", batch(record(b"k", b"v", length=3), count=1))
    one("record length negative", batch(record(b"k", b"v", length=-2), count=1))
    one("offset deltas all zero", batch(record(b"k", b"v") * 3, count=3))
    one(
        "offset deltas descend",
        batch(b"".join(record(b"k", b"v", offset_delta=n) for n in (2, 1, 0)), count=3),
    )
    one("header without a name", batch(record(b"k", b"v", headers=[(None, b"x")]), count=1))
    one("header count negative", batch(record(b"k", b"v", headers_count=-1), count=1))
    one("header count too large", batch(record(b"k", b"v", headers_count=1000), count=1))
    one(
        "same header twice",
        batch(record(b"k", b"v", headers=[(b"h", b"1"), (b"h", None)]), count=1),
    )
    one("record attributes", batch(record(b"k", b"v", attributes=1), count=1))
    one("no key", batch([(None, b"v")]))
    one("no value", batch([(b"k", None)]))

    # Times.
    now = int(time.time() * 1000)
    one("time -1", batch(two, base_timestamp=-1, max_timestamp=-1))
    one("time negative", batch(two, base_timestamp=-5, max_timestamp=-5))
    one("time zero", batch(two, base_timestamp=0, max_timestamp=0))
    one("time two hours ahead", batch(two, base_timestamp=now + 2 * HOUR_MS))
    one("time half an hour ahead", batch(two, base_timestamp=now + HOUR_MS // 2))
    one("time too old for the topic", batch(two, base_timestamp=now - HOUR_MS), "p-strict-time")
    one("largest time wrong", batch(two, base_timestamp=now, max_timestamp=now + 5000))
    one("largest time before the first", batch(two, base_timestamp=now, max_timestamp=now - 5000))
    one("time type of the client", batch(two, attributes=LOG_APPEND_TIME))

    # Topics with settings.
    one("compacted topic", batch(two), "p-compacted")
    one(
        "compacted topic, no keys", batch([(None, b"a"), (b"k", b"b"), (None, b"c")]), "p-compacted"
    )
    one("compacted topic, gzip, no keys", batch([(None, b"a")], attributes=GZIP), "p-compacted")
    one("log append time", batch(two), "p-stamped")
    one(
        "log append time, time two hours ahead",
        batch(two, base_timestamp=now + 2 * HOUR_MS),
        "p-stamped",
    )
    one("larger than the topic takes", batch([(b"k", b"x" * 3000)]), "p-small")
    one("compression of the topic's own", batch(two), "p-gzip")

    # Idempotence.
    def played(steps: list[tuple[int, int, int]], count: int = 2) -> Any:
        """Sends batches with (epoch, sequence, count of records) by one producer to a new topic."""

        def play(version: int) -> Any:
            topic = p.create(f"p-idempotent-{hash(tuple(steps)) % 100_000}.v{version}")
            producer = p.ask("INIT_PRODUCER_ID", {"transactionTimeoutMs": 60_000})["producerId"]
            said = []
            for epoch, sequence, number in steps:
                data = batch(values(number), producer=(producer, epoch, sequence))
                with p.connect() as connection:
                    answer = connection.ask("PRODUCE", version, p.produced(topic, data))
                (found,) = answer["responses"][0]["partitionResponses"]
                said.append(
                    [p.error(found["errorCode"]), found["baseOffset"], found.get("logStartOffset")]
                )
            return said

        return play

    def idempotent(case: str, *steps: tuple[int, int, int]) -> None:
        p.scenario("PRODUCE", f"idempotent: {case}", played(list(steps)))

    idempotent("in order", (0, 0, 2), (0, 2, 2), (0, 4, 1))
    idempotent(
        "duplicate gets the first offset", (0, 0, 2), (0, 2, 2), (0, 0, 2), (0, 2, 2), (0, 4, 1)
    )
    idempotent("duplicate of the sixth last", *[(0, n, 1) for n in range(7)], (0, 0, 1), (0, 2, 1))
    idempotent("gap", (0, 0, 2), (0, 5, 1), (0, 2, 1))
    idempotent("part of a batch again", (0, 0, 4), (0, 2, 2))
    idempotent("begins in the middle", (0, 5, 1), (0, 6, 1), (0, 0, 1))
    idempotent("negative sequence", (0, -1, 1))
    idempotent("epoch raised", (0, 0, 2), (1, 0, 2), (0, 2, 1), (1, 2, 1))
    idempotent("epoch raised, sequence not from zero", (0, 0, 2), (1, 2, 2))
    idempotent("sequence wraps", (0, 2147483646, 2), (0, 0, 1), (0, 1, 1))
    idempotent("same sequence, other count", (0, 0, 2), (0, 0, 3))
    one("idempotent: producer id of nobody", batch(two, producer=(987_654_321, 0, 0)))
    one("idempotent: negative epoch", batch(two, producer=(5, -1, 0)))
    one(
        "transactional batch without a transaction",
        batch(two, producer=(5, 0, 0), attributes=TRANSACTIONAL),
    )
    one("transactional batch without a producer", batch(two, attributes=TRANSACTIONAL))
    p.each(
        "PRODUCE",
        "transactional id of nobody",
        lambda v: {
            "transactionalId": "nobody",
            **p.produced("p-log", batch(two, producer=(5, 0, 0), attributes=TRANSACTIONAL)),
        },
        pick=partition,
    )

    def unanswered(version: int) -> Any:
        """Nothing comes for acks=0: the first answer on the connection is that of the next request."""
        topic = p.create(f"p-acks0.v{version}")
        said = []
        for data in (batch(values(2)), batch(values(2), crc=1)):
            with p.connect() as connection:
                connection.send("PRODUCE", version, p.produced(topic, data, acks=0))
                try:
                    answer = connection.ask("API_VERSIONS", 0, {})
                    said.append("WRONG CORRELATION" not in answer)
                except Exception as error:
                    said.append(type(error).__name__)
        return {"the next request is answered, after a good and a bad batch": said}

    p.scenario("PRODUCE", "acks=0", unanswered)

    for version in (0, 1, 2):
        p.say("PRODUCE: before version 3", old_produce(p, version), version)
    stored(p)


def old_produce(p: Probe, version: int) -> Any:
    """Versions that are advertised only to keep old librdkafka compressing."""
    records = message_set(min(version, 1), b"k", b"v")
    body = struct.pack(">hii", -1, 1000, 1) + struct.pack(">h", 5) + b"p-log" + struct.pack(">i", 1)
    body += struct.pack(">ii", 0, len(records)) + records
    with p.connect() as connection:
        connection.limit(5)
        connection.send_frame(struct.pack(">hhih", 0, version, 1, -1) + body)
        try:
            return {"answer": connection.receive_frame()[4:].hex()}
        except Exception as error:
            return type(error).__name__


def stored(p: Probe) -> None:
    """What is read back of batches that came with something of their own."""
    now = int(time.time() * 1000)
    number = p.ask("INIT_PRODUCER_ID", {"transactionTimeoutMs": 60_000})["producerId"]
    for name, data, configs in (
        ("as sent", batch(values(2), base_timestamp=now), {}),
        ("base offset and epoch of the client", batch(values(2), base_offset=42, leader_epoch=9), {}),
        ("largest time wrong", batch(values(2), base_timestamp=1_600_000_000_000, max_timestamp=1_600_000_009_000), {}),
        ("log append time", batch(values(2), base_timestamp=5, max_timestamp=5), {"message_timestamp_type": "LogAppendTime"}),
        ("log append time, gzip", batch(values(2), base_timestamp=5, max_timestamp=5, attributes=GZIP), {"message_timestamp_type": "LogAppendTime"}),
        ("gzip where the topic wants none", batch(values(2), attributes=GZIP), {"compression_type": "uncompressed"}),
        ("none where the topic wants gzip", batch(values(2)), {"compression_type": "gzip"}),
        ("idempotent", batch(values(2), producer=(number, 0, 0)), {}),
    ):  # fmt: skip
        topic = p.create("p-stored-" + name.replace(" ", "-").replace(",", ""), **configs)
        p.produce(topic, batch(values(1)))
        (said,) = p.ask("PRODUCE", p.produced(topic, data), 9)["responses"][0]["partitionResponses"]
        if said["errorCode"]:
            p.say(f"FETCH: stored, {name}", p.error(said["errorCode"]))
            continue
        answer = p.ask("FETCH", fetch_body(p, topic, 0), 12)
        p.say(
            f"FETCH: stored, {name}",
            p.plain(answer["responses"][0]["partitions"][0]["records"], "records"),
        )


def fetch_body(p: Probe, topic: str, offset: int, **more: Any) -> Body:
    partition: Body = {"partition": 0, "fetchOffset": offset, "partitionMaxBytes": 1 << 20}
    whole: Body = {
        "replicaId": -1,
        "maxWaitMs": 50,
        "minBytes": 1,
        "maxBytes": 1 << 22,
        "sessionEpoch": -1,
    }
    for key, value in more.items():
        (
            whole
            if key
            in (
                "maxWaitMs",
                "minBytes",
                "maxBytes",
                "isolationLevel",
                "sessionId",
                "sessionEpoch",
                "replicaId",
                "replicaState",
            )
            else partition
        )[key] = value
    whole["topics"] = [
        {"topic": topic, "topicId": p.ids.get(topic, UNKNOWN_ID), "partitions": [partition]}
    ]
    return whole


def fetch(p: Probe) -> None:
    p.filled("p-filled")
    p.create("p-empty")

    def one(
        case: str,
        offset: int = 0,
        topic: str = "p-filled",
        low: int = 0,
        high: int = 99,
        **more: Any,
    ) -> None:
        p.each("FETCH", case, lambda v: fetch_body(p, topic, offset, **more), low=low, high=high)

    one("from the beginning")
    one("from the middle of a batch", 4)
    one("from the last record", 9)
    one("at the end", 10)
    one("beyond the end", 11)
    one("negative offset", -1)
    one("empty topic", 0, "p-empty")
    one("empty topic, beyond", 1, "p-empty")
    one("topic that is not there", 0, "p-nowhere")
    one("partition that is not there", 0, partition=7)
    one("negative partition", 0, partition=-1)
    one("one byte a partition", 0, partitionMaxBytes=1)
    one("zero bytes a partition", 0, partitionMaxBytes=0)
    one("one byte in all", 0, maxBytes=1)
    one("zero bytes in all", 0, maxBytes=0)
    one("bytes for a batch and a half", 0, partitionMaxBytes=150)
    one("more than there is, waits and gives what there is", 8, minBytes=1 << 20)
    one("committed only", 0, isolationLevel=1)
    one("isolation level 7", 0, isolationLevel=7)
    one("epoch newer than the leader's", 0, low=9, currentLeaderEpoch=p.epoch + 7)
    one("epoch -1", 0, low=9, currentLeaderEpoch=-1)
    one("last fetched epoch newer", 5, low=12, lastFetchedEpoch=p.epoch + 7)
    one("last fetched epoch right", 5, low=12, lastFetchedEpoch=p.epoch)
    one("last fetched epoch, beyond the end", 50, low=12, lastFetchedEpoch=p.epoch)
    one("as a replica", 0, high=14, replicaId=5)
    one("as a replica by state", 0, low=15, replicaState={"replicaId": 5, "replicaEpoch": 1})
    one("as a consumer that debugs", 0, high=14, replicaId=-2)
    p.each(
        "FETCH",
        "no topics, no session",
        {"maxWaitMs": 1, "minBytes": 0, "maxBytes": 1000, "sessionEpoch": -1},
    )
    p.each(
        "FETCH",
        "same partition twice",
        lambda v: {
            **(body := fetch_body(p, "p-filled", 0)),
            "topics": [{**body["topics"][0], "partitions": body["topics"][0]["partitions"] * 2}],
        },
    )
    p.each(
        "FETCH",
        "zero topic id",
        lambda v: {
            **(b := fetch_body(p, "p-filled", 0)),
            "topics": [{**b["topics"][0], "topicId": ZERO_ID}],
        },
        low=13,
    )

    def waited(version: int) -> Any:
        began = time.monotonic()
        with p.connect() as connection:
            connection.ask("FETCH", version, fetch_body(p, "p-empty", 0, maxWaitMs=700))
        took = time.monotonic() - began
        return "waits" if 0.65 <= took <= 3 else f"{took:.1f} s"

    p.scenario("FETCH", "waits for maxWaitMs when there is nothing", waited)

    def woken(version: int) -> Any:
        topic = p.create(f"p-woken.v{version}")
        with p.connect() as connection:
            sent = connection.send("FETCH", version, fetch_body(p, topic, 0, maxWaitMs=15_000))
            began = time.monotonic()
            p.produce(topic, batch(values(1)))
            answer = p.plain(connection.answer("FETCH", version, sent))
            # News of a topic that has just been made may end the first wait with nothing.
            while (
                not answer["responses"][0]["partitions"][0]["records"]["batches"]
                and time.monotonic() - began < 5
            ):
                answer = p.plain(connection.ask("FETCH", version, fetch_body(p, topic, 0)))
        return {"woken": time.monotonic() - began < 5}

    p.scenario("FETCH", "is woken by a record", woken)
    p.scenario("FETCH", "deleted topic by its id", lambda v: deleted(p, v), low=13)
    p.scenario("FETCH", "sessions", lambda v: sessions(p, v), low=7)
    p.scenario("FETCH", "topic deleted under a session", lambda v: deleted_in_session(p, v), low=7)


def deleted(p: Probe, version: int) -> Any:
    """An id stays with its topic: one made again under the same name is another."""
    name = p.create(f"p-recreated.v{version}")
    old = p.ids[name]
    p.ask("DELETE_TOPICS", {"topics": [{"name": name}], "timeoutMs": 10_000})
    p.create(name)
    body = fetch_body(p, name, 0)
    body["topics"][0]["topicId"] = old
    answer = p.outcome("FETCH", version, body)
    p.names.pop(old, None)
    return answer


def deleted_in_session(p: Probe, version: int) -> Any:
    topic = p.filled(f"p-gone.v{version}", (1,))
    said = []
    with p.connect() as connection:
        first = connection.ask(
            "FETCH", version, fetch_body(p, topic, 0, sessionId=0, sessionEpoch=0)
        )
        said.append(p.plain(first))
        p.ask("DELETE_TOPICS", {"topics": [{"name": topic}], "timeoutMs": 10_000})
        more = {
            "maxWaitMs": 50,
            "minBytes": 1,
            "maxBytes": 1 << 20,
            "sessionId": first["sessionId"],
            "sessionEpoch": 1,
        }
        said.append(p.plain(connection.ask("FETCH", version, more)))
    return said


def sessions(p: Probe, version: int) -> Any:
    topic, empty = p.filled(f"p-session.v{version}", (2,)), p.create(f"p-session-empty.v{version}")
    both = [fetch_body(p, t, 0)["topics"][0] for t in (topic, empty)]
    base = {"replicaId": -1, "maxWaitMs": 50, "minBytes": 1, "maxBytes": 1 << 20}
    said: dict[str, Any] = {}
    with p.connect() as connection:

        def ask(name: str, **more: Any) -> Body:
            answer = connection.ask("FETCH", version, {**base, **more})
            said[name] = p.plain(answer)
            return answer

        number = ask("1 opened", sessionId=0, sessionEpoch=0, topics=both)["sessionId"]
        at_end = fetch_body(p, topic, 2)["topics"]
        ask("2 on, one moved to its end", sessionId=number, sessionEpoch=1, topics=at_end)
        ask("3 nothing changed", sessionId=number, sessionEpoch=2, topics=[])
        p.produce(empty, batch(values(1), base_timestamp=1_700_000_000_000))
        ask("4 one has a record", sessionId=number, sessionEpoch=3, topics=[])
        forgotten = [{"topic": empty, "topicId": p.ids[empty], "partitions": [0]}]
        ask(
            "5 that one forgotten",
            sessionId=number,
            sessionEpoch=4,
            topics=[],
            forgottenTopicsData=forgotten,
        )
        ask("6 wrong epoch", sessionId=number, sessionEpoch=9, topics=[])
        ask("7 right epoch after a wrong one", sessionId=number, sessionEpoch=5, topics=[])
        ask("8 unknown session", sessionId=number + 12345, sessionEpoch=1, topics=[])
        beyond = fetch_body(p, topic, 99)["topics"]
        ask("9 beyond the end", sessionId=number, sessionEpoch=6, topics=beyond)
        ask("a still beyond", sessionId=number, sessionEpoch=7, topics=[])
        unknown = fetch_body(p, "p-nowhere", 0)["topics"]
        ask("b a topic that is not there", sessionId=number, sessionEpoch=8, topics=unknown)
        ask("c still not there", sessionId=number, sessionEpoch=9, topics=[])
        ask("d session begun anew", sessionId=number, sessionEpoch=0, topics=both)
        ask("e the old one", sessionId=number, sessionEpoch=10, topics=[])
        ask("f closed", sessionId=number, sessionEpoch=-1, topics=[])
        ask("g no session, epoch 5", sessionId=0, sessionEpoch=5, topics=both)
    return said


def offsets(p: Probe) -> None:
    p.filled("p-times")
    p.create("p-times-empty")
    tied = p.create("p-times-tied")
    p.produce(tied, *[batch(values(2), base_timestamp=1_700_000_000_000) for _ in range(3)])
    back = p.create("p-times-back")
    for stamp in (1_700_000_005_000, 1_700_000_001_000, 1_700_000_003_000):
        p.produce(back, batch(values(1), base_timestamp=stamp))
    cut = p.filled("p-times-cut")
    p.ask(
        "DELETE_RECORDS",
        {
            "topics": [{"name": cut, "partitions": [{"partitionIndex": 0, "offset": 4}]}],
            "timeoutMs": 5000,
        },
    )

    def body(topic: str, stamp: int, partition: int = 0, **more: Any) -> Body:
        one = {
            "partitionIndex": partition,
            "timestamp": stamp,
            **{k: v for k, v in more.items() if k == "currentLeaderEpoch"},
        }
        rest = {k: v for k, v in more.items() if k != "currentLeaderEpoch"}
        return {"replicaId": -1, "topics": [{"name": topic, "partitions": [one]}], **rest}

    specs = {
        "earliest": -2, "latest": -1, "largest time": -3, "earliest local": -4,
        "latest tiered": -5, "earliest pending upload": -6, "-7": -7, "-100": -100,
    }  # fmt: skip
    topics = {
        "": "p-times",
        ", empty": "p-times-empty",
        ", beginning cut off": cut,
        ", times tied": tied,
        ", times go back": back,
    }
    for suffix, topic in topics.items():
        for name, stamp in specs.items():
            p.each("LIST_OFFSETS", name + suffix, lambda v, t=topic, s=stamp: body(t, s))
        for name, stamp in {
            "time of a record": 1_700_000_004_000,
            "time between records": 1_700_000_003_500,
            "time before all": 5,
            "time 0": 0,
            "time after all": 1_700_000_099_000,
        }.items():
            p.each("LIST_OFFSETS", name + suffix, lambda v, t=topic, s=stamp: body(t, s))
    for name, stamp in (
        ("latest", -1),
        ("earliest", -2),
        ("largest time", -3),
        ("time", 1_700_000_001_000),
    ):
        p.each(
            "LIST_OFFSETS",
            f"{name}, committed only",
            lambda v, s=stamp: body("p-times", s, isolationLevel=1),
            low=2,
        )
        p.each(
            "LIST_OFFSETS",
            f"{name}, epoch newer",
            lambda v, s=stamp: body("p-times", s, currentLeaderEpoch=p.epoch + 7),
            low=4,
        )
    p.each("LIST_OFFSETS", "topic that is not there", body("p-nowhere", -1))
    p.each("LIST_OFFSETS", "topic name not valid", body("not a name!", -1))
    p.each("LIST_OFFSETS", "partition that is not there", body("p-times", -1, 7))
    p.each("LIST_OFFSETS", "negative partition", body("p-times", -1, -1))
    p.each("LIST_OFFSETS", "no topics", {"replicaId": -1, "topics": []})
    p.each(
        "LIST_OFFSETS",
        "no partitions",
        {"replicaId": -1, "topics": [{"name": "p-times", "partitions": []}]},
    )
    p.each("LIST_OFFSETS", "as a replica", body("p-times", -1, replicaId=5))
    p.each("LIST_OFFSETS", "as a consumer that debugs", body("p-times", -1, replicaId=-2))
    p.each("LIST_OFFSETS", "isolation level 7", body("p-times", -1, isolationLevel=7), low=2)
    p.each(
        "LIST_OFFSETS",
        "same partition twice",
        {
            "replicaId": -1,
            "topics": [
                {
                    "name": "p-times",
                    "partitions": [{"partitionIndex": 0, "timestamp": t} for t in (-1, -2)],
                }
            ],
        },
    )
    p.each(
        "LIST_OFFSETS",
        "topic named twice",
        {
            "replicaId": -1,
            "topics": [
                {"name": "p-times", "partitions": [{"partitionIndex": 0, "timestamp": t}]}
                for t in (-1, -2)
            ],
        },
    )


def epochs(p: Probe) -> None:
    p.filled("p-epochs")

    def body(
        topic: str, epoch: int, partition: int = 0, current: int = -1, replica: int = -1
    ) -> Body:
        one = {"partition": partition, "leaderEpoch": epoch, "currentLeaderEpoch": current}
        return {"replicaId": replica, "topics": [{"topic": topic, "partitions": [one]}]}

    api = "OFFSET_FOR_LEADER_EPOCH"
    p.each(api, "the only epoch", body("p-epochs", p.epoch))
    p.each(api, "a later epoch", body("p-epochs", p.epoch + 7))
    p.each(api, "no epoch", body("p-epochs", -1))
    p.each(api, "negative epoch", body("p-epochs", -5))
    p.each(api, "current epoch right", body("p-epochs", p.epoch, current=p.epoch))
    p.each(api, "current epoch newer", body("p-epochs", p.epoch, current=p.epoch + 7))
    p.each(api, "topic that is not there", body("p-nowhere", 0))
    p.each(api, "partition that is not there", body("p-epochs", p.epoch, 7))
    p.each(api, "as a replica", body("p-epochs", p.epoch, replica=5))
    p.each(api, "no topics", {"topics": []})


def records_deleted(p: Probe) -> None:
    api = "DELETE_RECORDS"

    def played(offset: int, before: int | None = None, **configs: str) -> Any:
        def play(version: int) -> Any:
            topic = p.filled(
                f"p-cut-{offset}-{before}-{'-'.join(configs.values()).replace(',', '-')}.v{version}",
                **configs,
            )
            if before is not None:
                p.ask(api, body(topic, before))
            answer = p.outcome(api, version, body(topic, offset))
            ends = [
                p.ask(
                    "LIST_OFFSETS",
                    {
                        "replicaId": -1,
                        "topics": [
                            {"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": t}]}
                        ],
                    },
                )
                for t in (-2, -1)
            ]
            found = [e["topics"][0]["partitions"][0]["offset"] for e in ends]
            first = p.plain(p.ask("FETCH", fetch_body(p, topic, 0), 12))["responses"][0][
                "partitions"
            ][0]
            return {
                "answer": answer,
                "offsets": found,
                "fetch at 0": [first["errorCode"], first["logStartOffset"]],
            }

        return play

    def body(topic: str, offset: int, partition: int = 0) -> Body:
        return {
            "topics": [
                {"name": topic, "partitions": [{"partitionIndex": partition, "offset": offset}]}
            ],
            "timeoutMs": 5000,
        }

    p.scenario(api, "in the middle of a batch", played(4))
    p.scenario(api, "at the beginning", played(0))
    p.scenario(api, "all by -1", played(-1))
    p.scenario(api, "all by offset", played(10))
    p.scenario(api, "beyond the end", played(11))
    p.scenario(api, "-2", played(-2))
    p.scenario(api, "again, further back", played(2, 5))
    p.scenario(api, "compacted topic", played(4, cleanup_policy="compact"))
    p.scenario(api, "compacted and deleted topic", played(4, cleanup_policy="compact,delete"))
    p.create("p-cut-none")
    p.each(api, "topic that is not there", body("p-nowhere", 0))
    p.each(api, "partition that is not there", body("p-cut-none", 0, 9))
    p.each(api, "internal topic", body("__consumer_offsets", 0))
    p.each(api, "no topics", {"topics": [], "timeoutMs": 1000})
    p.each(
        api,
        "same partition twice",
        {
            "topics": [
                {"name": "p-cut-none", "partitions": [{"partitionIndex": 0, "offset": 0}] * 2}
            ],
            "timeoutMs": 1000,
        },
    )


CASES = {
    "produce": produce,
    "fetch": fetch,
    "offsets": offsets,
    "epochs": epochs,
    "deleterecords": records_deleted,
}
