"""`edged model split`: where a model can be cut in two, and the two halves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edged.cli.options import json_option
from edged.errors import ExitCode

if TYPE_CHECKING:
    from edged.workbench.split_cut import Coding, Split
    from edged.workbench.split_survey import Survey

_PATH = click.Path(path_type=Path)


@click.command("split")
@click.argument("source", metavar="MODEL.onnx", type=_PATH)
@click.option(
    "--report",
    metavar="[DIR]",
    is_flag=False,
    flag_value=".",
    type=_PATH,
    help="Folder for the report, without one here: one HTML file to read, one JSON file for machines.",
)
@click.option("--data", metavar="DATA.npz", type=_PATH, help="Real inputs: bytes, ranges and agreement are from them.")
@click.option("--at", metavar="TENSOR", help="Cut here, instead of listing the cut points.")
@click.option("--out", metavar="DIR", type=_PATH, help="Where the halves go; default NAME.split beside the model.")
@click.option(
    "--coding",
    type=click.Choice(["u8", "plain"]),
    default="u8",
    show_default=True,
    help="How the cut tensor travels: one byte a number, or as it is.",
)
@click.option(
    "--min-sqnr-db",
    type=float,
    default=20.0,
    show_default=True,
    help="Closeness of the halves' answers to the whole's.",
)
@click.option(
    "--min-agreement",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="Share of samples that must keep their class.",
)
@click.option(
    "--line-kbit-s", type=click.FloatRange(1, 1e8), default=256.0, show_default=True, help="Line to the upstream."
)
@click.option("--rtt-ms", type=click.FloatRange(0, 1e5), default=40.0, show_default=True, help="To the hub and back.")
@click.option(
    "--times-faster",
    type=click.FloatRange(0.01, 1e4),
    default=4.0,
    show_default=True,
    help="How many times faster the upstream computes.",
)
@json_option
def split(
    source: Path,
    report: Path | None,
    data: Path | None,
    at: str | None,
    out: Path | None,
    coding: Coding,
    min_sqnr_db: float,
    min_agreement: float,
    line_kbit_s: float,
    rtt_ms: float,
    times_faster: float,
    as_json: bool,
) -> int:
    """List where a model can be cut in two, and whether that pays; with --at cut it.

    The head runs on the gateway, the tail on the hub (`split:upstream` in a chain). Halves are written only when they
    answer as the whole model does on the samples; else 77 and a code.

    \b
    Example:
      edged model split vision.onnx --data samples.npz --report reports --line-kbit-s 2000 --rtt-ms 30
      edged model split vision.onnx --data samples.npz --at relu_3 --out vision.split
    """
    if at is None:
        return _survey(source, data, report, as_json, (line_kbit_s, rtt_ms, times_faster))
    from edged.cli.model import say
    from edged.infer.split_file import folder_of
    from edged.workbench import split_cut

    wanted = split_cut.Wanted(min_sqnr_db, min_agreement)
    made = split_cut.cut(source, at, out or folder_of(source), data, coding=coding, wanted=wanted)
    say(as_json, split_cut.document(made), lambda: _tell_split(made, source))
    return ExitCode.OK


def _survey(
    source: Path, data: Path | None, report: Path | None, as_json: bool, line: tuple[float, float, float]
) -> int:
    from edged.cli.model import check_folder, say, write
    from edged.workbench import split_report, split_survey

    check_folder(report)
    found = split_survey.survey(source, data, split_survey.Line(*line))
    facts = split_survey.document(found)
    if report is not None:
        write(report, "split", facts, split_report.render(found))
    say(as_json, facts, lambda: _tell_survey(found, report))
    return ExitCode.OK


def _tell_survey(found: Survey, report: Path | None) -> None:
    from edged.cli.model import tell_report
    from edged.workbench.split_report import size_text

    click.echo(f"{'tensor':<32} {'as it is':>10} {'as sent':>10} {'head':>10} {'in all':>10}")
    size = found.input_size
    row = f"{size_text(size.plain_bytes):>10} {size_text(size.sent_bytes):>10} {'':>10} {found.remote_ms:>7.3g} ms"
    click.echo(f"{'(the input)':<32} {row}")
    for each in found.points:
        size = each.size
        click.echo(
            f"{each.point.tensor[:32]:<32} {size_text(size.plain_bytes):>10} {size_text(size.sent_bytes):>10}"
            f" {each.head_ms:>7.3g} ms {each.total_ms:>7.3g} ms"
        )
    for note in found.notes:
        click.echo(f"note: {note}")
    if not found.samples:
        click.echo("note: without --data nothing is deflated")
    tell_report(report, "split")
    click.echo(found.words)


def _tell_split(made: Split, source: Path) -> None:
    from edged.infer.split_file import folder_of

    plan = made.plan
    click.echo(f"{made.folder}: head {plan.head.bytes} bytes, tail {plan.tail.bytes} bytes")
    travel = "one byte a number" if plan.cut.coding == "u8" else "as it is"
    click.echo(f"travels  {plan.cut.name}: {made.cut_bytes:.0f} bytes on average, {travel}")
    for parity in made.coded:
        click.echo(f"answers  {parity.output}: {parity.sqnr_db:.1f} dB from the whole over {made.samples} calls")
    click.echo(f"         {made.agreement:.2%} of the samples keep their class")
    if made.folder.resolve() != folder_of(source).resolve():
        click.echo(f"gateway  head.onnx and split.json belong into {folder_of(source).name} beside {source.name}")
    click.echo(f"hub      tail.onnx, sha256 {plan.tail.sha256}, belongs into [inference] models_dir")
