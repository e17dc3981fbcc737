"""Event times as sensors write them → Unix milliseconds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from edged.errors import ConfigError
from edged.ingest.spec import TsUnit

RawTs = datetime | int | float
LAST_MS = 7_258_118_400_000  # 2200-01-01: anything later is a broken clock or the wrong unit

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def _text_ms(ts: datetime) -> int:
    """Without an offset it is UTC: a sensor knows nothing of the gateway's time zone."""
    return ((ts if ts.tzinfo else ts.replace(tzinfo=UTC)) - _EPOCH) // _MILLISECOND


def _s(ts: float) -> int:
    return ts * 1000 if isinstance(ts, int) else round(ts * 1000)


def _ms(ts: float) -> int:
    return int(ts // 1)


def _us(ts: float) -> int:
    return int(ts // 1_000)


def _ns(ts: float) -> int:
    return int(ts // 1_000_000)


_NUMBER_MS: dict[str | None, Callable[[float], int]] = {None: _ms, "s": _s, "ms": _ms, "us": _us, "ns": _ns}


def ts_type(unit: TsUnit | None) -> object:
    """The types a ts may have on the wire: text is always understood, numbers unless the unit is `iso`."""
    if unit == "iso":
        return datetime | None
    if unit not in _NUMBER_MS:
        raise ConfigError(f"ts_unit = {unit!r}", hint="use iso, s, ms, us or ns")
    return datetime | int | float | None


def ts_reader(unit: TsUnit | None) -> Callable[[RawTs], int | None]:
    """A function from the decoded ts to Unix ms; None when it is before 1970 or after `LAST_MS`."""
    number_ms = _NUMBER_MS.get(unit, _ms)

    def read(ts: RawTs) -> int | None:
        if isinstance(ts, datetime):
            unix_ms = _text_ms(ts)
        elif -1e19 < ts < 1e19:  # inside every unit's plausible range, and safe to turn into an int
            unix_ms = number_ms(ts)
        else:
            return None
        return unix_ms if 0 <= unix_ms <= LAST_MS else None

    return read
