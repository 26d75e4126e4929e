"""The end-to-end harness: one real `holdfast` process, real clients, loopback only.

Owns how a node is started, watched, killed and restarted, and the small helpers that every
test needs (credentials, Kafka readers, command line clients). It may not know what a single
test is about. Nothing here sleeps for a result: `eventually` polls an observable condition
against a deadline and says what it last saw.

Environment: HOLDFAST_BIN names the binary (default: target/release, else target/debug);
HOLDFAST_SEED fixes the seed of every randomised test; HOLDFAST_DISK_TESTS adds test_disk.py.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest
import requests
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

REPOSITORY = Path(__file__).resolve().parents[2]
NODE_CLIENTS = REPOSITORY / "tests" / "node"
DOORS = ("mqtt", "kafka", "http")
START_TIMEOUT_S = 60
STOP_TIMEOUT_S = 60
TEST_TIMEOUT_S = 120

# Needs root: it mounts file systems of its own (`make test-disk`).
collect_ignore = [] if os.environ.get("HOLDFAST_DISK_TESTS") else ["test_disk.py"]

T = TypeVar("T")


# --- pytest ---------------------------------------------------------------------------------


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """No test may hang a run: one without a limit of its own gets the common one."""
    for item in items:
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(TEST_TIMEOUT_S))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Attaches what each node wrote to stderr to the report of a failed test."""
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            if isinstance(value, Node):
                report.sections.append((f"stderr of {value.name}", value.stderr_tail()))


def binary() -> Path:
    """The binary under test."""
    named = os.environ.get("HOLDFAST_BIN")
    candidates = (
        [Path(named)]
        if named
        else [REPOSITORY / "target" / profile / "holdfast" for profile in ("release", "debug")]
    )
    for candidate in candidates:
        if candidate.is_file():
            return candidate.resolve()
    pytest.exit(f"no holdfast binary at {', '.join(map(str, candidates))}: build it first", 3)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A fresh node, running, for one test."""
    with Node(tmp_path) as running:
        yield running.start()


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One running node for the tests of a module that do not disturb one another."""
    with Node(tmp_path_factory.mktemp("shared")) as running:
        yield running.start()


