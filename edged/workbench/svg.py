"""Plots as inline SVG: no script, no network, colours from the page's style sheet, so that they follow light and dark.

Every function gives one <svg> element. Text is escaped here: names of tensors and files are anybody's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import NamedTuple

import numpy as np

WIDTH = 880
_FONT = 12
_ROW = 24
_LEFT = 240
_RIGHT = 96
_MAX_POINTS = 900


class Bar(NamedTuple):
    """tone: a class of the style sheet (`a`, `b`, `bad`, `quiet`)."""

    label: str
    value: float
    text: str
    tone: str = "a"


class Series(NamedTuple):
    label: str
    points: tuple[tuple[float, float], ...]
    tone: str


def bars(rows: Sequence[Bar], *, title: str, limit: float | None = None, limit_text: str = "") -> str:
    """Horizontal bars from zero, with their values beside them; `limit` is a line across."""
    top = max([*(row.value for row in rows), limit or 0.0, 1e-12])
    room = WIDTH - _LEFT - _RIGHT
    height = len(rows) * _ROW + 8 + (18 if limit is not None else 0)
    parts = []
    for at, row in enumerate(rows):
        y = at * _ROW + 4
        width = max(room * max(row.value, 0.0) / top, 1.0)
        parts += [
            _text(_LEFT - 8, y + 15, _short(row.label, 34), "end"),
            f'<rect class="{row.tone}" x="{_LEFT}" y="{y + 3}" width="{width:.1f}" height="{_ROW - 8}" rx="3"/>',
            _text(_LEFT + width + 6, y + 15, row.text, "start", "value"),
        ]
    if limit is not None:
        x = _LEFT + room * limit / top
        parts += [
            f'<line class="limit" x1="{x:.1f}" x2="{x:.1f}" y1="0" y2="{len(rows) * _ROW + 6}"/>',
            _text(x, height - 3, limit_text, "middle", "quiet"),
        ]
    return _svg(height, parts, title)


def histogram(counts: Sequence[int], low: float, high: float, *, title: str, unit: str = "", tone: str = "a") -> str:
    """Counts of bins of equal width between low and high; heights by square root, so that tails are seen."""
    left, base, room, height = 20, 130, WIDTH - 40, 160
    top = math.sqrt(max([*counts, 1]))
    step = room / max(len(counts), 1)
    parts = [
        f'<rect class="{tone}" x="{left + at * step + 0.5:.1f}" y="{base - 120 * math.sqrt(count) / top:.1f}" '
        f'width="{max(step - 1, 0.5):.1f}" height="{120 * math.sqrt(count) / top:.1f}"/>'
        for at, count in enumerate(counts)
        if count
    ]
    parts.append(f'<line class="axis" x1="{left}" x2="{left + room}" y1="{base}" y2="{base}"/>')
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        anchor = "start" if share == 0 else "end" if share == 1 else "middle"
        parts.append(_text(left + share * room, base + 17, f"{low + share * (high - low):.4g}{unit}", anchor, "quiet"))
    return _svg(height, parts, title)


def histogram_of(values: Sequence[float], *, title: str, unit: str = "", tone: str = "a", bins: int = 40) -> str:
    array = np.asarray(values, np.float64)
    low, high = float(array.min()), float(array.max())
    if high <= low:
        low, high = low - 0.5, high + 0.5
    counts, _ = np.histogram(array, bins=bins, range=(low, high))
    return histogram([int(count) for count in counts], low, high, title=title, unit=unit, tone=tone)


def scatter(across: np.ndarray, up: np.ndarray, *, title: str, across_label: str, up_label: str) -> str:
    """One point per value, at most so many; the diagonal is where both agree."""
    if len(across) > _MAX_POINTS:  # not every n-th: outputs come in rows, and n may fall on one column
        chosen = np.random.default_rng(0).choice(len(across), _MAX_POINTS, replace=False)
        across, up = across[chosen], up[chosen]
    x, y = across, up
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    span = (high - low) or 1.0
    left, top, side = 90, 10, 300
    parts = [
        f'<rect class="frame" x="{left}" y="{top}" width="{side}" height="{side}"/>',
        f'<line class="limit" x1="{left}" y1="{top + side}" x2="{left + side}" y2="{top}"/>',
    ]
    for a, b in zip(x, y, strict=True):
        cx, cy = left + side * (float(a) - low) / span, top + side - side * (float(b) - low) / span
        parts.append(f'<circle class="a dot" cx="{cx:.1f}" cy="{cy:.1f}" r="2"/>')
    parts += [
        _text(left, top + side + 16, f"{low:.4g}", "start", "quiet"),
        _text(left + side, top + side + 16, f"{high:.4g}", "end", "quiet"),
        _text(left + side / 2, top + side + 16, across_label, "middle"),
        _text(left - 8, top + side, f"{low:.4g}", "end", "quiet"),
        _text(left - 8, top + 10, f"{high:.4g}", "end", "quiet"),
        _text(left - 8, top + side / 2, up_label, "end"),
    ]
    return _svg(top + side + 26, parts, title)


def lines(series: Sequence[Series], *, title: str, across_label: str, up_label: str, log_across: bool = False) -> str:
    """Curves over one axis from zero up, with their names at the right, in the order of their last values."""
    left, right, top, room_y = 64, 260, 24, 200
    room_x = WIDTH - left - right
    xs = [x for one in series for x, _ in one.points]
    low, high = _scaled(min(xs), log_across), _scaled(max(xs), log_across)
    most = max([*(y for one in series for _, y in one.points), 1e-12])
    parts = [f'<line class="axis" x1="{left}" x2="{left + room_x}" y1="{top + room_y}" y2="{top + room_y}"/>']
    for share in (0.0, 0.5, 1.0):
        y = top + room_y * (1 - share)
        parts.append(f'<line class="grid" x1="{left}" x2="{left + room_x}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(_text(left - 6, y + 4, f"{most * share:.3g}", "end", "quiet"))
    for x in sorted(set(xs)) if len(set(xs)) <= 8 else (min(xs), (min(xs) + max(xs)) / 2, max(xs)):
        at = left + room_x * _share(_scaled(x, log_across), low, high)
        parts.append(_text(at, top + room_y + 16, f"{x:g}", "middle", "quiet"))
    ends: list[float] = []
    for one in sorted(series, key=lambda one: -one.points[-1][1]):
        dots = [
            (left + room_x * _share(_scaled(x, log_across), low, high), top + room_y * (1 - y / most))
            for x, y in one.points
        ]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in dots)
        parts.append(f'<polyline class="line {one.tone}" points="{path}"/>')
        if len(dots) <= 8:
            parts += [f'<circle class="{one.tone}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>' for x, y in dots]
        label_y = max([dots[-1][1] + 4, *(end + 15 for end in ends)])
        ends.append(label_y)
        parts.append(f'<circle class="{one.tone}" cx="{left + room_x + 12}" cy="{label_y - 4:.1f}" r="4"/>')
        parts.append(_text(left + room_x + 20, label_y, _short(one.label, 34), "start"))
    parts += [
        _text(left + room_x / 2, top + room_y + 34, across_label, "middle"),
        _text(left, 12, up_label, "start"),
    ]
    return _svg(max(top + room_y + 42, (max(ends) if ends else 0) + 8), parts, title)


def _scaled(value: float, log: bool) -> float:
    return math.log(max(value, 1e-9)) if log else value


def _share(value: float, low: float, high: float) -> float:
    return (value - low) / (high - low) if high > low else 0.5


def _text(x: float, y: float, text: str, anchor: str, tone: str = "") -> str:
    kind = f' class="{tone}"' if tone else ""
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _short(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit // 2 - 1]}…{text[-(limit // 2) :]}"


def _svg(height: float, parts: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" font-size="{_FONT}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )
