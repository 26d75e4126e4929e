"""What was measured, as it is printed: medians, tables, and bars that are met or not."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import astuple, dataclass
from typing import Any

from peers import Peer

# Of each broker the rounds; a round is a dataclass of numbers.
Results = dict[Peer, list[Any]]
Column = tuple[str, Callable[[Any], str]]


def medians(results: Results) -> dict[Peer, Any]:
    """Each number's own median over the rounds."""
    return {peer: median(rounds) for peer, rounds in results.items()}


def median(rounds: list[Any]) -> Any:
    columns = zip(*map(astuple, rounds), strict=True)
    return type(rounds[0])(*map(statistics.median, columns))


def table(rows: dict[Peer, Any], columns: tuple[Column, ...], *, durability: bool = True) -> str:
    """A Markdown table; with `durability` every line names what the broker promises."""
    promise = ["when it acknowledges"] if durability else []
    cells = [["broker", *promise, *(title for title, _ in columns)]]
    for peer, measured in rows.items():
        promise = [peer.durability] if durability else []
        cells.append([peer.name, *promise, *(show(measured) for _, show in columns)])
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


@dataclass(frozen=True)
class Bar:
    """What Holdfast is held to."""

    what: str
    measured: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def is_met(self) -> bool:
        low = self.at_least is None or self.measured >= self.at_least
        return low and (self.at_most is None or self.measured <= self.at_most)

    def __str__(self) -> str:
        bars = (("at most", self.at_most), ("at least", self.at_least))
        bar = " and ".join(f"{side} {value:g}" for side, value in bars if value is not None)
        verdict = "PASS" if self.is_met else "FAIL"
        return f"{verdict}: {self.what}: {self.measured:.2f}{self.unit} (bar: {bar})"
