"""Cases of transactions: producer ids, partitions and offsets in a transaction, its end, its markers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from batches import TRANSACTIONAL, batch, values
from cases_log import fetch_body
from probe import Body, Probe

#: CONCURRENT_TRANSACTIONS, and a coordinator that is still loading.
PASSING = {14, 15, 16, 51}


class Transactional:
    """A producer with a transactional id, by hand."""

    def __init__(self, p: Probe, name: str, timeout_ms: int = 60_000) -> None:
        self.p, self.name = p, name
        answer = self.patient(
            "INIT_PRODUCER_ID",
            None,
            {
                "transactionalId": name,
                "transactionTimeoutMs": timeout_ms,
                "producerId": -1,
                "producerEpoch": -1,
            },
        )
        assert answer["errorCode"] == 0, p.plain(answer)
        self.id, self.epoch = answer["producerId"], answer["producerEpoch"]
        self.sequences: dict[tuple[str, int], int] = {}

    def patient(self, api: str, version: int | None, body: Body) -> Body:
        """Asks again while an earlier transaction is being ended, as clients do."""
        deadline = time.monotonic() + 20
        while True:
            answer = self.p.ask(api, body, version)
            if not PASSING & codes(answer) or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)

    def who(self, **more: Any) -> Body:
        return {
            "transactionalId": self.name,
            "producerId": self.id,
            "producerEpoch": self.epoch,
            **more,
        }

    def add(self, *places: tuple[str, int], version: int = 3, **more: Any) -> Any:
        topics: dict[str, list[int]] = {}
        for topic, partition in places:
            topics.setdefault(topic, []).append(partition)
        listed = [{"name": t, "partitions": n} for t, n in topics.items()]
        body = {
            "v3AndBelowTransactionalId": self.name,
            "v3AndBelowProducerId": self.id,
            "v3AndBelowProducerEpoch": self.epoch,
            "v3AndBelowTopics": listed,
            **more,
        }
        return self.p.plain(self.patient("ADD_PARTITIONS_TO_TXN", version, body))

    def send(
        self, topic: str, count: int = 2, version: int = 11, partition: int = 0, **more: Any
    ) -> Any:
        first = self.sequences.get((topic, partition), 0)
        producer = (
            more.pop("id", self.id),
            more.pop("epoch", self.epoch),
            more.pop("sequence", first),
        )
        data = batch(values(count), attributes=TRANSACTIONAL, producer=producer)
        body = {
            "transactionalId": self.name,
            **self.p.produced(topic, data, partition=partition),
            **more,
        }
        answer = self.p.ask("PRODUCE", body, version)
        (found,) = answer["responses"][0]["partitionResponses"]
        if found["errorCode"] == 0:
            self.sequences[(topic, partition)] = first + count
        return [self.p.error(found["errorCode"]), found["baseOffset"]]

    def end(self, committed: bool, version: int = 3, **more: Any) -> str:
        answer = self.patient("END_TXN", version, self.who(committed=committed, **more))
        if version >= 5 and answer["errorCode"] == 0 and answer.get("producerId", -1) >= 0:
            self.id, self.epoch = answer["producerId"], answer["producerEpoch"]
        return self.p.error(answer["errorCode"])


def codes(answer: Any) -> set[int]:
    if isinstance(answer, dict):
        found = {v for k, v in answer.items() if k == "errorCode"}
        return found.union(*(codes(v) for v in answer.values()))
    if isinstance(answer, list):
        return set().union(*(codes(v) for v in answer))
    return set()


def ends(p: Probe, topic: str) -> Any:
    """End of the log, and last stable offset."""

    def ask(level: int) -> int:
        body = {
            "replicaId": -1,
            "isolationLevel": level,
            "topics": [{"name": topic, "partitions": [{"partitionIndex": 0, "timestamp": -1}]}],
        }
        return int(p.ask("LIST_OFFSETS", body, 6)["topics"][0]["partitions"][0]["offset"])

    return {"end": ask(0), "stable": ask(1)}


def settled(p: Probe, topic: str) -> Any:
    """The ends, once the markers of what has been ended are written."""
    deadline = time.monotonic() + 10
    while (found := ends(p, topic))["end"] != found["stable"] and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def read(p: Probe, topic: str, level: int, version: int = 11) -> Any:
    answer = p.plain(p.ask("FETCH", fetch_body(p, topic, 0, isolationLevel=level), version))
    found = answer["responses"][0]["partitions"][0]
    shown = [
        [b["base"], b["count"], b["attributes"], b["producer"][1:]]
        for b in found["records"]["batches"]
    ]
    return {
        "batches": shown,
        "aborted": found["abortedTransactions"],
        "stable": found["lastStableOffset"],
    }


def producer_ids(p: Probe) -> None:
    api = "INIT_PRODUCER_ID"

    def body(**more: Any) -> Body:
        return {
            "transactionalId": None,
            "transactionTimeoutMs": 60_000,
            "producerId": -1,
            "producerEpoch": -1,
            **more,
        }

    p.each(api, "without a transactional id", body())
    p.each(api, "without, time-out zero", body(transactionTimeoutMs=0))
    p.each(api, "without, id and epoch given", body(producerId=5, producerEpoch=3), low=3)
    p.each(api, "without, id given and no epoch", body(producerId=5), low=3)
    p.each(api, "without, epoch given and no id", body(producerEpoch=5), low=3)
    p.each(api, "empty transactional id", body(transactionalId=""))
    if not p.has("END_TXN"):
        return
    p.each(api, "new transactional id", lambda v: body(transactionalId=f"p-new.v{v}"))
    p.each(
        api, "time-out zero", lambda v: body(transactionalId=f"p-zero.v{v}", transactionTimeoutMs=0)
    )
    p.each(
        api,
        "time-out negative",
        lambda v: body(transactionalId=f"p-neg.v{v}", transactionTimeoutMs=-1),
    )
    p.each(
        api,
        "time-out too long",
        lambda v: body(transactionalId=f"p-long.v{v}", transactionTimeoutMs=900_001),
    )
    p.each(
        api,
        "time-out as long as may be",
        lambda v: body(transactionalId=f"p-longest.v{v}", transactionTimeoutMs=900_000),
    )
    p.each(
        api,
        "id and epoch of nobody",
        lambda v: body(transactionalId=f"p-nobody.v{v}", producerId=99, producerEpoch=3),
        low=3,
    )

    def again(version: int) -> Any:
        name = f"p-again.v{version}"
        said = []
        first = p.ask(api, body(transactionalId=name), version)
        said.append(["first", p.plain(first)])
        second = p.ask(api, body(transactionalId=name), version)
        said.append(
            [
                "second",
                second["producerEpoch"] - first["producerEpoch"],
                second["producerId"] == first["producerId"],
            ]
        )
        if version >= 3:
            own = {"producerId": second["producerId"], "producerEpoch": second["producerEpoch"]}
            third = p.ask(api, body(transactionalId=name, **own), version)
            said.append(["raised by itself", third["producerEpoch"] - second["producerEpoch"]])
            retried = p.ask(api, body(transactionalId=name, **own), version)
            said.append(
                [
                    "the same asked again",
                    p.error(retried["errorCode"]),
                    retried["producerEpoch"] - third["producerEpoch"],
                ]
            )
            stale = p.ask(
                api,
                body(
                    transactionalId=name,
                    producerId=first["producerId"],
                    producerEpoch=first["producerEpoch"],
                ),
                version,
            )
            said.append(["by a stale one", p.error(stale["errorCode"])])
            other = p.ask(
                api,
                body(transactionalId=name, producerId=first["producerId"] + 77, producerEpoch=0),
                version,
            )
            said.append(["with another's id", p.error(other["errorCode"])])
        return said

    p.scenario(api, "transactional id again", again)


def lives(p: Probe) -> None:
    """Whole transactions, in every version of the call that the step names."""
    if not p.has("END_TXN"):
        return

    def life(
        name: str, play: Callable[[Transactional, str, int], Any], api: str, **limits: int
    ) -> None:
        def played(version: int) -> Any:
            topic = p.create(
                f"p-{api.lower()}-{name.replace(' ', '-').replace(',', '')}.v{version}"
            )
            return play(Transactional(p, f"tid-{topic}"), topic, version)

        p.scenario(api, name, played, **limits)

    def committed(t: Transactional, topic: str, v: int) -> Any:
        said: list[Any] = [t.add((topic, 0)), t.send(topic), t.send(topic)]
        said += [
            ends(p, topic),
            read(p, topic, 1),
            t.end(True, min(v, 4)),
            settled(p, topic),
            read(p, topic, 0),
            read(p, topic, 1),
        ]
        return said

    def aborted(t: Transactional, topic: str, v: int) -> Any:
        said: list[Any] = [
            t.add((topic, 0)),
            t.send(topic),
            t.end(False, min(v, 4)),
            settled(p, topic),
        ]
        said += [
            t.add((topic, 0)),
            t.send(topic, 1),
            t.end(True, min(v, 4)),
            settled(p, topic),
            read(p, topic, 0),
            read(p, topic, 1),
        ]
        return said

    life("committed", committed, "END_TXN", high=4)
    life("aborted, then committed", aborted, "END_TXN", high=4)
    life("not begun, committed", lambda t, topic, v: t.end(True, v), "END_TXN")
    life("not begun, aborted", lambda t, topic, v: t.end(False, v), "END_TXN")
    life(
        "committed twice",
        lambda t, topic, v: [t.add((topic, 0)), t.send(topic), t.end(True, v), t.end(True, v)],
        "END_TXN",
        high=4,
    )
    life(
        "committed, then aborted",
        lambda t, topic, v: [t.add((topic, 0)), t.send(topic), t.end(True, v), t.end(False, v)],
        "END_TXN",
        high=4,
    )
    life(
        "epoch too low",
        lambda t, topic, v: [t.add((topic, 0)), t.end(True, v, producerEpoch=t.epoch - 1)],
        "END_TXN",
    )
    life(
        "epoch too high",
        lambda t, topic, v: [t.add((topic, 0)), t.end(True, v, producerEpoch=t.epoch + 1)],
        "END_TXN",
    )
    life(
        "another's producer id",
        lambda t, topic, v: [t.add((topic, 0)), t.end(True, v, producerId=t.id + 77)],
        "END_TXN",
    )
    p.each(
        "END_TXN",
        "transactional id of nobody",
        {"transactionalId": "nobody", "producerId": 5, "producerEpoch": 0, "committed": True},
    )
    p.each(
        "END_TXN",
        "empty transactional id",
        {"transactionalId": "", "producerId": 5, "producerEpoch": 0, "committed": True},
    )

    def second(t: Transactional, topic: str, v: int) -> Any:
        """Transactions of version 2: a partition joins by being written to, and the epoch moves with the end."""
        before = t.epoch
        said: list[Any] = [
            t.send(topic, version=12),
            ends(p, topic),
            t.end(True, 5),
            t.epoch - before,
            settled(p, topic),
        ]
        t.sequences.clear()
        said += [
            t.send(topic, version=12),
            t.end(False, 5),
            t.epoch - before,
            settled(p, topic),
            read(p, topic, 0),
            read(p, topic, 1),
        ]
        return said

    life("version 2: committed, then aborted", second, "END_TXN", low=5)
    for version in (11, 12):
        api = f"PRODUCE in a transaction, v{version}"
        topic = p.create(f"p-unadded-{version}")
        Transactional(p, f"tid-unadded-{version}")
        t = Transactional(p, f"tid-unadded-{version}")  # Of the second epoch, so that there is a lower one.
        p.say(f"{api}: partition not added", t.send(topic, version=version))
        p.say(f"{api}: not transactional, with a transactional id", plain_by(t, topic, version))
        p.say(
            f"{api}: epoch too low",
            t.send(topic, version=version, epoch=t.epoch - 1),
        )
        p.say(f"{api}: epoch too high", t.send(topic, version=version, epoch=t.epoch + 3))
        p.say(
            f"{api}: sequence with a gap",
            [
                t.add((topic, 0)),
                t.send(topic, version=version),
                t.send(topic, version=version, sequence=9),
            ],
        )
        p.say(f"{api}: no transactional id", t.send(topic, version=version, transactionalId=None))
        p.say(f"{api}: ended", t.end(False))

    def added(t: Transactional, topic: str, v: int) -> Any:
        return [
            t.add((topic, 0), version=v),
            t.add((topic, 0), version=v),
            t.add((topic, 9), version=v),
            t.add(("p-nowhere", 0), version=v),
            t.add((topic, 0), ("p-nowhere", 0), version=v),
            t.add(version=v),
            t.add((topic, 0), version=v, v3AndBelowProducerEpoch=t.epoch + 1),
            t.add((topic, 0), version=v, v3AndBelowProducerEpoch=t.epoch - 1),
            t.add((topic, 0), version=v, v3AndBelowProducerId=t.id + 77),
            t.add((topic, 0), version=v, v3AndBelowTransactionalId="nobody"),
            t.add((topic, 0), version=v, v3AndBelowTransactionalId=""),
            t.end(False),
        ]

    life("right and wrong", added, "ADD_PARTITIONS_TO_TXN", high=3)

    def batched(t: Transactional, topic: str, v: int) -> Any:
        def ask(**more: Any) -> Any:
            one = t.who(
                **{"verifyOnly": False, "topics": [{"name": topic, "partitions": [0]}], **more}
            )
            return p.outcome("ADD_PARTITIONS_TO_TXN", v, {"transactions": [one]})

        return [ask(verifyOnly=True), ask(), ask(), ask(producerEpoch=t.epoch + 1), t.end(False)]

    life("in batches, as brokers ask", batched, "ADD_PARTITIONS_TO_TXN", low=4)
    fencing(p)
    offsets(p, life)
    markers(p)


def plain_by(t: Transactional, topic: str, version: int) -> Any:
    data = batch(values(1), producer=(t.id, t.epoch, 0))
    body = {"transactionalId": t.name, **t.p.produced(topic, data)}
    (found,) = t.p.ask("PRODUCE", body, version)["responses"][0]["partitionResponses"]
    return t.p.error(found["errorCode"])


def fencing(p: Probe) -> None:
    topic = p.create("p-fenced")
    old = Transactional(p, "tid-fenced")
    said: list[Any] = [old.add((topic, 0)), old.send(topic)]
    new = Transactional(p, "tid-fenced")
    said += ["new one", settled(p, topic)]
    said += [old.send(topic, version=v) for v in (9, 11, 12)]
    said += [old.add((topic, 0), version=v) for v in p.versions("ADD_PARTITIONS_TO_TXN", high=3)]
    said += [old.end(True, v) for v in p.versions("END_TXN")]
    said += [
        new.add((topic, 0)),
        new.send(topic),
        new.end(True),
        settled(p, topic),
        read(p, topic, 1),
    ]
    p.say("INIT_PRODUCER_ID: fences the older one, whose transaction is aborted", said)

    topic = p.create("p-timed-out")
    slow = Transactional(p, "tid-timed-out", 1500)
    said = [slow.add((topic, 0)), slow.send(topic), ends(p, topic)]
    deadline = time.monotonic() + 30
    while (found := ends(p, topic))["end"] != found["stable"] and time.monotonic() < deadline:
        time.sleep(0.2)
    said += [found, read(p, topic, 1), slow.send(topic), slow.end(True), slow.add((topic, 0))]
    p.say("END_TXN: after the transaction's time-out", said)

    topic = p.create("p-listed")
    t = Transactional(p, "tid-listed")
    t.add((topic, 0))
    t.send(topic)
    ours = lambda a: {
        **a,
        "transactionStates": [
            s for s in a["transactionStates"] if s["transactionalId"] == "tid-listed"
        ],
    }  # noqa: E731
    p.each("LIST_TRANSACTIONS", "all", {"durationFilter": -1}, pick=ours)
    p.each(
        "LIST_TRANSACTIONS",
        "ongoing",
        {"stateFilters": ["Ongoing"], "durationFilter": -1},
        pick=ours,
    )
    p.each(
        "LIST_TRANSACTIONS",
        "unknown state",
        {"stateFilters": ["Nonsense"], "durationFilter": -1},
        pick=ours,
    )
    p.each(
        "LIST_TRANSACTIONS",
        "producer id",
        {"producerIdFilters": [t.id], "durationFilter": -1},
        pick=ours,
    )
    p.each(
        "LIST_TRANSACTIONS",
        "of nobody",
        {"producerIdFilters": [t.id + 77], "durationFilter": -1},
        pick=ours,
    )
    p.each("LIST_TRANSACTIONS", "long ones", {"durationFilter": 600_000}, pick=ours, low=1)
    p.each(
        "LIST_TRANSACTIONS",
        "pattern",
        {"durationFilter": -1, "transactionalIdPattern": "tid-l.*"},
        pick=ours,
        low=2,
    )
    p.each(
        "LIST_TRANSACTIONS",
        "pattern that is none",
        {"durationFilter": -1, "transactionalIdPattern": "("},
        pick=ours,
        low=2,
    )
    described = lambda a: [
        {k: v for k, v in s.items() if k != "producerEpoch"} for s in a["transactionStates"]
    ]  # noqa: E731
    p.each("DESCRIBE_TRANSACTIONS", "ongoing", {"transactionalIds": ["tid-listed"]}, pick=described)
    p.each("DESCRIBE_TRANSACTIONS", "of nobody", {"transactionalIds": ["nobody"]})
    p.each("DESCRIBE_TRANSACTIONS", "none", {"transactionalIds": []})
    p.each("DESCRIBE_TRANSACTIONS", "no name", {"transactionalIds": [""]})
    p.each(
        "DESCRIBE_PRODUCERS",
        "in a transaction",
        {"topics": [{"name": topic, "partitionIndexes": [0]}]},
    )
    t.end(True)
    settled(p, topic)
    p.each(
        "DESCRIBE_TRANSACTIONS", "complete", {"transactionalIds": ["tid-listed"]}, pick=described
    )
    p.each(
        "DESCRIBE_PRODUCERS",
        "after a transaction",
        {"topics": [{"name": topic, "partitionIndexes": [0]}]},
    )
    p.each(
        "DESCRIBE_PRODUCERS",
        "topic that is not there",
        {"topics": [{"name": "p-nowhere", "partitionIndexes": [0]}]},
    )


def offsets(p: Probe, life: Callable[..., None]) -> None:
    p.create("p-source")

    def body(t: Transactional, group: str, **more: Any) -> Body:
        partition = {
            "partitionIndex": more.pop("partition", 0),
            "committedOffset": 7,
            "committedMetadata": "m",
        }
        topics = [{"name": more.pop("topic", "p-source"), "partitions": [partition]}]
        return t.who(groupId=group, generationId=-1, memberId="", topics=topics, **more)

    def committed_of(group: str, stable: bool = False) -> Any:
        asked = {
            "groups": [
                {"groupId": group, "topics": [{"name": "p-source", "partitionIndexes": [0]}]}
            ],
            "requireStable": stable,
        }
        answer = p.ask("OFFSET_FETCH", asked, 8)
        (found,) = answer["groups"][0]["topics"][0]["partitions"]
        return [p.error(found["errorCode"]), found["committedOffset"]]

    def whole(end: bool) -> Callable[[Transactional, str, int], Any]:
        def play(t: Transactional, topic: str, v: int) -> Any:
            group = f"group-{topic}"
            said: list[Any] = []
            if v < 5:
                said.append(
                    p.plain(t.patient("ADD_OFFSETS_TO_TXN", min(v, 4), t.who(groupId=group)))
                )
            said.append(p.plain(t.patient("TXN_OFFSET_COMMIT", v, body(t, group))))
            said += [committed_of(group), committed_of(group, True), t.end(end, 5 if v >= 5 else 3)]
            deadline = time.monotonic() + 10
            while (last := committed_of(group, True))[0] != "NONE" and time.monotonic() < deadline:
                time.sleep(0.05)
            return [*said, last, committed_of(group)]

        return play

    life("committed", whole(True), "TXN_OFFSET_COMMIT")
    life("aborted", whole(False), "TXN_OFFSET_COMMIT")

    def wrong(t: Transactional, topic: str, v: int) -> Any:
        group = f"group-{topic}"
        t.patient("ADD_OFFSETS_TO_TXN", 3, t.who(groupId=group))
        cases = {
            "generation of nobody": {"generationId": 5},
            "member of nobody": {"memberId": "m"},
            "instance of nobody": {"groupInstanceId": "i"},
            "epoch too low": {"producerEpoch": t.epoch - 1},
            "epoch too high": {"producerEpoch": t.epoch + 1},
            "another's producer id": {"producerId": t.id + 77},
            "transactional id of nobody": {"transactionalId": "nobody"},
            "topic that is not there": {"topic": "p-nowhere"},
            "partition that is not there": {"partition": 9},
            "no topics": {"topics": []},
        }
        said = {}
        for name, more in cases.items():
            asked = body(t, group, **{k: w for k, w in more.items() if k in ("topic", "partition")})
            asked |= {k: w for k, w in more.items() if k not in ("topic", "partition")}
            said[name] = p.outcome("TXN_OFFSET_COMMIT", v, asked)
        said["empty group"] = p.outcome("TXN_OFFSET_COMMIT", v, {**body(t, ""), "groupId": ""})
        said["end"] = t.end(False)
        return said

    life("wrong", wrong, "TXN_OFFSET_COMMIT")

    def added(t: Transactional, topic: str, v: int) -> Any:
        def ask(**more: Any) -> Any:
            return p.plain(
                t.patient("ADD_OFFSETS_TO_TXN", v, t.who(**{"groupId": f"g-{topic}", **more}))
            )["errorCode"]

        return [
            ask(), ask(), ask(groupId=""), ask(producerEpoch=t.epoch + 1), ask(producerEpoch=t.epoch - 1),
            ask(producerId=t.id + 77), ask(transactionalId="nobody"), ask(transactionalId=""), t.end(False),
        ]  # fmt: skip

    life("right and wrong", added, "ADD_OFFSETS_TO_TXN")

    def not_added(t: Transactional, topic: str, v: int) -> Any:
        return p.outcome("TXN_OFFSET_COMMIT", v, body(t, f"group-{topic}"))

    life("group not added", not_added, "TXN_OFFSET_COMMIT")


def markers(p: Probe) -> None:
    """What `kafka-transactions abort` sends to a partition whose coordinator has forgotten."""
    api = "WRITE_TXN_MARKERS"

    def body(t: Transactional, topic: str, **more: Any) -> Body:
        where = [{"name": topic, "partitionIndexes": [more.pop("partition", 0)]}]
        return {
            "markers": [
                {
                    "producerId": t.id,
                    "producerEpoch": t.epoch,
                    "transactionResult": False,
                    "topics": where,
                    "coordinatorEpoch": 0,
                    **more,
                }
            ]
        }

    def play(version: int) -> Any:
        topic = p.create(f"p-markers.v{version}")
        t = Transactional(p, f"tid-{topic}")
        said: list[Any] = [t.add((topic, 0)), t.send(topic), ends(p, topic)]
        said.append(p.plain(p.ask(api, body(t, topic, coordinatorEpoch=-1), version)))
        said += [settled(p, topic), read(p, topic, 0), read(p, topic, 1)]
        said.append(p.plain(p.ask(api, body(t, "p-nowhere"), version)))
        said.append(p.plain(p.ask(api, body(t, topic, partition=9), version)))
        said.append(p.plain(p.ask(api, {"markers": []}, version)))
        return said

    p.scenario(api, "aborts what hangs", play)


CASES = {"producerids": producer_ids, "transactions": lives}
