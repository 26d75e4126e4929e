"""Cases of groups and their offsets: coordinator, joining, syncing, heartbeats, leaving, commits, administration."""

from __future__ import annotations

import base64
import time
from typing import Any

from probe import UNKNOWN_ID, Body, Connection, Probe

META = base64.b64encode(
    b"\x00\x01\x00\x00\x00\x01\x00\x0bp-committed\xff\xff\xff\xff\xff\xff\xff\xff"
).decode()
SHARE = base64.b64encode(b"\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff").decode()
PROTOCOL = {"name": "range", "metadata": META}


def find(p: Probe) -> None:
    api = "FIND_COORDINATOR"

    def body(key: str, kind: int = 0) -> Body:
        return {"key": key, "keyType": kind, "coordinatorKeys": [key]}

    p.each(api, "group", body("g"))
    p.each(api, "transaction", body("t", 1))
    p.each(api, "empty key", body(""))
    p.each(api, "empty transactional id", body("", 1))
    p.each(api, "share group, key without form", body("g", 2))
    p.each(api, "share group", body(f"g:{UNKNOWN_ID}:0", 2))
    p.each(api, "kind 9", body("g", 9))
    p.each(api, "no keys", {"keyType": 0, "coordinatorKeys": []}, low=4)
    p.each(api, "two keys", {"keyType": 0, "coordinatorKeys": ["a", "b"]}, low=4)
    p.each(api, "same key twice", {"keyType": 0, "coordinatorKeys": ["a", "a"]}, low=4)


class Member:
    """One classic member on its own connection."""

    def __init__(self, p: Probe, group: str, instance: str | None = None, version: int = 0) -> None:
        self.p, self.group, self.instance, self.version = p, group, instance, version
        self.connection: Connection = p.connect()
        self.id, self.generation = "", -1

    def joining(self, **more: Any) -> Body:
        return {
            "groupId": self.group,
            "sessionTimeoutMs": 10_000,
            "rebalanceTimeoutMs": 10_000,
            "memberId": self.id,
            "groupInstanceId": self.instance,
            "protocolType": "consumer",
            "protocols": [PROTOCOL],
            **more,
        }

    def start_join(self, **more: Any) -> int:
        return self.connection.send("JOIN_GROUP", self.version, self.joining(**more))

    def end_join(self, sent: int) -> Body:
        answer = self.connection.answer("JOIN_GROUP", self.version, sent)
        if answer["errorCode"] in (0, 79):
            self.id = answer["memberId"]
            self.generation = answer["generationId"]
        return answer

    def join(self, **more: Any) -> Body:
        """Joins, over the answer that gives a member its id first."""
        deadline = time.monotonic() + 20
        while True:
            answer = self.end_join(self.start_join(**more))
            passing = answer["errorCode"] in (14, 15, 16) and time.monotonic() < deadline
            if answer["errorCode"] != 79 and not passing:
                return answer
            if passing:
                time.sleep(0.1)

    def _ask(self, api: str, body: Body) -> Body:
        version = min(self.p.newest(api), {"SYNC_GROUP": 5, "HEARTBEAT": 4}.get(api, 99))
        return self.connection.ask(api, version, body)

    def start_sync(self, *assigned: str) -> int:
        return self.connection.send(
            "SYNC_GROUP", self.p.newest("SYNC_GROUP"), self.syncing(*assigned)
        )

    def end_sync(self, sent: int) -> Body:
        return self.connection.answer("SYNC_GROUP", self.p.newest("SYNC_GROUP"), sent)

    def syncing(self, *assigned: str, **more: Any) -> Body:
        return {
            "groupId": self.group,
            "generationId": self.generation,
            "memberId": self.id,
            "groupInstanceId": self.instance,
            "protocolType": "consumer",
            "protocolName": "range",
            "assignments": [{"memberId": m, "assignment": SHARE} for m in assigned],
            **more,
        }

    def sync(self, *assigned: str, **more: Any) -> Body:
        return self._ask("SYNC_GROUP", self.syncing(*assigned, **more))

    def beating(self, **more: Any) -> Body:
        return {
            "groupId": self.group,
            "generationId": self.generation,
            "memberId": self.id,
            "groupInstanceId": self.instance,
            **more,
        }

    def beat(self, **more: Any) -> str:
        return self.p.error(self._ask("HEARTBEAT", self.beating(**more))["errorCode"])

    def stable(self) -> Member:
        answer = self.join()
        assert answer["errorCode"] == 0, answer
        answer = self.sync(self.id)
        assert answer["errorCode"] == 0, answer
        return self

    def leave(self) -> None:
        self._ask(
            "LEAVE_GROUP",
            {
                "groupId": self.group,
                "members": [{"memberId": self.id, "groupInstanceId": self.instance}],
            },
        )
        self.connection.__exit__()


