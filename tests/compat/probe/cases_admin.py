"""Cases of administration: versions, metadata, topics, configurations, cluster, leaders, and what secures them."""

from __future__ import annotations

import base64
from typing import Any

from probe import UNKNOWN_ID, ZERO_ID, Body, Probe

TOPIC, BROKER, LOGGER, CLIENT_METRICS, GROUP = 2, 4, 8, 16, 32
SET, DELETE, APPEND, SUBTRACT = 0, 1, 2, 3


def versions(p: Probe) -> None:
    ranges = {
        name: p.advertised[api["key"]]
        for name, api in p.codec.apis.items()
        if api["key"] in p.advertised
    }
    for name in sorted(p.codec.apis):
        if name in ranges:
            p.say(f"advertised: {name}", list(ranges[name]))
    unknown = set(p.advertised) - {api["key"] for api in p.codec.apis.values()}
    p.say("advertised: unknown to the client", sorted(unknown))

    def features(answer: Body) -> Any:
        return {k: v for k, v in answer.items() if k not in ("apiKeys", "finalizedFeaturesEpoch")}

    p.each(
        "API_VERSIONS",
        "plain",
        {"clientSoftwareName": "probe", "clientSoftwareVersion": "1.0"},
        pick=features,
    )
    p.each(
        "API_VERSIONS",
        "software name empty",
        {"clientSoftwareName": "", "clientSoftwareVersion": "1"},
        low=3,
        pick=features,
    )
    p.each(
        "API_VERSIONS",
        "software name with blanks",
        {"clientSoftwareName": "a b", "clientSoftwareVersion": "1"},
        low=3,
        pick=features,
    )
    p.each(
        "API_VERSIONS",
        "client id null",
        {"clientSoftwareName": "p", "clientSoftwareVersion": "1"},
        client_id=None,
        pick=lambda a: p.error(a["errorCode"]),
    )


def metadata(p: Probe) -> None:
    api = "METADATA"
    p.create("p-meta", partitions=3)
    p.create("p-meta-2")

    def ours(answer: Body) -> Any:
        return {
            **answer,
            "topics": [t for t in answer["topics"] if (t["name"] or "").startswith("p-meta")],
        }

    def named(*names: str | None, auto: bool = False, **more: Any) -> Body:
        return {"topics": [{"name": n} for n in names], "allowAutoTopicCreation": auto, **more}

    p.each(
        api,
        "all",
        lambda v: {"topics": None if v else [], "allowAutoTopicCreation": False},
        pick=ours,
    )
    p.each(api, "none", {"topics": [], "allowAutoTopicCreation": False}, low=1)
    p.each(api, "one", named("p-meta"), low=4)
    p.each(api, "one, versions that always create", {"topics": [{"name": "p-meta"}]}, high=3)
    p.each(api, "two", named("p-meta", "p-meta-2"), low=4)
    p.each(api, "same twice", named("p-meta", "p-meta"), low=4)
    p.each(api, "not there, not to be made", named("p-meta-no"), low=4)
    p.each(
        api,
        "not there, made in passing",
        lambda v: named(f"p-meta-auto.v{v}", auto=True),
        pick=lambda a: p.error(a["topics"][0]["errorCode"]),
    )
    for name, text in {
        "empty name": "", "'.'": ".", "'..'": "..", "blank": "a b", "umlaut": "ä", "slash": "a/b",
        "249 letters": "x" * 249, "250 letters": "x" * 250,
    }.items():  # fmt: skip
        p.each(
            api,
            f"{name}, not to be made",
            named(text),
            low=4,
            pick=lambda a: (p.error(a["topics"][0]["errorCode"]), a["topics"][0].get("isInternal")),
        )
        if name not in ("249 letters",):
            p.each(
                api,
                f"{name}, to be made",
                named(text, auto=True),
                low=4,
                pick=lambda a: p.error(a["topics"][0]["errorCode"]),
            )
    p.each(api, "with operations", named("p-meta", includeTopicAuthorizedOperations=True), low=8)
    p.each(
        api,
        "with the cluster's operations",
        named("p-meta", includeClusterAuthorizedOperations=True),
        low=8,
        high=10,
    )
    p.each(api, "by id", {"topics": [{"name": None, "topicId": p.ids["p-meta"]}]}, low=10)
    p.each(api, "by id, not there", {"topics": [{"name": None, "topicId": UNKNOWN_ID}]}, low=10)
    p.each(api, "zero id, no name", {"topics": [{"name": None, "topicId": ZERO_ID}]}, low=10)
    p.each(api, "id and name", {"topics": [{"name": "p-meta", "topicId": p.ids["p-meta"]}]}, low=10)
    p.each(
        api,
        "id and another name",
        {"topics": [{"name": "p-meta-2", "topicId": p.ids["p-meta"]}]},
        low=10,
    )
    for name in ("__consumer_offsets", "__transaction_state"):
        p.each(
            api,
            f"{name}",
            named(name),
            low=4,
            pick=lambda a: [
                (p.error(t["errorCode"]), t["isInternal"], len(t["partitions"]))
                for t in a["topics"]
            ],
        )
    api = "DESCRIBE_TOPIC_PARTITIONS"
    p.each(api, "two topics", {"topics": [{"name": "p-meta"}, {"name": "p-meta-2"}]})
    p.each(
        api,
        "limit of two",
        {"topics": [{"name": "p-meta"}, {"name": "p-meta-2"}], "responsePartitionLimit": 2},
    )
    p.each(
        api,
        "cursor",
        {
            "topics": [{"name": "p-meta"}, {"name": "p-meta-2"}],
            "cursor": {"topicName": "p-meta", "partitionIndex": 2},
        },
    )
    p.each(
        api,
        "cursor beyond",
        {"topics": [{"name": "p-meta"}], "cursor": {"topicName": "p-meta", "partitionIndex": 9}},
    )
    p.each(
        api,
        "cursor negative",
        {"topics": [{"name": "p-meta"}], "cursor": {"topicName": "p-meta", "partitionIndex": -1}},
    )
    p.each(api, "not there", {"topics": [{"name": "p-meta-no"}]})
    p.each(api, "bad name", {"topics": [{"name": "a b"}]})
    p.each(api, "limit of zero", {"topics": [{"name": "p-meta"}], "responsePartitionLimit": 0})
    api = "DESCRIBE_CLUSTER"
    p.each(api, "plain", {})
    p.each(api, "with operations", {"includeClusterAuthorizedOperations": True})
    p.each(api, "controllers", {"endpointType": 2}, low=1)
    p.each(api, "endpoints of kind 9", {"endpointType": 9}, low=1)
    p.each(api, "fenced ones too", {"includeFencedBrokers": True}, low=2)


