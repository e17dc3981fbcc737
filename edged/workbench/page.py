"""A report as one HTML file that needs nothing else: style inside, plots inside, no script, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Literal, NamedTuple

Tone = Literal["good", "bad", "plain"]

# Forbids what the page does not need anyway: whatever a hostile name might smuggle in, nothing is loaded or run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")


class Card(NamedTuple):
    figure: str
    meaning: str
    tone: Tone = "plain"


class Cell(NamedTuple):
    """A table cell with a tone; a plain string is one without."""

    text: str
    tone: Tone


def page(
    title: str, lead: str, verdict: tuple[str, Tone], cards: Sequence[Card], sections: Sequence[str], footer: str
) -> str:
    """The whole file. title, lead, footer: plain text; sections: HTML from `section`."""
    words, tone = verdict
    figures = "".join(
        f'<div class="card {card.tone}"><b>{escape(card.figure)}</b><span>{escape(card.meaning)}</span></div>'
        for card in cards
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>"
        f'<div class="verdict {tone}">{escape(words)}</div><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<div class="cards">{figures}</div>{"".join(sections)}<footer>{escape(footer)}</footer></main></body></html>\n'
    )


def section(title: str, explanation: str, *bodies: str) -> str:
    """One box. bodies: HTML of this module and of `svg`."""
    return f"<section><h2>{escape(title)}</h2><p>{escape(explanation)}</p>{''.join(bodies)}</section>"


def table(head: Sequence[str], rows: Sequence[Sequence[str | Cell]]) -> str:
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"


def listing(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def paragraph(words: str) -> str:
    return f"<p>{escape(words)}</p>"


def megabytes(size: float) -> str:
    return f"{size / 1e6:.2f} MB" if size < 1e7 else f"{size / 1e6:.1f} MB"


def _cell(cell: str | Cell) -> str:
    if isinstance(cell, Cell):
        return f'<td class="{cell.tone}">{escape(cell.text)}</td>'
    return f"<td>{escape(cell)}</td>"
