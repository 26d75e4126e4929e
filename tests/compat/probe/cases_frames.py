"""Cases of frames: versions nobody has, lengths that lie, headers with tags, order of answers."""

from __future__ import annotations

import socket
import struct
import time
from typing import Any

from batches import batch, values
from cases_log import fetch_body
from probe import BOOTSTRAP, Closed, Probe, Silent

#: An API is asked with a body that says nothing, and that is well formed in every version.
BODIES: dict[str, Any] = {"LIST_TRANSACTIONS": {"durationFilter": -1}}


def answered(p: Probe, frame: bytes, wait_s: float = 5) -> Any:
    """What comes after a frame of one's own: nothing, an answer, or the end."""
    try:
        with p.connect() as connection:
            connection.limit(wait_s)
            connection.send_frame(frame)
            return "answered" if connection.receive_frame() else "empty frame"
    except Closed:
        return "connection closed"
    except Silent:
        return "no answer"


def alive(p: Probe) -> bool:
    with p.connect() as connection:
        return "apiKeys" in connection.ask("API_VERSIONS", 0, {})


def frames(p: Probe) -> None:
    for name, api in sorted(p.codec.apis.items()):
        if api["key"] not in p.advertised or name in ("API_VERSIONS", "PRODUCE"):
            continue
        low, high = p.advertised[api["key"]]
        head = struct.pack(">hhih", api["key"], high + 1, 7, -1) + b"\x00\x00"
        said = [answered(p, head)]
        if low > 0:
            said.append(answered(p, struct.pack(">hhih", api["key"], low - 1, 7, -1) + b"\x00" * 8))
        p.say(f"{name}: in a version that is not there", said)
    for name, key, version in (
        ("API that is not there", 999, 0),
        ("negative API", -1, 0),
        ("API of controllers", 53, 0),
        ("API of old Kafka", 4, 0),
        ("negative version", 3, -1),
    ):
        p.say(
            f"frames: {name}", answered(p, struct.pack(">hhih", key, version, 7, -1) + b"\x00" * 8)
        )
    metadata = struct.pack(">hhih", 3, 1, 7, -1)
    p.say(
        "frames: array longer than the frame", answered(p, metadata + struct.pack(">i", 0x7FFFFFFF))
    )
    p.say("frames: array of negative length", answered(p, metadata + struct.pack(">i", -5)))
    p.say(
        "frames: string longer than the frame",
        answered(p, metadata + struct.pack(">ih", 1, 30_000) + b"x"),
    )
    p.say(
        "frames: string of negative length",
        answered(p, metadata + struct.pack(">ih", 1, -5) + b"x"),
    )
    p.say(
        "frames: name that is no UTF-8",
        answered(p, metadata + struct.pack(">ih", 1, 2) + b"\xff\xfe"),
    )
    p.say("frames: body cut short", answered(p, metadata))
    p.say("frames: bytes after the body", answered(p, metadata + struct.pack(">i", 0) + b"more"))
    p.say("frames: header cut short", answered(p, b"\x00\x03\x00"))
    p.say("frames: empty", answered(p, b""))
    flexible = struct.pack(">hhih", 3, 9, 7, -1)
    p.say(
        "frames: tag in the header",
        answered(p, flexible + b"\x01\x05\x02ab" + b"\x01\x00\x00\x00\x00"),
    )
    p.say(
        "frames: tag in the body",
        answered(p, flexible + b"\x00" + b"\x01\x00\x00\x00\x01\x07\x02ab"),
    )
    p.say("frames: number that never ends", answered(p, flexible + b"\x00" + b"\xff" * 12))
    p.say(
        "frames: array of 2^31 in a flexible version",
        answered(p, flexible + b"\x00" + b"\xff\xff\xff\xff\x0f"),
    )
    for name, length in (
        ("negative length", -1),
        ("length of 2 GiB", 0x7FFFFFFF),
        ("length of 200 MB", 200 << 20),
    ):
        p.say(f"frames: {name}", raw(struct.pack(">i", length) + b"\x00" * 64))
    p.say("frames: client of another protocol", raw(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
    p.say("frames: after all that it serves", alive(p))
    order(p)


def raw(data: bytes) -> str:
    host, port = BOOTSTRAP.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(data)
        try:
            return "closed" if not connection.recv(1) else "answered"
        except TimeoutError:
            return "no answer"
        except ConnectionResetError:
            return "closed"


def order(p: Probe) -> None:
    topic = p.create("p-order")
    with p.connect() as connection:
        began = time.monotonic()
        first = connection.send("FETCH", 11, fetch_body(p, topic, 0, maxWaitMs=1200))
        second = connection.send("API_VERSIONS", 0, {})
        one = connection.answer("FETCH", 11, first)
        took = time.monotonic() - began
        two = connection.answer("API_VERSIONS", 0, second)
    p.say(
        "frames: answers in the order of the requests",
        ["WRONG CORRELATION" not in a for a in (one, two)] + [took > 1],
    )
    with p.connect() as connection:
        sent = [
            connection.send("PRODUCE", 9, p.produced(topic, batch(values(1)))) for _ in range(50)
        ]
        said = [connection.answer("PRODUCE", 9, n) for n in sent]
    places = [a["responses"][0]["partitionResponses"][0]["baseOffset"] for a in said]
    p.say("frames: 50 requests ahead", places == list(range(50)))


CASES = {"frames": frames}