def topics(p: Probe) -> None:
    api = "CREATE_TOPICS"

    def only_set(answer: Body) -> Any:
        """Configurations of a new topic are compared once, with DescribeConfigs."""
        for topic in answer["topics"]:
            configs = topic.pop("configs", None)
            topic["configs"] = "some" if configs else "none"
        return answer

    def one(case: str, name: str | None = None, **more: Any) -> None:
        name = f"p-{case.replace(' ', '-').replace(',', '')}*" if name is None else name

        def body(v: int) -> Body:
            whole = {"timeoutMs": 10_000, "validateOnly": more.get("validateOnly", False)}
            topic = {
                "numPartitions": 1,
                "replicationFactor": 1,
                **{k: w for k, w in more.items() if k != "validateOnly"},
            }
            return {**whole, "topics": [{"name": name.replace("*", f".v{v}"), **topic}]}

        p.each(api, case, body, pick=only_set)

    p.create("p-there")
    p.create("p.dot")
    one("plain", "p-plain*")
    one("already there", "p-there")
    one("only judged", "p-judged*", validateOnly=True)
    one("only judged, already there", "p-there", validateOnly=True)
    for name, text in {
        "empty": "",
        "'.'": ".",
        "'..'": "..",
        "blank": "a b",
        "slash": "a/b",
        "250 letters": "x" * 250,
    }.items():
        one(f"name {name}", text)
    one("name that collides with another's", "p_dot")
    one("name like an internal one", "__consumer_offsets")
    one("default partitions", "p-default*", numPartitions=-1, replicationFactor=-1)
    one("no partitions", numPartitions=0)
    one("-2 partitions", numPartitions=-2)
    one("two replicas", replicationFactor=2)
    one("no replicas", replicationFactor=0)
    one("-2 replicas", replicationFactor=-2)
    one(
        "assigned by hand",
        "p-hand*",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[
            {"partitionIndex": 0, "brokerIds": [1]},
            {"partitionIndex": 1, "brokerIds": [1]},
        ],
    )
    one(
        "assigned by hand and numbers",
        numPartitions=1,
        replicationFactor=1,
        assignments=[{"partitionIndex": 0, "brokerIds": [1]}],
    )
    one(
        "assigned to a broker that is not there",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[{"partitionIndex": 0, "brokerIds": [5]}],
    )
    one(
        "assigned twice to the same",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[{"partitionIndex": 0, "brokerIds": [1, 1]}],
    )
    one(
        "assigned to nobody",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[{"partitionIndex": 0, "brokerIds": []}],
    )
    one(
        "assigned with a gap",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[{"partitionIndex": n, "brokerIds": [1]} for n in (0, 2)],
    )
    one(
        "assigned from one on",
        numPartitions=-1,
        replicationFactor=-1,
        assignments=[{"partitionIndex": 1, "brokerIds": [1]}],
    )
    one(
        "configured",
        "p-conf*",
        configs=[
            {"name": "retention.ms", "value": "1000"},
            {"name": "cleanup.policy", "value": "compact"},
        ],
    )
    one("configuration unknown", configs=[{"name": "no.such.thing", "value": "1"}])
    one("configuration of a wrong type", configs=[{"name": "retention.ms", "value": "soon"}])
    one("configuration out of range", configs=[{"name": "min.insync.replicas", "value": "0"}])
    one("configuration not a choice", configs=[{"name": "cleanup.policy", "value": "burn"}])
    one("configuration null", configs=[{"name": "retention.ms", "value": None}])
    one("configuration empty", configs=[{"name": "retention.ms", "value": ""}])
    one(
        "configured twice",
        "p-conf-twice*",
        configs=[
            {"name": "retention.ms", "value": "1000"},
            {"name": "retention.ms", "value": "2000"},
        ],
    )
    one(
        "cleanup.policy empty", "p-policy-empty*", configs=[{"name": "cleanup.policy", "value": ""}]
    )
    one("value with blanks", "p-blanks*", configs=[{"name": "retention.ms", "value": " 1000 "}])
    p.each(api, "none", {"topics": [], "timeoutMs": 1000})
    twice = {"numPartitions": 1, "replicationFactor": 1}
    p.each(
        api,
        "same twice",
        lambda v: {"topics": [{"name": f"p-twice.v{v}", **twice}] * 2, "timeoutMs": 10_000},
        pick=only_set,
    )
    p.each(
        api,
        "one good, one bad",
        lambda v: {
            "topics": [{"name": f"p-good.v{v}", **twice}, {"name": "a b", **twice}],
            "timeoutMs": 10_000,
        },
        pick=only_set,
    )
    p.each(
        api,
        "colliding with one another",
        lambda v: {
            "topics": [{"name": n, **twice} for n in (f"p-c.o.v{v}", f"p-c_o.v{v}")],
            "timeoutMs": 10_000,
        },
        pick=only_set,
    )
    partitions(p)
    deletions(p)


