"""One line per event on stderr, with stable names and fields, for journald and for people.

    <4>mode_changed before=normal after=offline

Under systemd a `<N>` prefix carries the priority; elsewhere a time and a word do. A flood of one event is cut: what was
left out is counted in the next line of the same kind.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import Literal

from edged.ports import Clock
from edged.timestamps import rfc3339_ms

Level = Literal["debug", "info", "warning", "error"]

_PRIORITIES: Mapping[Level, int] = {"error": 3, "warning": 4, "info": 6, "debug": 7}
_MAX_VALUE_CHARS = 500
_MAX_KINDS = 1024  # kinds are names in our code times reason codes; more can only be input in disguise
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:/+@%#*(),;[]{}<>|&^~!?$")


class _Window:
    """How often one kind of line was written since `started_ns`, and how often it was left out."""

    __slots__ = ("started_ns", "suppressed", "written")

    def __init__(self, started_ns: int) -> None:
        self.started_ns = started_ns
        self.written = 0
        self.suppressed = 0


class Log:
    """The daemon's log. A kind of line is its event and, if given, its field `code`.

    At most `burst_count` lines of a kind per `interval_s`.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        write: Callable[[str], object] | None = None,
        journal: bool | None = None,
        level: Level = "info",
        burst_count: int = 10,
        interval_s: float = 30.0,
    ) -> None:
        self._clock = clock
        self._write = write or _write_stderr
        self._journal = "JOURNAL_STREAM" in os.environ if journal is None else journal
        self._lowest = _PRIORITIES[level]
        self._burst_count = burst_count
        self._interval_ns = int(interval_s * 1e9)
        self._windows: dict[tuple[str, object], _Window] = {}
        self.suppressed_count = 0

    def debug(self, event: str, **fields: object) -> None:
        self._log("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._log("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._log("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._log("error", event, fields)

    def _log(self, level: Level, event: str, fields: dict[str, object]) -> None:
        if _PRIORITIES[level] > self._lowest:
            return
        suppressed = self._admit((event, fields.get("code")))
        if suppressed is None:
            self.suppressed_count += 1
            return
        if suppressed:
            fields["suppressed"] = suppressed
        body = " ".join([event, *(f"{name}={_plain(value)}" for name, value in fields.items())])
        if self._journal:
            self._write(f"<{_PRIORITIES[level]}>{body}\n")
        else:
            self._write(f"{rfc3339_ms(self._clock.wall_ms())} {level:7} {body}\n")

    def _admit(self, kind: tuple[str, object]) -> int | None:
        """How many lines of this kind were left out before this one, or None when this one is left out, too."""
        now_ns = self._clock.mono_ns()
        window = self._windows.get(kind)
        if window is None:
            if len(self._windows) >= _MAX_KINDS:
                self._windows.clear()
            window = self._windows[kind] = _Window(now_ns)
        suppressed = 0
        if now_ns - window.started_ns >= self._interval_ns:
            suppressed = window.suppressed
            window.started_ns, window.written, window.suppressed = now_ns, 0, 0
        if window.written >= self._burst_count:
            window.suppressed += 1
            return None
        window.written += 1
        return suppressed


class LogBridge(logging.Handler):
    """Hands what libraries (asyncio first of all) log to our log, as event `library`."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        tell = self._log.error if record.levelno >= logging.ERROR else self._log.warning
        cause = record.exc_info[1] if record.exc_info else None
        extra = {} if cause is None else {"cause": f"{type(cause).__name__}: {cause}"}
        tell("library", code=record.name, text=record.getMessage(), **extra)


def _plain(value: object) -> str:
    """A value as one word: quoted as JSON when it is more than that, cut when it is long."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > _MAX_VALUE_CHARS:
        text = text[:_MAX_VALUE_CHARS] + "…"
    return text if text and _PLAIN.issuperset(text) else json.dumps(text, ensure_ascii=False)


def _write_stderr(line: str) -> None:
    try:
        sys.stderr.write(line)
        sys.stderr.flush()
    except (OSError, ValueError):  # a closed or broken stderr must not stop the daemon
        pass
