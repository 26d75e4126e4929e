"""The brokers that are compared: how each is started, recognised as up, and ended.

Each run gets a fresh data directory and loopback ports of its own. Ends only the process it
started.
"""

from __future__ import annotations

import random
import re
import select
import signal
import socket
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
LIBRARY = HERE / ".lib"
LOG_CONFIG = f"-Dlog4j2.configurationFile={HERE / 'log4j2.yaml'}"
# What kafka-run-class.sh and kafka-server-start.sh of the release archive give the JVM.
KAFKA_JVM = (
    "-server -Xms1G -Xmx1G -XX:+UseG1GC -XX:MaxGCPauseMillis=20 "
    "-XX:InitiatingHeapOccupancyPercent=35 -XX:+ExplicitGCInvokesConcurrent "
    "-Djava.awt.headless=true"
).split()
START_TIMEOUT_S = 90
STOP_TIMEOUT_S = 120
# The release archive's config/server.properties where it differs from the built-in defaults,
# and 1 for every replication factor, as a single node needs.
KAFKA_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
log.dirs={data}
offsets.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
"""


def java(*arguments: str, heap: tuple[str, ...] = ("-Xmx512M",)) -> list[str]:
    """The command line of one of Kafka's own programs."""
    return ["java", *heap, LOG_CONFIG, "-cp", f"{LIBRARY}/*", *arguments]


def kafka_version() -> str:
    (jar,) = LIBRARY.glob("kafka-clients-*.jar")
    return jar.stem.removeprefix("kafka-clients-")


@dataclass
class Running:
    """A broker that answers."""

    process: subprocess.Popen[bytes]
    port: int
    start_s: float

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        """SIGTERM, and SIGKILL if that is not heeded in time."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Kafka:
    """Apache Kafka in KRaft mode, one node being broker and controller."""

    flush_each_append: bool
    #: Further lines of server.properties.
    properties: str = ""

    @property
    def name(self) -> str:
        return f"Kafka {kafka_version()}" + (" flush.messages=1" if self.flush_each_append else "")

    @property
    def durability(self) -> str:
        if self.flush_each_append:
            return "fsync before the acknowledgement"
        return "page cache at the acknowledgement"

    def start(self, workdir: Path) -> Running:
        broker, controller = free_port(), free_port()
        properties = KAFKA_PROPERTIES.format(
            broker=broker, controller=controller, data=workdir / "data"
        )
        properties += self.properties
        if self.flush_each_append:
            # The broker-wide form of the topic configuration flush.messages.
            properties += "log.flush.interval.messages=1\n"
        path = workdir / "server.properties"
        path.write_text(properties)
        identity = run(java("kafka.tools.StorageTool", "random-uuid")).strip()
        run(
            java(
                "kafka.tools.StorageTool", "format", "--standalone",
                "--cluster-id", identity, "--config", str(path),
            )
        )  # fmt: skip
        command = java("kafka.Kafka", str(path), heap=tuple(KAFKA_JVM))
        return started(command, workdir, port=broker)


@dataclass(frozen=True)
class Holdfast:
    """A release build of Holdfast in its default durability."""

    binary: Path
    #: Lines of the configuration file.
    configuration: str = ""

    @property
    def name(self) -> str:
        return " ".join(run([str(self.binary), "--version"]).split()[:2]).capitalize()

    durability = "fdatasync before the acknowledgement"

    def start(self, workdir: Path) -> Running:
        doors = [
            part for door in ("mqtt", "kafka", "http") for part in (f"--{door}", "127.0.0.1:0")
        ]
        path = workdir / "holdfast.toml"
        path.write_text(self.configuration)
        command = [
            str(self.binary), "serve", "--config", str(path), "--data-dir", str(workdir / "data"), *doors,
        ]  # fmt: skip
        return started(command, workdir, port=None)


Peer = Kafka | Holdfast


def started(command: list[str], workdir: Path, *, port: int | None) -> Running:
    """Starts a broker and waits for its first ApiVersions answer.

    Without a port it is read from the line `listening kafka ADDRESS:PORT` on stdout.
    """
    begin = time.monotonic()
    deadline = begin + START_TIMEOUT_S
    said = workdir / "stderr"
    with said.open("wb") as stderr, (workdir / "stdout").open("wb") as stdout:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if port is None else stdout,
            stderr=stderr,
        )
    try:
        if port is None:
            port = announced_port(process, deadline)
        while not answers_api_versions(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("it ended, or did not answer ApiVersions in time")
            time.sleep(0.005)
    except BaseException as error:
        process.kill()
        process.wait()
        tail = said.read_bytes()[-4000:].decode("utf-8", "replace")
        raise RuntimeError(f"{error}: {' '.join(command)}\n{tail}") from error
    return Running(process, port, time.monotonic() - begin)


def announced_port(process: subprocess.Popen[bytes], deadline: float) -> int:
    assert process.stdout is not None
    text = b""
    while not (match := re.search(rb"^listening kafka \S*:(\d+)\n", text, re.MULTILINE)):
        readable, _, _ = select.select(
            [process.stdout], [], [], max(0, deadline - time.monotonic())
        )
        chunk = process.stdout.read1(4096) if readable else b""
        if not chunk:
            raise RuntimeError("it never said where its Kafka listener is")
        text += chunk
    return int(match[1])


def answers_api_versions(port: int) -> bool:
    """Whether a broker answers ApiVersions (version 0) at this port."""
    request = struct.pack(">hhih", 18, 0, 1, -1)
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(struct.pack(">i", len(request)) + request)
            head = connection.recv(8, socket.MSG_WAITALL)
            return len(head) == 8 and struct.unpack(">ii", head)[1] == 1
    except OSError:
        return False


def free_port() -> int:
    """A free loopback port below the ephemeral range, so that no client can take it meanwhile."""
    while True:
        port = random.randrange(12_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run(command: list[str], *, timeout_s: float = 900) -> str:
    """Runs a program to its end and returns its stdout; a failure carries its stderr."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s
    )
    if done.returncode != 0:
        raise RuntimeError(
            f"exit {done.returncode}: {' '.join(command)}\n{done.stdout}\n{done.stderr}"
        )
    return done.stdout