def partitions(p: Probe) -> None:
    api = "CREATE_PARTITIONS"

    def one(
        case: str, count: int, assignments: Any = None, name: str | None = None, **more: Any
    ) -> None:
        def body(v: int) -> Body:
            topic = name or p.create(
                f"p-grow-{case.replace(' ', '-').replace(',', '')}.v{v}", partitions=2
            )
            return {
                "topics": [{"name": topic, "count": count, "assignments": assignments}],
                "timeoutMs": 10_000,
                **more,
            }

        p.each(api, case, body)

    one("one more", 3)
    one("only judged", 3, validateOnly=True)
    one("as many", 2)
    one("fewer", 1)
    one("zero", 0)
    one("negative", -1)
    one("topic that is not there", 3, name="p-nowhere")
    one("bad name", 3, name="a b")
    one("internal topic", 99, name="__consumer_offsets")
    one("assigned", 3, [{"brokerIds": [1]}])
    one("assigned, too few", 4, [{"brokerIds": [1]}])
    one("assigned, too many", 3, [{"brokerIds": [1]}] * 2)
    one("assigned, broker that is not there", 3, [{"brokerIds": [5]}])
    one("assigned, two replicas", 3, [{"brokerIds": [1, 1]}])
    one("assigned, to nobody", 3, [{"brokerIds": []}])
    one("assigned, empty list", 3, [])
    p.each(api, "none", {"topics": [], "timeoutMs": 1000})
    p.each(
        api,
        "same twice",
        lambda v: {
            "topics": [{"name": "p-there", "count": 3}, {"name": "p-there", "count": 4}],
            "timeoutMs": 1000,
        },
    )


def deletions(p: Probe) -> None:
    api = "DELETE_TOPICS"

    def named(*names: str) -> Body:
        return {
            "topicNames": list(names),
            "topics": [{"name": n} for n in names],
            "timeoutMs": 10_000,
        }

    p.each(api, "plain", lambda v: named(p.create(f"p-del.v{v}")))
    p.each(api, "not there", named("p-nowhere"))
    p.each(api, "bad name", named("a b"))
    p.each(api, "empty name", named(""))
    p.each(api, "none", named())
    p.each(api, "same twice", lambda v: named(*[p.create(f"p-del2.v{v}")] * 2))
    p.each(api, "one there, one not", lambda v: named(p.create(f"p-del3.v{v}"), "p-nowhere"))
    p.each(
        api,
        "by id",
        lambda v: {
            "topics": [{"name": None, "topicId": p.ids[p.create(f"p-del4.v{v}")]}],
            "timeoutMs": 10_000,
        },
        low=6,
    )
    p.each(
        api,
        "by id, not there",
        {"topics": [{"name": None, "topicId": UNKNOWN_ID}], "timeoutMs": 1000},
        low=6,
    )
    p.each(
        api,
        "no id, no name",
        {"topics": [{"name": None, "topicId": ZERO_ID}], "timeoutMs": 1000},
        low=6,
    )
    p.each(
        api,
        "id and name",
        lambda v: {"topics": [{"name": "p-there", "topicId": p.ids["p-there"]}], "timeoutMs": 1000},
        low=6,
    )
    p.each(
        api,
        "same id twice",
        lambda v: {
            "topics": [{"name": None, "topicId": p.ids[p.create(f"p-del5.v{v}")]}] * 2,
            "timeoutMs": 1000,
        },
        low=6,
    )