def classic(p: Probe) -> None:
    p.create("p-committed", partitions=2)
    joins = p.newest("JOIN_GROUP")

    def joining(**more: Any) -> Body:
        return Member(p, "p-join-errors").joining(**more)

    p.each("JOIN_GROUP", "first without an id", lambda v: joining(groupId=f"p-first.v{v}"), low=4)
    p.each(
        "JOIN_GROUP", "id that is not a member's", joining(memberId="stranger", groupId="p-none")
    )
    p.each("JOIN_GROUP", "session time-out too short", joining(sessionTimeoutMs=1))
    p.each("JOIN_GROUP", "session time-out too long", joining(sessionTimeoutMs=99_999_999))
    p.each("JOIN_GROUP", "session time-out negative", joining(sessionTimeoutMs=-1))
    p.each("JOIN_GROUP", "no protocols", joining(protocols=[]))
    p.each("JOIN_GROUP", "no protocol type", joining(protocolType=""))
    p.each("JOIN_GROUP", "empty group id", joining(groupId=""))
    p.each("JOIN_GROUP", "empty instance id", joining(groupInstanceId=""), low=5)
    p.each("JOIN_GROUP", "instance id with blanks", joining(groupInstanceId="a b"), low=5)
    p.each("JOIN_GROUP", "instance id '..'", joining(groupInstanceId=".."), low=5)
    p.each(
        "JOIN_GROUP",
        "same protocol twice",
        lambda v: joining(groupId=f"p-twice.v{v}", protocols=[PROTOCOL, PROTOCOL]),
        low=4,
    )

    for api in ("SYNC_GROUP", "HEARTBEAT"):
        stranger = {
            "groupId": "p-none",
            "generationId": 1,
            "memberId": "m",
            "protocolType": "consumer",
            "protocolName": "range",
        }
        p.each(api, "group that is not there", stranger)
        p.each(api, "empty group id", {**stranger, "groupId": ""})
        p.each(api, "empty member id", {**stranger, "memberId": ""})
    p.each(
        "LEAVE_GROUP",
        "group that is not there",
        {"groupId": "p-none", "memberId": "m", "members": [{"memberId": "m"}]},
    )
    p.each(
        "LEAVE_GROUP",
        "empty group id",
        {"groupId": "", "memberId": "m", "members": [{"memberId": "m"}]},
    )
    p.each("LEAVE_GROUP", "no members", {"groupId": "p-none", "members": []}, low=3)

    def lifecycle(version: int) -> Any:
        """Every call of one member in one version of JoinGroup, and answers to what is wrong."""
        said: dict[str, Any] = {}
        member = Member(p, f"p-life.v{version}", version=version)
        began = time.monotonic()
        said["join"] = p.plain(member.join())
        took = time.monotonic() - began
        said["first rebalance"] = "about 3 s" if 2.5 <= took < 6 else f"{took:.0f} s"
        said["beat before sync"] = member.beat()
        said["sync, generation too low"] = p.plain(
            member.sync(member.id, generationId=member.generation - 1)
        )["errorCode"]
        said["sync, generation too high"] = p.plain(
            member.sync(member.id, generationId=member.generation + 1)
        )["errorCode"]
        said["sync, other protocol"] = p.plain(member.sync(member.id, protocolName="roundrobin"))[
            "errorCode"
        ]
        said["sync, other type"] = p.plain(member.sync(member.id, protocolType="connect"))[
            "errorCode"
        ]
        said["sync"] = p.plain(member.sync(member.id))
        said["sync again"] = p.plain(member.sync(member.id))
        said["beat"] = member.beat()
        said["beat, generation too low"] = member.beat(generationId=member.generation - 1)
        said["beat, generation too high"] = member.beat(generationId=member.generation + 1)
        said["beat, other member"] = member.beat(memberId="other")
        said["beat, no member"] = member.beat(memberId="")
        said["beat, instance id of nobody"] = member.beat(groupInstanceId="i")
        said["commit"] = commit(member)
        said["commit, generation too low"] = commit(
            member, generationIdOrMemberEpoch=member.generation - 1
        )
        said["commit, other member"] = commit(member, memberId="other")
        said["commit, nobody"] = commit(member, memberId="", generationIdOrMemberEpoch=-1)
        said["join of another type"] = p.plain(
            p.ask("JOIN_GROUP", member.joining(memberId="", protocolType="connect"), joins)
        )["errorCode"]
        said["join without common protocol"] = p.plain(
            p.ask(
                "JOIN_GROUP",
                member.joining(memberId="", protocols=[{"name": "other", "metadata": META}]),
                joins,
            )
        )["errorCode"]
        said["delete group with members"] = p.plain(
            p.ask("DELETE_GROUPS", {"groupsNames": [member.group]})
        )
        said["delete offset of subscribed topic"] = p.plain(
            p.ask(
                "OFFSET_DELETE",
                {
                    "groupId": member.group,
                    "topics": [{"name": "p-committed", "partitions": [{"partitionIndex": 0}]}],
                },
            )
        )
        said["described"] = p.plain(
            p.ask(
                "DESCRIBE_GROUPS", {"groups": [member.group], "includeAuthorizedOperations": True}
            )
        )
        said["joins again, the same"] = p.plain(member.join())
        said["sync 2"] = p.plain(member.sync(member.id))["errorCode"]
        left = {
            "groupId": member.group,
            "memberId": member.id,
            "members": [{"memberId": member.id}, {"memberId": "other"}],
        }
        said["leave"] = p.plain(p.ask("LEAVE_GROUP", left))
        said["leave again"] = p.plain(p.ask("LEAVE_GROUP", left))
        said["beat after leaving"] = member.beat()
        said["described empty"] = p.plain(p.ask("DESCRIBE_GROUPS", {"groups": [member.group]}))
        said["delete"] = p.plain(p.ask("DELETE_GROUPS", {"groupsNames": [member.group]}))
        said["described deleted"] = p.plain(p.ask("DESCRIBE_GROUPS", {"groups": [member.group]}))
        member.connection.__exit__()
        return said

    def commit(member: Member, **more: Any) -> Any:
        version = min(9, p.newest("OFFSET_COMMIT"))
        body = {
            "groupId": member.group,
            "generationIdOrMemberEpoch": member.generation,
            "memberId": member.id,
            "groupInstanceId": member.instance,
            "topics": [
                {
                    "name": "p-committed",
                    "partitions": [
                        {"partitionIndex": 0, "committedOffset": 3, "committedMetadata": "m"}
                    ],
                }
            ],
            **more,
        }
        answer = p.plain(p.ask("OFFSET_COMMIT", body, version))
        return answer["topics"][0]["partitions"][0]["errorCode"]

    p.scenario("JOIN_GROUP", "life of a member", lifecycle)

    def followed(version: int) -> Any:
        """Two members: the leader hears of both, the follower's sync waits for the leader's."""
        said: dict[str, Any] = {}
        one, two = (Member(p, f"p-two.v{version}", version=version) for _ in range(2))
        one.stable()
        if version >= 4:
            said["second asks for an id"] = p.plain(two.end_join(two.start_join()))["errorCode"]
        sent = two.start_join()
        said["leader hears of the rebalance"] = wait_beat(one, "REBALANCE_IN_PROGRESS")
        said["commit during the rebalance"] = commit(one)
        said["sync during the rebalance"] = p.plain(one.sync(one.id))["errorCode"]
        again = one.start_join()
        second, first = two.end_join(sent), one.end_join(again)
        said["second's answer"] = p.plain(second)
        said["members the leader hears of"] = len(first["members"])
        said["generations agree"] = first["generationId"] == second["generationId"]
        said["beat while syncing"] = two.beat()
        waiting = two.start_sync()
        two.connection.limit(1.5)
        try:
            said["follower's sync"] = p.plain(two.end_sync(waiting))
        except Exception as error:
            said["follower's sync"] = f"waits ({type(error).__name__})"
        two.connection.limit(20)
        said["leader's sync, both assigned"] = p.plain(one.sync(one.id, two.id))
        said["follower's sync then"] = p.plain(two.end_sync(waiting))
        said["follower joins again, nothing new"] = p.plain(two.join())
        said["leader is not disturbed"] = one.beat()
        one.leave()
        said["follower hears that the leader left"] = wait_beat(two, "REBALANCE_IN_PROGRESS")
        answer = two.join()
        said["follower leads"] = answer["leader"] == two.id
        said["assignment without itself"] = p.plain(two.sync())
        two.leave()
        return said

    p.scenario("JOIN_GROUP", "two members", followed)

    def static(version: int) -> Any:
        said: dict[str, Any] = {}
        one = Member(p, f"p-static.v{version}", "inst", version)
        said["join"] = p.plain(one.join())
        said["sync"] = p.plain(one.sync(one.id))
        back = Member(p, one.group, "inst", version)
        began = time.monotonic()
        said["comes back under the same name"] = p.plain(back.join())
        said["at once"] = time.monotonic() - began < 2
        said["same id"] = back.id == one.id
        said["old one beats"] = one.beat()
        said["old one commits"] = commit(one)
        said["old one syncs"] = p.plain(one.sync(one.id))["errorCode"]
        said["old one joins"] = p.plain(one.end_join(one.start_join()))["errorCode"]
        said["old one leaves"] = p.plain(
            p.ask(
                "LEAVE_GROUP",
                {
                    "groupId": one.group,
                    "members": [{"memberId": one.id, "groupInstanceId": "inst"}],
                },
            )
        )
        said["new one syncs"] = p.plain(back.sync())
        said["new one beats"] = back.beat()
        said["unknown instance"] = back.beat(groupInstanceId="other")
        said["instance leaves without its id"] = p.plain(
            p.ask(
                "LEAVE_GROUP",
                {"groupId": one.group, "members": [{"memberId": "", "groupInstanceId": "inst"}]},
            )
        )
        said["unknown instance leaves"] = p.plain(
            p.ask(
                "LEAVE_GROUP",
                {"groupId": one.group, "members": [{"memberId": "", "groupInstanceId": "other"}]},
            )
        )
        return said

    p.scenario("JOIN_GROUP", "static member", static, low=5)

    def expired(_: int) -> Any:
        member = Member(p, "p-expired", version=joins)
        member.join(sessionTimeoutMs=6000)
        member.sync(member.id)
        deadline = time.monotonic() + 15
        state = ""
        while time.monotonic() < deadline and state != "Empty":
            state = p.ask("DESCRIBE_GROUPS", {"groups": [member.group]})["groups"][0]["groupState"]
            time.sleep(0.2)
        return {"state": state, "beat": member.beat()}

    p.say("HEARTBEAT: none for the session time-out", expired(0))


