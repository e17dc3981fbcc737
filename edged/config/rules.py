"""Which rules look at which table. One mistyped key hides no problem of another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, Generic, TypeVar

from edged.config import rules_links, rules_pipeline, rules_topics
from edged.config.hardware import HardwareClass
from edged.config.pipeline import Input, ModelSource, Output, Pipeline
from edged.config.problems import Finding, Path
from edged.config.settings import Broker, Limits, Results, Security, Status, Upstream
from edged.config.validate import validate

T = TypeVar("T")

Table = Mapping[str, Any]


def check_rules(raw: Table, mistyped: Sequence[Finding]) -> Iterator[Finding]:
    """Everything wrong beyond types. mistyped: what is wrong with the types, from the root."""
    suspects = {finding.path for finding in mistyped}
    # A key that is spelt wrong leaves the one that was meant at its default: that is as unknown as a wrong value.
    suspects |= {(*finding.path[:-1], finding.nearest) for finding in mistyped if finding.nearest}
    links, pipelines = {key: value for key, value in raw.items() if key != "pipeline"}, raw.get("pipeline")
    yield from _check_links(links, suspects)
    security = _Part(Security, links, "security", suspects)
    names: set[str] = set()
    for index, table in enumerate(pipelines if isinstance(pipelines, list) else ()):
        if isinstance(table, dict):
            inside = {path[2:] for path in suspects if path[:2] == ("pipeline", index)}
            trusted = None if security.suspects else security.value
            for finding in _check_pipeline(table, inside, trusted, names):
                if finding.path not in inside:
                    yield finding.below("pipeline", index)


def _check_links(raw: Table, suspects: Set[Path]) -> Iterator[Finding]:
    broker = _Part(Broker, raw, "broker", suspects)
    yield from broker.check(rules_links.check_broker)
    if "upstream" in raw:
        yield from _Part(Upstream, raw, "upstream", suspects).check(rules_links.check_upstream)
    yield from _Part(Results, raw, "results", suspects).check(rules_links.check_results)
    yield from _Part(Status, raw, "status", suspects).check(rules_links.check_status)
    hardware = _Part(HardwareClass, raw, "hardware", suspects)
    yield from hardware.check(lambda part: rules_links.check_chain(part.chain))
    yield from hardware.check(_check_rollout)
    limits = _Part(Limits, raw, "limits", suspects)
    yield from limits.check(rules_links.check_limits)
    if (known := broker.value) is not None and not broker.suspects:
        yield from limits.check(lambda part: rules_links.check_memory(part, known))


def _check_rollout(part: HardwareClass) -> Iterator[Finding]:
    yield from (finding.below("rollout") for finding in rules_links.check_rollout(part.rollout))


def _check_pipeline(table: Table, suspects: Set[Path], security: Security | None, names: set[str]) -> Iterator[Finding]:
    """One pipeline, part by part, and as a whole when every part is right. `names` collects those already used."""
    name, topics, device = table.get("name"), table.get("topics"), table.get("device")
    if isinstance(name, str):
        if name in names:
            cure = "rename one: topics and results are told apart by it"
            yield Finding(("name",), "is the name of two pipelines", name, cure=cure)
        names.add(name)
    if isinstance(topics, list) and all(isinstance(topic, str) for topic in topics):
        wrong = list(rules_topics.check_topics(topics))
        yield from wrong
        if isinstance(device, str):
            right = [topic for index, topic in enumerate(topics) if all(index not in each.path for each in wrong)]
            yield from rules_topics.check_device(device, right)
    yield from _Part(Input, table, "input", suspects).check(rules_pipeline.check_input)
    model = _Part(ModelSource, table, "model", suspects)
    yield from model.check(lambda part: rules_pipeline.check_model(part, security))
    yield from _Part(Output, table, "output", suspects).check(rules_pipeline.check_output)
    if not suspects and isinstance(whole := validate(Pipeline, table), Pipeline):
        yield from rules_pipeline.check_pipeline(whole)


class _Part(Generic[T]):
    """One table without its mistyped keys, so that the rules about the other keys still speak."""

    def __init__(self, table: type[T], raw: Table, name: str, suspects: Set[Path]) -> None:
        self.name = name
        self.suspects = {path[1:] for path in suspects if path[:1] == (name,)}
        value: T | list[Finding] = []
        inner = raw.get(name, {})
        if () not in self.suspects and isinstance(inner, dict):
            heads = {path[0] for path in self.suspects}
            value = validate(table, {key: entry for key, entry in inner.items() if key not in heads})
        self.value: T | None = None if isinstance(value, list) else value

    def check(self, rule: Callable[[T], Iterator[Finding]]) -> Iterator[Finding]:
        """What the rule finds, less what only follows from a mistyped key."""
        heads = {path[0] for path in self.suspects if path}
        for finding in rule(self.value) if self.value is not None else ():
            if not heads.intersection((*finding.path[:1], *finding.uses)):
                yield finding.below(self.name)