def configs(p: Probe) -> None:
    p.create("p-conf", retention_ms="5000")
    api = "DESCRIBE_CONFIGS"

    def asked(kind: int, name: str, keys: list[str] | None = None, **more: Any) -> Body:
        return {
            "resources": [{"resourceType": kind, "resourceName": name, "configurationKeys": keys}],
            **more,
        }

    def keyed(answer: Body) -> Any:
        """Synonyms and help once; otherwise what a table of configurations shows."""
        return [
            {k: v for k, v in r.items() if k != "configs"}
            | {
                "configs": {
                    c["name"]: {
                        k: v for k, v in c.items() if k not in ("name", "documentation", "synonyms")
                    }
                    for c in r["configs"]
                }
            }
            for r in answer["results"]
        ]

    def settings_of(kind: int, name: str) -> None:
        """Every configuration is a step, so that one of them may differ by intent and others may not."""
        (answer,) = p.ask(api, asked(kind, name, includeSynonyms=True, includeDocumentation=True))[
            "results"
        ]
        for c in answer["configs"]:
            about = {
                "value": c["value"], "readOnly": c["readOnly"], "source": c["configSource"],
                "sensitive": c["isSensitive"], "type": c["configType"], "documented": bool(c["documentation"]),
                "synonyms": [[s["name"], s["value"], s["source"]] for s in c["synonyms"]],
            }  # fmt: skip
            p.say(
                f"DESCRIBE_CONFIGS: of a {'topic' if kind == TOPIC else 'broker'}: {c['name']}",
                about,
            )

    settings_of(TOPIC, "p-conf")
    (answer,) = p.ask(api, asked(BROKER, "1"))["results"]
    p.say("DESCRIBE_CONFIGS: of a broker: some", len(answer["configs"]) > 0)
    p.each(api, "two keys", asked(TOPIC, "p-conf", ["retention.ms", "cleanup.policy"]), pick=keyed)
    p.each(api, "with synonyms", asked(TOPIC, "p-conf", ["retention.ms"], includeSynonyms=True))
    p.each(
        api, "with help", asked(TOPIC, "p-conf", ["retention.ms"], includeDocumentation=True), low=3
    )
    p.each(api, "key that is not there", asked(TOPIC, "p-conf", ["no.such.thing"]))
    p.each(
        api,
        "no keys",
        asked(TOPIC, "p-conf", []),
        pick=lambda a: [(p.error(r["errorCode"]), len(r["configs"]) > 0) for r in a["results"]],
    )
    p.each(api, "topic that is not there", asked(TOPIC, "p-nowhere"))
    p.each(api, "topic with a bad name", asked(TOPIC, "a b"))
    p.each(api, "topic without a name", asked(TOPIC, ""))
    p.each(api, "broker that is not there", asked(BROKER, "5"))
    p.each(api, "broker that is no number", asked(BROKER, "one"))
    p.each(
        api,
        "broker, some keys",
        asked(
            BROKER,
            "1",
            [
                "message.max.bytes",
                "log.retention.hours",
                "auto.create.topics.enable",
                "num.partitions",
            ],
        ),
        pick=keyed,
    )
    p.each(api, "default of brokers", asked(BROKER, ""), pick=keyed)
    p.each(
        api,
        "loggers",
        asked(LOGGER, "1"),
        pick=lambda a: [p.error(r["errorCode"]) for r in a["results"]],
    )
    p.each(api, "loggers of another broker", asked(LOGGER, "5"))
    p.each(
        api,
        "group",
        asked(GROUP, "p-group"),
        pick=lambda a: [
            (p.error(r["errorCode"]), sorted(c["name"] for c in r["configs"])) for r in a["results"]
        ],
    )
    p.each(
        api,
        "client metrics",
        asked(CLIENT_METRICS, "p-metrics"),
        pick=lambda a: [p.error(r["errorCode"]) for r in a["results"]],
    )
    for kind in (0, 1, 3, 99):
        p.each(api, f"resource of kind {kind}", asked(kind, "x"))
    p.each(api, "none", {"resources": []})
    p.each(
        api,
        "same twice",
        {"resources": asked(TOPIC, "p-conf", ["retention.ms"])["resources"] * 2},
        pick=keyed,
    )
    altered(p)
    api = "LIST_CONFIG_RESOURCES"
    p.each(
        api,
        "all kinds",
        {"resourceTypes": []},
        pick=lambda a: [
            p.error(a["errorCode"]),
            sorted({r.get("resourceType") for r in a["configResources"]}, key=str),
        ],
    )
    p.each(
        api,
        "topics",
        {"resourceTypes": [TOPIC]},
        low=1,
        pick=lambda a: [
            p.error(a["errorCode"]),
            [r for r in a["configResources"] if r["resourceName"] == "p-conf"],
        ],
    )
    p.each(api, "kind 99", {"resourceTypes": [99]}, low=1)


