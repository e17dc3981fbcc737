"""Runs every command of docs/evidence.md and writes what it showed back into the table.

    .venv/bin/python scripts/evidence.py            # run all, print, change nothing
    .venv/bin/python scripts/evidence.py --write    # and write figure, date and machine into the page
    .venv/bin/python scripts/evidence.py --only kill --write

A figure of `make bench` comes from benchmarks/results/latest.json: run that by hand, on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "evidence.md"
BENCH = ROOT / "benchmarks" / "results" / "latest.json"
ROW = re.compile(r"^\| (?P<promise>.+?) \| `(?P<command>[^`]+)` \| (?P<figure>.*?) \| (?P<where>.*?) \|$")
SUMMARY = re.compile(r"(\d+ (?:passed|failed|skipped|error)[^=\n]*)")
LIMIT_S = 3600
# Long, or of another kind: `--skip ''` runs them, too.
BY_HAND = "make (bench|demo|clean-debian|test|check|torture|power-cuts|sync-faults)"
BENCH_ROWS = {
    "÷ C raw echo": "rate_vs_c_raw",
    "÷ libmosquitto": "rate_vs_libmosquitto",
    "÷ Node-RED": "rate_vs_node_red",
    "CPU per message": "cpu_us_saturated",
    "p99 at 1000": "p99_ms_at_1000",
    "disk bytes per message": "disk_bytes_at_5000",
    "resident memory": "resident_mb",
    "insert rate at 10 million": "insert_rate_full_vs_empty",
    "full features": "full_features",
}


def machine() -> str:
    """Processor and cores, as the reader of a figure needs them."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "unknown processor",
    )
    return f"{datetime.now(UTC).date().isoformat()}, {model}, {os.cpu_count()} cores"


def bench_figure(promise: str) -> str | None:
    """The figure of a benchmark row, as measured last; None when the row is no benchmark figure."""
    key = next((key for text, key in BENCH_ROWS.items() if text in promise), None)
    if key is None or not BENCH.exists():
        return None
    figure = json.loads(BENCH.read_text())["figures"][key]
    if key == "full_features":
        return "yes" if figure["holds"] else "**no**"
    return f"{figure['value']:.4g} ({'holds' if figure['holds'] else '**missed**'})"


def run(command: str) -> tuple[bool, str]:
    """Run one command from the root; (whether it exited with 0, what it showed)."""
    started = time.monotonic()
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_S, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    lines = (done.stdout + done.stderr).strip().splitlines()
    shown = next((m[1].strip() for line in reversed(lines) if (m := SUMMARY.search(line))), "")
    shown = shown or (lines[-1][:160] if lines else "")
    seconds = round(time.monotonic() - started)
    return done.returncode == 0, f"{'' if done.returncode == 0 else '**failed** '}{shown or 'exit 0'} ({seconds} s)"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--skip", default=BY_HAND)
    options = parser.parse_args()
    known: dict[str, tuple[bool, str]] = {}
    lines, good = [], True
    for line in PAGE.read_text().splitlines():
        row = ROW.match(line)
        if row is None or options.only not in line:
            lines.append(line)
            continue
        command = row["command"]
        figure = bench_figure(row["promise"]) if command == "make bench" else None
        if figure is None:
            if options.skip and re.match(rf"(?:{options.skip})", command):
                lines.append(line)
                continue
            if command not in known:
                known[command] = run(command)
            ok, figure = known[command]
            good &= ok
        print(f"{row['promise'][:90]:90}  {figure}", flush=True)
        lines.append(f"| {row['promise']} | `{command}` | {figure.replace('|', '/')} | {machine()} |")
    if options.write:
        PAGE.write_text("\n".join(lines) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
