"""The programs of the compatibility suite: what each runs, and how long it may take.

A program is a command that finds the broker in COMPAT_BOOTSTRAP and prints its steps (see `steps.py`).
Nothing here starts a broker, so that a test with a node of its own can run a program, too.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
LIBRARY = REPOSITORY / "benches" / "kafka" / ".lib"
LOG_CONFIG = REPOSITORY / "benches" / "kafka" / "log4j2.yaml"
CLASSES = HERE / ".build" / "classes"
CLASSPATH = f"{CLASSES}:{LIBRARY}/*"
NODE_MODULES = REPOSITORY / "tests" / "node"
JAVA = [
    "java",
    "-Xmx256m",
    "-XX:TieredStopAtLevel=1",
    f"-Dlog4j2.configurationFile={LOG_CONFIG}",
    "-cp",
    CLASSPATH,
]


@dataclass(frozen=True)
class Program:
    """One program; `quiet_s` is how long it may say nothing, `limit_s` how long it may take."""

    name: str
    command: tuple[str, ...]
    quiet_s: float = 120
    limit_s: float = 600
    #: Takes more than a minute, or what CI does not have.
    is_long: bool = False
    #: Whether it needs a real Kafka beside the broker under test (COMPAT_OTHER).
    needs_kafka: bool = False


def python(name: str, path: str, *arguments: str, **limits: Any) -> Program:
    return Program(name, (sys.executable, str(HERE / path), *arguments), **limits)


def java(name: str, main: str, *arguments: str, **limits: Any) -> Program:
    return Program(name, (*JAVA, main, *arguments), **limits)


def node(name: str, path: str, **limits: Any) -> Program:
    return Program(name, ("node", str(HERE / path)), **limits)


PROGRAMS = (
    python(
        "probe-log",
        "probe/main.py",
        "produce",
        "fetch",
        "offsets",
        "epochs",
        "deleterecords",
        limit_s=900,
    ),
    python("probe-groups", "probe/main.py", "find", "commits", "classic", "groupadmin", "modern"),
    python("probe-transactions", "probe/main.py", "producerids", "transactions"),
    python("probe-frames", "probe/main.py", "frames", "points"),
    python(
        "probe-admin",
        "probe/main.py",
        "versions",
        "metadata",
        "topics",
        "configs",
        "cluster",
        "security",
    ),
    python("confluent", "clients/confluent.py", "producers", "groups", "administration", is_long=True),
    python("confluent-transactions", "clients/confluent.py", "transactions"),
    java("java", "Clients", "plain"),
    java("java-transactions", "Clients", "transactions"),
    java("java-admin", "AdminCalls"),
    python("kcat", "clients/kcat.py"),
    python("aiokafka", "clients/aio.py"),
    node("kafkajs", "clients/kafkajs.js", is_long=True),
    node("platformatic", "clients/platformatic.mjs"),
    python("tools", "clients/tools.py", is_long=True),
    java("streams", "WordCount", quiet_s=200),
    python("connect", "clients/connect.py", quiet_s=240),
    python("mirrormaker", "clients/mirror.py", quiet_s=300, is_long=True, needs_kafka=True),
)


@dataclass
class Outcome:
    """What a program said. Steps are keyed by name and version."""

    steps: dict[tuple[str, int | None], Any] = field(default_factory=dict)
    clients: dict[str, str] = field(default_factory=dict)
    client_of: dict[str, str] = field(default_factory=dict)
    failure: str | None = None
    took_s: float = 0


def run(program: Program, bootstrap: str, workdir: Path, other: str | None = None) -> Outcome:
    """Runs a program to its end, or ends it, by its own pid, when it has been quiet for too long."""
    workdir.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "COMPAT_BOOTSTRAP": bootstrap,
        "COMPAT_CLASSPATH": CLASSPATH,
        "COMPAT_LOG4J": str(LOG_CONFIG),
        "COMPAT_WORK": str(workdir),
        "COMPAT_OTHER": other or "",
        "PYTHONPATH": str(HERE),
        "NODE_PATH": str(NODE_MODULES / "node_modules"),
    }
    outcome = Outcome()
    began = time.monotonic()
    stderr_path = workdir / f"{program.name}.stderr"
    with stderr_path.open("wb") as stderr:
        process = subprocess.Popen(
            program.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
            cwd=workdir,
        )
    lines: queue.Queue[str | None] = queue.Queue()
    assert process.stdout is not None
    reader = threading.Thread(target=_read, args=(process.stdout, lines), daemon=True)
    reader.start()
    try:
        _collect(program, lines, outcome, began)
        code = process.wait(30)
        if code != 0 and outcome.failure is None:
            outcome.failure = f"exit {code}"
    except subprocess.TimeoutExpired:
        outcome.failure = "it closed its output and did not end"
    finally:
        process.kill()
        process.wait()
    outcome.took_s = time.monotonic() - began
    if outcome.failure:
        tail = stderr_path.read_bytes()[-1500:].decode("utf-8", "replace")
        outcome.failure += f"\n{tail}"
    return outcome


def _read(stream: Any, lines: queue.Queue[str | None]) -> None:
    for line in stream:
        lines.put(line)
    lines.put(None)


def _collect(
    program: Program, lines: queue.Queue[str | None], outcome: Outcome, began: float
) -> None:
    client, last = program.name, "its start"
    while True:
        left_s = min(program.quiet_s, began + program.limit_s - time.monotonic())
        try:
            line = lines.get(timeout=max(0.0, left_s))
        except queue.Empty:
            outcome.failure = f"stuck after {last!r}"
            return
        if line is None:
            return
        if not line.startswith("{"):
            continue
        said = json.loads(line)
        if "client" in said:
            client = said["client"]
            outcome.clients[client] = said["version"]
            continue
        last = said["step"]
        outcome.client_of[last] = client
        outcome.steps[(last, said.get("version"))] = said["outcome"]