@pytest.fixture
def seed() -> int:
    """The seed of a randomised test: printed, and fixed by HOLDFAST_SEED."""
    value = int(os.environ.get("HOLDFAST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"seed: HOLDFAST_SEED={value}")
    return value


# --- waiting --------------------------------------------------------------------------------


def eventually(probe: Callable[[], T], *, within_s: float, what: str, every_s: float = 0.05) -> T:
    """Returns the first truthy answer of `probe`; fails after `within_s`, naming the last answer.

    An exception of `probe` counts as "not yet" and is shown if the deadline passes.
    """
    deadline = time.monotonic() + within_s
    while True:
        last: Any
        try:
            last = probe()
            if last:
                return last
        except AssertionError:
            raise
        except Exception as error:  # the thing looked at may not be there yet
            last = error
        if time.monotonic() >= deadline:
            pytest.fail(f"{what}: not within {within_s} s; last seen: {last!r}")
        time.sleep(every_s)


def free_low_port() -> int:
    """A free port below the ephemeral range.

    A test that reconnects to a stopped node must not use an ephemeral port: the kernel may
    give that very port to a connecting client, which then connects to itself and keeps the
    restarted node from binding it.
    """
    lowest_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(200):
        port = random.SystemRandom().randrange(12_000, min(lowest_ephemeral, 32_000))
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port below the ephemeral range in 200 tries")


# --- the node -------------------------------------------------------------------------------


@dataclass
class Credentials:
    """A user of the HTTP door, as `holdfast users create` made it."""

    client_id: str
    client_secret: str


@dataclass
class Announcements:
    """What one run of the binary said on stdout so far."""

    ports: dict[str, int] = field(default_factory=dict)
    ready: bool = False
    ended: bool = False
    lines: list[str] = field(default_factory=list)


class Node:
    """One `holdfast serve` process and its data directory, over any number of restarts.

    Ends only the process it started, by its own handle. Use it as a context manager: leaving
    it kills what still runs.
    """

    LISTENING = re.compile(r"^listening (\w+) \S*:(\d+)$")

    def __init__(
        self,
        workdir: Path,
        *,
        config: str | None = None,
        name: str = "node",
        arguments: Iterable[str] = (),
        fixed_ports: bool = False,
        environment: dict[str, str] | None = None,
    ) -> None:
        """`config` is TOML text. `fixed_ports` is for tests that restart the node while clients
        keep connecting: see `free_low_port`."""
        self.name = name
        self.workdir = workdir
        self.data_dir = workdir / f"{name}-data"
        self.stderr_path = workdir / f"{name}.stderr"
        self.config_path: Path | None = None
        if config is not None:
            self.config_path = workdir / f"{name}.toml"
            self.config_path.write_text(config)
        self.arguments = list(arguments)
        self.environment = environment or {}
        self.process: subprocess.Popen[str] | None = None
        self.ports: dict[str, int] = (
            {door: free_low_port() for door in DOORS} if fixed_ports else {}
        )
        self._said = Announcements()
        self._changed = threading.Condition()
        self._credentials: Credentials | None = None
        self._token: str | None = None

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.kill()

    # Start and stop.

    def start(self, timeout_s: float = START_TIMEOUT_S) -> Node:
        """Starts the binary and returns once it has said `ready`."""
        self.spawn()
        return self.await_ready(timeout_s)

    def spawn(self) -> None:
        """Starts the binary and does not wait. The first start makes the credentials, while
        nothing holds the data directory."""
        assert not self.running, f"{self.name} is already running"
        if self._credentials is None:
            self._credentials = self.create_client("e2e")
        command = [str(binary()), "serve", "--data-dir", str(self.data_dir)]
        for door in DOORS:
            command += [f"--{door}", f"127.0.0.1:{self.ports.get(door, 0)}"]
        if self.config_path is not None:
            command += ["--config", str(self.config_path)]
        command += self.arguments
        self._said = Announcements()
        with self.stderr_path.open("ab") as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env={**os.environ, **self.environment},
            )
        threading.Thread(target=self._listen, args=(self.process, self._said), daemon=True).start()

    def await_ready(self, timeout_s: float = START_TIMEOUT_S) -> Node:
        """Returns once the spawned binary has said where it listens, and `ready`."""
        with self._changed:
            self._changed.wait_for(lambda: self._said.ready or self._said.ended, timeout_s)
        if not self._said.ready:
            how = "ended" if self._said.ended else "was not ready"
            pytest.fail(
                f"{self.name} {how} within {timeout_s} s of its start\n"
                f"stdout: {self._said.lines}\nstderr:\n{self.stderr_tail()}"
            )
        self.ports = dict(self._said.ports)
        missing = [door for door in DOORS if door not in self.ports]
        assert not missing, f"ready, but never said where it listens: {missing}"
        return self

    def _listen(self, process: subprocess.Popen[str], said: Announcements) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                said.lines.append(line.rstrip("\n"))
                if match := self.LISTENING.match(said.lines[-1]):
                    said.ports[match[1]] = int(match[2])
                said.ready = said.ready or said.lines[-1] == "ready"
                self._changed.notify_all()
        with self._changed:
            said.ended = True
            self._changed.notify_all()

    def kill(self) -> None:
        """Ends it as a power cut ends a process: SIGKILL, no chance to tidy up."""
        process = self._the_process()
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_TIMEOUT_S)

    def terminate(self, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Asks it to stop (SIGTERM) and insists on a clean exit."""
        process = self._the_process()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.name} ignored SIGTERM for {timeout_s} s\n{self.stderr_tail()}")
        assert code == 0, f"{self.name} exited {code} on SIGTERM\n{self.stderr_tail()}"

    def restart(self) -> Node:
        """Stops it cleanly if it runs, and starts it on the same ports and data."""
        if self.running:
            self.terminate()
        return self.start()

    def _the_process(self) -> subprocess.Popen[str]:
        assert self.process is not None, f"{self.name} was never started"
        return self.process

    # What can be seen of it.

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        return self._the_process().pid

    @property
    def mqtt_port(self) -> int:
        return self.ports["mqtt"]

    @property
    def kafka_port(self) -> int:
        return self.ports["kafka"]

    @property
    def http_port(self) -> int:
        return self.ports["http"]

    @property
    def bootstrap(self) -> str:
        return f"127.0.0.1:{self.kafka_port}"

    def stdout_lines(self) -> list[str]:
        with self._changed:
            return list(self._said.lines)

    def stderr_tail(self, limit: int = 16_000) -> str:
        if not self.stderr_path.exists():
            return ""
        return self.stderr_path.read_bytes()[-limit:].decode("utf-8", "replace")

    def rss_bytes(self) -> int:
        """Resident memory of the process now."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        match = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert match, f"{self.name} has no VmRSS: it is not running"
        return int(match[1]) * 1024

    # Credentials and HTTP.

    def create_client(self, client_name: str) -> Credentials:
        """`holdfast users create` on the stopped node's data directory."""
        assert not self.running, "users are created while the node is stopped"
        return parse_credentials(
            run([str(binary()), "users", "create", client_name, "--data-dir", str(self.data_dir)])
        )

    @property
    def credentials(self) -> Credentials:
        assert self._credentials is not None, "the node was never started"
        return self._credentials

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.http_port}{path}"

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET with the node's token."""
        return requests.get(self.url(path), headers=bearer(self), timeout=30, **options)

    def post(self, path: str, body: Any, **options: Any) -> requests.Response:
        """POST of a JSON body with the node's token."""
        return requests.post(self.url(path), json=body, headers=bearer(self), timeout=30, **options)


def parse_credentials(printed: str) -> Credentials:
    """Reads the name and the token that `users create` printed, one `word value` a line."""
    found = dict(re.findall(r"^(user|token) (\S+)$", printed, re.M))
    assert found.keys() == {"user", "token"}, f"no credentials in: {printed!r}"
    return Credentials(client_id=found["user"], client_secret=found["token"])


