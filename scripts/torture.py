"""Kills the daemon with -9 at random instants under load, a thousand times; after every round nothing may be missing.

    .venv/bin/python scripts/torture.py                # 1000 kills, 20 rounds of 50
    .venv/bin/python scripts/torture.py --kills 200
    .venv/bin/python scripts/torture.py --seed 7       # other instants and loads

A round is tests/fault/daemon/test_kill.py with a seed of its own: a real mosquitto, a real daemon with pipelines of
single events, of windows, and of windows for a slow model, sensors that count what was acknowledged, a SCADA that
counts what it got. Rounds that ended well are remembered in .cache/torture-<seed>.jsonl, so that an interrupted run
goes on where it was; --again forgets them. The last line of the output is JSON.
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


def play(seed: int, kills: int, memory: Path) -> dict[str, int] | None:
    """One round; what was counted, or None when something was missing, doubled or changed."""
    tally = memory.with_suffix(".round")
    tally.unlink(missing_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-cov", "-x", "-o", "faulthandler_timeout=3600",
         "tests/fault/daemon/test_kill.py"],
        cwd=ROOT, check=False, capture_output=True, text=True,
        env=os.environ | {"EDGED_KILLS": str(kills), "EDGED_SEED": str(seed), "EDGED_TALLY": str(tally)},
    )  # fmt: skip
    if done.returncode or not tally.exists():  # a skipped round has shown nothing
        print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr, flush=True)
        return None
    counted: dict[str, int] = json.loads(tally.read_text())
    return counted


def recall(memory: Path) -> dict[int, dict[str, int]]:
    """Rounds that ended well in an earlier run, by number."""
    lines = [json.loads(line) for line in memory.read_text().splitlines()] if memory.exists() else []
    return {line.pop("round"): line for line in lines}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    parser.add_argument("--again", action="store_true", help="forget the rounds of an earlier run")
    options = parser.parse_args()
    memory = ROOT / ".cache" / f"torture-{options.seed}.jsonl"
    memory.parent.mkdir(exist_ok=True)
    if options.again:
        memory.unlink(missing_ok=True)
    known = recall(memory)
    good: list[dict[str, int]] = []
    failed = []
    for number in range(-(-options.kills // KILLS_PER_ROUND)):
        kills = min(KILLS_PER_ROUND, options.kills - number * KILLS_PER_ROUND)
        counted = known.get(number)
        if counted is None or counted["kills"] != kills:
            started = time.monotonic()
            counted = play(options.seed + number, kills, memory)
            if counted is not None:
                counted |= {"kills": kills, "seconds": round(time.monotonic() - started)}
                with memory.open("a") as file:
                    file.write(json.dumps({"round": number} | counted) + "\n")
        if counted is None:
            failed.append(number)
        else:
            good.append(counted)
        print(f"round {number}: {kills} kills, {counted or 'FAILED'}", file=sys.stderr, flush=True)
    names = ("kills", "events", "results", "repeated", "seconds")
    print(json.dumps({name: sum(each[name] for each in good) for name in names} | {"failed_rounds": failed}))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
