"""What a model of models tells goes into the answers of the rows it is about, and is counted."""

from __future__ import annotations

import numpy as np

from edged.engine.telling import notes_of, take_notes
from edged.errors import InferenceError
from edged.infer.notes import Note, NotedOutputs
from edged.messages import ModelInfo
from edged.pipeline.postprocess import Answers

LARGE = ModelInfo("large", "1", "", "double:cpu", (), ())


def test_notes_change_the_rows_they_are_about() -> None:
    answers = Answers(list("abc"), [1.0] * 3, [None] * 3, [192] * 3, [("x",), (), ()])
    told = {"late": 1}
    notes = [Note(reasons=("late",)), Note(failed="bad_image"), Note(LARGE)]
    assert take_notes(notes, answers, told) == [1]
    assert answers.label == ["a", None, "c"]
    assert answers.quality == [64, 0, 192]
    assert answers.reasons == [("x", "late"), ("bad_image",), ()]
    assert told == {"late": 2, "answered_by:large": 1}


def test_most_models_tell_nothing_and_a_call_without_a_picture_tells_of_every_row() -> None:
    assert notes_of({"y": np.zeros(2)}, 2) == ()
    assert notes_of(InferenceError("infer_failed", ""), 2) == ()
    assert notes_of(InferenceError("bad_image", ""), 2) == (Note(failed="bad_image"),) * 2
    assert notes_of(NotedOutputs({}, [Note(LARGE)]), 1) == (Note(LARGE),)
