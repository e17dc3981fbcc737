"""The status document as metric samples, so that `status --json`, `R/health` and Prometheus tell the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edged.ops.meters import Sample
from edged.policy.mode import MODES

_SECTIONS = ("link", "store", "outbox", "host")


def status_samples(status: Mapping[str, object]) -> Iterator[Sample]:
    """Mode, reasons, ledger, devices, pipelines and every plain number of the sections, as gauges and counters."""
    mode = status.get("mode")
    for each in MODES:
        yield _gauge("edged_mode", "1 for the mode that holds", float(each == mode), mode=each)
    for reason in _mappings(status.get("reasons")):
        code, subject = str(reason.get("code", "")), str(reason.get("subject", ""))
        yield _gauge("edged_reason", "1 for a reason that holds", 1.0, code=code, subject=subject)
    yield from _ledger(_mapping(status.get("ledger")))
    for state, number in _numbers(_mapping(status.get("devices"))):
        yield _gauge("edged_devices", "Devices by state", number, state=state)
    for pipeline, values in _mapping(status.get("pipelines")).items():
        for name, number in _numbers(_mapping(values)):
            yield _gauge(f"edged_pipeline_{name}", "From the status document", number, pipeline=pipeline)
    for section in _SECTIONS:
        for name, number in _numbers(_mapping(status.get(section))):
            yield _gauge(f"edged_{section}_{name}", "From the status document", number)


def _ledger(ledger: Mapping[str, object]) -> Iterator[Sample]:
    """Terms that are numbers, and terms that have a number per reason."""
    for side, text in (("inputs", "Ledger: events"), ("results", "Ledger: results")):
        for stream, terms in _mapping(ledger.get(side)).items():
            for term, value in _mapping(terms).items():
                if isinstance(value, Mapping):
                    for reason, number in _numbers(value):
                        yield _term(side, text, number, stream, term, reason)
                elif isinstance(value, (int, float)):
                    yield _term(side, text, value, stream, term, "")


def _term(side: str, text: str, number: float, stream: str, term: str, reason: str) -> Sample:
    labels = {"stream": stream, "term": term, "reason": reason}
    return Sample("counter", f"edged_ledger_{side}", text, labels, number)


def _gauge(name: str, text: str, number: float, **labels: str) -> Sample:
    return Sample("gauge", name, text, labels, number)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _mappings(value: object) -> list[Mapping[str, object]]:
    return [_mapping(each) for each in value] if isinstance(value, list) else []


def _numbers(values: Mapping[str, object]) -> Iterator[tuple[str, float]]:
    """The plain numbers; unknown (None) and nested values are left out, truth values become 0 and 1."""
    for name, value in values.items():
        if isinstance(value, (int, float)):
            yield name, float(value)
