"""What a model made of others tells about single rows, taken into their answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from edged.errors import InferenceError
from edged.infer.notes import BAD_IMAGE, Note, NotedOutputs
from edged.messages import QUALITY_UNCERTAIN
from edged.policy.ledger import add

if TYPE_CHECKING:
    import numpy as np

    from edged.pipeline.postprocess import Answers


def notes_of(outcome: Mapping[str, np.ndarray] | InferenceError, count: int) -> Sequence[Note]:
    """One note per row; none from a model that tells nothing."""
    if isinstance(outcome, NotedOutputs):
        return outcome.notes
    no_picture = isinstance(outcome, InferenceError) and outcome.code == BAD_IMAGE
    return (Note(failed=BAD_IMAGE),) * count if no_picture else ()


def take_notes(notes: Sequence[Note], answers: Answers, told: dict[str, int]) -> list[int]:
    """Reasons and failures into the answers, counts into `told`. Returns the rows that have no answer."""
    failed = []
    for row, note in enumerate(notes):
        if note.failed:
            answers.spoil(row, note.failed)
            failed.append(row)
        elif note.reasons:
            answers.quality[row] = min(answers.quality[row], QUALITY_UNCERTAIN)
            answers.reasons[row] += note.reasons
        for reason in note.reasons:
            add(told, reason)
        if note.info is not None:
            add(told, f"answered_by:{note.info.model}")
    return failed
