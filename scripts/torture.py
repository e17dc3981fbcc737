"""Kills the daemon with -9 at random instants under load, a thousand times; after every round nothing may be missing.

    .venv/bin/python scripts/torture.py                      # 1000 kills, 20 rounds of 50
    .venv/bin/python scripts/torture.py --kills 200
    .venv/bin/python scripts/torture.py --first-round 7      # go on after an interruption, or repeat a round: same seed

A round is tests/fault/daemon/test_kill.py with its own seed: a real mosquitto, a real daemon with a pipeline of single
events and one of windows, sensors that count what was acknowledged, a SCADA that counts what it got. The last line of
the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KILLS_PER_ROUND = 50
FIRST_SEED = 20_260_301


def play(seed: int, kills: int) -> bool:
    """One round; True when every acknowledged event had its result and no id stood for two."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-cov", "-x", "-o", "faulthandler_timeout=3600",
         "tests/fault/daemon/test_kill.py"],
        cwd=ROOT, env=os.environ | {"EDGED_KILLS": str(kills), "EDGED_SEED": str(seed)}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr, flush=True)
    return done.returncode == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--first-round", type=int, default=0)
    options = parser.parse_args()
    started = time.monotonic()
    done, failed = 0, []
    rounds = range(options.first_round, -(-options.kills // KILLS_PER_ROUND))
    for number in rounds:
        kills = min(KILLS_PER_ROUND, options.kills - number * KILLS_PER_ROUND)
        good = play(FIRST_SEED + number, kills)
        done += kills
        if not good:
            failed.append(number)
        print(f"round {number}: {kills} kills, {'nothing missing' if good else 'FAILED'}", file=sys.stderr, flush=True)
    print(json.dumps({"kills": done, "failed_rounds": failed, "seconds": round(time.monotonic() - started)}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
