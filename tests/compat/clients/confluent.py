"""confluent-kafka (librdkafka): producers, transactions, groups, and everything its AdminClient offers."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import Any

import confluent_kafka
from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    ConsumerGroupTopicPartitions,
    ElectionType,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from steps import BOOTSTRAP, client, report, step, until

WITHIN_S = 30
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


def name_of(error: Exception) -> str:
    """A librdkafka error by its name; of another exception its type."""
    if isinstance(error, KafkaException) and isinstance(error.args[0], KafkaError):
        found: KafkaError = error.args[0]
        marks = [
            m
            for m, is_set in (("fatal", found.fatal()), ("abort", found.txn_requires_abort()))
            if is_set
        ]
        return " ".join([found.name(), *marks])
    return type(error).__name__


def run(name: str, action: Callable[[], Any]) -> Any:
    return step(name, action, name_of)


@cache
def admin() -> AdminClient:
    """One for all: a client that is let go of takes its answers with it."""
    return AdminClient({"bootstrap.servers": BOOTSTRAP})


def only(futures: Any) -> Any:
    (future,) = futures.values()
    return future.result(WITHIN_S)


def each(futures: Any, show: Callable[[Any], Any] = lambda result: "done") -> dict[str, Any]:
    """Every future's result or error, by the name of what it is about."""
    said: dict[str, Any] = {}
    for key, future in futures.items():
        try:
            said[named(key)] = show(future.result(WITHIN_S))
        except KafkaException as error:
            said[named(key)] = name_of(error)
    return said


def named(key: Any) -> str:
    if isinstance(key, TopicPartition):
        return f"{key.topic}-{key.partition}"
    return key.name if isinstance(key, ConfigResource) else str(key)


def create(topic: str, partitions: int = 1, **config: str) -> str:
    settings = {key.replace("_", "."): value for key, value in config.items()}
    only(admin().create_topics([NewTopic(topic, partitions, 1, config=settings)]))
    until(
        lambda: len(admin().list_topics(topic, 10).topics[topic].partitions) == partitions,
        within_s=WITHIN_S,
        what=f"topic {topic}",
    )
    return topic


def produce(topic: str, values: list[str], partition: int = 0, **settings: Any) -> list[int]:
    """Sends in order, and returns the offsets that were acknowledged."""
    offsets: list[int] = []
    failures: list[KafkaError] = []

    def told(error: KafkaError | None, message: Any) -> None:
        failures.append(error) if error else offsets.append(message.offset())

    producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": True, **settings})
    now = int(time.time() * 1000)
    for n, value in enumerate(values):
        producer.produce(
            topic, value=value, key=value, partition=partition, timestamp=now + n, on_delivery=told
        )
    producer.flush(WITHIN_S)
    if failures:
        raise KafkaException(failures[0])
    return offsets


def read(topic: str, level: str = "read_committed", partition: int = 0) -> list[str]:
    """What a reader from the beginning to the end sees, as `offset value`."""
    consumer = Consumer(
        {
            "bootstrap.servers": BOOTSTRAP,
            "group.id": "unused",
            "isolation.level": level,
            "enable.partition.eof": True,
            "enable.auto.commit": False,
        }
    )
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    seen: list[str] = []
    deadline = time.monotonic() + WITHIN_S
    try:
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                if message.error().code() == KafkaError._PARTITION_EOF:
                    return seen
                raise KafkaException(message.error())
            seen.append(f"{message.offset()} {message.value().decode()}")
    finally:
        consumer.close()
    raise TimeoutError(f"no end of {topic}; seen {seen[-3:]}")


# --- producer ---------------------------------------------------------------------------------