def wait_beat(member: Member, expected: str) -> str:
    deadline = time.monotonic() + 10
    while (said := member.beat()) != expected and time.monotonic() < deadline:
        time.sleep(0.1)
    return said


def commits(p: Probe) -> None:
    p.create("p-offsets", partitions=3)
    api = "OFFSET_COMMIT"

    def body(group: str, **more: Any) -> Body:
        partition = {
            "partitionIndex": 0,
            "committedOffset": 5,
            "committedLeaderEpoch": -1,
            "committedMetadata": "m",
        }
        for key in list(more):
            if key in partition:
                partition[key] = more.pop(key)
        topic = more.pop("topic", "p-offsets")
        where = {"name": topic, "topicId": p.ids.get(topic, UNKNOWN_ID)}
        return {
            "groupId": group,
            "generationIdOrMemberEpoch": -1,
            "memberId": "",
            "retentionTimeMs": -1,
            "topics": [{**where, "partitions": [partition]}],
            **more,
        }

    p.each(api, "group without members", lambda v: body(f"p-alone.v{v}"))
    p.each(
        api, "generation of nobody", lambda v: body(f"p-alone-5.v{v}", generationIdOrMemberEpoch=5)
    )
    p.each(api, "member of nobody", lambda v: body(f"p-alone-m.v{v}", memberId="m"))
    p.each(
        api,
        "member and generation of nobody",
        lambda v: body(f"p-alone-n.v{v}", memberId="m", generationIdOrMemberEpoch=5),
    )
    p.each(api, "instance of nobody", lambda v: body(f"p-alone-i.v{v}", groupInstanceId="i"), low=7)
    p.each(api, "empty group id", body(""))
    p.each(api, "topic that is not there", body("p-c", topic="p-nowhere"))
    p.each(api, "topic name not valid", body("p-c", topic="not a name!"), high=9)
    p.each(api, "partition that is not there", body("p-c", partitionIndex=9))
    p.each(api, "negative partition", body("p-c", partitionIndex=-1))
    p.each(api, "negative offset", body("p-c", committedOffset=-1))
    p.each(api, "offset far below zero", body("p-c", committedOffset=-100))
    p.each(api, "offset beyond the end", body("p-c", committedOffset=1 << 40))
    p.each(api, "metadata null", body("p-c", committedMetadata=None))
    p.each(api, "metadata of 4096 bytes", body("p-c", committedMetadata="x" * 4096))
    p.each(api, "metadata of 4097 bytes", body("p-c", committedMetadata="x" * 4097))
    p.each(api, "retention time", body("p-c", retentionTimeMs=1), high=4)
    p.each(api, "no topics", {"groupId": "p-c", "generationIdOrMemberEpoch": -1, "topics": []})
    p.each(
        api,
        "no partitions",
        {
            "groupId": "p-c",
            "generationIdOrMemberEpoch": -1,
            "topics": [{"name": "p-offsets", "topicId": p.ids["p-offsets"], "partitions": []}],
        },
    )
    p.each(
        api,
        "same partition twice",
        lambda v: {
            **(b := body(f"p-c2.v{v}")),
            "topics": [
                {
                    **b["topics"][0],
                    "partitions": [{"partitionIndex": 0, "committedOffset": n} for n in (1, 2)],
                }
            ],
        },
    )
    p.each(api, "internal topic", body("p-c", topic="__consumer_offsets"), high=9)
    fetched(p, body)


