"""Raw connections to a broker, with Kafka's own codec (`java/Wire.java`) behind a pipe.

Owns sockets, frames and time limits. What is on the wire is decided by the codec, or by a test that
hands in bytes of its own; what an answer means for a comparison is decided elsewhere.
"""

from __future__ import annotations

import base64
import itertools
import json
import os
import socket
import struct
import subprocess
import threading
from typing import Any

ANSWER_TIMEOUT_S = 20
FRAME_MAX = 64 << 20

Body = dict[str, Any]


class Closed(Exception):
    """The broker closed the connection instead of answering."""


class Silent(Exception):
    """The broker neither answered nor closed the connection in time."""


class Codec:
    """The process that encodes and decodes; shared by all connections and threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            [
                "java",
                "-Xmx256m",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                os.environ["COMPAT_CLASSPATH"],
                "Wire",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        tables = self._ask({"op": "tables"})
        self.apis: dict[str, dict[str, int]] = tables["apis"]
        self.errors: dict[int, str] = {int(code): name for code, name in tables["errors"].items()}

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)

    def encode(
        self, api: str, version: int, body: Body, correlation: int, client: str | None
    ) -> bytes:
        question = {"op": "encode", "api": api, "version": version, "body": body}
        answer = self._ask({**question, "correlation": correlation, "client": client})
        return base64.b64decode(answer["bytes"])

    def decode(self, api: str, version: int, frame: bytes) -> tuple[int, int, Body]:
        """Correlation id, bytes left over, body."""
        text = base64.b64encode(frame).decode()
        answer = self._ask({"op": "decode", "api": api, "version": version, "bytes": text})
        return answer["correlation"], answer["left"], answer["body"]

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line)
        if "failed" in answer:
            named = {key: question.get(key) for key in ("op", "api", "version", "body")}
            raise ValueError(f"{answer['failed']} in {json.dumps(named)[:2000]}")
        return answer


class Connection:
    """One connection; requests may be sent ahead of their answers."""

    def __init__(self, codec: Codec, bootstrap: str, client: str | None = "probe") -> None:
        host, port = bootstrap.rsplit(":", 1)
        self.codec = codec
        self.client = client
        self._correlations = itertools.count(1)
        self._socket = socket.create_connection((host, int(port)), timeout=ANSWER_TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, api: str, version: int, body: Body) -> Body:
        return self.answer(api, version, self.send(api, version, body))

    def send(self, api: str, version: int, body: Body) -> int:
        correlation = next(self._correlations)
        self.send_frame(self.codec.encode(api, version, body, correlation, self.client))
        return correlation

    def answer(self, api: str, version: int, correlation: int) -> Body:
        frame = self.receive_frame()
        answered, left, body = self.codec.decode(api, version, frame)
        if answered != correlation:
            body["WRONG CORRELATION"] = True
        if left:
            body["BYTES LEFT OVER"] = left
        return body

    def send_frame(self, frame: bytes) -> None:
        try:
            self._socket.sendall(struct.pack(">i", len(frame)) + frame)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def receive_frame(self) -> bytes:
        (length,) = struct.unpack(">i", self._receive(4))
        assert 0 <= length <= FRAME_MAX, f"a frame of {length} bytes"
        return self._receive(length)

    def limit(self, seconds: float) -> None:
        self._socket.settimeout(seconds)

    def _receive(self, length: int) -> bytes:
        received = bytearray()
        while len(received) < length:
            try:
                chunk = self._socket.recv(min(1 << 20, length - len(received)))
            except TimeoutError as error:
                raise Silent from error
            except ConnectionResetError as error:
                raise Closed from error
            if not chunk:
                raise Closed
            received += chunk
        return bytes(received)