def producers() -> None:
    values = [f"value {n} {'x' * 40}" for n in range(500)]
    for codec in CODECS:
        topic = create(f"codec-{codec}")
        run(
            f"producer: idempotent, {codec}",
            lambda: produce(topic, values, **{"compression.type": codec}) == list(range(500)),
        )
        run(f"consumer: {codec}", lambda: read(topic) == [f"{n} {v}" for n, v in enumerate(values)])
    for acks in ("0", "1", "all"):
        topic = create(f"acks-{acks}")
        settings = {"enable.idempotence": False, "acks": acks}
        run(
            f"producer: acks={acks}",
            lambda: (
                (produce(topic, values, **settings) and None)
                or len(
                    until(
                        lambda: len(read(topic)) == 500 and read(topic),
                        within_s=WITHIN_S,
                        what="all records",
                    )
                )
            ),
        )
    topic = create("too-large", max_message_bytes="1000")
    run("producer: larger than the topic takes", lambda: produce(topic, ["x" * 2000]))
    topic = create("compacted", cleanup_policy="compact")

    def keyless() -> Any:
        failures: list[str] = []
        producer = Producer({"bootstrap.servers": BOOTSTRAP, "enable.idempotence": False})
        producer.produce(
            topic, value="v", on_delivery=lambda e, m: failures.append(e.name() if e else "NONE")
        )
        producer.flush(WITHIN_S)
        return failures

    run("producer: keyless to a compacted topic", keyless)
    run(
        "producer: topic that is not there, made in passing",
        lambda: produce("made-in-passing", ["a"]),
    )
    run(
        "producer: partition that is not there",
        lambda: produce(topic, ["a"], partition=9, **{"message.timeout.ms": 8000}),
    )


# --- transactions -----------------------------------------------------------------------------


def transactional(name: str, **settings: Any) -> Producer:
    producer = Producer({"bootstrap.servers": BOOTSTRAP, "transactional.id": name, **settings})
    producer.init_transactions(WITHIN_S)
    return producer


def transactions() -> None:
    topic = create("transactions")

    def committed_and_aborted() -> Any:
        producer = transactional("tx-1")
        for values, commit in ((["a", "b"], True), (["c", "d"], False), (["e"], True)):
            producer.begin_transaction()
            for value in values:
                producer.produce(topic, value)
            producer.flush(WITHIN_S)
            (producer.commit_transaction if commit else producer.abort_transaction)(WITHIN_S)
        return {"committed": read(topic), "uncommitted": read(topic, "read_uncommitted")}

    run("transactions: commit, abort, commit", committed_and_aborted)

    def unseen() -> Any:
        other = create("transactions-open")
        producer = transactional("tx-open")
        producer.begin_transaction()
        producer.produce(other, "open")
        producer.flush(WITHIN_S)
        said = {"committed": read(other), "uncommitted": read(other, "read_uncommitted")}
        consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused"})
        said["watermarks"] = list(consumer.get_watermark_offsets(TopicPartition(other, 0), 10))
        consumer.close()
        for level in (IsolationLevel.READ_COMMITTED, IsolationLevel.READ_UNCOMMITTED):
            ends = admin().list_offsets(
                {TopicPartition(other, 0): OffsetSpec.latest()}, isolation_level=level
            )
            said[level.name] = only(ends).offset
        producer.commit_transaction(WITHIN_S)
        said["then"] = read(other)
        return said

    run("transactions: open ones are not seen", unseen)

    def empty() -> Any:
        producer = transactional("tx-empty")
        for end in (producer.commit_transaction, producer.abort_transaction):
            producer.begin_transaction()
            end(WITHIN_S)
        return "done"

    run("transactions: empty ones", empty)

    def zombie() -> Any:
        other = create("zombie")
        old = transactional("tx-zombie")
        old.begin_transaction()
        old.produce(other, "from the old one")
        old.flush(WITHIN_S)
        new = transactional("tx-zombie")
        new.begin_transaction()
        new.produce(other, "from the new one")
        new.commit_transaction(WITHIN_S)
        try:
            old.commit_transaction(WITHIN_S)
            said = "committed"
        except KafkaException as error:
            said = name_of(error)
        return {"old one": said, "read": read(other)}

    run("transactions: a zombie is fenced", zombie)

    def zombie_sends() -> Any:
        other = create("zombie-sends")
        old = transactional("tx-zombie-2")
        transactional("tx-zombie-2")
        try:
            old.begin_transaction()
            old.produce(other, "late")
            old.commit_transaction(WITHIN_S)
            said = "committed"
        except KafkaException as error:
            said = name_of(error)
        return {"old one": said, "read": read(other)}

    run("transactions: a zombie begins anew", zombie_sends)

    def timed_out() -> Any:
        other = create("timed-out")
        producer = transactional(
            "tx-slow", **{"transaction.timeout.ms": 3000, "message.timeout.ms": 2500}
        )
        producer.begin_transaction()
        producer.produce(other, "too slow")
        producer.flush(WITHIN_S)

        def stable() -> bool:
            ends = admin().list_offsets(
                {TopicPartition(other, 0): OffsetSpec.latest()},
                isolation_level=IsolationLevel.READ_COMMITTED,
            )
            return only(ends).offset == 2

        until(stable, within_s=40, what="the marker of the abort", every_s=0.5)
        try:
            producer.commit_transaction(WITHIN_S)
            said = "committed"
        except KafkaException as error:
            said = name_of(error)
        return {"commit": said, "read": read(other), "uncommitted": read(other, "read_uncommitted")}

    run("transactions: time-out", timed_out)
    run(
        "transactions: time-out longer than allowed",
        lambda: transactional("tx-long", **{"transaction.timeout.ms": 1_000_000}) and "taken",
    )
    exactly_once()


