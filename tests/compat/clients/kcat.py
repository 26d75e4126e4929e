"""kcat: produce, consume, metadata, queries by time, groups, all five compressions."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

from steps import BOOTSTRAP, client, step

TIMEOUT_S = 40


def kcat(*arguments: str, stdin: str | None = None) -> str:
    done = subprocess.run(
        ["kcat", "-b", BOOTSTRAP, *arguments], input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
        capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return done.stdout


def run(name: str, action: Any) -> Any:
    def errors(error: Exception) -> Any:
        return re.findall(r"Broker: [\w ]+|Unknown[\w ]+", str(error))[:1] or type(error).__name__

    return step(name, action, errors)


def main() -> None:
    version = subprocess.run(["kcat", "-V"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Version ([\d.]+).*librdkafka ([\d.]+)", version)
    client("kcat", f"{found[1]} (librdkafka {found[2]})" if found else "?")
    values = [f"value {n}" for n in range(300)]
    lines = "".join(f"{v}\n" for v in values)
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        topic = f"kcat-{codec}"
        run(
            f"produce {codec}", lambda: kcat("-P", "-t", topic, "-p", "0", "-z", codec, stdin=lines)
        )
        run(
            f"consume {codec}",
            lambda: (
                kcat("-C", "-t", topic, "-o", "beginning", "-e", "-q", "-f", "%p %o %s\n")
                == "".join(f"0 {n} {v}\n" for n, v in enumerate(values))
            ),
        )
    topic = "kcat-none"

    def metadata() -> Any:
        found = json.loads(kcat("-L", "-J", "-t", topic))
        return [
            len(found["brokers"]),
            found["controllerid"],
            [
                (
                    t["topic"],
                    [
                        (p["partition"], p["leader"], p["replicas"], p["isrs"])
                        for p in t["partitions"]
                    ],
                )
                for t in found["topics"]
            ],
        ]

    run("metadata as JSON", metadata)
    run(
        "keys, headers, tombstones",
        lambda: kcat(
            "-P", "-t", "kcat-parts", "-p", "0", "-K:", "-Z", "-H", "h=1", stdin="a:1\nb:\n"
        ),
    )
    run(
        "keys, headers, tombstones read",
        lambda: kcat("-C", "-t", "kcat-parts", "-e", "-q", "-f", "%k=%s %S %h\n").splitlines(),
    )
    for position in ("beginning", "end", "7", "-5"):
        run(
            f"consume from {position}",
            lambda position=position: len(
                kcat("-C", "-t", topic, "-p", "0", "-o", position, "-e", "-q").splitlines()
            ),
        )
    for stamp in (1, 4_000_000_000_000):
        run(
            f"query by time {stamp}",
            lambda stamp=stamp: kcat("-Q", "-t", f"{topic}:0:{stamp}").strip(),
        )
    for spec in (-1, -2):
        run(f"query {spec}", lambda spec=spec: kcat("-Q", "-t", f"{topic}:0:{spec}").strip())
    run(
        "consume by time",
        lambda: len(
            kcat(
                "-C", "-t", topic, "-p", "0", "-o", "s@1", "-o", "e@4000000000000", "-e", "-q"
            ).splitlines()
        ),
    )
    for count in (100, 200):
        run(
            f"group reads {count}",
            lambda count=count: (
                kcat(
                    "-q",
                    "-c",
                    str(count),
                    "-X",
                    "auto.offset.reset=earliest",
                    "-G",
                    "kcat-group",
                    topic,
                ).splitlines()
                == (values[:100] if count == 100 else values[100:])
            ),
        )
    run("partition that is not there", lambda: kcat("-C", "-t", topic, "-p", "9", "-e", "-q"))
    run(
        "topic that is not there",
        lambda: kcat(
            "-C", "-t", "kcat-nowhere", "-e", "-q", "-X", "allow.auto.create.topics=false"
        ),
    )
    run(
        "offset beyond the end",
        lambda: kcat(
            "-C", "-t", topic, "-p", "0", "-o", "9999", "-e", "-q", "-X", "auto.offset.reset=error"
        ),
    )
    run(
        "idempotent producer",
        lambda: kcat(
            "-P", "-t", "kcat-idempotent", "-p", "0", "-X", "enable.idempotence=true", stdin=lines
        ),
    )


if __name__ == "__main__":
    main()
