"""The status document as metric samples, so that `status --json`, `R/health` and Prometheus tell the same numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edged.ops.meters import Sample

_SECTIONS = ("link", "store", "outbox", "sync", "host")


def status_samples(status: Mapping[str, object]) -> Iterator[Sample]:
    """Reasons, the ledger of results, pipelines and every plain number of the sections.

    Mode, devices and the ledger of events are the engine's own samples and not repeated here.
    """
    for reason in _mappings(status.get("reasons")):
        code, subject = str(reason.get("code", "")), str(reason.get("subject", ""))
        yield _gauge("edged_reason", "1 for a reason that holds", 1.0, code=code, subject=subject)
    for stream, terms in _mapping(_mapping(status.get("ledger")).get("results")).items():
        for term, value in _mapping(terms).items():
            reasons = value if isinstance(value, Mapping) else {"": value}
            for cause, number in _numbers(reasons):
                labels = {"stream": stream, "term": term, "reason": cause}
                yield Sample("counter", "edged_ledger_results", "Ledger terms of results", labels, number)
    for pipeline, values in _mapping(status.get("pipelines")).items():
        for name, number in _numbers(_mapping(values)):
            yield _gauge(f"edged_status_pipeline_{name}", "From the status document", number, pipeline=pipeline)
    for section in _SECTIONS:
        for name, number in _numbers(_mapping(status.get(section))):
            yield _gauge(f"edged_status_{section}_{name}", "From the status document", number)


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
