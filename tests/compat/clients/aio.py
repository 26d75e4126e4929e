"""aiokafka: producers, transactions, group consumers, and what its admin client offers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import aiokafka
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from steps import BOOTSTRAP, client, report

WITHIN_S = 40


async def run(name: str, action: Callable[[], Awaitable[Any]]) -> None:
    try:
        outcome = await asyncio.wait_for(action(), WITHIN_S)
    except Exception as error:
        outcome = {"error": type(error).__name__}
    report(name, outcome)


async def produce(topic: str, values: list[str], **settings: Any) -> list[int]:
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, **settings) as producer:
        sent = [
            await producer.send(topic, value.encode(), key=b"k", partition=0) for value in values
        ]
        return [(await one).offset for one in sent]


async def read(topic: str, level: str = "read_uncommitted") -> list[str]:
    place = TopicPartition(topic, 0)
    async with AIOKafkaConsumer(
        bootstrap_servers=BOOTSTRAP, isolation_level=level, auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        await consumer.seek_to_beginning(place)
        seen: list[str] = []
        while await consumer.position(place) < end:
            for message in (await consumer.getmany(place, timeout_ms=500)).get(place, []):
                seen.append(f"{message.offset} {message.value.decode()}")
        return seen


async def producers(admin: AIOKafkaAdminClient) -> None:
    values = [f"value {n}" for n in range(300)]
    for codec in (None, "gzip"):
        topic = f"aio-{codec}"
        await admin.create_topics([NewTopic(topic, 1, 1)])

        async def round_trip(topic: str = topic, codec: Any = codec) -> Any:
            offsets = await produce(topic, values, compression_type=codec, enable_idempotence=True)
            return [
                offsets == list(range(300)),
                await read(topic) == [f"{n} {v}" for n, v in enumerate(values)],
            ]

        await run(f"producer and consumer: {codec}", round_trip)
    for acks in (0, 1, "all"):
        await run(f"producer: acks={acks}", lambda acks=acks: counted(f"aio-acks-{acks}", acks))
    await run("producer: topic made in passing", lambda: produce("aio-passing", ["v"]))


async def counted(topic: str, acks: Any) -> int:
    async with AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, acks=acks) as producer:
        for n in range(20):
            await producer.send_and_wait(topic, f"{n}".encode(), partition=0)
    while len(seen := await read(topic)) < 20:
        await asyncio.sleep(0.1)
    return len(seen)


async def groups(admin: AIOKafkaAdminClient) -> None:
    await admin.create_topics([NewTopic("aio-grouped", 4, 1)])

    def member() -> AIOKafkaConsumer:
        return AIOKafkaConsumer(
            "aio-grouped",
            bootstrap_servers=BOOTSTRAP,
            group_id="aio-pair",
            session_timeout_ms=6000,
            heartbeat_interval_ms=500,
        )

    async def shared() -> Any:
        one, two = member(), member()
        await one.start()
        said = [len(one.assignment())]
        await two.start()
        while [len(m.assignment()) for m in (one, two)] != [2, 2]:
            await asyncio.sleep(0.1)
        said += [2, 2]
        await one.stop()
        while len(two.assignment()) != 4:
            await asyncio.sleep(0.1)
        await two.stop()
        return [*said, 4]

    await run("groups: two members, one leaves", shared)

    async def resumed() -> Any:
        await produce("aio-resumed", [f"{n}" for n in range(10)])
        seen = []
        for count in (4, 6):
            async with AIOKafkaConsumer(
                "aio-resumed",
                bootstrap_servers=BOOTSTRAP,
                group_id="aio-resumed",
                auto_offset_reset="earliest",
                enable_auto_commit=False,
            ) as consumer:
                for _ in range(count):
                    message = await consumer.getone()
                    seen.append(message.value.decode())
                    await consumer.commit({TopicPartition("aio-resumed", 0): message.offset + 1})
        return seen

    await run("groups: goes on from what was committed", resumed)

    async def lookups() -> Any:
        place = TopicPartition("aio-resumed", 0)
        async with AIOKafkaConsumer(bootstrap_servers=BOOTSTRAP) as consumer:
            times = await consumer.offsets_for_times({place: 0})
            return [
                times[place].offset,
                (await consumer.beginning_offsets([place]))[place],
                (await consumer.end_offsets([place]))[place],
            ]

    await run("consumer: offsets", lookups)


async def transactions(admin: AIOKafkaAdminClient) -> None:
    await admin.create_topics([NewTopic("aio-transactions", 1, 1), NewTopic("aio-fenced", 1, 1)])

    async def whole() -> Any:
        async with AIOKafkaProducer(
            bootstrap_servers=BOOTSTRAP, transactional_id="aio-tx"
        ) as producer:
            for n, commit in enumerate((True, False, True)):
                await producer.begin_transaction()
                for letter in "ab":
                    await producer.send_and_wait(
                        "aio-transactions", f"{letter}{n}".encode(), partition=0
                    )
                if n == 2:
                    await producer.send_offsets_to_transaction(
                        {TopicPartition("aio-transactions", 0): 5}, "aio-tx-group"
                    )
                await (producer.commit_transaction() if commit else producer.abort_transaction())
        offsets = await admin.list_consumer_group_offsets("aio-tx-group")
        return {
            "committed": await read("aio-transactions", "read_committed"),
            "uncommitted": await read("aio-transactions"),
            "offsets": [o.offset for o in offsets.values()],
        }

    await run("transactions: commit, abort, commit with offsets", whole)

    async def fenced() -> Any:
        old = AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id="aio-zombie")
        await old.start()
        await old.begin_transaction()
        await old.send_and_wait("aio-fenced", b"old", partition=0)
        async with (
            AIOKafkaProducer(bootstrap_servers=BOOTSTRAP, transactional_id="aio-zombie") as new,
            new.transaction(),
        ):
            await new.send_and_wait("aio-fenced", b"new", partition=0)
        try:
            await old.commit_transaction()
            said = "committed"
        except Exception as error:
            said = type(error).__name__
        await old.stop()
        return [said, await read("aio-fenced", "read_committed")]

    await run("transactions: a zombie is fenced", fenced)


async def administration(admin: AIOKafkaAdminClient) -> None:
    def codes(answer: Any) -> Any:
        return [(name, code) for name, code, *_ in answer.topic_errors]

    async def created() -> Any:
        return codes(
            await admin.create_topics(
                [
                    NewTopic("aio-admin", 2, 1),
                    NewTopic("aio-resumed", 1, 1),
                    NewTopic("not valid!", 1, 1),
                ]
            )
        )

    await run("admin: create_topics", created)

    async def listed() -> Any:
        return sorted(t for t in await admin.list_topics() if t.startswith("aio-admin"))

    await run("admin: list_topics", listed)

    async def described() -> Any:
        return [
            (t["topic"], t["error_code"], len(t["partitions"]))
            for t in await admin.describe_topics(["aio-admin"])
        ]

    await run("admin: describe_topics", described)

    async def cluster() -> Any:
        found = await admin.describe_cluster()
        return [len(found["brokers"]), found["controller_id"]]

    await run("admin: describe_cluster", cluster)

    async def grown() -> Any:
        answer = await admin.create_partitions({"aio-admin": NewPartitions(3)})
        return [(name, code) for name, code, *_ in answer.topic_errors]

    await run("admin: create_partitions", grown)
    resource = ConfigResource(ConfigResourceType.TOPIC, "aio-admin", {"retention.ms": "70000"})

    async def altered() -> Any:
        return [
            r[0]
            for a in [await admin.alter_configs([resource])]
            for r in (a[0] if isinstance(a, list) else a).resources
        ]

    await run("admin: alter_configs", altered)

    async def configured() -> Any:
        (answer,) = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, "aio-admin")]
        )
        return [(c[0], c[1]) for c in answer.resources[0][4] if c[0] == "retention.ms"]

    await run("admin: describe_configs", configured)

    async def groups_listed() -> Any:
        return sorted(g for g in await admin.list_consumer_groups() if g[0] == "aio-resumed")

    await run("admin: list_consumer_groups", groups_listed)

    async def groups_described() -> Any:
        (answer,) = await admin.describe_consumer_groups(["aio-resumed"])
        return [g[:4] for g in answer.groups]

    await run("admin: describe_consumer_groups", groups_described)

    async def offsets() -> Any:
        return [
            (p.topic, p.partition, o.offset)
            for p, o in (await admin.list_consumer_group_offsets("aio-resumed")).items()
        ]

    await run("admin: list_consumer_group_offsets", offsets)

    async def deleted() -> Any:
        response = await admin.delete_topics(["aio-admin", "aio-nowhere"])
        # Brokers answer in any order.
        return sorted((name, code) for name, code in response.topic_error_codes)

    await run("admin: delete_topics", deleted)


async def main() -> None:
    client("aiokafka", aiokafka.__version__)
    admin = AIOKafkaAdminClient(bootstrap_servers=BOOTSTRAP)
    await admin.start()
    for part in (producers, groups, administration, transactions):
        try:
            await part(admin)
        except Exception as error:
            report(f"{part.__name__}: broke off", type(error).__name__)
    await admin.close()


if __name__ == "__main__":
    asyncio.run(main())
