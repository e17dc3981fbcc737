"""Model outputs become answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edged.errors import ConfigError, InferenceError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.postprocess import MAX_DETECTIONS, MAX_TENSOR_VALUES, Answers, Postprocessor
from edged.pipeline.spec import CalibratedThreshold, OutputSpec

NAN = float("nan")


def tensor(*shape: int, name: str = "y", dtype: str = "float32") -> TensorSpec:
    return TensorSpec(name, dtype, (-1, *shape))


def read(kind: Any, rows: object, *, shape: tuple[int, ...] | None = None, **spec: Any) -> Answers:
    """Answers to one output named y."""
    array = np.asarray(rows, np.float32)
    reader = Postprocessor(OutputSpec(kind, **spec), [tensor(*(array.shape[1:] if shape is None else shape))])
    return reader({"y": array}, ["d"] * len(array))


def assert_failed(answers: Answers, row: int, reason: str) -> None:
    assert (answers.label[row], answers.score[row], answers.values[row]) == (None, None, None)
    assert (answers.quality[row], answers.reasons[row]) == (0, (reason,))


# --- classification ------------------------------------------------------------------------------------------------


def test_the_largest_class_score_gives_label_and_score() -> None:
    answers = read("classification", [[0.25, 0.75], [1.0, 0.0]], labels=("ok", "bearing"))
    assert answers == Answers(["bearing", "ok"], [0.75, 1.0], [None, None], [192, 192], [(), ()])


def test_softmax_turns_logits_into_shares_however_large_they_are() -> None:
    answers = read("classification", [[1000.0, 1000.0], [-1e30, 1e30], [0.0, np.log(3)]], softmax=True)
    assert answers.label == ["0", "1", "1"]
    assert answers.score == pytest.approx([0.5, 1.0, 0.75])


@given(arrays(np.float32, (4, 5), elements=st.floats(-80, 80, width=32)))
def test_the_stable_softmax_is_the_textbook_softmax(logits: NDArray[np.float32]) -> None:
    wide = logits.astype(np.float64)
    shares = np.exp(wide) / np.exp(wide).sum(axis=1, keepdims=True)
    answers = read("classification", logits, softmax=True)
    assert answers.score == pytest.approx(shares.max(axis=1).tolist(), rel=1e-4)
    assert answers.label == [str(index) for index in logits.argmax(axis=1).tolist()]


def test_a_row_that_is_not_a_number_fails_alone() -> None:
    answers = read("classification", [[0.1, 0.9], [NAN, 0.9], [0.1, np.inf], [0.8, 0.2]], softmax=True)
    assert answers.label[0] == "1"
    assert_failed(answers, 1, "non_finite_output")
    assert_failed(answers, 2, "non_finite_output")
    assert answers.label[3] == "0"


def test_axes_of_size_one_do_not_matter() -> None:
    assert read("classification", np.zeros((3, 1, 1, 4))).label == ["0"] * 3


def test_whole_numbers_are_scores_too() -> None:
    reader = Postprocessor(OutputSpec("classification"), [tensor(2, dtype="uint8")])
    assert reader({"y": np.array([[3, 200]], np.uint8)}, ["d"]).score == [200.0]


def test_the_score_output_is_found_by_declaration_by_name_or_as_the_last_of_floats() -> None:
    outputs = [tensor(name="label", dtype="int64"), tensor(2, name="probabilities")]
    declared = OutputSpec("classification", outputs={"scores": "probabilities"})
    arrays_ = {"label": np.array([1]), "probabilities": np.array([[0.0, 1.0]])}
    assert Postprocessor(declared, outputs)(arrays_, ["d"]).label == ["1"]
    named = [tensor(name="label", dtype="int64"), tensor(2, name="scores")]
    named_arrays = {"label": np.array([1]), "scores": np.array([[1.0, 0.0]])}
    assert Postprocessor(OutputSpec("classification"), named)(named_arrays, ["d"]).label == ["0"]
    assert Postprocessor(OutputSpec("classification"), outputs)(arrays_, ["d"]).label == ["1"]  # the last of floats
    only = [tensor(2, name="q", dtype="uint8")]
    assert Postprocessor(OutputSpec("classification"), only)({"q": np.array([[9, 1]])}, ["d"]).label == ["0"]
    with pytest.raises(ModelError, match="no output 'boxes'"):
        Postprocessor(OutputSpec("detection"), outputs)
    with pytest.raises(ModelError, match="no output 'z'"):
        Postprocessor(OutputSpec("classification", outputs={"scores": "z"}), [tensor(2)])


# --- anomaly -------------------------------------------------------------------------------------------------------


def test_an_anomaly_is_a_score_above_the_threshold() -> None:
    answers = read("anomaly", [[0.5], [0.5001], [-1.0], [NAN]], threshold=0.5)
    assert answers.label == ["normal", "anomaly", "normal", None]
    assert answers.score[2] == -1.0
    assert_failed(answers, 3, "non_finite_output")


def test_a_score_may_come_without_an_axis_of_its_own() -> None:
    assert read("anomaly", [0.0, 2.0], threshold=1).label == ["normal", "anomaly"]


def test_while_a_device_calibrates_its_quality_is_uncertain_and_other_devices_are_not_affected() -> None:
    spec = OutputSpec("anomaly", threshold=CalibratedThreshold(2, quantile=1.0, factor=2.0))
    reader = Postprocessor(spec, [tensor(1)])
    scores = np.array([[1.0], [NAN], [9.0], [2.0], [4.0], [4.1]])
    answers = reader({"y": scores}, ["a", "a", "b", "a", "a", "a"])
    assert answers.label == ["calibrating", None, "calibrating", "calibrating", "normal", "anomaly"]
    assert answers.score[0] == 1.0
    assert answers.quality == [64, 0, 64, 64, 192, 192]
    assert answers.reasons[0] == ("calibrating",)
    assert_failed(answers, 1, "non_finite_output")
    assert reader.calibration is not None


# --- regression ----------------------------------------------------------------------------------------------------


def test_a_regression_gives_named_values() -> None:
    answers = read("regression", [[1.0, 2.0], [3.0, NAN]], names=("rul_h", "wear"))
    assert answers.values[0] == {"rul_h": 1.0, "wear": 2.0}
    assert (answers.label[0], answers.score[0], answers.quality[0]) == (None, None, 192)
    assert_failed(answers, 1, "non_finite_output")


def test_values_without_names_are_named_after_their_output() -> None:
    reader = Postprocessor(OutputSpec("regression"), [tensor(1, name="rul"), tensor(2, name="wear")])
    outputs = {"rul": np.array([[1.0]]), "wear": np.array([[2.0, 3.0]])}
    assert reader(outputs, ["d"]).values == [{"rul": 1.0, "wear_0": 2.0, "wear_1": 3.0}]


# --- detection -----------------------------------------------------------------------------------------------------


def detect(scores: object, classes: object, boxes: object, count: object = None, **spec: Any) -> Answers:
    made = {"scores": scores, "classes": classes, "boxes": boxes} | ({} if count is None else {"count": count})
    outputs = {name: np.asarray(value, np.float32) for name, value in made.items()}
    reader = Postprocessor(OutputSpec("detection", **spec), [tensor(*a.shape[1:], name=n) for n, a in outputs.items()])
    return reader(outputs, ["d"] * len(outputs["scores"]))


def test_detections_above_the_threshold_are_listed_the_surest_first() -> None:
    boxes = [[[1, 1, 1, 1], [2, 2, 2, 2], [3, 3, 3, 3]]]
    answers = detect([[0.5, 0.25, 0.75]], [[0, 1, 1]], boxes, labels=("scratch", "dent"))
    assert answers.label == ["dent"]
    assert answers.score == [0.75]
    assert answers.values == [
        {"count": 2.0, "boxes": [3, 3, 3, 3, 1, 1, 1, 1], "scores": [0.75, 0.5], "classes": [1.0, 0.0]}
    ]


def test_nothing_found_is_a_good_answer_without_a_label() -> None:
    for answers in (detect([[0.1]], [[0]], [[[0, 0, 1, 1]]]), detect([[]], [[]], np.zeros((1, 0, 4)))):
        assert (answers.label, answers.score, answers.quality) == ([None], [None], [192])
        assert answers.values == [{"count": 0.0, "boxes": [], "scores": [], "classes": []}]


def test_places_beyond_the_count_are_not_looked_at() -> None:
    answers = detect([[0.9, NAN], [0.9, 0.8]], [[7, 7], [7, 8]], np.zeros((2, 2, 4)), [1, 2])
    assert answers.label == ["7", "7"]
    assert [cells["count"] for cells in answers.values if cells] == [1.0, 2.0]


@pytest.mark.parametrize("broken", ["scores", "classes", "boxes", "count"])
def test_a_detection_that_is_not_a_number_fails_its_row(broken: str) -> None:
    given: dict[str, Any] = {
        "scores": np.full((2, 1), 0.9),
        "classes": np.zeros((2, 1)),
        "boxes": np.zeros((2, 1, 4)),
        "count": np.ones(2),
    }
    given[broken][0] = NAN
    answers = detect(**given)
    assert_failed(answers, 0, "non_finite_output")
    assert answers.label[1] == "0"


def test_only_so_many_detections_are_listed() -> None:
    answers = detect(np.full((1, 300), 0.9), np.zeros((1, 300)), np.zeros((1, 300, 4)))
    assert answers.values[0] is not None
    assert answers.values[0]["count"] == MAX_DETECTIONS


def test_detections_of_different_number_are_a_bad_output() -> None:
    with pytest.raises(InferenceError, match="4 numbers"):
        detect([[0.9]], [[0, 1]], np.zeros((1, 1, 4)))
    with pytest.raises(InferenceError, match="4 numbers"):
        detect([[0.9]], [[0]], np.zeros((1, 2, 4)))


# --- tensor --------------------------------------------------------------------------------------------------------


def test_a_tensor_is_passed_through_flat() -> None:
    reader = Postprocessor(OutputSpec("tensor"), [tensor(2, 2, name="m"), tensor(1, name="s")])
    answers = reader({"m": np.array([[[1, 2], [3, 4]]] * 2), "s": np.array([[5.0], [NAN]])}, ["d", "d"])
    assert answers.values[0] == {"m": [1.0, 2.0, 3.0, 4.0], "s": 5.0}
    assert_failed(answers, 1, "non_finite_output")


def test_a_tensor_too_large_for_a_result_is_refused_as_early_as_it_is_known() -> None:
    with pytest.raises(ModelError, match="4097"):
        Postprocessor(OutputSpec("tensor"), [tensor(MAX_TENSOR_VALUES + 1)])
    with pytest.raises(InferenceError, match="at most"):
        read("tensor", np.zeros((1, MAX_TENSOR_VALUES + 1)), shape=(-1,))


# --- all kinds -----------------------------------------------------------------------------------------------------


def test_rows_whose_input_was_unusable_get_no_answer() -> None:
    reader = Postprocessor(OutputSpec("classification"), [tensor(2)])
    answers = reader({"y": np.array([[0.0, 1.0], [0.0, 1.0]])}, ["d", "d"], unusable=[1])
    assert answers.label[0] == "1"
    assert_failed(answers, 1, "input_not_representable")


@pytest.mark.parametrize(
    ("kind", "rows", "spec"),
    [
        ("classification", np.zeros((1, 3)), {"labels": ("a", "b")}),
        ("classification", np.zeros((1, 0)), {}),
        ("anomaly", np.zeros((1, 2)), {"threshold": 1.0}),
        ("regression", np.zeros((1, 3)), {"names": ("a", "b")}),
    ],
)
def test_an_output_of_another_size_than_declared_is_a_bad_output(kind: str, rows: object, spec: dict[str, Any]) -> None:
    with pytest.raises(InferenceError) as failed:
        read(kind, rows, shape=(-1,), **spec)
    assert failed.value.code == "bad_output"


@pytest.mark.parametrize("rows", [np.float32(1.0), np.zeros((1, 2)), np.zeros((3, 2))])
def test_an_output_without_a_row_for_each_input_is_a_bad_output(rows: NDArray[np.float32]) -> None:
    reader = Postprocessor(OutputSpec("tensor"), [tensor(2)])
    with pytest.raises(InferenceError, match="2 rows"):
        reader({"y": rows}, ["d", "d"])


@pytest.mark.parametrize(
    ("kind", "shape", "spec"),
    [
        ("classification", (3,), {"labels": ("a", "b")}),
        ("anomaly", (2,), {"threshold": 1.0}),
        ("regression", (3,), {"names": ("a", "b")}),
    ],
)
def test_a_model_that_cannot_fit_is_refused_at_load(kind: Any, shape: tuple[int, ...], spec: dict[str, Any]) -> None:
    with pytest.raises(ModelError) as refused:
        Postprocessor(OutputSpec(kind, **spec), [tensor(*shape)])
    assert refused.value.code == "incompatible"


def test_a_contradiction_in_the_spec_is_found_at_once() -> None:
    with pytest.raises(ConfigError, match="threshold"):
        Postprocessor(OutputSpec("anomaly"), [tensor(1)])
    with pytest.raises(ConfigError, match="threshold"):
        Postprocessor(OutputSpec("detection", threshold=CalibratedThreshold(5)), [tensor(1)])
    with pytest.raises(ModelError, match="no output"):
        Postprocessor(OutputSpec("tensor"), [])