def exactly_once() -> None:
    source, sink = create("source", 2), create("sink")
    for partition in range(2):
        produce(source, [f"{partition}-{n}" for n in range(20)], partition)

    def transform(crash_at: int | None) -> Any:
        """Consumes, transforms and produces with offsets in the transaction; may stop in the middle of one."""
        consumer = Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": "eos",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "session.timeout.ms": 6000,
                "isolation.level": "read_committed",
            }
        )
        consumer.subscribe([source])
        producer = transactional("tx-eos")
        done = 0
        deadline = time.monotonic() + 60
        try:
            while done < 40 and time.monotonic() < deadline:
                messages = consumer.consume(7, 1.0)
                if not messages:
                    if crash_at is None and len(read(sink)) >= 40:
                        break
                    continue
                producer.begin_transaction()
                for message in messages:
                    producer.produce(sink, f"seen {message.value().decode()}")
                positions = consumer.position(consumer.assignment())
                producer.send_offsets_to_transaction(
                    positions, consumer.consumer_group_metadata(), WITHIN_S
                )
                done += len(messages)
                if crash_at is not None and done >= crash_at:
                    producer.flush(WITHIN_S)
                    return "stopped in the middle"
                producer.commit_transaction(WITHIN_S)
            return "all"
        finally:
            consumer.close()

    run("exactly once: stopped in a transaction", lambda: transform(14))
    run("exactly once: goes on", lambda: transform(None))
    run(
        "exactly once: each value once",
        lambda: (
            sorted(r.split(" ", 1)[1] for r in read(sink))
            == sorted(f"seen {p}-{n}" for p in range(2) for n in range(20))
        ),
    )
    offsets = lambda: sorted(
        (p.partition, p.offset)
        for p in only(
            admin().list_consumer_group_offsets([ConsumerGroupTopicPartitions("eos")])
        ).topic_partitions
    )  # noqa: E731
    run("exactly once: committed offsets", offsets)


# --- groups -----------------------------------------------------------------------------------


class Members:
    """Members of one group that are polled in turn."""

    def __init__(self, topic: str, group: str, **settings: Any) -> None:
        self.topic, self.group, self.settings = topic, group, settings
        self.consumers: list[Consumer] = []
        self.seen: list[str] = []

    def join(self, **more: Any) -> Consumer:
        consumer = Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": self.group,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                **self.settings,
                **more,
            }
        )
        consumer.subscribe([self.topic])
        self.consumers.append(consumer)
        return consumer

    def shares(self) -> list[int]:
        for consumer in self.consumers:
            message = consumer.poll(0.05)
            if message and not message.error():
                self.seen.append(message.value().decode())
        return sorted(len(c.assignment()) for c in self.consumers)

    def settle(self, *expected: int) -> list[int]:
        return until(
            lambda: self.shares() == list(expected) and list(expected),
            within_s=40,
            what=f"shares {expected}, now {self.shares()}",
            every_s=0,
        )

    def close(self) -> None:
        for consumer in self.consumers:
            consumer.close()
        self.consumers.clear()


