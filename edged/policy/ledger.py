"""The books: where every event and every result went, so that a loss cannot hide.

Two equations hold after every turn:

    received = stored + refused(reason) + shed(reason) + duplicates
    stored results = delivered + waiting + evicted(reason) + refused by the broker(reason)

Counters are cumulative over the life of a store (its epoch); they travel in the meta of each unit.
"""

from __future__ import annotations

import msgspec


class InputTerms(msgspec.Struct):
    """What happened to the events of one stream (a source or pipeline)."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    refused: dict[str, int] = {}
    shed: dict[str, int] = {}

    def unaccounted(self) -> int:
        """Events that no term explains; anything but 0 is our bug."""
        return self.received - self.stored - self.duplicates - sum(self.refused.values()) - sum(self.shed.values())


class ResultTerms(msgspec.Struct):
    """What happened to the stored results of one stream. `delivered`: acknowledged by the receiver."""

    stored: int = 0
    delivered: int = 0
    evicted: dict[str, int] = {}
    refused_by_broker: dict[str, int] = {}

    def waiting(self) -> int:
        """Results that the books say must still be in the store, undelivered."""
        return self.stored - self.delivered - sum(self.evicted.values()) - sum(self.refused_by_broker.values())


class Ledger(msgspec.Struct):
    """The books of one store, by stream name."""

    inputs: dict[str, InputTerms] = {}
    results: dict[str, ResultTerms] = {}
    left_out: dict[str, dict[str, int]] = {}
    """Windows that were not answered although their events are stored, by pipeline and declared reason."""

    def input(self, stream: str) -> InputTerms:
        """The terms of an input stream, opened at zero when first asked for."""
        terms = self.inputs.get(stream)
        if terms is None:
            terms = self.inputs[stream] = InputTerms()
        return terms

    def result(self, stream: str) -> ResultTerms:
        """The terms of a result stream, opened at zero when first asked for."""
        terms = self.results.get(stream)
        if terms is None:
            terms = self.results[stream] = ResultTerms()
        return terms

    def omissions(self, pipeline: str) -> dict[str, int]:
        """What a pipeline left out by declared policy, by reason; opened when first asked for."""
        return self.left_out.setdefault(pipeline, {})

    def problems(self, waiting: dict[str, int] | None = None) -> list[str]:
        """What does not add up, in words; empty when the books are right.

        waiting: rows counted in the store per result stream, compared with what the books say.
        """
        found = [
            f"{name}: received {terms.received}, unaccounted {terms.unaccounted()}"
            for name, terms in self.inputs.items()
            if terms.unaccounted()
        ]
        for name, results in self.results.items():
            expected = results.waiting()
            counted = expected if waiting is None else waiting.get(name, 0)
            if expected < 0 or counted != expected:
                found.append(f"{name}: the books say {expected} results wait, the store has {counted}")
        return found

    def balanced(self, waiting: dict[str, int] | None = None) -> bool:
        return not self.problems(waiting)

    def dump(self) -> bytes:
        """JSON, for the meta of a unit."""
        return msgspec.json.encode(self)


def load(data: bytes) -> Ledger:
    """The ledger in a unit's meta. Raises `msgspec.DecodeError` when it is none."""
    return msgspec.json.decode(data, type=Ledger)


def add(terms: dict[str, int], reason: str, count: int = 1) -> None:
    """Count `count` more under `reason`."""
    terms[reason] = terms.get(reason, 0) + count
