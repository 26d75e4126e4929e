#!/usr/bin/env python3
"""`make compat`: the client programs against Holdfast, against Apache Kafka, or against both.

Every program gets a fresh broker on loopback. PEER=holdfast (the default), kafka or both; with both,
`RESULTS.md` is written from a run of all programs. What Kafka said is kept in `kafka/`, so that a run
against Holdfast alone is held against it. Arguments are parts of program names.

Ends with 1 if a program fails to run, or if Holdfast differs from Kafka in a step that
`accepted.toml` does not list.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parents[1]
sys.path.insert(0, str(REPOSITORY / "benches" / "kafka"))

import peers  # noqa: E402
import verdicts  # noqa: E402
from programs import CLASSES, LIBRARY, PROGRAMS, Outcome, Program, run  # noqa: E402

RESULTS = HERE / "RESULTS.md"
KEPT = {"kafka": HERE / "kafka", "holdfast": HERE / ".build" / "holdfast"}
# ACLs have to be kept by something; the clients here do not sign in, and may do everything.
KAFKA_PROPERTIES = """\
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS
allow.everyone.if.no.acl.found=true
"""
HOLDFAST_CONFIGURATION = """\
[auth]
authorizer = "acl"
super_users = ["User:ANONYMOUS"]
allow_everyone_if_no_acl_found = true
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "programs", nargs="*", help="parts of program names; all of them by default"
    )
    parser.add_argument(
        "--peer",
        choices=("holdfast", "kafka", "both"),
        default=os.environ.get("PEER") or "holdfast",
    )
    binary = os.environ.get("HOLDFAST_BIN") or str(REPOSITORY / "target" / "release" / "holdfast")
    parser.add_argument("--holdfast", type=Path, default=Path(binary))
    parser.add_argument(
        "--quick", action="store_true", help="leave out what takes more than a minute"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, help="programs at a time, each with a broker of its own"
    )
    parser.add_argument("--list", action="store_true", help="name the programs")
    parser.add_argument(
        "--table", action="store_true", help="run nothing: write the table from what is kept"
    )
    asked = parser.parse_args()
    chosen = [
        p
        for p in PROGRAMS
        if (not asked.programs or any(part in p.name for part in asked.programs))
        and not (asked.quick and p.is_long)
    ]
    if asked.list:
        print("\n".join(p.name for p in chosen))
        return 0
    if not chosen:
        parser.error(f"no program is named like {asked.programs}")
    kinds = [] if asked.table else ["kafka", "holdfast"] if asked.peer == "both" else [asked.peer]
    if kinds:
        compile_java()
    plays = [(program, kind, broker(kind, asked.holdfast)) for program in chosen for kind in kinds]
    with ThreadPoolExecutor(asked.jobs) as pool:
        done = pool.map(lambda play: played(*play), plays)
    failed = [
        (kind, program.name) for (program, kind, _), ok in zip(plays, done, strict=True) if not ok
    ]
    for kind, name in failed:
        print(f"FAILED to run: {name} against {kind}")
    different = 0
    if "holdfast" in kinds or asked.table:
        different = compared(chosen, asked)
    return 1 if failed or different else 0


def broker(kind: str, binary: Path) -> peers.Peer:
    if kind == "kafka":
        return peers.Kafka(flush_each_append=False, properties=KAFKA_PROPERTIES)
    return peers.Holdfast(binary, HOLDFAST_CONFIGURATION)


def compile_java() -> None:
    """Compiles the Java programs where a source is newer than what was made of it last."""
    sources = sorted((HERE / "java").glob("*.java"))
    stamp = CLASSES / ".compiled"
    newest = max(source.stat().st_mtime for source in sources)
    if stamp.exists() and stamp.stat().st_mtime > newest:
        return
    CLASSES.mkdir(parents=True, exist_ok=True)
    command = ["javac", "-nowarn", "-cp", f"{LIBRARY}/*", "-d", str(CLASSES), *map(str, sources)]
    subprocess.run(command, check=True)
    stamp.touch()


def played(program: Program, kind: str, peer: peers.Peer) -> bool:
    """Runs a program against a fresh broker and keeps what it said."""
    with tempfile.TemporaryDirectory(prefix="holdfast-compat-", ignore_cleanup_errors=True) as name:
        workdir = Path(name)
        started: list[peers.Running] = []
        try:
            for part in ("broker", "other") if program.needs_kafka else ("broker",):
                (workdir / part).mkdir()
                this = peer if part == "broker" else broker("kafka", Path())
                started.append(this.start(workdir / part))
            bootstraps = [running.bootstrap for running in started]
            outcome = run(program, bootstraps[0], workdir / "program", *bootstraps[1:])
        finally:
            for running in started:
                # Its data is thrown away: there is nothing to end in order.
                running.process.kill()
                running.process.wait()
    verdicts.save(KEPT[kind] / f"{program.name}.jsonl", outcome)
    print(
        f"{program.name} against {kind}: {len(outcome.steps)} steps in {outcome.took_s:.0f} s",
        flush=True,
    )
    if outcome.failure:
        print(f"  {outcome.failure}", flush=True)
    return outcome.failure is None


def compared(chosen: list[Program], asked: argparse.Namespace) -> int:
    """Prints the differences, writes the table after a run of everything; returns their number."""
    accepted = verdicts.rules()
    found: list[verdicts.Row] = []
    versions: dict[str, str] = {}
    for program in chosen:
        kept = [KEPT[kind] / f"{program.name}.jsonl" for kind in ("kafka", "holdfast")]
        if not all(path.exists() for path in kept):
            print(f"{program.name}: nothing kept of Kafka to hold it against; PEER=both makes it")
            continue
        outcomes: list[Outcome] = [verdicts.load(path) for path in kept]
        versions |= outcomes[0].clients
        found += verdicts.rows(program.name, *outcomes, accepted)
    different = [row for row in found if row.verdict == "different"]
    for row in different:
        print(f"DIFFERENT {row.program}: {row.step} {verdicts.numbers(row.versions)}")
        for path, kafka, holdfast in row.differences[:12]:
            print(
                f"    {path or 'outcome'}: {verdicts.cell(kafka, 160)} -> {verdicts.cell(holdfast, 160)}"
            )
    counts = {
        v: sum(len(r.versions) for r in found if r.verdict == v)
        for v in ("same", "accepted", "different")
    }
    print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    if (asked.peer == "both" or asked.table) and len(chosen) == len(PROGRAMS):
        names = (peers.Kafka(flush_each_append=False).name, peers.Holdfast(asked.holdfast).name)
        RESULTS.write_text(verdicts.table(found, names, versions))
        print(f"written: {RESULTS.relative_to(REPOSITORY)}")
    return len(different)


if __name__ == "__main__":
    sys.exit(main())
