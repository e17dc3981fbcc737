"""What a worker measures, by name, and how the numbers of all workers come together in the supervisor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from edged.ops.meters import Counter, Family, Gauge, Histogram, Metrics

if TYPE_CHECKING:
    from edged.sync.protocol import AckStatus


class Cell(NamedTuple):
    """One number on its way to the supervisor; a histogram carries its buckets."""

    name: str
    labels: tuple[str, ...]
    value: float | None
    n: int = 0
    buckets: tuple[int, ...] = ()


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker says about itself, one line of JSON each second and whenever its health changes.

    faults: code and detail of everything that keeps it from its work. moving: no batch is in hand for much too long.
    """

    worker: int
    pid: int
    receiver: str
    faults: tuple[tuple[str, str], ...]
    moving: bool
    inflight_batches: int
    inflight_bytes: int
    answered: int
    cells: tuple[Cell, ...] = ()


class HubMetrics:
    """The hub's families, each with the worker as its first label. `registry` renders them."""

    def __init__(self, worker: str = "") -> None:
        self._worker = worker
        self._families: dict[str, Family[Any]] = {}
        self.registry = make = Metrics()
        self._answers = self._known(
            make.counter(
                "edged_hub_answers", "Batches and hellos answered", "worker", "via", "kind", "status", "reason"
            )
        )
        self._rows = self._known(make.counter("edged_hub_rows", "Numbers called home", "worker", "stream", "kind"))
        self._bad_rows = self._known(make.counter("edged_hub_bad_rows", "Rows set aside", "worker", "stream"))
        self._bytes = self._known(make.counter("edged_hub_received_bytes", "Bytes of payloads", "worker", "via"))
        self._ignored = self._known(make.counter("edged_hub_ignored", "Messages not answered", "worker", "reason"))
        self._unsent = self._known(make.counter("edged_hub_unsent", "Answers that did not leave", "worker", "reason"))
        self._connects = self._known(make.counter("edged_hub_broker_connects", "Connections made", "worker"))
        self._commit = self._known(make.durations("edged_hub_commit_seconds", "One commit", "worker"))
        self._decode = self._known(make.durations("edged_hub_decode_seconds", "Check and decode a batch", "worker"))
        self._wait = self._known(
            make.durations("edged_hub_wait_seconds", "From arrival to the start of the commit", "worker")
        )
        self._inference = self._known(
            make.counter("edged_hub_inference", "Questions of gateways by outcome", "worker", "outcome")
        )
        self._infer = self._known(make.durations("edged_hub_inference_seconds", "One call of a model", "worker"))
        self._inflight = self._known(make.gauge("edged_hub_inflight_batches", "Batches in hand", "worker"))
        self._inflight_bytes = self._known(make.gauge("edged_hub_inflight_bytes", "Their bytes", "worker"))
        self._up = self._known(make.gauge("edged_hub_up", "1 while it works, else 0", "worker", "what"))
        self._restarts = self._known(make.counter("edged_hub_worker_restarts", "Workers started anew", "worker"))

    def _known(self, family: Family[Any]) -> Family[Any]:
        self._families[family.name] = family
        return family

    # --- written by the worker ---

    def answer(self, via: str, kind: str, status: AckStatus, reason: str) -> None:
        """Count an answer. Counts of one kind of answer come from one thread only."""
        self._answers.at(self._worker, via, kind, status, reason).value += 1

    def answered(self) -> int:
        """Everything that was answered so far."""
        return sum(cell.value for cell in tuple(self._answers.cells.values()))

    def home(self, stream: str, kind: str, rows: int, bad: int) -> None:
        self._rows.at(self._worker, stream, kind).value += rows
        if bad:
            self._bad_rows.at(self._worker, stream).value += bad

    def received(self, via: str, size_bytes: int) -> None:
        self._bytes.at(self._worker, via).value += size_bytes

    def ignored(self, reason: str) -> None:
        self._ignored.at(self._worker, reason).value += 1

    def unsent(self, reason: str) -> None:
        self._unsent.at(self._worker, reason).value += 1

    def connected(self) -> None:
        self._connects.at(self._worker).value += 1

    def committed(self, waited_ns: int, decode_ns: int, commit_ns: int) -> None:
        self._wait.at(self._worker).observe(waited_ns // 1000)
        self._decode.at(self._worker).observe(decode_ns // 1000)
        self._commit.at(self._worker).observe(commit_ns // 1000)

    def inferred(self, outcome: str, infer_ns: int = 0) -> None:
        """A question was answered, refused (outcome: the reason) or ignored. infer_ns: of the model's call."""
        self._inference.at(self._worker, outcome).value += 1
        if infer_ns:
            self._infer.at(self._worker).observe(infer_ns // 1000)

    def holding(self, batches: int, size_bytes: int) -> None:
        self._inflight.at(self._worker).value = batches
        self._inflight_bytes.at(self._worker).value = size_bytes

    def up(self, what: str, works: bool | None) -> None:
        """None: this hub has no such thing."""
        self._up.at(self._worker, what).value = None if works is None else int(works)

    # --- in the supervisor ---

    def restarted(self, worker: int) -> None:
        self._restarts.at(str(worker)).value += 1

    def dump(self) -> tuple[Cell, ...]:
        """Every cell, for a `Report`."""
        return tuple(
            _cell(family.name, labels, cell)
            for family in self._families.values()
            for labels, cell in tuple(family.cells.items())
        )

    def load(self, cells: tuple[Cell, ...]) -> None:
        """Take over what a worker dumped; unknown names (another version's) are left out."""
        for cell in cells:
            family = self._families.get(cell.name)
            if family is not None and len(cell.labels) == len(family.labels):
                _fill(family.at(*cell.labels), cell)


def _cell(name: str, labels: tuple[str, ...], cell: Counter | Gauge | Histogram) -> Cell:
    if isinstance(cell, Histogram):
        return Cell(name, labels, cell.total, cell.count, tuple(cell.buckets))
    return Cell(name, labels, cell.value)


def _fill(into: Counter | Gauge | Histogram, cell: Cell) -> None:
    if isinstance(into, Histogram):
        if len(cell.buckets) == len(into.buckets):
            into.buckets, into.count, into.total = list(cell.buckets), cell.n, cell.value or 0.0
    elif isinstance(into, Counter):
        into.value = int(cell.value or 0)
    else:
        into.value = cell.value