def token(node: Node) -> str:
    """A bearer token of the node's own client, fetched once per node."""
    if node._token is None:
        answer = requests.post(
            node.url("/auth"),
            json={
                "client_id": node.credentials.client_id,
                "client_secret": node.credentials.client_secret,
            },
            timeout=30,
        )
        assert answer.status_code == 200, f"/auth: {answer.status_code} {answer.text}"
        node._token = answer.json()["access_token"]
    return node._token


def bearer(node: Node) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(node)}"}


# --- command line clients -------------------------------------------------------------------


def run(command: list[str], *, stdin: str | bytes | None = None, timeout_s: float = 60) -> str:
    """Runs a command to its end and returns its stdout; a failure shows what it said."""
    text = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        command,
        input=text,
        stdin=subprocess.DEVNULL if text is None else None,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    stdout = done.stdout.decode("utf-8", "replace")
    if done.returncode != 0:
        pytest.fail(
            f"exit {done.returncode}: {' '.join(command)}\n{stdout}\n"
            + done.stderr.decode("utf-8", "replace")
        )
    return stdout


def kcat(
    node: Node, *arguments: str, stdin: str | bytes | None = None, timeout_s: float = 60
) -> str:
    """kcat against the node's Kafka door."""
    return run(["kcat", "-b", node.bootstrap, *arguments], stdin=stdin, timeout_s=timeout_s)


def mosquitto_pub(
    node: Node, topic: str, payload: str | bytes, *arguments: str, qos: int = 1
) -> None:
    """Publishes one message; at QoS 1 and 2 it returns once the node has acknowledged it."""
    command = ["mosquitto_pub", "-h", "127.0.0.1", "-p", str(node.mqtt_port)]
    run([*command, "-t", topic, "-q", str(qos), "-s", *arguments], stdin=payload)


# --- what is in the log and in the stores ---------------------------------------------------


@dataclass(frozen=True)
class LogRecord:
    """One record as a Kafka consumer read it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


def read_topic(node: Node, topic: str, *, timeout_s: float = 60) -> list[LogRecord]:
    """Every record of a topic, from the log start to the high watermark as it is now."""
    deadline = time.monotonic() + timeout_s
    consumer = Consumer(
        {
            "bootstrap.servers": node.bootstrap,
            "group.id": "e2e-reader",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    try:
        metadata = consumer.list_topics(topic, timeout=20).topics[topic]
        assert metadata.error is None, f"{topic}: {metadata.error}"
        open_until: dict[int, int] = {}
        for partition in metadata.partitions:
            low, high = consumer.get_watermark_offsets(TopicPartition(topic, partition), 20)
            if high > low:
                open_until[partition] = high
        consumer.assign([TopicPartition(topic, p, OFFSET_BEGINNING) for p in open_until])
        records: list[LogRecord] = []
        while open_until:
            for message in consumer.consume(500, timeout=0.5):
                if message.error():
                    if message.error().code() == KafkaError._PARTITION_EOF:
                        open_until.pop(message.partition(), None)
                        continue
                    raise KafkaException(message.error())
                records.append(
                    LogRecord(
                        message.partition(),
                        message.offset(),
                        message.key(),
                        message.value(),
                        tuple(message.headers() or ()),
                        message.timestamp()[1],
                    )
                )
                if message.offset() + 1 >= open_until.get(message.partition(), 0):
                    open_until.pop(message.partition(), None)
            assert time.monotonic() < deadline, (
                f"{topic}: {len(records)} records in {timeout_s} s, still open: {open_until}"
            )
        return records
    finally:
        consumer.close()


def create_topic(node: Node, topic: str, *, partitions: int) -> None:
    """Creates a topic as an admin client does, and returns once the node has confirmed it."""
    admin = AdminClient({"bootstrap.servers": node.bootstrap})
    (created,) = admin.create_topics([NewTopic(topic, partitions, 1)]).values()
    created.result(30)


def query_store(node: Node, sql: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Rows of the telemetry store, read beside the running node."""
    path = node.data_dir / "telemetry.db"
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=20)
    try:
        return connection.execute(sql, parameters).fetchall()
    finally:
        connection.close()


def as_json(payload: Any) -> str:
    """Compact JSON with a stable key order, so that sent and stored bytes can be compared."""
    return json.dumps(payload, separators=(",", ":"), sort_keys=True)


@pytest.fixture(scope="session")
def node_clients() -> Path:
    """The Node.js clients with their dependencies, as package-lock.json pins them."""
    wanted = json.loads((NODE_CLIENTS / "package.json").read_text())["dependencies"]

    def installed(name: str) -> str | None:
        found = NODE_CLIENTS / "node_modules" / name / "package.json"
        return json.loads(found.read_text())["version"] if found.is_file() else None

    if any(installed(name) != version for name, version in wanted.items()):
        run(["npm", "ci", "--prefix", str(NODE_CLIENTS), "--no-audit", "--no-fund"], timeout_s=110)
    return NODE_CLIENTS