def groups() -> None:
    topic = create("grouped", 4)
    for partition in range(4):
        produce(topic, [f"{partition}-{n}" for n in range(10)], partition)
    for strategy in ("range", "roundrobin", "cooperative-sticky"):
        members = Members(topic, f"group-{strategy}", **{"partition.assignment.strategy": strategy})

        def play(members: Members = members) -> Any:
            members.join()
            said = [members.settle(4)]
            members.join()
            said.append(members.settle(2, 2))
            members.consumers.pop().close()
            said.append(members.settle(4))
            until(
                lambda: members.shares() and len(set(members.seen)) == 40,
                within_s=WITHIN_S,
                what="all records",
                every_s=0,
            )
            return [*said, len(set(members.seen))]

        run(f"groups: {strategy}", play)
        members.close()

    def static() -> Any:
        members = Members(topic, "group-static")
        members.join(**{"group.instance.id": "one"})
        second = members.join(**{"group.instance.id": "two"})
        said: list[Any] = [members.settle(2, 2)]
        mine = sorted(p.partition for p in second.assignment())
        members.consumers.remove(second)
        second.close()
        back = members.join(**{"group.instance.id": "two"})
        said.append(members.settle(2, 2))
        said.append(
            "same share"
            if sorted(p.partition for p in back.assignment()) == mine
            else "other share"
        )
        members.close()
        return said

    run("groups: static members", static)

    def fenced() -> Any:
        members = Members(topic, "group-fenced")
        old = members.join(**{"group.instance.id": "same"})
        members.settle(4)
        new = Members(topic, "group-fenced")
        new.join(**{"group.instance.id": "same"})
        new.settle(4)
        errors: list[str] = []

        def told() -> str | None:
            message = old.poll(0.2)
            if message and message.error():
                errors.append(message.error().name())
            return next(iter(errors), None)

        said = until(told, within_s=WITHIN_S, what="the old one is told")
        new.close()
        members.close()
        return said

    run("groups: an instance id taken over", fenced)

    def resumed() -> Any:
        values = []
        for count in (15, 25):
            consumer = Consumer(
                {
                    "bootstrap.servers": BOOTSTRAP,
                    "group.id": "group-resumed",
                    "auto.offset.reset": "earliest",
                    "enable.auto.commit": False,
                }
            )
            consumer.subscribe([topic])
            read_now = 0
            deadline = time.monotonic() + WITHIN_S
            while read_now < count and time.monotonic() < deadline:
                message = consumer.poll(0.5)
                if message and not message.error():
                    values.append(message.value().decode())
                    consumer.commit(message, asynchronous=False)
                    read_now += 1
            consumer.close()
        return [len(values), len(set(values))]

    run("groups: goes on from what was committed", resumed)

    def next_generation() -> Any:
        members = Members(topic, "group-next", **{"group.protocol": "consumer"})
        members.settings.pop("session.timeout.ms", None)
        consumer = Consumer(
            {
                "bootstrap.servers": BOOTSTRAP,
                "group.id": "group-next",
                "group.protocol": "consumer",
                "auto.offset.reset": "earliest",
            }
        )
        consumer.subscribe([topic])
        members.consumers.append(consumer)
        try:
            return members.settle(4)
        finally:
            members.close()

    run("groups: the protocol of KIP-848", next_generation)


# --- admin ------------------------------------------------------------------------------------


