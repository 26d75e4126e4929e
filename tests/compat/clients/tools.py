"""Apache Kafka's own tools, by their main classes, as the scripts of its release archive run them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

from steps import BOOTSTRAP, client, report, step

WORK = Path(os.environ["COMPAT_WORK"])
JAVA = [
    "java", "-Xmx256m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={os.environ['COMPAT_LOG4J']}",
    "-cp", os.environ["COMPAT_CLASSPATH"],
]  # fmt: skip
TOOLS = "org.apache.kafka.tools."
TOPICS, CONFIGS, ACLS = f"{TOOLS}TopicCommand", "kafka.admin.ConfigCommand", f"{TOOLS}AclCommand"
GROUPS = f"{TOOLS}consumer.group.ConsumerGroupCommand"
TRANSACTIONS = f"{TOOLS}TransactionsCommand"
TIMEOUT_S = 60
SERVER = ("--bootstrap-server", BOOTSTRAP)


def tool(main: str, *arguments: str, stdin: str | None = None) -> tuple[int, list[str], str]:
    """Exit code, lines of stdout, stderr."""
    done = subprocess.run(
        [*JAVA, main, *arguments], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    return (
        done.returncode,
        [line.rstrip() for line in done.stdout.splitlines() if line.strip()],
        done.stderr,
    )


def plain(line: str) -> str:
    """Without ids, ports, times and runs of blanks."""
    for pattern, word in (
        (r"\b\d{1,3}(\.\d{1,3}){3}:\d+\b", "ADDRESS"),
        (r"(TopicId: |topicId=)[\w-]{22}", r"\1ID"),
        (r"\b(member|client)(-\w+)*-[0-9a-f]{8}-[0-9a-f-]{27}\b", "MEMBER"),
        (r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}\b", "UUID"),
        (r"\b1[0-9]{12}\b", "TIME"),
        (r"\b127\.0\.0\.1 +\d+", "ADDRESS"),
        (r"Epoch: \d+", "Epoch: N"),
        # Set by KRaft itself for every topic, and of no use on a single node.
        (r"min\.insync\.replicas=1,?", ""),
        (r"\s+", " "),
    ):
        line = re.sub(pattern, word, line)
    return line.strip()


def errors(text: str) -> list[str]:
    return sorted(set(re.findall(r"\b[A-Z]\w+(?:Exception|Error)\b", text)))


def run(name: str, main: str, *arguments: str, keep: str = "", stdin: str | None = None) -> None:
    """A step of what a tool said, or of the lines that match `keep`; of a failure, the errors it names."""

    def action() -> Any:
        code, lines, complaints = tool(main, *arguments, stdin=stdin)
        if code != 0:
            return {"exit": code, "errors": errors("\n".join(lines) + complaints)}
        return sorted(plain(line) for line in lines if re.search(keep, line))

    step(name, action)


def count(name: str, main: str, *arguments: str, keep: str = "", stdin: str | None = None) -> None:
    """A step of how many lines match."""

    def action() -> Any:
        code, lines, complaints = tool(main, *arguments, stdin=stdin)
        found = len([line for line in lines if re.search(keep, line)])
        return (
            found if code == 0 else {"exit": code, "errors": errors("\n".join(lines) + complaints)}
        )

    step(name, action)


def topics() -> None:
    run(
        "kafka-topics --create",
        TOPICS,
        *SERVER,
        "--create",
        "--topic",
        "tools",
        "--partitions",
        "3",
        "--replication-factor",
        "1",
        "--config",
        "retention.ms=3600000",
    )
    run("kafka-topics --create again", TOPICS, *SERVER, "--create", "--topic", "tools")
    run(
        "kafka-topics --create --if-not-exists",
        TOPICS,
        *SERVER,
        "--create",
        "--topic",
        "tools",
        "--if-not-exists",
    )
    run("kafka-topics --create, defaults", TOPICS, *SERVER, "--create", "--topic", "tools-default")
    run(
        "kafka-topics --create, two replicas",
        TOPICS,
        *SERVER,
        "--create",
        "--topic",
        "tools-two",
        "--replication-factor",
        "2",
    )
    run(
        "kafka-topics --create, assigned",
        TOPICS,
        *SERVER,
        "--create",
        "--topic",
        "tools-assigned",
        "--replica-assignment",
        "1,1",
    )
    run("kafka-topics --list", TOPICS, *SERVER, "--list", keep="^tools")
    run(
        "kafka-topics --describe",
        TOPICS,
        *SERVER,
        "--describe",
        "--topic",
        "tools",
        keep="Partition: |PartitionCount",
    )
    run(
        "kafka-topics --describe --topics-with-overrides",
        TOPICS,
        *SERVER,
        "--describe",
        "--topics-with-overrides",
        keep="tools",
    )
    for flag in ("under-replicated", "unavailable", "under-min-isr", "at-min-isr"):
        run(
            f"kafka-topics --describe --{flag}-partitions",
            TOPICS,
            *SERVER,
            "--describe",
            f"--{flag}-partitions",
            keep="Topic: tools\t",
        )
    run(
        "kafka-topics --alter",
        TOPICS,
        *SERVER,
        "--alter",
        "--topic",
        "tools-default",
        "--partitions",
        "4",
    )
    run(
        "kafka-topics --alter, fewer",
        TOPICS,
        *SERVER,
        "--alter",
        "--topic",
        "tools-default",
        "--partitions",
        "2",
    )
    run("kafka-topics --delete", TOPICS, *SERVER, "--delete", "--topic", "tools-assigned")
    run("kafka-topics --delete, not there", TOPICS, *SERVER, "--delete", "--topic", "tools-nowhere")


def configs() -> None:
    entity = ("--entity-type", "topics", "--entity-name", "tools")
    run("kafka-configs --describe", CONFIGS, *SERVER, *entity, "--describe")
    count(
        "kafka-configs --describe --all",
        CONFIGS,
        *SERVER,
        *entity,
        "--describe",
        "--all",
        keep="(retention|cleanup|segment)",
    )
    run(
        "kafka-configs --alter",
        CONFIGS,
        *SERVER,
        *entity,
        "--alter",
        "--add-config",
        "cleanup.policy=[compact,delete],max.message.bytes=2000",
    )
    run(
        "kafka-configs --alter --delete-config",
        CONFIGS,
        *SERVER,
        *entity,
        "--alter",
        "--delete-config",
        "retention.ms",
    )
    run(
        "kafka-configs --alter, wrong",
        CONFIGS,
        *SERVER,
        *entity,
        "--alter",
        "--add-config",
        "retention.ms=soon",
    )
    run("kafka-configs --describe then", CONFIGS, *SERVER, *entity, "--describe")
    run(
        "kafka-configs --alter back",
        CONFIGS,
        *SERVER,
        *entity,
        "--alter",
        "--delete-config",
        "cleanup.policy,max.message.bytes",
    )
    run(
        "kafka-configs of the broker",
        CONFIGS,
        *SERVER,
        "--entity-type",
        "brokers",
        "--entity-name",
        "1",
        "--describe",
        "--all",
        keep="^ *(num.partitions|auto.create.topics.enable)=",
    )
    for kind, name, setting in (
        ("users", "someone", "producer_byte_rate=1000"),
        ("clients", "some-client", "consumer_byte_rate=2000"),
        ("users", "scram-user", "SCRAM-SHA-256=[iterations=4096,password=secret]"),
        ("groups", "some-group", "consumer.session.timeout.ms=50000"),
        ("ips", "127.0.0.9", "connection_creation_rate=10"),
    ):
        where = ("--entity-type", kind, "--entity-name", name)
        run(
            f"kafka-configs --alter {kind} {setting.split('=')[0]}",
            CONFIGS,
            *SERVER,
            *where,
            "--alter",
            "--add-config",
            setting,
        )
        run(f"kafka-configs --describe {kind} {name}", CONFIGS, *SERVER, *where, "--describe")


def records() -> None:
    lines = "".join(f"k{n}:v{n}\n" for n in range(100))
    run(
        "kafka-console-producer",
        f"{TOOLS}ConsoleProducer",
        *SERVER,
        "--topic",
        "tools",
        "--reader-property",
        "parse.key=true",
        "--reader-property",
        "key.separator=:",
        stdin=lines,
    )
    consumer = f"{TOOLS}consumer.ConsoleConsumer"
    step(
        "kafka-console-consumer",
        lambda: (
            sorted(
                tool(
                    consumer,
                    *SERVER,
                    "--topic",
                    "tools",
                    "--from-beginning",
                    "--max-messages",
                    "100",
                    "--group",
                    "console",
                    "--timeout-ms",
                    "30000",
                )[1]
            )
            == sorted(f"v{n}" for n in range(100))
        ),
    )
    run(
        "kafka-console-consumer, a partition from an offset",
        consumer,
        *SERVER,
        "--topic",
        "tools",
        "--partition",
        "0",
        "--offset",
        "0",
        "--max-messages",
        "1",
        "--formatter-property",
        "print.offset=true",
        "--formatter-property",
        "print.value=false",
        "--timeout-ms",
        "20000",
    )
    offsets = f"{TOOLS}GetOffsetShell"
    for time in ("-1", "-2", "-3", "latest", "earliest", "max-timestamp"):
        step(
            f"kafka-get-offsets --time {time}",
            lambda time=time: sum(
                int(line.split(":")[2]) > -2
                for line in tool(offsets, *SERVER, "--topic", "tools", "--time", time)[1]
                if line.count(":") == 2
            ),
        )
    step(
        "kafka-get-offsets, sum",
        lambda: sum(
            int(line.split(":")[2]) for line in tool(offsets, *SERVER, "--topic", "tools")[1]
        ),
    )
    run("kafka-get-offsets, not there", offsets, *SERVER, "--topic", "tools-nowhere")
    path = WORK / "delete.json"
    path.write_text(
        json.dumps({"partitions": [{"topic": "tools", "partition": 0, "offset": 1}], "version": 1})
    )
    run(
        "kafka-delete-records",
        f"{TOOLS}DeleteRecordsCommand",
        *SERVER,
        "--offset-json-file",
        str(path),
    )
    path.write_text(
        json.dumps(
            {"partitions": [{"topic": "tools", "partition": 0, "offset": 99999}], "version": 1}
        )
    )
    run(
        "kafka-delete-records, beyond",
        f"{TOOLS}DeleteRecordsCommand",
        *SERVER,
        "--offset-json-file",
        str(path),
        keep="error|low_watermark",
    )


def performance() -> None:
    count(
        "kafka-producer-perf-test",
        f"{TOOLS}ProducerPerformance",
        "--bootstrap-server",
        BOOTSTRAP,
        "--topic",
        "perf",
        "--num-records",
        "5000",
        "--record-size",
        "200",
        "--throughput",
        "-1",
        keep="^5000 records sent",
    )
    count(
        "kafka-producer-perf-test, transactions",
        f"{TOOLS}ProducerPerformance",
        "--bootstrap-server",
        BOOTSTRAP,
        "--topic",
        "perf-tx",
        "--num-records",
        "3000",
        "--record-size",
        "200",
        "--throughput",
        "-1",
        "--transaction-duration-ms",
        "100",
        keep="^3000 records sent",
    )
    count(
        "kafka-consumer-perf-test",
        f"{TOOLS}ConsumerPerformance",
        *SERVER,
        "--topic",
        "perf",
        "--num-records",
        "5000",
        "--timeout",
        "30000",
        keep=r", 5000, ",
    )
    count(
        "kafka-e2e-latency",
        f"{TOOLS}EndToEndLatency",
        *SERVER,
        "--topic",
        "latency",
        "--num-records",
        "50",
        "--producer-acks",
        "all",
        "--record-size",
        "100",
        keep="Percentiles|Avg latency",
    )

    def verified() -> Any:
        code, lines, _ = tool(
            f"{TOOLS}VerifiableProducer",
            *SERVER,
            "--topic",
            "verified",
            "--max-messages",
            "200",
            "--acks",
            "-1",
        )
        said = [json.loads(line) for line in lines if line.startswith("{")]
        done = [s for s in said if s["name"] == "producer_send_success"]
        return [code, len(done), said[-1].get("acked")]

    step("kafka-verifiable-producer", verified)

    def consumed() -> Any:
        code, lines, _ = tool(
            f"{TOOLS}VerifiableConsumer",
            *SERVER,
            "--topic",
            "verified",
            "--group-id",
            "verified",
            "--max-messages",
            "200",
            "--reset-policy",
            "earliest",
        )
        said = [json.loads(line) for line in lines if line.startswith("{")]
        return [
            code,
            sum(s["count"] for s in said if s["name"] == "records_consumed"),
            any(s["name"] == "partitions_assigned" for s in said),
        ]

    step("kafka-verifiable-consumer", consumed)


def groups() -> None:
    run("kafka-consumer-groups --list", GROUPS, *SERVER, "--list", keep="^console$")
    shown = r"^(GROUP|console)"
    run(
        "kafka-consumer-groups --describe",
        GROUPS,
        *SERVER,
        "--describe",
        "--group",
        "console",
        keep=shown,
    )
    run(
        "kafka-consumer-groups --describe --state",
        GROUPS,
        *SERVER,
        "--describe",
        "--state",
        "--group",
        "console",
        keep=shown,
    )
    run(
        "kafka-consumer-groups --describe --members",
        GROUPS,
        *SERVER,
        "--describe",
        "--members",
        "--group",
        "console",
        keep=shown,
    )
    run(
        "kafka-consumer-groups --list --state",
        GROUPS,
        *SERVER,
        "--list",
        "--state",
        keep="^console ",
    )
    for how in (
        ["--to-earliest"],
        ["--shift-by", "5"],
        ["--to-latest"],
        ["--to-offset", "2"],
        ["--by-duration", "PT1H"],
    ):
        run(
            f"kafka-consumer-groups --reset-offsets {' '.join(how)}",
            GROUPS,
            *SERVER,
            "--reset-offsets",
            "--group",
            "console",
            "--topic",
            "tools",
            *how,
            "--execute",
            keep=shown + "|^ *console",
        )
    run(
        "kafka-consumer-groups --delete-offsets",
        GROUPS,
        *SERVER,
        "--delete-offsets",
        "--group",
        "console",
        "--topic",
        "tools",
    )
    run("kafka-consumer-groups --delete", GROUPS, *SERVER, "--delete", "--group", "console")
    run(
        "kafka-consumer-groups --describe, not there",
        GROUPS,
        *SERVER,
        "--describe",
        "--group",
        "nobody",
    )
    run("kafka-groups --list", f"{TOOLS}GroupsCommand", *SERVER, "--list", keep="^(GROUP|verified)")


def cluster() -> None:
    step(
        "kafka-cluster cluster-id", lambda: [tool(f"{TOOLS}ClusterTool", "cluster-id", *SERVER)[0]]
    )
    run("kafka-cluster list-endpoints", f"{TOOLS}ClusterTool", "list-endpoints", *SERVER)

    def directories() -> Any:
        code, lines, _ = tool(
            f"{TOOLS}LogDirsCommand", *SERVER, "--describe", "--topic-list", "tools"
        )
        found = json.loads(lines[-1])["brokers"]
        return [
            code,
            [
                (
                    b["broker"],
                    [
                        (d["error"], sorted(p["partition"] for p in d["partitions"]))
                        for d in b["logDirs"]
                    ],
                )
                for b in found
            ],
        ]

    step("kafka-log-dirs", directories)
    election = f"{TOOLS}LeaderElectionCommand"
    run(
        "kafka-leader-election",
        election,
        *SERVER,
        "--election-type",
        "preferred",
        "--topic",
        "tools",
        "--partition",
        "0",
    )
    run(
        "kafka-leader-election --all-topic-partitions",
        election,
        *SERVER,
        "--election-type",
        "preferred",
        "--all-topic-partitions",
        keep="Exception",
    )
    run(
        "kafka-features describe",
        f"{TOOLS}FeatureCommand",
        *SERVER,
        "describe",
        keep="(group|transaction).version",
    )
    run(
        "kafka-metadata-quorum describe --status",
        f"{TOOLS}MetadataQuorumCommand",
        *SERVER,
        "describe",
        "--status",
        keep="LeaderId|CurrentObservers",
    )
    count(
        "kafka-metadata-quorum describe --replication",
        f"{TOOLS}MetadataQuorumCommand",
        *SERVER,
        "describe",
        "--replication",
    )
    run("kafka-client-metrics --list", f"{TOOLS}ClientMetricsCommand", *SERVER, "--list")
    step(
        "kafka-broker-api-versions", lambda: [tool(f"{TOOLS}BrokerApiVersionsCommand", *SERVER)[0]]
    )
    path = WORK / "reassign.json"
    path.write_text(
        json.dumps(
            {"version": 1, "partitions": [{"topic": "tools", "partition": 0, "replicas": [1]}]}
        )
    )
    reassign = f"{TOOLS}reassign.ReassignPartitionsCommand"
    run("kafka-reassign-partitions --list", reassign, *SERVER, "--list")
    run(
        "kafka-reassign-partitions --execute",
        reassign,
        *SERVER,
        "--execute",
        "--reassignment-json-file",
        str(path),
        keep="Success|reassign",
    )
    run(
        "kafka-reassign-partitions --verify",
        reassign,
        *SERVER,
        "--verify",
        "--reassignment-json-file",
        str(path),
        keep="Reassignment|complete",
    )
    run(
        "kafka-streams-application-reset",
        f"{TOOLS}StreamsResetter",
        *SERVER,
        "--application-id",
        "no-such-app",
        "--input-topics",
        "tools",
    )
    replicas = subprocess.Popen(
        [
            *JAVA,
            f"{TOOLS}ReplicaVerificationTool",
            "--broker-list",
            BOOTSTRAP,
            "--topics-include",
            "tools",
            "--report-interval-ms",
            "1000",
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert replicas.stdout is not None
    try:
        said = next((line for line in replicas.stdout if "max lag is" in line), "it ended")
        step("kafka-replica-verification", lambda: re.sub(r"^.*: max", "max", plain(said)))
    finally:
        replicas.send_signal(signal.SIGTERM)
        replicas.wait(20)


def security() -> None:
    common = ("--allow-principal", "User:someone", "--operation", "Read")
    run("kafka-acls --add", ACLS, *SERVER, "--add", *common, "--topic", "tools", keep="operation=")
    run(
        "kafka-acls --add, prefixed group",
        ACLS,
        *SERVER,
        "--add",
        *common,
        "--group",
        "to",
        "--resource-pattern-type",
        "prefixed",
        keep="operation=",
    )
    run(
        "kafka-acls --list",
        ACLS,
        *SERVER,
        "--list",
        "--topic",
        "tools",
        keep="operation=|ResourcePattern",
    )
    run(
        "kafka-acls --remove",
        ACLS,
        *SERVER,
        "--remove",
        "--force",
        *common,
        "--topic",
        "tools",
        keep="operation=",
    )


def transactions() -> None:
    run("kafka-transactions list", TRANSACTIONS, *SERVER, "list", keep="TransactionalId")
    run(
        "kafka-transactions describe, of nobody",
        TRANSACTIONS,
        *SERVER,
        "describe",
        "--transactional-id",
        "nobody",
    )
    count(
        "kafka-transactions describe-producers",
        TRANSACTIONS,
        *SERVER,
        "describe-producers",
        "--topic",
        "perf-tx",
        "--partition",
        "0",
    )
    run(
        "kafka-transactions find-hanging", TRANSACTIONS, *SERVER, "find-hanging", "--broker-id", "1"
    )
    run(
        "kafka-transactions abort, none",
        TRANSACTIONS,
        *SERVER,
        "abort",
        "--topic",
        "perf-tx",
        "--partition",
        "0",
        "--start-offset",
        "0",
    )


def main() -> None:
    (jar,) = Path(os.environ["COMPAT_CLASSPATH"].rsplit(":", 1)[1].rstrip("*")).glob(
        "kafka-tools-4*.jar"
    )
    client("Kafka's tools", jar.stem.removeprefix("kafka-tools-"))
    for part in (topics, configs, records, performance, groups, cluster, security, transactions):
        try:
            part()
        except Exception as error:
            report(f"{part.__name__}: broke off", type(error).__name__)


if __name__ == "__main__":
    main()
