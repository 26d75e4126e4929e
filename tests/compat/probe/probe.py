"""The probe: one question in every version that both sides have, and answers made comparable.

Owns versions, topics for the cases, and the normalisation of answers. It does not know any case.
"""

from __future__ import annotations

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from batches import batch, summary, text, values  # noqa: E402
from steps import BOOTSTRAP, client, report, until  # noqa: E402
from wire import Body, Closed, Codec, Connection, Silent  # noqa: E402

ZERO_ID = "AAAAAAAAAAAAAAAAAAAAAA"
UNKNOWN_ID = "AAAAAAAAAAAAAAAAAAAAKg"
#: Passing states of a coordinator that has just been made; a client asks again, and so does the probe.
PASSING = ("COORDINATOR_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS", "NOT_COORDINATOR")
COORDINATOR_WITHIN_S = 30
#: What differs between any two brokers, and says nothing.
DROPPED = {"throttleTimeMs", "clusterId", "host", "port", "authBytes"}
OPAQUE = {"memberId", "leader", "sessionId", "logDir", "subscriptionId", "clientInstanceId"}
POSITIVE = {"producerId", "currentProducerId", "partitionSize", "totalBytes", "usableBytes", "size"}

Bodies = Body | Callable[[int], Body]


class Probe:
    """What the cases ask with."""

    def __init__(self) -> None:
        self.codec = Codec()
        self.ids: dict[str, str] = {}
        self.names: dict[str, str] = {}
        #: What a fresh topic's leader epoch is: 0 for Kafka, but any number will do.
        self.epoch = 0
        with self.connect() as connection:
            answer = connection.ask("API_VERSIONS", 0, {})
        self.advertised = {
            a["apiKey"]: (a["minVersion"], a["maxVersion"]) for a in answer["apiKeys"]
        }
        client("raw probe", "kafka-clients codec")

    def connect(self, client_id: str | None = "probe") -> Connection:
        return Connection(self.codec, BOOTSTRAP, client_id)

    def has(self, api: str) -> bool:
        return self.codec.apis[api]["key"] in self.advertised

    def versions(self, api: str, low: int = 0, high: int = 99) -> list[int]:
        """The versions that this codec and the broker both have."""
        known = self.codec.apis[api]
        if not self.has(api):
            return []
        least, most = self.advertised[known["key"]]
        return list(range(max(low, least, known["min"]), min(high, most, known["max"]) + 1))

    def newest(self, api: str) -> int:
        return self.versions(api)[-1]

    # Asking.

    def each(
        self,
        api: str,
        case: str,
        bodies: Bodies,
        *,
        low: int = 0,
        high: int = 99,
        pick: Callable[[Body], Any] | None = None,
        client_id: str | None = "probe",
    ) -> None:
        """One step per version: the answer to one request on a connection of its own."""
        for version in self.versions(api, low, high):
            body = bodies(version) if callable(bodies) else bodies
            self.say(f"{api}: {case}", self.outcome(api, version, body, pick, client_id), version)

    def say(self, step: str, outcome: Any, version: int | None = None) -> None:
        """Reports an outcome; names made for one version look alike in all of them."""
        plain = json.loads(re.sub(r"\.v\d+", ".v*", json.dumps(outcome)))
        report(step, plain, version)

    def scenario(
        self, api: str, case: str, play: Callable[[int], Any], low: int = 0, high: int = 99
    ) -> None:
        """A longer exchange in every version; they run side by side, because groups have to wait."""

        def played(version: int) -> Any:
            try:
                return play(version)
            except Closed:
                return "connection closed"
            except Silent:
                return "no answer"
            except Exception as error:
                # What a scenario did not expect is an outcome, too; the other cases go on.
                traceback.print_exc(file=sys.stderr)
                return f"unexpected: {type(error).__name__}"

        versions = self.versions(api, low, high)
        with ThreadPoolExecutor(max(1, len(versions))) as pool:
            for version, outcome in zip(versions, pool.map(played, versions), strict=True):
                self.say(f"{api}: {case}", outcome, version)

    def outcome(
        self,
        api: str,
        version: int,
        body: Body,
        pick: Callable[[Body], Any] | None = None,
        client_id: str | None = "probe",
    ) -> Any:
        """The answer, made comparable; asked again while the coordinator is being made."""
        deadline = time.monotonic() + COORDINATOR_WITHIN_S
        while True:
            try:
                with self.connect(client_id) as connection:
                    answer = connection.ask(api, version, body)
            except Closed:
                return "connection closed"
            except Silent:
                return "no answer"
            except ValueError as error:
                return f"codec: {str(error)[:300]}"
            found = self.plain(pick(answer) if pick else answer)
            if (
                not any(name in json.dumps(found) for name in PASSING)
                or time.monotonic() > deadline
            ):
                return found
            time.sleep(0.1)

    def ask(self, api: str, body: Body, version: int | None = None) -> Body:
        """The answer as it is, in the newest version, for preparations."""
        with self.connect() as connection:
            return connection.ask(api, self.newest(api) if version is None else version, body)

    # Preparing.

    def create(self, name: str, partitions: int = 1, **configs: str) -> str:
        """Makes a topic, waits until it has leaders, and returns its name.

        It keeps everything unless told otherwise: many records here are dated years ago.
        """
        configs = {"retention_ms": "-1", **configs}
        settings = [{"name": k.replace("_", "."), "value": v} for k, v in configs.items()]
        topic = {
            "name": name,
            "numPartitions": partitions,
            "replicationFactor": 1,
            "configs": settings,
        }
        answer = self.ask("CREATE_TOPICS", {"topics": [topic], "timeoutMs": 20_000})
        assert answer["topics"][0]["errorCode"] == 0, answer
        until(lambda: self._led(name, partitions), within_s=20, what=f"leaders of {name}")
        return name

    def _led(self, name: str, partitions: int) -> bool:
        (found,) = self.ask("METADATA", {"topics": [{"name": name}]}, 12)["topics"]
        if found["errorCode"] == 0:
            self.ids[name] = found["topicId"]
            self.names[found["topicId"]] = name
        self.epoch = max((p["leaderEpoch"] for p in found["partitions"]), default=self.epoch)
        leaders = [p["leaderId"] for p in found["partitions"] if p["errorCode"] == 0]
        if found["errorCode"] != 0 or len([n for n in leaders if n >= 0]) != partitions:
            return False
        asked = [{"partitionIndex": n, "timestamp": -1} for n in range(partitions)]
        ends = self.ask(
            "LIST_OFFSETS", {"replicaId": -1, "topics": [{"name": name, "partitions": asked}]}, 5
        )
        return all(p["errorCode"] == 0 for p in ends["topics"][0]["partitions"])

    def produce(self, topic: str, *batches: bytes, partition: int = 0) -> None:
        """Appends batches, each with a request of its own."""
        for data in batches:
            answer = self.ask("PRODUCE", self.produced(topic, data, partition=partition), 9)
            (found,) = answer["responses"][0]["partitionResponses"]
            assert found["errorCode"] == 0, self.plain(answer)

    def filled(self, name: str, counts: Iterable[int] = (3, 3, 4), **configs: str) -> str:
        """A topic of one partition with batches of so many records, from 2023 on, a second apart."""
        self.create(name, **configs)
        first = 0
        for count in counts:
            stamp = 1_700_000_000_000 + first * 1000
            records = b"".join(record_at(n, first + n) for n in range(count))
            self.produce(
                name,
                batch(
                    records,
                    count=count,
                    base_timestamp=stamp,
                    max_timestamp=stamp + (count - 1) * 1000,
                ),
            )
            first += count
        return name

    def produced(
        self, topic: str, data: bytes | None, *, partition: int = 0, acks: int = -1
    ) -> Body:
        """The body of a Produce request, by name and by id."""
        records = None if data is None else text(data)
        where = {"name": topic, "topicId": self.ids.get(topic, UNKNOWN_ID)}
        part = {"index": partition, "records": records}
        return {
            "acks": acks,
            "timeoutMs": 10_000,
            "topicData": [{**where, "partitionData": [part]}],
        }

    def coordinators(self) -> None:
        """Waits until groups and transactions are served: Kafka makes their topics when asked first."""
        kinds = [(0, "groups"), *([(1, "transactions")] if self.has("END_TXN") else [])]
        for kind, what in kinds:
            asked = {"keyType": kind, "coordinatorKeys": ["warm"], "key": "warm"}
            until(
                lambda asked=asked: self.found_coordinator(asked),
                within_s=COORDINATOR_WITHIN_S,
                what=f"a coordinator of {what}",
            )

    def found_coordinator(self, asked: Body) -> bool:
        answer = self.ask("FIND_COORDINATOR", asked)
        return all(c["errorCode"] in (0, 42) for c in answer.get("coordinators", []))

    # Making comparable.

    def error(self, code: int) -> str:
        return self.codec.errors.get(code, str(code))

    def plain(self, answer: Any, key: str = "") -> Any:
        if isinstance(answer, dict):
            return {k: self.plain(v, k) for k, v in answer.items() if k not in DROPPED}
        if isinstance(answer, list):
            items = [self.plain(v, key) for v in answer]
            return sorted(items, key=json.dumps) if items and isinstance(items[0], dict) else items
        if key.endswith("rrorCode"):
            return self.error(answer)
        if key.endswith("rrorMessage") or key == "documentation":
            return "text" if answer else answer
        if key == "records" and not isinstance(answer, list):
            return self.plain(summary(answer))
        if key.lower().replace("_", "") in ("leaderepoch", "committedleaderepoch") and answer >= 0:
            return "current" if answer == self.epoch else f"current{answer - self.epoch:+}"
        if key == "abortedTransactions" and answer is None:
            return []  # To a client nothing aborted and no list of what was aborted are the same.
        if key in ("topicId", "id") and isinstance(answer, str):
            known = {ZERO_ID: "zero", UNKNOWN_ID: "unknown", **self.names}
            return f"id:{known.get(answer, 'other')}"
        if key in OPAQUE and isinstance(answer, str | int) and not isinstance(answer, bool):
            return "some" if answer else answer
        if key in POSITIVE and isinstance(answer, int):
            return "some" if answer > 0 else answer
        if isinstance(answer, int) and abs(answer - time.time() * 1000) < 600_000:
            return "now"
        return answer


def record_at(delta: int, number: int) -> bytes:
    from batches import record

    return record(
        f"k{number}".encode(),
        f"v{number}".encode(),
        offset_delta=delta,
        timestamp_delta=delta * 1000,
    )


__all__ = [
    "BOOTSTRAP",
    "UNKNOWN_ID",
    "ZERO_ID",
    "Body",
    "Closed",
    "Connection",
    "Probe",
    "Silent",
    "batch",
    "values",
]
