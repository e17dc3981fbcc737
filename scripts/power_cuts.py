"""Cuts the power of the daemon's disk fifty times under load; afterwards no acknowledged event may be missing.

    .venv/bin/python scripts/power_cuts.py          # 50 cuts
    .venv/bin/python scripts/power_cuts.py 200
    .venv/bin/python scripts/power_cuts.py --seed 7 # at other instants

It runs tests/fault/disk/test_power_cut.py: a real daemon on an ext4 whose disk forgets what was not flushed, a real
mosquitto and sensors outside of it. Before that come the controls, which show that the disk does forget: a writer that
does not wait for its fsync loses rows on it. Needs root, nbdkit and nbdfuse. The last line of the output is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 20_260_301
SKIPPED = "skipped"


def passes(test: str, **settings: str) -> bool:
    """Run one test file; what went wrong is printed. A skipped test has shown nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--no-cov", "-x", "-o", "faulthandler_timeout=3600", test],
        cwd=ROOT, check=False, capture_output=True, text=True, env=os.environ | settings,
    )  # fmt: skip
    shown = done.returncode == 0 and SKIPPED not in done.stdout.splitlines()[-1]
    if not shown:
        print(done.stdout[-8000:], done.stderr[-2000:], file=sys.stderr, flush=True)
    return shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cuts", type=int, nargs="?", default=50)
    parser.add_argument("--seed", type=int, default=FIRST_SEED)
    options = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        tally = Path(folder) / "tally"
        good = passes("tests/fault/disk/test_control.py") and passes(
            "tests/fault/disk/test_power_cut.py",
            EDGED_CUTS=str(options.cuts), EDGED_SEED=str(options.seed), EDGED_TALLY=str(tally),
        )  # fmt: skip
        counted = json.loads(tally.read_text()) if good else {}
    print(json.dumps({"ok": good, "seconds": round(time.monotonic() - started)} | counted))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
