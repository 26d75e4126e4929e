"""Where the brokers' data lies, and how paths are printed."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def scratch() -> Path:
    """Data lies under target/, on the disk that the project is on, never in a RAM disk."""
    path = REPOSITORY / "target" / "bench-kafka"
    path.mkdir(parents=True, exist_ok=True)
    return path


def short(command: list[str]) -> str:
    """A command line as it is printed, from the repository's root."""
    return " ".join(command).replace(f"{REPOSITORY}/", "")
