"""`edged model`: models made smaller, verified and measured on a workbench, with the runtimes that the daemon uses."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from edged.cli.model_split import split
from edged.cli.options import json_option
from edged.errors import ExitCode

if TYPE_CHECKING:
    from edged.workbench.benchmarking import Benchmark
    from edged.workbench.optimizing import Optimized, Precision
    from edged.workbench.verifying import Verified

F = TypeVar("F", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
_METRICS = ("accuracy", "balanced_accuracy", "auc", "rmse", "mae")


def _class_option(function: F) -> F:
    text = "Hardware class the model is for: its limits, and the form of INT8 that its runtimes want."
    return click.option("--class", "class_name", metavar="NAME", help=text)(function)


def _report_option(function: F) -> F:
    text = "Existing folder for the report: one HTML file to read, one JSON file for machines."
    return click.option("--report", metavar="DIR", type=_PATH, help=text)(function)


@click.group("model")
def model() -> None:
    """Make models smaller, verify, measure and split them. Needs no daemon and changes none.

    \b
    Example:
      edged model optimize pump.onnx --calibration samples.npz --to pump-int8.onnx --class cpu
      edged model verify pump-int8.onnx --reference pump.onnx --data labelled.npz
      edged model benchmark pump.onnx pump-int8.onnx
      edged model split pump.onnx --data samples.npz --report reports
    """


model.add_command(split)


@model.command("optimize")
@click.argument("source", metavar="MODEL.onnx", type=_PATH)
@click.option(
    "--calibration", required=True, metavar="DATA.npz", type=_PATH, help="Real inputs, 100 or more; first axis samples."
)
@click.option("--to", required=True, metavar="OUT.onnx", type=_PATH, help="Where the result goes; never the input.")
@click.option(
    "--precision",
    type=click.Choice(["int8", "fp16"]),
    default="int8",
    show_default=True,
    help="int8: QDQ. fp16: for GPUs.",
)
@_class_option
@_report_option
@json_option
def optimize(
    source: Path,
    calibration: Path,
    to: Path,
    precision: Precision,
    class_name: str | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Make a smaller model: INT8 with ranges from a checked calibration set, or FP16.

    Without --class the INT8 file has activations around zero and runs on onnxruntime, OpenVINO and TensorRT. With a
    class whose chain has no TensorRT it has the form that processors are fastest with. What it is worth is for
    `edged model verify` to say. Exits with 77 and a code when model or samples are refused; then nothing is written.

    \b
    Example:
      edged model optimize pump.onnx --calibration samples.npz --to pump-int8.onnx
      edged model optimize pump.onnx --calibration samples.npz --to pump-int8.onnx --class cpu --report reports
    """
    from edged.workbench import optimizing, report_optimize
    from edged.workbench.hardware import find_target

    check_folder(report)
    made = optimizing.optimize(source, calibration, to, precision=precision, target=find_target(class_name))
    facts = optimizing.document(made)
    if report is not None:
        write(report, "optimization", facts, report_optimize.render(made))
    say(as_json, facts, lambda: _tell_optimized(made, report))
    return ExitCode.OK


