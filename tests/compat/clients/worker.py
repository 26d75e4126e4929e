"""A Java program that runs beside its test until it is told to stop; Connect and MirrorMaker share it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path

WORK = Path(os.environ["COMPAT_WORK"])
STOP_TIMEOUT_S = 60


class Worker:
    """Started on entry, asked to stop on exit, and ended by its own handle if it does not."""

    def __init__(self, main: str, *arguments: str, name: str) -> None:
        self.command = [
            "java", "-Xmx512m", "-XX:TieredStopAtLevel=1", f"-Dlog4j2.configurationFile={os.environ['COMPAT_LOG4J']}",
            "-cp", os.environ["COMPAT_CLASSPATH"], main, *arguments,
        ]  # fmt: skip
        self.log = WORK / f"{name}.log"

    def __enter__(self) -> Worker:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def alive(self) -> None:
        """Fails with what the worker said last, if it has ended."""
        if self.process.poll() is not None:
            raise RuntimeError(
                f"the worker ended: {self.log.read_bytes()[-1500:].decode('utf-8', 'replace')}"
            )


def properties(path: Path, settings: dict[str, str]) -> str:
    path.write_text("".join(f"{key}={value}\n" for key, value in settings.items()))
    return str(path)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
