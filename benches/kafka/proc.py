"""What Linux says of one process and of the machine. Reads /proc; measures nothing itself."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """Counters of one process, all of its threads included, since it started."""

    cpu_s: float
    written_bytes: int

    def since(self, earlier: Usage) -> Usage:
        return Usage(self.cpu_s - earlier.cpu_s, self.written_bytes - earlier.written_bytes)


def usage(pid: int) -> Usage:
    """CPU seconds (user and system) and bytes the process caused to be sent to the disk.

    `write_bytes` counts a page when it is dirtied, so writes still in the page cache are in it.
    """
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    utime, stime = int(after_name[11]), int(after_name[12])
    fields = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
    return Usage((utime + stime) / TICKS_PER_S, int(fields["write_bytes"]))


def rss_bytes(pid: int) -> int:
    """Resident memory now, in bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} has ended")


def machine(directory: Path) -> str:
    """One line naming what the figures were measured on."""
    model = "unknown CPU"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory_kib = int(Path("/proc/meminfo").read_text().splitlines()[0].split()[1])
    filesystem = subprocess.run(
        ["findmnt", "-n", "-o", "FSTYPE,OPTIONS", "-T", str(directory)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return (
        f"{model}, {os.cpu_count()} cores, {memory_kib / 2**20:.1f} GiB, "
        f"Linux {platform.release()}, {' '.join(filesystem)}"
    )
