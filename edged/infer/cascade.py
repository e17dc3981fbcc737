"""A small model first; what it is not sure of goes to a larger one, within a budget and a deadline.

Whatever happens to the larger model, the small answer is there and stands. Each row says who answered, and why not
the larger one when it was to be asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edged.errors import InferenceError
from edged.infer.aside import Aside
from edged.infer.notes import PLAIN, Note, NotedOutputs
from edged.policy.cascade import Band, choose, full_bucket

if TYPE_CHECKING:
    from edged.infer.upstream import Upstream
    from edged.messages import ModelInfo
    from edged.ports import Clock, Model

    Batch = Mapping[str, np.ndarray]

SHED = "escalation_shed"
FAILED = "escalation_failed"
LATE = "escalation_late"
_LATE_CODES = frozenset(("infer_timeout", "upstream_timeout"))

Scores = Callable[["Batch", int], Sequence["float | None"]]
"""(outputs, number of rows) → how sure the small model is of each row; None: it has no answer."""


class CascadeSpec(NamedTuple):
    """When the larger model is asked, how often, and how long to wait for it."""

    band: Band
    max_per_s: float
    deadline_s: float


class CascadeModel:
    """Implements `edged.ports.Model`. `info`: of the small model, which answers what no note says otherwise."""

    def __init__(self, small: Model, larger: Aside, spec: CascadeSpec, scores: Scores, clock: Clock) -> None:
        self._small = small
        self._larger = larger
        self._spec = spec
        self._scores = scores
        self._clock = clock
        self._bucket = full_bucket(spec.max_per_s, clock.mono_ns())

    @property
    def info(self) -> ModelInfo:
        return self._small.info

    def infer(self, batch: Batch, *, deadline_s: float) -> Batch:
        """The small model's answers, with the larger one's in the place of those it was asked about.

        Raises:
            InferenceError: those of the small model.
        """
        outputs = self._small.infer(batch, deadline_s=deadline_s)
        count = len(next(iter(batch.values())))
        notes = list(outputs.notes) if isinstance(outputs, NotedOutputs) else [PLAIN] * count
        scores = [
            None if note.failed else score
            for note, score in zip(notes, self._scores(outputs, count), strict=True)
        ]  # fmt: skip
        choice = choose(scores, self._spec.band, self._bucket.at(self._clock.mono_ns()))
        self._bucket = choice.bucket
        if not choice.ask and not choice.shed:
            return outputs
        for row in choice.shed:
            notes[row] = Note(reasons=(SHED,))
        if choice.ask:
            outputs = self._escalated(batch, outputs, notes, list(choice.ask))
        return NotedOutputs(outputs, notes)

    def close(self) -> None:
        self._small.close()
        self._larger.close()

    def _escalated(self, batch: Batch, outputs: Batch, notes: list[Note], rows: list[int]) -> Batch:
        """The outputs with what the larger model said about `rows`; `notes` tell of it."""
        asked = {name: array[rows] for name, array in batch.items()}
        try:
            answer = self._larger.ask(asked, self._spec.deadline_s)
            merged = _merged(outputs, answer.outputs, rows)
        except InferenceError as error:
            reason = LATE if error.code in _LATE_CODES else FAILED
            for row in rows:
                notes[row] = Note(reasons=(reason,))
            return outputs
        theirs = answer.outputs.notes if isinstance(answer.outputs, NotedOutputs) else (PLAIN,) * len(rows)
        for row, note in zip(rows, theirs, strict=True):
            notes[row] = Note(reasons=(FAILED,)) if note.failed else Note(answer.info)
            if note.failed:  # it has no answer to this row: the small one's comes back
                for name, array in merged.items():
                    array[row] = outputs[name][row]
        return merged


def _merged(outputs: Batch, larger: Batch, rows: list[int]) -> dict[str, np.ndarray]:
    """A copy of `outputs` with the rows of the larger model, whose outputs are matched by name or else by order."""
    if len(outputs) != len(larger):
        raise InferenceError("bad_output", f"the larger model has {len(larger)} outputs, the small one {len(outputs)}")
    merged = {}
    for (name, array), (_, other) in zip(outputs.items(), _matched(outputs, larger), strict=True):
        if other.shape != (len(rows), *array.shape[1:]):
            raise InferenceError("bad_output", f"output {name}: the larger model gave {other.shape}")
        merged[name] = array.copy()
        merged[name][rows] = other
    return merged


def _matched(outputs: Batch, larger: Batch) -> list[tuple[str, np.ndarray]]:
    if outputs.keys() == larger.keys():
        return [(name, larger[name]) for name in outputs]
    return list(larger.items())


class Renaming:
    """A model whose inputs carry the names of another one's, in the same order; `info` is its own."""

    def __init__(self, model: Model, names: Sequence[str]) -> None:
        self._model = model
        self._names = tuple(names)

    @property
    def info(self) -> ModelInfo:
        return self._model.info

    def infer(self, batch: Batch, *, deadline_s: float) -> Batch:
        own = [spec.name for spec in self._model.info.inputs]
        if set(own) != set(self._names) and len(own) == len(self._names):
            batch = {mine: batch[theirs] for mine, theirs in zip(own, self._names, strict=True)}
        return self._model.infer(batch, deadline_s=deadline_s)

    def close(self) -> None:
        self._model.close()


class UpstreamModel:
    """A model that the receiver of the results runs, named by the digest of its file.

    like: the small model, whose inputs and outputs the larger one shares.
    """

    def __init__(self, upstream: Upstream, digest: str, like: ModelInfo) -> None:
        self._upstream = upstream
        self._digest = digest
        self.info = like._replace(
            model="upstream", version=f"sha256-{digest[:12]}", sha256=digest, runtime="upstream", placement=()
        )

    def infer(self, batch: Batch, *, deadline_s: float) -> Batch:
        return self._upstream.ask(self._digest, batch, deadline_s)

    def close(self) -> None:
        self._upstream.close()