def altered(p: Probe) -> None:
    def overrides(name: str) -> Any:
        body = {
            "resources": [{"resourceType": TOPIC, "resourceName": name, "configurationKeys": None}]
        }
        (found,) = p.ask("DESCRIBE_CONFIGS", body)["results"]
        return {c["name"]: c["value"] for c in found["configs"] if c["configSource"] == 1}

    def whole(
        case: str,
        settings: list[tuple[str, str | None]],
        kind: int = TOPIC,
        name: str | None = None,
        **more: Any,
    ) -> None:
        for v in p.versions("ALTER_CONFIGS"):
            topic = (
                name
                if name is not None
                else p.create(
                    f"p-alter-{case.replace(' ', '-').replace(',', '')}.v{v}",
                    retention_ms="5000",
                    segment_ms="7000",
                )
            )
            body = {
                "resources": [
                    {
                        "resourceType": kind,
                        "resourceName": topic,
                        "configs": [{"name": k, "value": w} for k, w in settings],
                    }
                ],
                **more,
            }
            said = p.outcome("ALTER_CONFIGS", v, body)
            p.say(
                f"ALTER_CONFIGS: {case}",
                {"answer": said, "then": overrides(topic) if name is None else None},
                v,
            )

    whole("replaces all", [("retention.ms", "6000")])
    whole("nothing", [])
    whole("only judged", [("retention.ms", "6000")], validateOnly=True)
    whole("unknown key", [("no.such.thing", "1")])
    whole("wrong type", [("retention.ms", "soon")])
    whole("null value", [("retention.ms", None)])
    whole("twice", [("retention.ms", "6000"), ("retention.ms", "7000")])
    whole("topic that is not there", [("retention.ms", "1")], name="p-nowhere")
    whole("kind 99", [("retention.ms", "1")], kind=99, name="x")
    whole("broker that is not there", [("log.cleaner.threads", "1")], kind=BROKER, name="5")

    api = "INCREMENTAL_ALTER_CONFIGS"

    def step(
        case: str,
        *steps: tuple[str, int, str | None],
        kind: int = TOPIC,
        name: str | None = None,
        **more: Any,
    ) -> None:
        for v in p.versions(api):
            topic = (
                name
                if name is not None
                else p.create(
                    f"p-incr-{case.replace(' ', '-').replace(',', '').replace(chr(39), '')}.v{v}",
                    retention_ms="5000",
                    cleanup_policy="compact",
                )
            )
            entries = [{"name": k, "configOperation": op, "value": w} for k, op, w in steps]
            said = p.outcome(
                api,
                v,
                {
                    "resources": [
                        {"resourceType": kind, "resourceName": topic, "configs": entries}
                    ],
                    **more,
                },
            )
            p.say(
                f"{api}: {case}",
                {"answer": said, "then": overrides(topic) if name is None else None},
                v,
            )

    step("set", ("retention.ms", SET, "6000"), ("segment.ms", SET, "9000"))
    step("set to what it is", ("retention.ms", SET, "5000"))
    step("delete", ("retention.ms", DELETE, None))
    step("delete with a value", ("retention.ms", DELETE, "5"))
    step("delete what is not set", ("segment.ms", DELETE, None))
    step("append", ("cleanup.policy", APPEND, "delete"))
    step("append what is there", ("cleanup.policy", APPEND, "compact"))
    step("append two", ("cleanup.policy", APPEND, "delete,compact"))
    step("append nothing", ("cleanup.policy", APPEND, ""))
    step("append to no list", ("retention.ms", APPEND, "1"))
    step("append to a default", ("leader.replication.throttled.replicas", APPEND, "0:1"))
    step("subtract", ("cleanup.policy", SUBTRACT, "compact"))
    step("subtract what is not there", ("cleanup.policy", SUBTRACT, "delete"))
    step("subtract from no list", ("retention.ms", SUBTRACT, "5000"))
    step("operation 9", ("retention.ms", 9, "1"))
    step("set null", ("retention.ms", SET, None))
    step("append null", ("cleanup.policy", APPEND, None))
    step("same key twice", ("retention.ms", SET, "6000"), ("retention.ms", SET, "7000"))
    step("one good, one bad", ("retention.ms", SET, "6000"), ("no.such.thing", SET, "1"))
    step("empty key", ("", SET, "1"))
    step("unknown key deleted", ("no.such.thing", DELETE, None))
    step("wrong type", ("retention.ms", SET, "soon"))
    step("only judged", ("retention.ms", SET, "6000"), validateOnly=True)
    step("only judged, bad", ("retention.ms", SET, "soon"), validateOnly=True)
    step("nothing")
    step("topic that is not there", ("retention.ms", SET, "1"), name="p-nowhere")
    step("topic with a bad name", ("retention.ms", SET, "1"), name="a b")
    step("topic without a name", ("retention.ms", SET, "1"), name="")
    step("broker, dynamic", ("log.cleaner.threads", SET, "1"), kind=BROKER, name="1")
    step("broker, dynamic undone", ("log.cleaner.threads", DELETE, None), kind=BROKER, name="1")
    step("broker, only in its file", ("node.id", SET, "2"), kind=BROKER, name="1")
    step("broker, unknown key", ("no.such.thing", SET, "2"), kind=BROKER, name="1")
    step("broker that is not there", ("log.cleaner.threads", SET, "1"), kind=BROKER, name="5")
    step("default of brokers", ("log.cleaner.threads", SET, "1"), kind=BROKER, name="")
    step("default of brokers undone", ("log.cleaner.threads", DELETE, None), kind=BROKER, name="")
    step("group", ("consumer.session.timeout.ms", SET, "50000"), kind=GROUP, name="p-group")
    step("group, unknown key", ("no.such.thing", SET, "1"), kind=GROUP, name="p-group")
    step("group without a name", ("consumer.session.timeout.ms", SET, "50000"), kind=GROUP, name="")
    step("kind 99", ("x", SET, "1"), kind=99, name="x")
    for key, good, bad in (
        ("cleanup.policy", "compact,delete", "burn"), ("compression.type", "zstd", "rar"), ("max.message.bytes", "0", "-1"),
        ("message.timestamp.type", "LogAppendTime", "Never"), ("min.insync.replicas", "1", "0"), ("retention.ms", "-1", "-2"),
        ("retention.bytes", "-1", "x"), ("segment.bytes", "1048576", "1"), ("segment.ms", "1", "0"), ("flush.messages", "1", "0"),
        ("min.cleanable.dirty.ratio", "0.5", "2"), ("unclean.leader.election.enable", "true", "yes"), ("preallocate", "false", "1"),
        ("file.delete.delay.ms", "0", "-1"), ("index.interval.bytes", "0", "-1"), ("delete.retention.ms", "0", "-1"),
        ("min.compaction.lag.ms", "0", "-1"), ("max.compaction.lag.ms", "1", "0"), ("message.timestamp.before.max.ms", "0", "-1"),
        ("message.timestamp.after.max.ms", "0", "-1"), ("remote.storage.enable", "false", "maybe"), ("local.retention.ms", "-2", "-3"),
        ("follower.replication.throttled.replicas", "*", "a:b"), ("segment.index.bytes", "4", "3"), ("segment.jitter.ms", "0", "-1"),
        ("flush.ms", "0", "-1"), ("compression.gzip.level", "9", "10"), ("compression.lz4.level", "17", "18"), ("compression.zstd.level", "22", "23"),
    ):  # fmt: skip
        step(f"{key} as it may be", (key, SET, good))
        step(f"{key} as it may not", (key, SET, bad))
    p.each(api, "none", {"resources": []})
    p.each(
        api,
        "same topic twice",
        lambda v: {
            "resources": [
                {
                    "resourceType": TOPIC,
                    "resourceName": "p-conf",
                    "configs": [{"name": "retention.ms", "configOperation": SET, "value": "5000"}],
                }
            ]
            * 2
        },
    )


