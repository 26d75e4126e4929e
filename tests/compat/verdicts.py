"""Holds the outcomes of two brokers against each other and writes the table."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from programs import HERE, Outcome

ACCEPTED = HERE / "accepted.toml"
ABSENT = "(none)"
CELL_MAX = 700
SAME_CELL_MAX = 110

Key = tuple[str, int | None]


@dataclass
class Row:
    """One step, over the versions in which both brokers answered alike."""

    program: str
    client: str
    step: str
    versions: list[int | None]
    kafka: Any
    holdfast: Any
    #: Where they differ: path, Kafka's value, Holdfast's.
    differences: list[tuple[str, Any, Any]]
    reason: str | None = None

    @property
    def verdict(self) -> str:
        if not self.differences:
            return "same"
        return "accepted" if self.reason else "different"


def differences(kafka: Any, holdfast: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two outcomes differ. An explanation that Kafka does not give is no difference."""
    if kafka == holdfast:
        return
    if path.endswith("rrorMessage") and (holdfast == "text" or not (kafka or holdfast)):
        return
    if isinstance(kafka, dict) and isinstance(holdfast, dict):
        for key in sorted(kafka.keys() | holdfast.keys(), key=str):
            yield from differences(
                kafka.get(key, ABSENT), holdfast.get(key, ABSENT), f"{path}.{key}".lstrip(".")
            )
    elif isinstance(kafka, list) and isinstance(holdfast, list) and len(kafka) == len(holdfast):
        for n, (one, other) in enumerate(zip(kafka, holdfast, strict=True)):
            yield from differences(one, other, f"{path}[{n}]")
    else:
        yield path, kafka, holdfast


@dataclass
class Rule:
    """A difference that is meant to be. `*` in a step's or place's name stands for anything."""

    steps: list[str]
    places: list[str]
    reason: str

    def takes(self, row: Row) -> bool:
        return any(matches(p, row.step) for p in self.steps) and (
            not self.places
            or all(any(matches(p, path) for p in self.places) for path, _, _ in row.differences)
        )


def matches(pattern: str, name: str) -> bool:
    """Only `*` is special, because names contain brackets."""
    first, *rest = pattern.split("*")
    if not rest:
        return pattern == name
    if not name.startswith(first):
        return False
    at = len(first)
    for part in rest[:-1]:
        found = name.find(part, at)
        if found < 0:
            return False
        at = found + len(part)
    return len(name) - at >= len(rest[-1]) and name.endswith(rest[-1])


def rules() -> list[Rule]:
    listed = tomllib.loads(ACCEPTED.read_text()).get("difference", [])
    return [Rule(d["steps"], d.get("places", []), d["reason"]) for d in listed]


def rows(program: str, kafka: Outcome, holdfast: Outcome, accepted: list[Rule]) -> list[Row]:
    missing = absent_apis(kafka, holdfast)
    found: list[Row] = []
    keys = list(kafka.steps) + [key for key in holdfast.steps if key not in kafka.steps]
    for step, version in keys:
        api = step.split(":")[0]
        if api in missing:
            continue
        one, other = (
            kafka.steps.get((step, version), ABSENT),
            holdfast.steps.get((step, version), ABSENT),
        )
        client = kafka.client_of.get(step) or holdfast.client_of[step]
        row = Row(program, client, step, [version], one, other, list(differences(one, other)))
        last = next((r for r in reversed(found) if r.step == step), None)
        if (
            last
            and last.differences == row.differences
            and (last.differences or last.kafka == row.kafka)
        ):
            last.versions.append(version)
            continue
        found.append(row)
    for row in found:
        if row.differences:
            row.reason = next((rule.reason for rule in accepted if rule.takes(row)), None)
    return found


def absent_apis(kafka: Outcome, holdfast: Outcome) -> set[str]:
    """APIs without a single step on one side are told once, by `advertised:`."""
    one, other = ({step.split(":")[0] for step, _ in o.steps} for o in (kafka, holdfast))
    return {api for api in one ^ other if api.isupper()}


