"""Where the demo is shown: live on a terminal, or as lines that end with one JSON object."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Protocol, TextIO

from rich.console import Console
from rich.live import Live

from edged.demo.summary import Summary, facts, sentences
from edged.demo.view import Screen, plain, render
from edged.ports import Clock

_FRAME_S = 0.2
_LINE_S = 2.0


class Show(Protocol):
    """Takes frames as often as they come and shows some of them; `make` is called only for those."""

    def frame(self, make: Callable[[], Screen]) -> None: ...

    def end(self, summary: Summary) -> None: ...


class _Pace:
    """Says when the next frame is due."""

    def __init__(self, clock: Clock, period_s: float) -> None:
        self._clock = clock
        self._period_ns = int(period_s * 1e9)
        self._due_ns = 0

    def due(self) -> bool:
        now_ns = self._clock.mono_ns()
        if now_ns < self._due_ns:
            return False
        self._due_ns = now_ns + self._period_ns
        return True


class TerminalShow:
    """Redraws one screen; the `with` block gives the terminal back."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console = console
        self._pace = _Pace(clock, _FRAME_S)
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> TerminalShow:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def frame(self, make: Callable[[], Screen]) -> None:
        if self._pace.due():
            self._live.update(render(make()), refresh=True)

    def end(self, summary: Summary) -> None:
        self._live.stop()
        self._console.print()
        for sentence in sentences(summary):
            self._console.print(sentence, highlight=False)


class LineShow:
    """One line every two seconds, and at the end the facts as JSON."""

    def __init__(self, out: TextIO, clock: Clock) -> None:
        self._out = out
        self._pace = _Pace(clock, _LINE_S)

    def __enter__(self) -> LineShow:
        return self

    def __exit__(self, *_: object) -> None:
        self._out.flush()

    def frame(self, make: Callable[[], Screen]) -> None:
        if self._pace.due():
            self._write(plain(make()))

    def end(self, summary: Summary) -> None:
        for sentence in sentences(summary):
            self._write(sentence)
        self._write(json.dumps(facts(summary)))

    def _write(self, line: str) -> None:
        self._out.write(line + "\n")
        self._out.flush()