def cluster(p: Probe) -> None:
    p.create("p-cluster", partitions=2)
    api = "DESCRIBE_LOG_DIRS"

    def ours(answer: Body) -> Any:
        for found in answer["results"]:
            found["topics"] = [t for t in found["topics"] if t["name"].startswith("p-cluster")]
        return answer

    p.each(api, "all", {"topics": None}, pick=ours)
    p.each(api, "one", {"topics": [{"topic": "p-cluster", "partitions": [0]}]})
    p.each(api, "not there", {"topics": [{"topic": "p-nowhere", "partitions": [0]}]})
    p.each(api, "none", {"topics": []})
    api = "ALTER_REPLICA_LOG_DIRS"
    p.each(
        api,
        "directory that is not there",
        {"dirs": [{"path": "/nowhere", "topics": [{"name": "p-cluster", "partitions": [0]}]}]},
    )
    p.each(
        api,
        "relative directory",
        {"dirs": [{"path": "nowhere", "topics": [{"name": "p-cluster", "partitions": [0]}]}]},
    )
    p.each(api, "none", {"dirs": []})
    api = "ELECT_LEADERS"

    def elect(name: str, *numbers: int, kind: int = 0) -> Body:
        return {
            "electionType": kind,
            "topicPartitions": [{"topic": name, "partitions": list(numbers)}],
            "timeoutMs": 10_000,
        }

    p.each(api, "preferred", elect("p-cluster", 0, 1))
    p.each(api, "unclean", elect("p-cluster", 0, kind=1), low=1)
    p.each(api, "kind 9", elect("p-cluster", 0, kind=9), low=1)
    p.each(
        api,
        "all",
        {"electionType": 0, "topicPartitions": None, "timeoutMs": 10_000},
        pick=lambda a: {
            **a,
            "replicaElectionResults": [
                r for r in a["replicaElectionResults"] if r["topic"].startswith("p-cluster")
            ],
        },
    )
    p.each(api, "topic that is not there", elect("p-nowhere", 0))
    p.each(api, "partition that is not there", elect("p-cluster", 9))
    p.each(api, "none", {"electionType": 0, "topicPartitions": [], "timeoutMs": 1000})
    api = "ALTER_PARTITION_REASSIGNMENTS"

    def move(name: str, number: int, replicas: list[int] | None, **more: Any) -> Body:
        return {
            "timeoutMs": 10_000,
            "topics": [
                {"name": name, "partitions": [{"partitionIndex": number, "replicas": replicas}]}
            ],
            **more,
        }

    p.each(api, "to where it is", move("p-cluster", 0, [1]))
    p.each(api, "to a broker that is not there", move("p-cluster", 0, [2]))
    p.each(api, "to two brokers", move("p-cluster", 0, [1, 2]))
    p.each(api, "twice to the same", move("p-cluster", 0, [1, 1]))
    p.each(api, "to nobody", move("p-cluster", 0, []))
    p.each(api, "to a negative broker", move("p-cluster", 0, [-1]))
    p.each(api, "cancelled, none under way", move("p-cluster", 0, None))
    p.each(api, "topic that is not there", move("p-nowhere", 0, [1]))
    p.each(api, "partition that is not there", move("p-cluster", 9, [1]))
    p.each(api, "none", {"topics": [], "timeoutMs": 1000})
    p.each(
        api,
        "number of replicas may not change",
        move("p-cluster", 0, [1, 2], allowReplicationFactorChange=False),
        low=1,
    )
    api = "LIST_PARTITION_REASSIGNMENTS"
    p.each(api, "all", {"timeoutMs": 1000, "topics": None})
    p.each(
        api, "one", {"timeoutMs": 1000, "topics": [{"name": "p-cluster", "partitionIndexes": [0]}]}
    )
    p.each(
        api,
        "not there",
        {"timeoutMs": 1000, "topics": [{"name": "p-nowhere", "partitionIndexes": [0]}]},
    )
    api = "DESCRIBE_QUORUM"
    p.each(
        api,
        "metadata",
        {"topics": [{"topicName": "__cluster_metadata", "partitions": [{"partitionIndex": 0}]}]},
        pick=lambda a: {
            "error": p.error(a["errorCode"]),
            "voters": [len(q["currentVoters"]) for t in a["topics"] for q in t["partitions"]],
        },
    )
    p.each(
        api,
        "another topic",
        {"topics": [{"topicName": "p-cluster", "partitions": [{"partitionIndex": 0}]}]},
    )
    api = "UPDATE_FEATURES"

    def update(name: str, level: int, kind: int = 1, **more: Any) -> Body:
        change = {
            "feature": name,
            "maxVersionLevel": level,
            "upgradeType": kind,
            "allowDowngrade": kind != 1,
        }
        return {"timeoutMs": 10_000, "featureUpdates": [change], **more}

    p.each(api, "unknown feature", update("no.such.feature", 1))
    p.each(api, "level too high", update("transaction.version", 99))
    p.each(api, "unknown kind of upgrade", update("transaction.version", 2, 9), low=1)
    p.each(
        api,
        "to what it is, only judged",
        update("transaction.version", 2, validateOnly=True),
        low=1,
    )
    p.each(api, "down without leave", update("transaction.version", 1, validateOnly=True), low=1)
    p.each(api, "none", {"timeoutMs": 1000, "featureUpdates": []})
    api = "DESCRIBE_PRODUCERS"
    for name, topic, number in (
        ("none yet", "p-cluster", 0),
        ("topic that is not there", "p-nowhere", 0),
        ("partition that is not there", "p-cluster", 9),
        ("bad name", "a b", 0),
    ):
        p.each(api, name, {"topics": [{"name": topic, "partitionIndexes": [number]}]})
    for name in (
        "CREATE_DELEGATION_TOKEN",
        "RENEW_DELEGATION_TOKEN",
        "EXPIRE_DELEGATION_TOKEN",
        "DESCRIBE_DELEGATION_TOKEN",
    ):
        p.each(
            name,
            "not set up",
            {"owners": None}
            if name.startswith("DESCRIBE")
            else {"hmac": "AAAA"}
            if "CREATE" not in name
            else {"renewers": [], "maxLifetimeMs": 1000},
        )
    p.each(
        "GET_TELEMETRY_SUBSCRIPTIONS",
        "plain",
        {"clientInstanceId": ZERO_ID},
        pick=lambda a: p.error(a["errorCode"]),
    )


