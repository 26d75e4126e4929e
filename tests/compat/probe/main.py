"""The raw probe: `main.py [NAME...]` plays the named groups of cases, or all of them.

Sends what well-behaved clients would not, straight over sockets, and reports each answer in a form
that can be held against another broker's.
"""

from __future__ import annotations

import sys
import traceback

from cases_admin import CASES as ADMIN
from cases_frames import CASES as FRAMES
from cases_groups import CASES as GROUPS
from cases_log import CASES as LOG
from cases_points import CASES as POINTS
from cases_txn import CASES as TXN
from probe import Probe

CASES = {**ADMIN, **LOG, **GROUPS, **TXN, **FRAMES, **POINTS}


def main() -> int:
    chosen = sys.argv[1:] or list(CASES)
    probe = Probe()
    probe.coordinators()
    failed = 0
    for name in chosen:
        try:
            CASES[name](probe)
        except Exception:
            # A group that breaks off leaves steps missing, which the comparison shows; the others go on.
            traceback.print_exc(file=sys.stderr)
            failed += 1
    probe.codec.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
