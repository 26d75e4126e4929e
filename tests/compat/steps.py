"""What the programs of the compatibility suite share: how they are told where the broker is, and how
they say what it did.

A program prints one line of JSON per step, `{"step": ..., "outcome": ...}` with `"version"` where the
same question is asked in several protocol versions, and before them one `{"client": ..., "version":
...}`. Outcomes have to be comparable between brokers: counts, names and offsets, no ids, times or
ports.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, TypeVar

BOOTSTRAP = os.environ.get("COMPAT_BOOTSTRAP", "127.0.0.1:9092")
T = TypeVar("T")


def client(name: str, version: str) -> None:
    """Names the client that the following steps were made with."""
    _print({"client": name, "version": version})


def report(step: str, outcome: Any, version: int | None = None) -> None:
    line = {"step": step, "outcome": outcome}
    if version is not None:
        line["version"] = version
    _print(line)


def step(name: str, action: Callable[[], Any], describe: Callable[[Exception], Any] = repr) -> Any:
    """Reports what an action returned, or the error that it ended with, and returns the former."""
    try:
        outcome = action()
    except Exception as error:
        if os.environ.get("COMPAT_TRACE"):
            traceback.print_exc(file=sys.stderr)
        report(name, {"error": describe(error)})
        return None
    report(name, outcome)
    return outcome


def until(condition: Callable[[], T], *, within_s: float, what: str, every_s: float = 0.05) -> T:
    """The first truthy answer of a condition; a TimeoutError names what was waited for."""
    deadline = time.monotonic() + within_s
    while not (answer := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {within_s} s")
        time.sleep(every_s)
    return answer


def _print(line: dict[str, Any]) -> None:
    print(json.dumps(line, sort_keys=True), flush=True)