def security(p: Probe) -> None:
    p.each(
        "SASL_HANDSHAKE",
        "where no one signs in",
        {"mechanism": "PLAIN"},
        pick=lambda a: p.error(a["errorCode"]),
    )
    p.each(
        "SASL_AUTHENTICATE",
        "where no one signs in",
        {"authBytes": base64.b64encode(b"\0u\0p").decode()},
        pick=lambda a: p.error(a["errorCode"]),
    )
    topic, literal, prefixed, allow, read = 2, 3, 4, 3, 3

    def acl(**more: Any) -> Body:
        return {
            "resourceType": topic,
            "resourceName": "p-acl",
            "resourcePatternType": literal,
            "principal": "User:a",
            "host": "*",
            "operation": read,
            "permissionType": allow,
            **more,
        }

    def created(**more: Any) -> Body:
        return {"creations": [acl(**more)]}

    def filtered(**more: Any) -> Body:
        return {
            "resourceTypeFilter": topic,
            "resourceNameFilter": None,
            "patternTypeFilter": 1,
            "principalFilter": None,
            "hostFilter": None,
            "operation": 1,
            "permissionType": 1,
            **more,
        }

    api = "CREATE_ACLS"
    p.each(api, "plain", created())
    p.each(api, "again", created())
    p.each(api, "prefixed", created(resourcePatternType=prefixed))
    p.each(api, "all topics", created(resourceName="*"))
    p.each(api, "cluster", created(resourceType=4, resourceName="kafka-cluster", operation=4))
    p.each(
        api, "cluster of another name", created(resourceType=4, resourceName="other", operation=4)
    )
    p.each(api, "principal without a kind", created(principal="a"))
    p.each(api, "empty principal", created(principal=""))
    p.each(api, "empty resource name", created(resourceName=""))
    p.each(api, "operation that topics do not have", created(operation=12))
    p.each(api, "operation any", created(operation=1))
    p.each(api, "operation 99", created(operation=99))
    p.each(api, "permission any", created(permissionType=1))
    p.each(api, "pattern match", created(resourcePatternType=2))
    p.each(api, "resource any", created(resourceType=1))
    p.each(api, "empty host", created(host=""))
    p.each(api, "none", {"creations": []})
    p.each(api, "one good, one bad", {"creations": [acl(), acl(operation=1)]})
    api = "DESCRIBE_ACLS"
    p.each(api, "all", filtered(resourceTypeFilter=1))
    p.each(api, "by name", filtered(resourceNameFilter="p-acl", patternTypeFilter=literal))
    p.each(api, "that match a name", filtered(resourceNameFilter="p-acl-more", patternTypeFilter=2))
    p.each(api, "by principal", filtered(principalFilter="User:b"))
    p.each(api, "operation 0", filtered(operation=0))
    p.each(api, "operation 99", filtered(operation=99))
    p.each(api, "pattern unknown", filtered(patternTypeFilter=0))
    api = "DELETE_ACLS"
    p.each(
        api,
        "none there",
        {"filters": [filtered(resourceNameFilter="p-other", patternTypeFilter=literal)]},
    )
    p.each(
        api,
        "one",
        lambda v: (
            p.ask("CREATE_ACLS", created(resourceName=f"p-x.v{v}")),
            {"filters": [filtered(resourceNameFilter=f"p-x.v{v}", patternTypeFilter=literal)]},
        )[1],
    )
    p.each(api, "operation 0", {"filters": [filtered(operation=0)]})
    p.each(api, "no filters", {"filters": []})
    quotas(p)
    scram(p)