# --- the table --------------------------------------------------------------------------------


def cell(value: Any, limit: int) -> str:
    text = (
        value if isinstance(value, str) else json.dumps(value, sort_keys=True, ensure_ascii=False)
    )
    text = text.replace("|", "\\|").replace("\n", " ")
    return text if len(text) <= limit else text[:limit] + " ..."


def parts(row: Row, side: int) -> str:
    shown = []
    for difference in row.differences:
        path, value = difference[0], difference[1 + side]
        text = cell(value, 200)
        shown.append(f"{path}: {text}" if path else text)
    return cell("<br>".join(shown), CELL_MAX)


def numbers(versions: list[int | None]) -> str:
    known = [v for v in versions if v is not None]
    if not known:
        return ""
    runs: list[list[int]] = []
    for v in known:
        if runs and v == runs[-1][1] + 1:
            runs[-1][1] = v
        else:
            runs.append([v, v])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def table(found: list[Row], peers: tuple[str, str], versions: dict[str, str]) -> str:
    def steps(chosen: list[Row]) -> int:
        return sum(len(r.versions) for r in chosen)

    lines = [
        f"# {peers[1]} beside {peers[0]}",
        "",
        "Written by `make compat PEER=both`. The same programs ran against both brokers, each program",
        "against a fresh one. A step that was asked in several versions of the protocol counts once for",
        "each; a row stands for the versions with the same two answers. Where answers differ, only what",
        "differs is shown.",
        "",
        "| program | client | steps | same | different as meant | different |",
        "|---|---|---|---|---|---|",
    ]
    for program, client in dict.fromkeys((r.program, r.client) for r in found):
        own = [r for r in found if (r.program, r.client) == (program, client)]
        count = [
            steps([r for r in own if r.verdict == v]) for v in ("same", "accepted", "different")
        ]
        name = f"{client} {versions.get(client, '')}".strip()
        lines.append(
            f"| {program} | {name} | {steps(own)} | {count[0]} | {count[1]} | {count[2]} |"
        )
    total = [steps([r for r in found if r.verdict == v]) for v in ("same", "accepted", "different")]
    lines += [f"| all | | {steps(found)} | {total[0]} | {total[1]} | {total[2]} |", ""]
    for verdict, title in (("different", "Different"), ("accepted", "Different as meant")):
        chosen = [r for r in found if r.verdict == verdict]
        if not chosen:
            continue
        why = " reason |" if verdict == "accepted" else ""
        lines += [f"## {title}", "", f"| client | step | versions | {peers[0]} | {peers[1]} |{why}"]
        lines.append("|---|---|---|---|---|" + ("---|" if why else ""))
        for r in chosen:
            line = f"| {r.client} | {cell(r.step, 200)} | {numbers(r.versions)} | {parts(r, 0)} | {parts(r, 1)} |"
            lines.append(line + (f" {r.reason} |" if why else ""))
        lines.append("")
    lines += ["## Same", "", "| client | step | versions | outcome |", "|---|---|---|---|"]
    lines += [
        f"| {r.client} | {cell(r.step, 200)} | {numbers(r.versions)} | {cell(r.kafka, SAME_CELL_MAX)} |"
        for r in found
        if r.verdict == "same"
    ]
    return "\n".join(lines) + "\n"


def load(path: Path) -> Outcome:
    outcome = Outcome()
    for line in path.read_text().splitlines():
        said = json.loads(line)
        if "client" in said and "step" not in said:
            outcome.clients[said["client"]] = said["version"]
        else:
            outcome.steps[(said["step"], said["version"])] = said["outcome"]
            outcome.client_of[said["step"]] = said["client"]
    return outcome


def save(path: Path, outcome: Outcome) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [{"client": c, "version": v} for c, v in outcome.clients.items()]
    lines += [
        {"client": outcome.client_of[step], "step": step, "version": version, "outcome": said}
        for (step, version), said in outcome.steps.items()
    ]
    path.write_text("".join(json.dumps(line, sort_keys=True) + "\n" for line in lines))
