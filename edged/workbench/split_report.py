"""The report of `edged model split` for people."""

from __future__ import annotations

from collections.abc import Sequence

from edged.workbench.benchmarking import describe_machine
from edged.workbench.page import Card, Cell, Tone, listing, page, section, table
from edged.workbench.split_survey import MESSAGE_BYTES, Measured, Size, Survey, Verdict
from edged.workbench.svg import Bar, bars

_TONES: dict[Verdict, Tone] = {"pays": "good", "pays_if_whole_does_not_fit": "plain", "never": "bad"}
_VERDICTS: dict[Verdict, str] = {
    "pays": "Splitting pays",
    "pays_if_whole_does_not_fit": "Splitting pays only where the whole model does not fit",
    "never": "Splitting does not pay",
}


def render(found: Survey) -> str:
    machine = describe_machine()
    sections = [_times(found), _bytes(found), _points(found)] if found.points else []
    if found.notes or found.left_out:
        left = (f"{found.left_out} more cut points lie between those that were measured",) if found.left_out else ()
        sections.append(section("Notes", "What was not measured.", listing((*found.notes, *left))))
    return page(
        f"Where {found.file.path.name} can be split",
        f"{found.words} Measured on {machine['cpu']}, one thread.",
        (_VERDICTS[found.verdict], _TONES[found.verdict]),
        _cards(found),
        sections,
        f"{found.file.path.name} sha256 {found.file.sha256}",
    )


def size_text(size_bytes: float) -> str:
    return f"{size_bytes:.0f} B" if size_bytes < 10_000 else f"{size_bytes / 1000:.0f} kB"


def _cards(found: Survey) -> list[Card]:
    best = found.best
    cards = [
        Card(f"{found.local_ms:.3g} ms", "the whole model on this machine"),
        Card(f"{found.remote_ms:.3g} ms", "the input sent, the whole model upstream"),
        Card(size_text(found.input_size.sent_bytes), "the input as it would travel"),
    ]
    if best is not None:
        cards.insert(0, Card(f"{best.total_ms:.3g} ms", f"the best cut, {best.point.tensor}", _TONES[found.verdict]))
        cards.append(Card(size_text(best.size.sent_bytes), "its tensor as it would travel"))
    return cards


def _times(found: Survey) -> str:
    line = found.line
    rows = [
        Bar("whole, here", found.local_ms, f"{found.local_ms:.3g} ms", "b"),
        Bar("input sent, whole upstream", found.remote_ms, f"{found.remote_ms:.3g} ms", "b"),
        *(Bar(each.point.tensor, each.total_ms, f"{each.total_ms:.3g} ms") for each in found.points),
    ]
    return section(
        "From input to answer",
        f"Head on this machine, line, tail upstream. Assumed: {line.kbit_s:g} kbit/s, {line.rtt_ms:g} ms to and fro, an"
        f" upstream {line.times_faster:g} times as fast, {MESSAGE_BYTES} bytes around the tensor. The tail is what the"
        " whole takes beyond the head.",
        bars(rows, title="Time by cut point"),
    )


def _bytes(found: Survey) -> str:
    rows = [
        Bar("input", found.input_size.sent_bytes, size_text(found.input_size.sent_bytes), "b"),
        *(Bar(each.point.tensor, each.size.sent_bytes, size_text(each.size.sent_bytes)) for each in found.points),
    ]
    what = (
        f"Mean of {found.samples} samples"
        if found.samples
        else "Without real inputs (--data) nobody knows what deflating gains: nothing is deflated here"
    )
    return section(
        "What travels",
        f"One byte a number, deflated where that helps. {what}.",
        bars(rows, title="Bytes by cut point"),
    )


def _points(found: Survey) -> str:
    best = found.best
    rows: list[tuple[str, ...]] = [("input", "", "", *_sizes(found.input_size), "", "", f"{found.remote_ms:.3g} ms")]
    rows += [_row(each) for each in found.points]
    marked: list[Sequence[str | Cell]] = [
        [Cell(cell, "good") for cell in row] if best is not None and row[0] == best.point.tensor else row
        for row in rows
    ]
    return section(
        "Every cut point",
        "From the input to the output; the fastest is marked. Cut there with edged model split MODEL --at TENSOR.",
        table(
            ("tensor", "after", "shape", "as it is", "one byte each", "as sent", "head file", "head", "in all"), marked
        ),
    )


def _row(each: Measured) -> tuple[str, ...]:
    after = f"{each.point.after}, {each.point.operators} of {each.point.total}"
    shape = f"{each.dtype} {' × '.join(map(str, each.shape))}"
    times = size_text(each.head_bytes), f"{each.head_ms:.3g} ms", f"{each.total_ms:.3g} ms"
    return each.point.tensor, after, shape, *_sizes(each.size), *times


def _sizes(size: Size) -> tuple[str, str, str]:
    return size_text(size.plain_bytes), size_text(size.u8_bytes), size_text(size.sent_bytes)
