"""Record batches made by hand, right or wrong in every field, and read back for comparison.

Format: Kafka's message format v2 (KIP-98), and the message sets of magic 0 and 1 before it.
"""

from __future__ import annotations

import base64
import gzip
import struct
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Any

CONTROL = 0x20
TRANSACTIONAL = 0x10
LOG_APPEND_TIME = 0x08
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
#: baseOffset, batchLength, leaderEpoch, magic, crc | attributes, lastOffsetDelta, two timestamps,
#: producerId, producerEpoch, baseSequence, count.
HEAD = struct.Struct(">qiibI")
REST = struct.Struct(">hiqqqhii")

Record = tuple[bytes | None, bytes | None]


def _crc32c_table() -> list[int]:
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


_TABLE = _crc32c_table()


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def varint(value: int) -> bytes:
    """Zigzag, as Kafka writes it."""
    left = (value << 1) ^ (value >> 63)
    left &= (1 << 64) - 1
    out = bytearray()
    while left > 0x7F:
        out.append(left & 0x7F | 0x80)
        left >>= 7
    out.append(left)
    return bytes(out)


def _bytes(value: bytes | None) -> bytes:
    return varint(-1) if value is None else varint(len(value)) + value


def record(
    key: bytes | None,
    value: bytes | None,
    *,
    offset_delta: int = 0,
    timestamp_delta: int = 0,
    headers: Sequence[tuple[bytes | None, bytes | None]] = (),
    headers_count: int | None = None,
    attributes: int = 0,
    length: int | None = None,
) -> bytes:
    body = struct.pack(">b", attributes) + varint(timestamp_delta) + varint(offset_delta)
    body += _bytes(key) + _bytes(value)
    body += varint(len(headers) if headers_count is None else headers_count)
    for name, content in headers:
        body += _bytes(name) + _bytes(content)
    return varint(len(body) if length is None else length) + body


def values(count: int, first: int = 0) -> list[Record]:
    return [(f"k{n}".encode(), f"v{n}".encode()) for n in range(first, first + count)]


def batch(
    records: Iterable[Record] | bytes = (),
    *,
    base_offset: int = 0,
    leader_epoch: int = -1,
    magic: int = 2,
    crc: int | None = None,
    attributes: int = 0,
    last_delta: int | None = None,
    base_timestamp: int | None = None,
    max_timestamp: int | None = None,
    producer: tuple[int, int, int] = (-1, -1, -1),
    count: int | None = None,
    length: int | None = None,
) -> bytes:
    """A batch that is right unless told otherwise. `producer` is id, epoch and base sequence."""
    if isinstance(records, bytes):
        payload, number = records, 1 if count is None else count
    else:
        listed = list(records)
        payload = b"".join(record(k, v, offset_delta=n) for n, (k, v) in enumerate(listed))
        number = len(listed)
    if attributes & 7 == GZIP and not payload.startswith(b"\x1f"):
        payload = gzip.compress(payload, mtime=0)
    now = int(time.time() * 1000)
    first = now if base_timestamp is None else base_timestamp
    rest = REST.pack(
        attributes,
        number - 1 if last_delta is None else last_delta,
        first,
        first if max_timestamp is None else max_timestamp,
        *producer,
        number if count is None else count,
    )
    body = rest + payload
    right = 4 + 1 + 4 + len(body)
    return (
        HEAD.pack(
            base_offset,
            right if length is None else length,
            leader_epoch,
            magic,
            crc32c(body) if crc is None else crc,
        )
        + body
    )


def message_set(magic: int, key: bytes | None, value: bytes | None) -> bytes:
    """One message of the formats before v2."""
    body = struct.pack(">bb", magic, 0)
    if magic == 1:
        body += struct.pack(">q", int(time.time() * 1000))
    for part in (key, value):
        body += struct.pack(">i", -1) if part is None else struct.pack(">i", len(part)) + part
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def summary(encoded: str | None) -> Any:
    """What a comparison needs of fetched record data."""
    if encoded is None:
        return None
    data = base64.b64decode(encoded)
    found: list[dict[str, Any]] = []
    at = 0
    while len(data) - at >= HEAD.size + REST.size:
        base, length, epoch, magic, crc = HEAD.unpack_from(data, at)
        if len(data) - at < 12 + length:
            break
        body = data[at + HEAD.size : at + 12 + length]
        attributes, last, first, most, producer, producer_epoch, sequence, count = REST.unpack_from(
            body
        )
        found.append(
            {
                "base": base,
                "last_delta": last,
                "count": count,
                "attributes": attributes,
                "magic": magic,
                "leader_epoch": epoch,
                "crc": "right" if crc32c(body) == crc else "WRONG",
                "timestamps": [_time(first), _time(most)],
                "producer": [min(producer, 0), producer_epoch, sequence],
            }
        )
        at += 12 + length
    return {"batches": found, "rest": "partial batch"} if at < len(data) else {"batches": found}


def _time(stamp: int) -> Any:
    return "now" if abs(stamp - time.time() * 1000) < 600_000 else stamp
