"""The picture of a run: how fast, how soon, and how far from each limit. Needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from collections.abc import Sequence
from math import log2
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks.contestants.contestant import Contestant
from benchmarks.figures import Figure
from benchmarks.native import NotMeasured
from benchmarks.report import Report, limit_text, number
from benchmarks.rounds import Round, Sample

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, OTHERS, GOOD, BAD, INK, FAINT = "#0f766e", "#a8b3bf", "#15803d", "#b91c1c", "#1f2933", "#d5dbe1"
REACH = 3.0  # the gauges show from 1/8 of the must to 8 times better


def draw(path: Path, report: Report) -> None:
    """Write the SVG. Raises NotMeasured without matplotlib."""
    try:
        import matplotlib as mpl
    except ImportError as missing:
        raise NotMeasured("no matplotlib: pip install 'edged[bench]'") from missing
    mpl.use("svg")
    from matplotlib import pyplot

    with pyplot.rc_context({"font.size": 9.5, "text.color": INK, "axes.labelcolor": INK, "svg.hashsalt": "edged"}):
        sheet = pyplot.figure(figsize=(13.5, 6.6), facecolor="white")
        grid = sheet.add_gridspec(2, 2, left=0.145, right=0.845, top=0.86, bottom=0.09, wspace=0.95, hspace=0.55)
        _rates(sheet.add_subplot(grid[0, 0]), report.contestants, report.outcome.rounds)
        _latencies(sheet.add_subplot(grid[1, 0]), report.contestants, report.outcome.rounds)
        _gauges(sheet.add_subplot(grid[:, 1]), report.rows)
        sheet.text(0.02, 0.955, "edged: a durable result for every event", fontsize=16, weight="bold")
        sheet.text(0.02, 0.918, report.caption(), fontsize=9, color="#52606d")
        sheet.savefig(path, metadata={"Date": None})
        pyplot.close(sheet)


def _samples(rounds: Sequence[Round], contestant: Contestant, load: str) -> list[Sample]:
    return [samples[contestant.name, load] for samples in rounds if (contestant.name, load) in samples]


def _rates(axes: Axes, contestants: Sequence[Contestant], rounds: Sequence[Round]) -> None:
    """One bar per contestant (median), one dot per round."""
    shown = [(each, found) for each in contestants if (found := _samples(rounds, each, "saturated"))]
    for place, (contestant, samples) in enumerate(shown):
        rates = [sample.rate_per_s for sample in samples]
        axes.barh(place, median(rates), color=_colour(contestant), height=0.62)
        axes.plot(rates, [place] * len(rates), "o", color=INK, markersize=2.5, alpha=0.6)
        axes.text(max(rates), place, f"  {median(rates):,.0f}", va="center")
    _dress(axes, "Messages per second at saturation", shown)


def _latencies(axes: Axes, contestants: Sequence[Contestant], rounds: Sequence[Round]) -> None:
    """From p50 to p99 at 1000 messages per second, on a logarithmic axis."""
    shown = [(each, found) for each in contestants if (found := _samples(rounds, each, "steady_1000"))]
    for place, (contestant, samples) in enumerate(shown):
        p50, p99 = (median(getattr(sample, name) / 1e3 for sample in samples) for name in ("p50_us", "p99_us"))
        axes.plot([p50, p99], [place, place], color=_colour(contestant), linewidth=7, solid_capstyle="round")
        axes.text(p99 * 1.25, place, f"{number(p50)} … {number(p99)} ms", va="center")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} ms")
    _dress(axes, "Latency at 1000 messages per second, p50 … p99", shown)


def _dress(axes: Axes, title: str, shown: Sequence[tuple[Contestant, list[Sample]]]) -> None:
    axes.set_title(title, loc="left", weight="bold", fontsize=10.5)
    names = [f"{each.title}{'  ◆' if each.durable else ''}" for each, _ in shown]
    axes.set_yticks(range(len(shown)), names)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.margins(x=0.25)
    axes.set_xlabel("◆ stored before it is acknowledged", fontsize=8, loc="left", color="#52606d")


def _colour(contestant: Contestant) -> str:
    return OURS if contestant.name.startswith("edged") else OTHERS


def _gauges(axes: Axes, rows: Sequence[Figure]) -> None:
    """How many times better than its must each figure is; the diamond is the aim."""
    for place, each in enumerate(rows):
        axes.plot([-REACH, REACH], [place, place], color=FAINT, linewidth=6, solid_capstyle="round", zorder=1)
        must, aim = each.row.must, each.row.aim
        if must is not None:
            axes.plot(_betterness(each, aim), place, "D", color="white", markeredgecolor=INK, markersize=5, zorder=2)
        if each.value is not None:
            colour = BAD if each.holds is False else GOOD
            axes.plot(_betterness(each, each.value), place, "o", color=colour, markersize=10, zorder=3)
        limit = f"must {limit_text(each.row, must)}"
        value = "not measured" if each.value is None else number(each.value, each.row.unit)
        axes.text(REACH + 0.25, place - 0.13, value, weight="bold", va="center")
        axes.text(REACH + 0.25, place + 0.2, limit, va="center", fontsize=8, color="#52606d")
    axes.axvline(0, color=INK, linewidth=1, zorder=1.5)
    axes.set_title("Figures against their must (line) and aim (◇)", loc="left", weight="bold", fontsize=10.5)
    axes.set_yticks(range(len(rows)), [_folded(each.row.title) for each in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xticks([-3, -2, -1, 0, 1, 2, 3], ["⅛", "¼", "½", "1×", "2×", "4×", "8×"])
    axes.set_xlabel("times better than the must", fontsize=8, loc="left", color="#52606d")
    axes.spines[:].set_visible(False)
    axes.tick_params(left=False, bottom=False)


def _betterness(each: Figure, value: float) -> float:
    """log2 of how many times better than the must `value` is, kept inside the gauge."""
    assert each.row.must is not None
    times = value / each.row.must if each.row.better == "more" else each.row.must / max(value, 1e-9)
    return max(-REACH, min(REACH, log2(max(times, 1e-9))))


def _folded(title: str) -> str:
    """On two lines from 30 characters on, broken at the space nearest to the middle."""
    spaces = [place for place, letter in enumerate(title) if letter == " "]
    if len(title) < 30 or not spaces:
        return title
    middle = min(spaces, key=lambda place: abs(place - len(title) / 2))
    return f"{title[:middle]}\n{title[middle + 1 :]}"
