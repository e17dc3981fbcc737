"""The demo on a terminal: what SCADA sees, drawn with rich; and one plain line for everything that is no terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from edged.demo.accelerator import Outage
from edged.demo.accounting import Tally, percentile
from edged.demo.chaos import Damage
from edged.demo.scada import Device, Picture
from edged.demo.summary import damage_sentence, outage_sentence

_BAR_WIDTH = 20
_HOME_WIDTH = 40
_PUMPS_SHOWN = 24
_GOOD, _WARN, _BAD, _DIM = "green", "yellow", "bold red", "dim"
_LABEL_STYLE = {"ok": _GOOD, "cavitation": _WARN, "valve_stuck": _WARN, "bearing": _BAD}


class Screen(NamedTuple):
    """Everything one frame shows. `recent_ms`: newest latencies. `seconds`: None when the demo has no end."""

    elapsed_s: float
    seconds: float | None
    picture: Picture
    tally: Tally
    recent_ms: Sequence[float]
    doing: str
    damages: Sequence[Damage]
    phase: str
    line: str | None = None
    """State of the line to the hub: open or cut; None without one."""
    outages: Sequence[Outage] | None = None
    """Deaths of the accelerator; None without one."""


def plain(screen: Screen) -> str:
    """One line of progress."""
    tally, picture = screen.tally, screen.picture
    p50, p99 = _percentiles(screen.recent_ms)
    alarms = sum(len(device.alarms) for device in picture.devices.values())
    doing = f" | {screen.doing}" if screen.doing else ""
    home = f"  home {picture.home} of {picture.made}, line {screen.line}" if screen.line else ""
    by = f"  by {picture.runtime}{' (degraded)' if picture.degraded else ''}" if screen.outages is not None else ""
    return (
        f"{screen.elapsed_s:6.1f} s  {picture.state}/{picture.mode}  events {tally.events}  results {tally.results}  "
        f"owed {tally.lost}  duplicates {tally.duplicates}  p50 {p50} p99 {p99} ms  alarms {alarms}{home}{by}  "
        f"{screen.phase}{doing}"
    )


def render(screen: Screen) -> RenderableType:
    """One frame."""
    parts: list[RenderableType] = [_head(screen), _pumps(screen.picture), _figures(screen)]
    if screen.line:
        parts.append(_way_home(screen))
    if screen.outages is not None:
        parts.append(_accelerator(screen, screen.outages))
    if screen.doing or screen.damages:
        parts.append(_chaos(screen))
    return Group(*parts)


def _head(screen: Screen) -> RenderableType:
    picture = screen.picture
    line = Text()
    line.append("edged demo", "bold")
    line.append(f"   gateway {picture.root.removeprefix('edged/v1/')}   state ")
    line.append(picture.state, _GOOD if picture.state == "online" else _BAD)
    line.append("   mode ")
    line.append(picture.mode, _GOOD if picture.mode == "normal" else _WARN)
    if picture.reasons:
        line.append(f" ({', '.join(picture.reasons)})", _WARN)
    ends = f" of {screen.seconds:g}" if screen.seconds else ""
    line.append(f"   {screen.elapsed_s:.0f}{ends} s   {screen.phase}", _DIM)
    return line


def _pumps(picture: Picture) -> RenderableType:
    table = Table(expand=True, title="Pumps as SCADA sees them", title_justify="left", title_style="bold")
    for name in ("pump", "condition", "score", "anomaly (alarm above 1)", "alarms", "results"):
        table.add_column(name, justify="right" if name in {"score", "results"} else "left")
    devices = sorted(picture.devices.items())
    for name, device in devices[:_PUMPS_SHOWN]:
        score = "" if device.label_score is None else f"{device.label_score:.2f}"
        table.add_row(
            _name(name, device), _label(device), score, _bar(device.anomaly), _alarms(device), str(device.results)
        )
    if len(devices) > _PUMPS_SHOWN:
        table.add_row(f"and {len(devices) - _PUMPS_SHOWN} more")
    return table


def _name(name: str, device: Device) -> str:
    return f"{name} ({device.state})" if device.state in {"stale", "offline"} else name


def _label(device: Device) -> Text:
    if device.quality == 0:
        return Text("no trustworthy answer", _BAD)
    if device.label is None:
        return Text("window is filling", _DIM)
    return Text(device.label, _LABEL_STYLE.get(device.label, _WARN))


def _bar(score: float | None) -> Text:
    if score is None:
        return Text("")
    filled = min(_BAR_WIDTH, round(score * _BAR_WIDTH / 4))
    return Text("█" * filled + "·" * (_BAR_WIDTH - filled) + f" {score:5.2f}", _GOOD if score <= 1 else _WARN)


def _alarms(device: Device) -> Text:
    return Text(", ".join(f"{code} {state}" for code, state in sorted(device.alarms.items())), _BAD)


def _figures(screen: Screen) -> RenderableType:
    tally, picture = screen.tally, screen.picture
    p50, p99 = _percentiles(screen.recent_ms)
    grid = Table.grid(expand=True, padding=(0, 2))
    grid.add_row(f"events {tally.events}", f"results {tally.results}", _owed(tally), f"duplicates {tally.duplicates}")
    grid.add_row(f"p50 {p50} ms", f"p99 {p99} ms", f"sent again {tally.resent}", f"gaps {picture.gaps}")
    body: list[RenderableType] = [grid]
    if picture.ledger:
        body.append(Text(f"ledger   {ledger_line(picture.ledger)}"))
    return Panel(Group(*body), title="The books, kept from outside", title_align="left")


def _way_home(screen: Screen) -> RenderableType:
    """What waits in the store while the line is cut, and how it goes home afterwards."""
    picture = screen.picture
    waiting = max(0, picture.made - picture.home)
    share = picture.home / picture.made if picture.made else 1.0
    filled = round(share * _HOME_WIDTH)
    line = Text("line to the hub ")
    line.append(str(screen.line), _GOOD if screen.line == "open" else _BAD)
    line.append("   ")
    line.append("█" * filled + "·" * (_HOME_WIDTH - filled), _GOOD if not waiting else _WARN)
    line.append(f"   made {picture.made}, home {picture.home}, ")
    line.append(f"waiting in the store {waiting}", _WARN if waiting else _GOOD)
    return Panel(line, title="The way home", title_align="left")


def _accelerator(screen: Screen, outages: Sequence[Outage]) -> RenderableType:
    """Who computes, and what became of the deaths."""
    line = Text("computed by ")
    line.append(screen.picture.runtime or "nobody yet", _WARN if screen.picture.degraded else _GOOD)
    if screen.picture.degraded:
        line.append("   degraded", _WARN)
    return Panel(
        Group(line, *(Text(outage_sentence(outage), _DIM) for outage in outages[-3:])),
        title="The accelerator, a stand-in", title_align="left",
    )  # fmt: skip


def _owed(tally: Tally) -> Text:
    return Text(f"owed now {tally.lost}", _WARN if tally.lost else _GOOD)


def ledger_line(ledger: Mapping[str, Any]) -> str:
    """The two equations of the ledger, summed over its streams."""
    inputs, results = _summed(ledger.get("inputs")), _summed(ledger.get("results"))
    right = " + ".join(f"{name} {inputs.get(name, 0)}" for name in ("stored", "refused", "shed", "duplicates"))
    out = ", ".join(f"{name} {value}" for name, value in results.items())
    books = "" if ledger.get("balanced", True) else "   THE BOOKS DO NOT BALANCE"
    return f"received {inputs.get('received', 0)} = {right}; results: {out}{books}"


def _summed(streams: object) -> dict[str, int]:
    """Term by term over all streams; a term given by reason counts as its sum."""
    total: dict[str, int] = {}
    for terms in streams.values() if isinstance(streams, Mapping) else ():
        for name, value in terms.items():
            total[name] = total.get(name, 0) + (sum(value.values()) if isinstance(value, Mapping) else value)
    return total


def _chaos(screen: Screen) -> RenderableType:
    lines = [Text(damage_sentence(damage), _DIM) for damage in screen.damages]
    if screen.doing:
        lines.append(Text(f"now: {screen.doing}", _BAD))
    return Panel(Group(*lines[-6:]), title="Broken on purpose", title_align="left", border_style="red")


def _percentiles(latencies_ms: Sequence[float]) -> tuple[str, str]:
    ordered = sorted(latencies_ms)
    p50, p99 = percentile(ordered, 0.50), percentile(ordered, 0.99)
    return ("–" if p50 is None else f"{p50:.1f}"), ("–" if p99 is None else f"{p99:.1f}")