def administration() -> None:
    topic = create("admin", 2, retention_ms="100000")
    produce(topic, [f"v{n}" for n in range(10)])
    ask = admin()
    run(
        "admin: create_topics",
        lambda: each(
            ask.create_topics(
                [
                    NewTopic("admin-a", 3, 1),
                    NewTopic("admin", 1, 1),
                    NewTopic("not valid!", 1, 1),
                    NewTopic("admin-r", 1, 3),
                ]
            )
        ),
    )
    run(
        "admin: create_topics, only judged",
        lambda: each(ask.create_topics([NewTopic("admin-judged", 3, 1)], validate_only=True)),
    )
    run(
        "admin: create_topics, defaults",
        lambda: each(ask.create_topics([NewTopic("admin-default")])),
    )
    run(
        "admin: create_topics, wrong setting",
        lambda: each(
            ask.create_topics([NewTopic("admin-w", 1, 1, config={"retention.ms": "soon"})])
        ),
    )
    run("admin: delete_topics", lambda: each(ask.delete_topics(["admin-a", "admin-none"])))
    run(
        "admin: create_partitions",
        lambda: each(
            ask.create_partitions(
                [
                    NewPartitions("admin-default", 3),
                    NewPartitions("admin", 1),
                    NewPartitions("admin-none", 3),
                ]
            )
        ),
    )

    def described() -> Any:
        found = ask.describe_topics(
            TopicCollection(["admin", "admin-none"]), include_authorized_operations=True
        )
        return each(
            found,
            lambda t: [
                t.name,
                t.is_internal,
                len(t.partitions),
                sorted(o.name for o in t.authorized_operations),
            ],
        )

    run("admin: describe_topics", described)

    def cluster() -> Any:
        found = ask.describe_cluster(include_authorized_operations=True).result(WITHIN_S)
        return [
            len(found.nodes),
            found.controller.id,
            sorted(o.name for o in found.authorized_operations),
        ]

    run("admin: describe_cluster", cluster)
    resource = lambda kind, name, **more: ConfigResource(kind, name, **more)  # noqa: E731

    def configs(kind: Any, name: str) -> Any:
        return each(
            ask.describe_configs([resource(kind, name)]),
            lambda c: {
                k: c[k].value
                for k in ("retention.ms", "cleanup.policy", "message.max.bytes")
                if k in c
            },
        )

    run("admin: describe_configs of a topic", lambda: configs(ResourceType.TOPIC, "admin"))
    run("admin: describe_configs of the broker", lambda: configs(ResourceType.BROKER, "1"))
    run("admin: describe_configs of nothing", lambda: configs(ResourceType.TOPIC, "admin-none"))

    def alter(*entries: tuple[str, Any, str | None]) -> Any:
        listed = [ConfigEntry(k, v, incremental_operation=op) for k, op, v in entries]
        return each(
            ask.incremental_alter_configs(
                [resource(ResourceType.TOPIC, "admin", incremental_configs=listed)]
            )
        )

    run(
        "admin: incremental_alter_configs",
        lambda: alter(
            ("cleanup.policy", AlterConfigOpType.APPEND, "compact"),
            ("retention.ms", AlterConfigOpType.DELETE, None),
        ),
    )
    run(
        "admin: incremental_alter_configs, wrong",
        lambda: alter(("retention.ms", AlterConfigOpType.SET, "soon")),
    )
    run(
        "admin: alter_configs",
        lambda: each(
            ask.alter_configs(
                [resource(ResourceType.TOPIC, "admin", set_config={"retention.ms": "7000"})]
            )
        ),
    )
    run("admin: configs then", lambda: configs(ResourceType.TOPIC, "admin"))
    for spec_name, spec in (
        ("earliest", OffsetSpec.earliest()),
        ("latest", OffsetSpec.latest()),
        ("max_timestamp", OffsetSpec.max_timestamp()),
        ("for_timestamp", OffsetSpec.for_timestamp(1)),
    ):
        run(
            f"admin: list_offsets {spec_name}",
            lambda spec=spec: each(
                ask.list_offsets(
                    {TopicPartition("admin", 0): spec, TopicPartition("admin", 1): spec}
                ),
                lambda r: r.offset,
            ),
        )
    run(
        "admin: list_offsets of nothing",
        lambda: each(ask.list_offsets({TopicPartition("admin", 9): OffsetSpec.latest()})),
    )
    run(
        "admin: delete_records",
        lambda: each(
            ask.delete_records([TopicPartition("admin", 0, 4)]), lambda r: r.low_watermark
        ),
    )
    run(
        "admin: delete_records, beyond",
        lambda: each(
            ask.delete_records([TopicPartition("admin", 0, 99)]), lambda r: r.low_watermark
        ),
    )
    run(
        "admin: elect_leaders",
        lambda: {
            named(k): (v.name() if v else "NONE")
            for k, v in ask.elect_leaders(ElectionType.PREFERRED, [TopicPartition("admin", 0)])
            .result(WITHIN_S)
            .items()
        },
    )
    admin_groups(ask)
    admin_security(ask)


def admin_groups(ask: AdminClient) -> None:
    members = Members("admin", "admin-group")
    members.join(**{"client.id": "member"})
    members.settle(2)
    produce("admin", ["another"], 1)
    until(
        lambda: members.shares() and len(members.seen) >= 1,
        within_s=WITHIN_S,
        what="a record",
        every_s=0,
    )
    members.consumers[0].commit(asynchronous=False)
    ours = lambda: [
        g for g in ask.list_consumer_groups().result(WITHIN_S).valid if g.group_id == "admin-group"
    ]  # noqa: E731
    run(
        "admin: list_consumer_groups",
        lambda: [
            (g.group_id, g.state.name, g.is_simple_consumer_group, g.type.name) for g in ours()
        ],
    )

    def described() -> Any:
        found = ask.describe_consumer_groups(
            ["admin-group", "admin-nobody"], include_authorized_operations=True
        )
        return each(
            found,
            lambda g: [
                g.state.name,
                g.partition_assignor,
                g.is_simple_consumer_group,
                [(m.client_id, len(m.assignment.topic_partitions)) for m in g.members],
                sorted(o.name for o in g.authorized_operations),
            ],
        )

    run("admin: describe_consumer_groups", described)
    offsets = lambda group, parts=None: each(
        ask.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group, parts)]),
        lambda g: sorted((p.topic, p.partition, p.offset) for p in g.topic_partitions),
    )  # noqa: E731
    run(
        "admin: list_consumer_group_offsets",
        lambda: [o[:2] for o in offsets("admin-group")["admin-group"]],
    )
    outcomes = lambda g: [(p.error.name() if p.error else "NONE") for p in g.topic_partitions]  # noqa: E731
    run(
        "admin: alter offsets of a group with members",
        lambda: each(
            ask.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions("admin-group", [TopicPartition("admin", 0, 5)])]
            ),
            outcomes,
        ),
    )
    run(
        "admin: delete a group with members",
        lambda: each(ask.delete_consumer_groups(["admin-group"])),
    )
    members.close()
    run(
        "admin: alter_consumer_group_offsets",
        lambda: each(
            ask.alter_consumer_group_offsets(
                [ConsumerGroupTopicPartitions("admin-group", [TopicPartition("admin", 0, 5)])]
            )
        ),
    )
    run(
        "admin: offsets then",
        lambda: [o for o in offsets("admin-group")["admin-group"] if o[1] == 0],
    )
    run("admin: offsets of nobody", lambda: offsets("admin-nobody"))
    run(
        "admin: delete_consumer_groups",
        lambda: each(ask.delete_consumer_groups(["admin-group", "admin-nobody"])),
    )


def admin_security(ask: AdminClient) -> None:
    def acl(name: str, kind: type = AclBinding, principal: Any = "User:someone") -> Any:
        host = "*" if kind is AclBinding else None
        return kind(
            ResourceType.TOPIC,
            name,
            ResourcePatternType.LITERAL,
            principal,
            host,
            AclOperation.READ,
            AclPermissionType.ALLOW,
        )

    run(
        "admin: create_acls",
        lambda: sorted(each(ask.create_acls([acl("acl-a"), acl("acl-b")])).values()),
    )
    shown = lambda found: sorted(
        (a.name, a.principal, a.operation.name, a.permission_type.name) for a in found
    )  # noqa: E731
    run(
        "admin: describe_acls",
        lambda: shown(
            until(
                lambda: ask.describe_acls(acl("acl-a", AclBindingFilter, None)).result(WITHIN_S),
                within_s=10,
                what="the ACL",
            )
        ),
    )
    run(
        "admin: delete_acls",
        lambda: list(each(ask.delete_acls([acl("acl-a", AclBindingFilter, None)]), shown).values()),
    )
    upsert = UserScramCredentialUpsertion(
        "scram-user",
        ScramCredentialInfo(ScramMechanism.SCRAM_SHA_256, 5000),
        b"password",
        b"salt" * 4,
    )
    run(
        "admin: alter_user_scram_credentials",
        lambda: each(ask.alter_user_scram_credentials([upsert])),
    )

    def described() -> Any:
        found = ask.describe_user_scram_credentials(["scram-user", "scram-nobody"])
        return each(
            found, lambda d: [(i.mechanism.name, i.iterations) for i in d.scram_credential_infos]
        )

    run("admin: describe_user_scram_credentials", described)
    run(
        "admin: delete scram credentials",
        lambda: each(
            ask.alter_user_scram_credentials(
                [UserScramCredentialDeletion("scram-user", ScramMechanism.SCRAM_SHA_256)]
            )
        ),
    )


PARTS = {
    "producers": producers,
    "groups": groups,
    "administration": administration,
    "transactions": transactions,
}


def main() -> None:
    client(
        "confluent-kafka (librdkafka)",
        f"{confluent_kafka.__version__} ({confluent_kafka.libversion()[0]})",
    )
    for name in sys.argv[1:] or PARTS:
        try:
            PARTS[name]()
        except Exception as error:
            report(f"{name}: broke off", name_of(error))


if __name__ == "__main__":
    main()