@model.command("verify")
@click.argument("source", metavar="MODEL", type=_PATH)
@click.option("--reference", required=True, metavar="REF.onnx", type=_PATH, help="The model it shall replace.")
@click.option("--data", metavar="LABELLED.npz", type=_PATH, help="Inputs by name and an array `labels`. Required.")
@click.option(
    "--metric", type=click.Choice(_METRICS), default="accuracy", show_default=True, help="What the task counts."
)
@click.option(
    "--max-drop",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="Points of the metric it may be worse; for errors: shares of the error of knowing nothing.",
)
@click.option("--min-metric", type=float, help="What the model itself must reach (for errors: at most).")
@click.option(
    "--min-sqnr-db", type=float, default=20.0, show_default=True, help="Closeness of the answers to the reference's."
)
@click.option("--output", metavar="NAME", help="The output that the labels are about, where there are several.")
@click.option("--rung", default="onnxruntime:cpu", show_default=True, metavar="RUNTIME:DEVICE", help="Where it runs.")
@_class_option
@_report_option
@json_option
def verify(
    source: Path,
    reference: Path,
    data: Path | None,
    metric: str,
    max_drop: float,
    min_metric: float | None,
    min_sqnr_db: float,
    output: str | None,
    rung: str,
    class_name: str | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Say whether a model may replace its reference: static checks, closeness, and the task on labelled data.

    Writes verification.json (the digests of model, reference and data, every check; made to be signed) and
    verification.html beside the model, or into --report. Exits with 77 and the codes of what failed. Without labelled
    data there is no verdict, and that is 77, too.

    \b
    Example:
      edged model verify pump-int8.onnx --reference pump.onnx --data labelled.npz
      edged model verify pump-int8.onnx --reference pump.onnx --data labelled.npz --metric rmse --max-drop 0.02
    """
    from edged.workbench import report_verify, verifying
    from edged.workbench.gate import Thresholds
    from edged.workbench.hardware import find_target

    folder = report if report is not None else source.parent
    check_folder(folder)
    found = verifying.verify(
        source,
        reference,
        data,
        metric=metric,
        thresholds=Thresholds(max_drop, min_sqnr_db, min_metric),
        target=find_target(class_name),
        rung=rung,
        output=output,
    )
    facts = verifying.document(found)
    write(folder, "verification", facts, report_verify.render(found))
    say(as_json, facts, lambda: _tell_verified(found, folder))
    for check in found.failures:
        click.echo(
            f"edged: {check.code}: {check.what}: {check.got}; wanted: {check.allowed or 'no such thing'}", err=True
        )
    return ExitCode.OK if found.passed else ExitCode.REFUSED


@model.command("benchmark")
@click.argument("sources", metavar="MODEL...", type=_PATH, nargs=-1, required=True)
@click.option(
    "--rung",
    "rungs",
    multiple=True,
    metavar="RUNTIME:DEVICE",
    help="Several times; default the class's chain or onnxruntime:cpu.",
)
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Threads of one call.")
@click.option(
    "--seconds", type=click.FloatRange(0.1, 3600), default=3.0, show_default=True, help="Time for each model and rung."
)
@click.option(
    "--batch",
    "batches",
    type=click.IntRange(1, 4096),
    multiple=True,
    help="Samples per call; several times; default 1.",
)
@click.option("--data", metavar="DATA.npz", type=_PATH, help="Inputs to use instead of a ramp.")
@_class_option
@_report_option
@json_option
def benchmark(
    sources: tuple[Path, ...],
    rungs: tuple[str, ...],
    threads: int,
    seconds: float,
    batches: tuple[int, ...],
    data: Path | None,
    class_name: str | None,
    report: Path | None,
    as_json: bool,
) -> int:
    """Measure models on rungs: percentiles, processor time, memory, load, first call, throughput by batch size.

    Each model and rung runs in a process of its own. A rung that is not installed is named as such and is no failure;
    one that refuses the model, crashes or hangs is: exit code 77. With nothing measured at all: 69.

    \b
    Example:
      edged model benchmark pump.onnx pump-int8.onnx --batch 1 --batch 32
      edged model benchmark pump.onnx --rung onnxruntime:cpu --rung openvino:cpu --seconds 10 --json
    """
    from edged.workbench import benchmarking, report_benchmark
    from edged.workbench.hardware import find_target

    check_folder(report)
    target = find_target(class_name)
    chain = rungs or tuple(rung for rung in target.chain if rung != "rules") or ("onnxruntime:cpu",)
    found = benchmarking.benchmark(
        sources, chain, threads=threads, seconds=seconds, batches=batches or (1,), target=target, data=data
    )
    facts = benchmarking.document(found)
    if report is not None:
        write(report, "benchmark", facts, report_benchmark.render(found))
    say(as_json, facts, lambda: _tell_measured(found, report))
    if any(run.state in {"refused", "crashed", "hung"} for run in found.runs):
        return ExitCode.REFUSED
    return ExitCode.OK if found.measured else ExitCode.UNAVAILABLE


def check_folder(folder: Path | None) -> None:
    """Before minutes of work, not after."""
    from edged.workbench.refusal import Unfit

    if folder is not None and not folder.is_dir():
        raise Unfit("no_folder", f"Cannot write into {folder}: there is no such folder", hint=f"mkdir -p {folder}")


def write(folder: Path, name: str, facts: Mapping[str, Any], html: str) -> None:
    from edged.ops import durable_files
    from edged.workbench.documents import to_bytes

    durable_files.replace(folder / f"{name}.json", to_bytes(facts), 0o644)
    durable_files.replace(folder / f"{name}.html", html.encode(), 0o644)


def say(as_json: bool, facts: Mapping[str, Any], tell: Callable[[], None]) -> None:
    if as_json:
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        tell()


def _tell_optimized(made: Optimized, report: Path | None) -> None:
    source, result = made.source, made.result
    click.echo(f"{result.path}: {made.form}")
    click.echo(f"size     {source.size_bytes / 1e6:.2f} MB to {result.size_bytes / 1e6:.2f} MB")
    speed = made.speed
    click.echo(
        f"speed    {speed.before_ms:.3g} ms to {speed.after_ms:.3g} ms on {speed.rung} here,"
        f" {speed.ratio:.2f} times as fast"
    )
    for found in made.parity:
        click.echo(f"answers  {found.output}: {found.sqnr_db:.1f} dB from the original on calibration samples")
    for note in made.notes:
        click.echo(f"note: {note}")
    tell_report(report, "optimization")
    click.echo(f"not verified yet: edged model verify {result.path} --reference {source.path} --data LABELLED.npz")


def _tell_verified(found: Verified, folder: Path) -> None:
    for check in found.checks:
        click.echo(f"{'passed ' if check.passed else 'REFUSED'}  {check.what}: {check.got}")
    for note in found.notes:
        click.echo(f"note: {note}")
    tell_report(folder, "verification")
    click.echo("passed" if found.passed else f"refused: {', '.join(check.code for check in found.failures)}")


def _tell_measured(found: Benchmark, report: Path | None) -> None:
    from edged.workbench.report_benchmark import figures_line, name_of

    for run in found.runs:
        if run.figures is None:
            click.echo(f"{name_of(run, found)}: {run.state.replace('_', ' ')}: {run.code}: {run.detail}")
            continue
        one = run.figures
        click.echo(f"{name_of(run, found)}: {figures_line(one)}")
        click.echo(
            f"  import {one.import_ms:.0f} ms, load {one.load_ms:.0f} ms, first call {one.first_ms:.3g} ms,"
            f" memory {one.peak_bytes / 1e6:.1f} MB at the peak, drift {one.drift_bytes / 1e6:.1f} MB"
        )
    for note in found.notes:
        click.echo(f"note: {note}")
    tell_report(report, "benchmark")


def tell_report(folder: Path | None, name: str) -> None:
    if folder is not None:
        click.echo(f"report   {folder / name}.html and .json")
