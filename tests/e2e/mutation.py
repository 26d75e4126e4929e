"""Seeded damage to valid frames: the same seed and frames give the same hostile bytes.

Knows how each protocol frames its messages, because a frame with a broken outer length is
refused at once: most mutations are re-framed, so that the damage reaches the decoders behind.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable, Iterator

from capture import as_remaining_length, remaining_length

HOSTILE_INTEGERS = tuple(
    integer.to_bytes(width, "big")
    for width in (1, 2, 4, 8)
    for integer in (
        0,
        (1 << (8 * width)) - 1,
        (1 << (8 * width - 1)) - 1,
        1 << (8 * width - 1),
        (1 << (8 * width - 1)) - 16,
    )
) + (b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff\x07", b"\x80\x80\x80\x80\x80\x01")

Mutation = Callable[[random.Random, bytes, bytes], bytes]


def flip_bits(dice: random.Random, frame: bytes, _other: bytes) -> bytes:
    damaged = bytearray(frame)
    for _ in range(dice.randint(1, 8)):
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
    return bytes(damaged)


def truncate(dice: random.Random, frame: bytes, _other: bytes) -> bytes:
    return frame[: dice.randrange(len(frame))]


def hostile_length(dice: random.Random, frame: bytes, _other: bytes) -> bytes:
    """Overwrites some place with an integer that a careless reader would allocate by."""
    value = dice.choice(HOSTILE_INTEGERS)
    at = dice.randrange(len(frame))
    return frame[:at] + value + frame[at + len(value) :]


def splice(dice: random.Random, frame: bytes, other: bytes) -> bytes:
    """The head of one frame and the tail of another."""
    return frame[: dice.randrange(1, len(frame) + 1)] + other[dice.randrange(len(other)) :]


def insert(dice: random.Random, frame: bytes, _other: bytes) -> bytes:
    at = dice.randrange(len(frame))
    return frame[:at] + dice.randbytes(dice.choice((1, 2, 7, 64, 4096))) + frame[at:]


def repeat(dice: random.Random, frame: bytes, _other: bytes) -> bytes:
    """A part of the frame many times over: nesting, lists and numbers without end."""
    start = dice.randrange(len(frame))
    end = min(len(frame), start + dice.randint(1, 64))
    return frame[:end] + frame[start:end] * dice.choice((2, 100, 1000)) + frame[end:]


MUTATIONS: tuple[Mutation, ...] = (flip_bits, truncate, hostile_length, splice, insert, repeat)


def frame_mqtt(body: bytes, packet_type: int) -> bytes:
    return bytes([packet_type]) + as_remaining_length(min(len(body), (1 << 28) - 1)) + body


def mutated_mqtt(dice: random.Random, frames: list[bytes]) -> bytes:
    """Three of four damaged inside, with a correct remaining length; the rest damaged anywhere."""
    frame, other = dice.choice(frames), dice.choice(frames)
    mutate = dice.choice(MUTATIONS)
    if dice.random() < 0.25 or len(frame) < 4:
        return mutate(dice, frame, other)
    _, width = remaining_length(frame, 1)
    packet_type = frame[0] if dice.random() < 0.9 else dice.randrange(256)
    return frame_mqtt(mutate(dice, frame[1 + width :], other), packet_type)


def mutated_kafka(dice: random.Random, frames: list[bytes]) -> bytes:
    """Four of five damaged inside, with a correct length; the rest damaged anywhere."""
    frame, other = dice.choice(frames), dice.choice(frames)
    mutate = dice.choice(MUTATIONS)
    if dice.random() < 0.2:
        return mutate(dice, frame, other)
    # The api key is kept mostly, so that it is its decoder that is met; now and then the body is
    # read as another version of the same request, or after a valid header of another one.
    header = (
        frame[4:8] if dice.random() < 0.7 else frame[4:6] + struct.pack(">h", dice.randrange(19))
    )
    if dice.random() < 0.1:
        header = other[4:8]
    body = header + mutate(dice, frame[8:], other)
    return struct.pack(">i", len(body)) + body


CONTENT_LENGTH = re.compile(rb"(?i)content-length: *\d+")


def mutated_http(dice: random.Random, frames: list[bytes]) -> bytes:
    """Half damaged in the body alone, with a correct Content-Length; the rest anywhere."""
    frame, other = dice.choice(frames), dice.choice(frames)
    mutate = dice.choice(MUTATIONS)
    head, separator, body = frame.partition(b"\r\n\r\n")
    if not body or dice.random() < 0.5:
        return mutate(dice, frame, other)
    body = mutate(dice, body, other)
    return CONTENT_LENGTH.sub(b"Content-Length: %d" % len(body), head) + separator + body


def batches(
    dice: random.Random,
    frames: list[bytes],
    mutated: Callable[[random.Random, list[bytes]], bytes],
    *,
    greetings: list[bytes],
) -> Iterator[list[bytes]]:
    """What goes over each connection, without end: a valid greeting, then mutated frames.

    Few frames a connection, because a server hangs up at the first that it cannot read. One
    connection in four begins with a mutated frame in place of the greeting.
    """
    while True:
        greeting = mutated(dice, frames) if dice.random() < 0.25 else dice.choice(greetings)
        yield [greeting] + [mutated(dice, frames) for _ in range(dice.randint(1, 4))]