def fetched(p: Probe, commit: Any) -> None:
    api = "OFFSET_FETCH"
    p.ask("OFFSET_COMMIT", commit("p-read", committedMetadata="m", committedLeaderEpoch=p.epoch), 9)
    p.ask(
        "OFFSET_COMMIT",
        commit("p-read", partitionIndex=1, committedMetadata=None, committedOffset=7),
        9,
    )

    def body(
        group: str, partitions: list[int] | None, topic: str = "p-offsets", **more: Any
    ) -> Body:
        topics = None
        if partitions is not None:
            topics = [
                {
                    "name": topic,
                    "topicId": p.ids.get(topic, UNKNOWN_ID),
                    "partitionIndexes": partitions,
                }
            ]
        one = {"groupId": group, "topics": topics, "memberId": None, "memberEpoch": -1}
        for key in ("memberId", "memberEpoch"):
            if key in more:
                one[key] = more.pop(key)
        return {"groupId": group, "topics": topics, "groups": [one], **more}

    p.each(api, "committed, and not", body("p-read", [0, 1, 2]))
    p.each(api, "all", body("p-read", None), low=2)
    p.each(
        api,
        "no topics",
        {"groupId": "p-read", "topics": [], "groups": [{"groupId": "p-read", "topics": []}]},
    )
    p.each(api, "no partitions", body("p-read", []))
    p.each(api, "partition that is not there", body("p-read", [9]))
    p.each(api, "negative partition", body("p-read", [-1]))
    p.each(api, "same partition twice", body("p-read", [0, 0]))
    p.each(api, "topic that is not there", body("p-read", [0], "p-nowhere"))
    p.each(api, "group that is not there", body("p-none", [0]))
    p.each(api, "group that is not there, all", body("p-none", None), low=2)
    p.each(api, "empty group id", body("", [0]))
    p.each(api, "stable only", body("p-read", [0], requireStable=True), low=7)
    p.each(api, "member of nobody", body("p-read", [0], memberId="m", memberEpoch=3), low=9)
    p.each(api, "no groups", {"groups": []}, low=8)
    p.each(
        api,
        "two groups",
        lambda v: {"groups": [body("p-read", [0])["groups"][0], body("p-none", None)["groups"][0]]},
        low=8,
    )
    p.each(api, "same group twice", lambda v: {"groups": body("p-read", [0])["groups"] * 2}, low=8)