def quotas(p: Probe) -> None:
    api = "ALTER_CLIENT_QUOTAS"

    def change(
        kind: str, name: str | None, key: str, value: float, remove: bool = False, **more: Any
    ) -> Body:
        return {
            "entries": [
                {
                    "entity": [{"entityType": kind, "entityName": name}],
                    "ops": [{"key": key, "value": value, "remove": remove}],
                }
            ],
            **more,
        }

    p.each(api, "of a user", change("user", "u", "producer_byte_rate", 1000.0))
    p.each(api, "of all users", change("user", None, "consumer_byte_rate", 2000.0))
    p.each(api, "of a client", change("client-id", "c", "request_percentage", 50.0))
    p.each(api, "of an address", change("ip", "127.0.0.9", "connection_creation_rate", 10.0))
    p.each(
        api,
        "of an address that is none",
        change("ip", "not an address", "connection_creation_rate", 10.0),
    )
    p.each(api, "unknown key", change("user", "u", "no_such_rate", 1.0))
    p.each(api, "unknown kind", change("planet", "u", "producer_byte_rate", 1.0))
    p.each(api, "zero", change("user", "u", "producer_byte_rate", 0.0))
    p.each(api, "negative", change("user", "u", "producer_byte_rate", -1.0))
    p.each(api, "key of another kind", change("ip", "127.0.0.9", "producer_byte_rate", 1.0))
    p.each(api, "empty name", change("user", "", "producer_byte_rate", 1.0))
    p.each(
        api, "only judged", change("user", "judged", "producer_byte_rate", 1.0, validateOnly=True)
    )
    p.each(api, "removed, not there", change("user", "nobody", "producer_byte_rate", 0.0, True))
    p.each(api, "no entity", {"entries": [{"entity": [], "ops": []}]})
    p.each(api, "none", {"entries": []})
    api = "DESCRIBE_CLIENT_QUOTAS"
    p.each(api, "all", {"components": [], "strict": False})
    p.each(
        api,
        "user",
        {"components": [{"entityType": "user", "matchType": 0, "match": "u"}], "strict": False},
    )
    p.each(
        api,
        "all users, strictly",
        {"components": [{"entityType": "user", "matchType": 2, "match": None}], "strict": True},
    )
    p.each(
        api,
        "default user",
        {"components": [{"entityType": "user", "matchType": 1, "match": None}], "strict": True},
    )
    p.each(
        api,
        "unknown kind",
        {"components": [{"entityType": "planet", "matchType": 2, "match": None}], "strict": True},
    )
    p.each(
        api,
        "empty kind",
        {"components": [{"entityType": "", "matchType": 2, "match": None}], "strict": True},
    )
    p.each(
        api,
        "same kind twice",
        {"components": [{"entityType": "user", "matchType": 2, "match": None}] * 2, "strict": True},
    )
    p.each(
        api,
        "match of kind 9",
        {"components": [{"entityType": "user", "matchType": 9, "match": None}], "strict": True},
    )


def scram(p: Probe) -> None:
    api = "ALTER_USER_SCRAM_CREDENTIALS"
    salt, salted = base64.b64encode(b"salt" * 4).decode(), base64.b64encode(b"p" * 32).decode()

    def upsert(**more: Any) -> Body:
        return {
            "deletions": [],
            "upsertions": [
                {
                    "name": "su",
                    "mechanism": 1,
                    "iterations": 4096,
                    "salt": salt,
                    "saltedPassword": salted,
                    **more,
                }
            ],
        }

    p.each(api, "new", upsert())
    p.each(api, "again", upsert(iterations=5000))
    p.each(
        api,
        "SHA-512",
        upsert(mechanism=2, saltedPassword=base64.b64encode(b"p" * 64).decode()),
    )
    p.each(api, "too few iterations", upsert(iterations=10))
    p.each(api, "too many iterations", upsert(iterations=100_000))
    p.each(api, "mechanism 0", upsert(mechanism=0))
    p.each(api, "mechanism 9", upsert(mechanism=9))
    p.each(api, "no name", upsert(name=""))
    p.each(
        api,
        "deleted, not there",
        {"deletions": [{"name": "nobody", "mechanism": 1}], "upsertions": []},
    )
    p.each(
        api, "deleted and made at once", {**upsert(), "deletions": [{"name": "su", "mechanism": 1}]}
    )
    p.each(api, "same twice", {"deletions": [], "upsertions": upsert()["upsertions"] * 2})
    api = "DESCRIBE_USER_SCRAM_CREDENTIALS"
    p.each(api, "all", {"users": None})
    p.each(api, "one", {"users": [{"name": "su"}]})
    p.each(api, "not there", {"users": [{"name": "nobody"}]})
    p.each(api, "same twice", {"users": [{"name": "su"}, {"name": "su"}]})
    p.each(api, "empty list", {"users": []})
    p.each(
        "ALTER_USER_SCRAM_CREDENTIALS",
        "deleted",
        {"deletions": [{"name": "su", "mechanism": 2}], "upsertions": []},
    )


CASES = {
    "versions": versions,
    "metadata": metadata,
    "topics": topics,
    "configs": configs,
    "cluster": cluster,
    "security": security,
}
