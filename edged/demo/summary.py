"""What the demo has shown, as facts for machines and as sentences for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edged.demo.accelerator import RETURN_S, Outage
from edged.demo.accounting import Tally
from edged.demo.chaos import Damage
from edged.demo.hub import HubBooks
from edged.demo.scada import Picture


class Centre(NamedTuple):
    """The way home: results made as SCADA saw them, what the hub's database holds (None: it could not be asked)."""

    made: int
    books: HubBooks | None
    cut_s: float

    @property
    def complete(self) -> bool:
        """Every result that was made is a row at the hub, or a tombstone there, and nothing else is."""
        return self.books is not None and self.books.rows + self.books.tombstoned == self.made


class Summary(NamedTuple):
    """The end of the demo."""

    seconds: float
    tally: Tally
    picture: Picture
    ledger: Mapping[str, Any]
    damages: Sequence[Damage]
    daemon_exit: int | None
    centre: Centre | None = None
    outages: Sequence[Outage] | None = None

    @property
    def kept_its_promise(self) -> bool:
        """Nothing lost, nothing twice, everything at home, and something happened at all."""
        whole = self.tally.events > 0 and self.tally.lost == 0 and self.tally.duplicates == 0
        return whole and (self.centre is None or self.centre.complete) and self._fell_and_returned()

    def _fell_and_returned(self) -> bool:
        """The accelerator died and came back in the open; what the end cut short counts as far as it went."""
        if self.outages is None:
            return True
        in_time = [outage for outage in self.outages if self.seconds - outage.at_s >= RETURN_S]
        return all(outage.honest for outage in self.outages) and all(outage.complete for outage in in_time)


def facts(summary: Summary) -> dict[str, Any]:
    """The last line of the demo where nobody watches: one JSON object, flat but for ledger and chaos."""
    tally, picture = summary.tally, summary.picture
    return {
        "seconds": round(summary.seconds, 1),
        "events": tally.events,
        "results": tally.results,
        "expected_results": tally.expected_results,
        "lost": tally.lost,
        "duplicates": tally.duplicates,
        "resent": tally.resent,
        "unexpected": tally.unexpected,
        "bad_results": picture.bad_results,
        "p50_ms": _rounded(tally.p50_ms),
        "p99_ms": _rounded(tally.p99_ms),
        "worst_ms": _rounded(tally.worst_ms),
        "alarms": picture.alarms_raised,
        "gaps": picture.gaps,
        "missing_events": picture.missing_events,
        "letters": dict(picture.letters),
        "unreadable": picture.unreadable,
        "mode": picture.mode,
        "ledger": dict(summary.ledger),
        "chaos": [damage._asdict() for damage in summary.damages],
        "accelerator": [outage._asdict() for outage in summary.outages] if summary.outages is not None else None,
        "daemon_exit": summary.daemon_exit,
        "home": _home(summary.centre) if summary.centre is not None else None,
    }


def _home(centre: Centre) -> dict[str, Any]:
    books = centre.books._asdict() if centre.books is not None else {}
    return {"made": centre.made, **books, "cut_s": round(centre.cut_s, 1), "complete": centre.complete}


def sentences(summary: Summary) -> list[str]:
    """The same for a reader at the terminal."""
    tally, picture = summary.tally, summary.picture
    lines = [
        f"{tally.events} events went in and the broker acknowledged them; {tally.expected_results} results were owed.",
        f"{tally.results} results came out: {tally.lost} lost, {tally.duplicates} duplicates.",
    ]
    if tally.resent:
        lines.append(f"{tally.resent} results came again with the same id, which the promise allows.")
    if tally.p50_ms is not None:
        lines.append(
            f"From publishing an event to holding its result: half within {tally.p50_ms:.1f} ms,"
            f" 99 % within {tally.p99_ms:.1f} ms, the slowest {tally.worst_ms:.0f} ms."
        )
    lines.append(f"SCADA saw {picture.alarms_raised} alarms, {picture.gaps} gaps, mode {picture.mode}.")
    if summary.centre is not None:
        lines.append(_home_sentence(summary.centre))
    lines.extend(outage_sentence(outage) for outage in summary.outages or ())
    lines.extend(damage_sentence(damage) for damage in summary.damages)
    lines.append("Nothing was lost." if summary.kept_its_promise else "THE PROMISE WAS BROKEN: see the figures above.")
    return lines


def _home_sentence(centre: Centre) -> str:
    cut = f"The line to the hub was cut for {centre.cut_s:.1f} s; " if centre.cut_s else ""
    if centre.books is None:
        return f"{cut}the hub could not be asked what it has."
    there = f"{centre.books.rows} rows"
    if centre.books.tombstoned:
        there += f" and {centre.books.tombstoned} tombstones"
    return f"{cut}of {centre.made} results made the hub has {there}, {centre.books.missing} missing."


def damage_sentence(damage: Damage) -> str:
    what = {
        "link_cut": f"link cut for {damage.lasted_s:.1f} s",
        "link_stalled": f"link silent for {damage.lasted_s:.1f} s",
        "kill9": "daemon killed with -9 and started again",
    }[damage.what]
    if damage.recovered_s is None:
        return f"At {damage.at_s:.1f} s: {what}; not recovered when the demo ended."
    return f"At {damage.at_s:.1f} s: {what}; {damage.recovered_s:.1f} s later every result owed had arrived."


def outage_sentence(outage: Outage) -> str:
    text = f"At {outage.at_s:.1f} s: the accelerator's process killed with -9"
    if outage.fallback_s is None:
        return f"{text}; nobody answered in its place."
    text += f"; {outage.fallback_s * 1000:.0f} ms later the processor answered, {outage.results} results in all"
    text += ", each marked degraded" if outage.honest else f", ONLY {outage.degraded} OF THEM MARKED DEGRADED"
    if outage.return_s is None:
        return f"{text}; it has not come back yet."
    text += f"; the accelerator serves again after {outage.return_s:.1f} s"
    return f"{text}, the reason left the mode after {outage.ended_s:.1f} s." if outage.ended_s else f"{text}."


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