def administration(p: Probe) -> None:
    p.create("p-committed", partitions=2) if "p-committed" not in p.ids else None
    member = Member(p, "p-admin", version=min(9, p.newest("JOIN_GROUP"))).stable()
    empty = {"groupId": "p-admin-empty", "generationIdOrMemberEpoch": -1, "memberId": ""}
    topic = {"name": "p-committed", "partitions": [{"partitionIndex": 0, "committedOffset": 1}]}
    p.ask("OFFSET_COMMIT", {**empty, "topics": [topic]}, 9)

    def ours(answer: Body) -> Any:
        return {
            **answer,
            "groups": [g for g in answer["groups"] if g["groupId"].startswith("p-admin")],
        }

    api = "LIST_GROUPS"
    p.each(api, "all", {}, pick=ours)
    for state in ("Stable", "stable", "Empty", "Dead", "Nonsense", ""):
        p.each(api, f"state {state!r}", {"statesFilter": [state]}, pick=ours, low=4)
    for kind in ("Classic", "classic", "consumer", "Nonsense", "share", "streams"):
        p.each(api, f"type {kind!r}", {"typesFilter": [kind]}, pick=ours, low=5)
    api = "DESCRIBE_GROUPS"
    p.each(api, "stable", {"groups": ["p-admin"]})
    p.each(
        api, "with operations", {"groups": ["p-admin"], "includeAuthorizedOperations": True}, low=3
    )
    p.each(api, "empty", {"groups": ["p-admin-empty"]})
    p.each(api, "not there", {"groups": ["p-none"]})
    p.each(api, "no name", {"groups": [""]})
    p.each(api, "none", {"groups": []})
    p.each(api, "twice", {"groups": ["p-none", "p-none"]})
    api = "DELETE_GROUPS"
    p.each(api, "with members", {"groupsNames": ["p-admin"]})
    p.each(api, "not there", {"groupsNames": ["p-none"]})
    p.each(api, "no name", {"groupsNames": [""]})
    p.each(api, "none", {"groupsNames": []})
    p.each(api, "twice", {"groupsNames": ["p-none", "p-none"]})
    api = "OFFSET_DELETE"

    def body(group: str, name: str, *partitions: int) -> Body:
        return {
            "groupId": group,
            "topics": [{"name": name, "partitions": [{"partitionIndex": n} for n in partitions]}],
        }

    p.create("p-unsubscribed")
    p.ask("OFFSET_COMMIT", {**empty, "topics": [{**topic, "name": "p-unsubscribed"}]}, 9)
    p.each(api, "subscribed topic", body("p-admin", "p-committed", 0))
    p.each(api, "other topic of a group with members", body("p-admin", "p-unsubscribed", 0))
    p.each(api, "committed", body("p-admin-empty", "p-committed", 0))
    p.each(api, "not committed", body("p-admin-empty", "p-committed", 1))
    p.each(api, "partition that is not there", body("p-admin-empty", "p-committed", 9))
    p.each(api, "topic that is not there", body("p-admin-empty", "p-nowhere", 0))
    p.each(api, "group that is not there", body("p-none", "p-committed", 0))
    p.each(api, "no name", body("", "p-committed", 0))
    p.each(api, "no topics", {"groupId": "p-admin-empty", "topics": []})
    member.leave()


def modern(p: Probe) -> None:
    """Groups of KIP-848 and share groups, where they are offered."""
    api = "CONSUMER_GROUP_HEARTBEAT"
    if p.has(api):
        p.create("p-modern", partitions=2)
        member = base64.urlsafe_b64encode(b"0123456789abcdef").decode().rstrip("=")

        def body(**more: Any) -> Body:
            return {
                "groupId": "p-modern",
                "memberId": member,
                "memberEpoch": 0,
                "rebalanceTimeoutMs": 10_000,
                "subscribedTopicNames": ["p-modern"],
                "topicPartitions": [],
                **more,
            }

        p.each(api, "joins", lambda v: body(groupId=f"p-modern.v{v}"))
        p.each(api, "no group id", body(groupId=""))
        p.each(api, "no subscription", body(groupId="p-m2", subscribedTopicNames=None))
        p.each(api, "epoch 5 of nobody", body(groupId="p-m3", memberEpoch=5))
        p.each(api, "epoch -3", body(groupId="p-m3", memberEpoch=-3))
        p.each(api, "leaves, being nobody", body(groupId="p-m3", memberEpoch=-1))
        p.each(api, "unknown assignor", body(groupId="p-m4", serverAssignor="other"))
        p.each(api, "no rebalance time-out", body(groupId="p-m4", rebalanceTimeoutMs=-1))
        p.each(api, "no member id", body(groupId="p-m5", memberId=""))
        p.each(
            api,
            "regular expression",
            body(groupId="p-m6", subscribedTopicNames=None, subscribedTopicRegex="p-mod.*"),
            low=1,
        )
        p.each(
            api,
            "regular expression that is none",
            body(groupId="p-m7", subscribedTopicNames=None, subscribedTopicRegex="("),
            low=1,
        )
        p.each(
            "CONSUMER_GROUP_DESCRIBE",
            "member",
            {"groupIds": ["p-modern.v1"], "includeAuthorizedOperations": True},
        )
        p.each("CONSUMER_GROUP_DESCRIBE", "not there", {"groupIds": ["p-none"]})
        p.each("CONSUMER_GROUP_DESCRIBE", "none", {"groupIds": []})
        p.each("CONSUMER_GROUP_DESCRIBE", "no name", {"groupIds": [""]})
    if p.has("SHARE_GROUP_HEARTBEAT"):
        base = {
            "groupId": "p-share",
            "memberId": "m",
            "memberEpoch": 0,
            "subscribedTopicNames": ["p-modern"],
        }
        p.each("SHARE_GROUP_HEARTBEAT", "no group id", {**base, "groupId": ""})
        p.each("SHARE_GROUP_HEARTBEAT", "epoch 5 of nobody", {**base, "memberEpoch": 5})
        p.each("SHARE_GROUP_DESCRIBE", "not there", {"groupIds": ["p-none"]})


CASES = {
    "find": find,
    "commits": commits,
    "classic": classic,
    "groupadmin": administration,
    "modern": modern,
}
