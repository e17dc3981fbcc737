"""`python -m benchmarks.run`: measure everything, print the table, write results/latest.json and a picture.

Exit code 0 only if every figure that was measured reaches its must and no result of the daemon was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import machine
from benchmarks.broker import Broker, broker
from benchmarks.contestants.contestant import Contestant
from benchmarks.contestants.echo_libmosquitto import EchoLibmosquitto
from benchmarks.contestants.echo_raw import EchoRaw
from benchmarks.contestants.edged_daemon import EdgedDaemon
from benchmarks.contestants.naive_python import NaivePython
from benchmarks.contestants.node_red import NodeRed
from benchmarks.explain import explain, needs_profile
from benchmarks.figures import (
    EXTRAS,
    FEATURES_KEY,
    FSYNC_KEY,
    GROWTH_KEY,
    ROWS,
    Figure,
    figures,
    given_figure,
    passes,
    undelivered,
)
from benchmarks.hotspots import hotspots
from benchmarks.model import write_model
from benchmarks.native import LOADGEN, NotMeasured, build
from benchmarks.picture import draw
from benchmarks.plan import CACHE, FULL, QUICK, RESULTS, Plan
from benchmarks.report import Report
from benchmarks.rounds import Outcome, run_rounds
from benchmarks.store_growth import insert_ratios


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; returns the exit code."""
    options = _parser().parse_args(arguments)
    plan = QUICK if options.quick else FULL
    CACHE.mkdir(parents=True, exist_ok=True)
    workdir = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))  # beside the sources: a real disk, not /tmp in memory
    try:
        return _run(options, plan, workdir)
    except NotMeasured as missing:
        print(f"Nothing can be measured: {missing}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(workdir, ignore_errors=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    quick = os.environ.get("QUICK", "") not in {"", "0"}
    parser.add_argument("--quick", action="store_true", default=quick, help="two short rounds, within five minutes")
    parser.add_argument("--no-gate", action="store_true", help="exit with 0 even when a must is missed")
    parser.add_argument("--only", metavar="NAME,…", help="measure these contestants only, e.g. c_raw,edged")
    parser.add_argument("--stock", action="store_true", help="a broker with stock settings instead of tuned ones")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of latest.json and latest.svg")
    return parser


def _run(options: argparse.Namespace, plan: Plan, workdir: Path) -> int:
    build(LOADGEN)
    write_model(workdir)
    contestants = _contestants(workdir, options.only)
    absent = _prepare(contestants)
    started, where = datetime.now(UTC), machine.describe(workdir)
    with broker(workdir, stock=options.stock) as running:
        outcome = run_rounds([each for each in contestants if each not in absent], running, plan, workdir)
        rows = figures(ROWS, outcome.rounds, _elsewhere(options, outcome, plan, workdir))
        spent = _profile(running, workdir, outcome) if needs_profile(rows) else {}
    outcome.not_measured[:0] = [(each.title, why) for each, why in absent.items()]
    extras = figures(EXTRAS, outcome.rounds, [given_figure(FSYNC_KEY, [each.p99_ms for each in outcome.fsync])])
    lost, duplicates = undelivered(outcome.rounds, "edged")
    report = Report(
        started=started,
        plan=plan.name,
        machine=where,
        contestants=contestants,
        outcome=outcome,
        rows=rows,
        extras=extras,
        lost=lost,
        duplicates=duplicates,
        facts=explain(rows, extras, outcome.rounds, os.cpu_count() or 1),
        profile=spent,
    )
    _write(report, options.output)
    return 0 if options.no_gate or passes(report.rows, lost) else 1


def _contestants(model_folder: Path, only: str | None) -> list[Contestant]:
    everybody: list[Contestant] = [
        EchoRaw(),
        EchoLibmosquitto(),
        EdgedDaemon(model_folder),
        EdgedDaemon(model_folder, linger_ms=5),
        NodeRed(model_folder),
        NaivePython(model_folder),
    ]
    wanted = set(only.split(",")) if only else {each.name for each in everybody}
    if unknown := wanted - {each.name for each in everybody}:
        names = ", ".join(each.name for each in everybody)
        raise NotMeasured(f"no contestant is named {', '.join(sorted(unknown))}; there are {names}")
    return [each for each in everybody if each.name in wanted]


def _prepare(contestants: Sequence[Contestant]) -> dict[Contestant, str]:
    """Build and install; returns who cannot take part, and why."""
    absent: dict[Contestant, str] = {}
    for each in contestants:
        print(f"preparing {each.title}", flush=True)
        try:
            each.prepare()
        except NotMeasured as why:
            absent[each] = str(why)
            print(f"  not measured: {why}", flush=True)
    return absent


def _profile(running: Broker, workdir: Path, outcome: Outcome) -> dict[str, float]:
    try:
        return hotspots(running, workdir)
    except NotMeasured as why:
        outcome.not_measured.append(("the profile", str(why)))
        return {}


def _elsewhere(options: argparse.Namespace, outcome: Outcome, plan: Plan, workdir: Path) -> list[Figure]:
    """The figures that do not come from the rounds."""
    shown = outcome.features
    off = ", ".join(name for name, works in shown.items() if not works)
    features = given_figure(FEATURES_KEY, [float(not off)] if shown else [], f"not shown: {off}" if off else "")
    if options.only:
        return [features]
    try:
        ratios = insert_ratios(workdir, plan.stored_rows, plan.rounds)
    except NotMeasured as why:
        outcome.not_measured.append(("the insert rate of a full store", str(why)))
        return [features]
    note = "" if plan.stored_rows == FULL.stored_rows else f"with {plan.stored_rows:,} rows in this {plan.name} run"
    return [features, given_figure(GROWTH_KEY, ratios, note)]


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    try:
        draw(folder / "latest.svg", report)
    except NotMeasured as missing:
        report.outcome.not_measured.append(("the picture", str(missing)))
    (folder / "latest.json").write_text(json.dumps(report.as_json(), indent=1, ensure_ascii=False) + "\n")
    print(f"\n{report.as_text()}\n\nwritten to {folder}: latest.json, latest.svg")


if __name__ == "__main__":
    sys.exit(main())
