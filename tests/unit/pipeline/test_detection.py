"""Detectors of every common shape say the same thing: boxes in pixels of the frame."""

from __future__ import annotations

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.detection import DetectionSpec, Detector
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import OutputSpec

# A frame of 200 × 100 in an input of 100 × 100: half as large, with bars of 25 above and below.
PLACED = np.array([[0.5, 0.5, 0, 25, 200, 100]])
# One box of (40, 20) to (80, 60) in the frame, which is (20, 35) to (40, 55) in the input.
EXPECTED = [40.0, 20.0, 80.0, 60.0]


def specs(**shapes: tuple[int, ...]) -> list[TensorSpec]:
    return [TensorSpec(name, "float32", shape) for name, shape in shapes.items()]


def only_box(answer: dict[str, np.ndarray]) -> tuple[list[float], float, int]:
    assert answer["count"].tolist() == [[1.0]]
    return answer["boxes"][0, 0].tolist(), float(answer["scores"][0, 0]), int(answer["classes"][0, 0])


def test_an_ssd_of_tflite_gives_corners_with_y_first_as_shares_of_the_input() -> None:
    detector = Detector(DetectionSpec(), specs(a=(-1, 2, 4), b=(-1, 2), c=(-1, 2), d=(-1,)), 100, 100)
    answer = detector(
        {
            "a": np.array([[[0.35, 0.2, 0.55, 0.4], [0, 0, 1, 1]]], np.float32),
            "b": np.array([[3, 7]], np.float32),
            "c": np.array([[0.75, 0.9]], np.float32),
            "d": np.array([1], np.float32),
        },
        PLACED,
    )
    box, score, number = only_box(answer)
    assert box == pytest.approx(EXPECTED)
    assert (score, number) == (0.75, 3)


@pytest.mark.parametrize("transposed", [True, False])
@pytest.mark.parametrize("class_count", [3, 0])
def test_a_yolo_gives_centre_and_size_in_pixels_of_the_input_in_either_order(
    transposed: bool, class_count: int
) -> None:
    table = np.zeros((1, 7, 20), np.float32)
    table[0, :, 5] = [30, 45, 20, 20, 0.1, 0.8, 0.2]
    table[0, :, 6] = [31, 46, 20, 20, 0.1, 0.7, 0.2]
    shape = (-1, 7, 20) if transposed else (-1, 20, 7)
    detector = Detector(DetectionSpec(class_count=class_count), specs(out=shape), 100, 100)
    box, score, number = only_box(detector({"out": table if transposed else table.transpose(0, 2, 1)}, PLACED))
    assert box == pytest.approx(EXPECTED)
    assert (round(score, 4), number) == (0.8, 1)


@pytest.mark.parametrize(
    ("shape", "first"),
    [((-1, 6, 1), True), ((-1, 1, 6), False), ((-1, 6, 8400), True), ((-1, 8400, 6), False), ((-1, 6, -1), True)],
)
def test_without_labels_the_shorter_axis_that_can_hold_a_box_has_the_columns(
    shape: tuple[int, ...], first: bool
) -> None:
    table = np.array([[[30], [45], [20], [20], [0.1], [0.8]]], np.float32)
    detector = Detector(DetectionSpec(), specs(out=shape), 100, 100)
    assert only_box(detector({"out": table if first else table.transpose(0, 2, 1)}, PLACED))[2] == 1


def test_a_yolo_of_free_length_and_with_objectness_multiplies_it_with_the_classes() -> None:
    detector = Detector(DetectionSpec(objectness=True), specs(out=(-1, -1, 8)), 100, 100)
    table = np.array([[[30, 45, 20, 20, 0.9, 0.1, 0.8, 0.2], [30, 45, 20, 20, 0.5, 0.1, 0.8, 0.2]]], np.float32)
    _, score, number = only_box(detector({"out": table}, PLACED))
    assert (round(score, 4), number) == (0.72, 1)


@pytest.mark.parametrize("per_class", [True, False])
def test_outputs_may_be_named_and_boxes_written_as_declared(per_class: bool) -> None:
    shapes = specs(boxes=(-1, 1, 4), scores=(-1, 1, 3) if per_class else (-1, 1), classes=(-1, 1))
    outputs = {
        "boxes": np.array([[[0.2, 0.35, 0.4, 0.55]]], np.float32),
        "scores": np.array([[[0.1, 0.2, 0.7]]] if per_class else [[0.7]], np.float32),
        "classes": np.array([[2]], np.float32),
    }
    spec = DetectionSpec(box="xyxy", normalised=True)
    box, score, number = only_box(Detector(spec, shapes, 100, 100)(outputs, PLACED))
    assert box == pytest.approx(EXPECTED)
    assert (round(score, 4), number) == (0.7, 2)


def test_boxes_end_at_the_edges_of_the_frame() -> None:
    detector = Detector(DetectionSpec(), specs(boxes=(-1, 1, 4), scores=(-1, 1), classes=(-1, 1)), 100, 100)
    one = np.ones((1, 1), np.float32)
    answer = detector({"boxes": np.array([[[-50, -50, 500, 500]]], np.float32), "scores": one, "classes": one}, PLACED)
    assert only_box(answer)[0] == [0, 0, 200, 100]


def test_a_frame_whose_detections_are_not_numbers_has_no_answer_and_the_next_one_has() -> None:
    detector = Detector(DetectionSpec(limit=5), specs(boxes=(-1, 1, 4), scores=(-1, 1), classes=(-1, 1)), 100, 100)
    outputs = {
        "boxes": np.array([[[np.nan, 0, 1, 1]], [[20, 35, 40, 55]]], np.float32),
        "scores": np.ones((2, 1), np.float32),
        "classes": np.ones((2, 1), np.float32),
    }
    answer = detector(outputs, np.repeat(PLACED, 2, axis=0))
    read = Postprocessor(OutputSpec("detection", labels=("a", "b"), threshold=0.5), detector.outputs)
    answers = read(answer, ["x", "y"])
    assert answers.label == [None, "b"]
    assert answers.reasons == [("non_finite_output",), ()]
    values = answers.values[1]
    assert values is not None
    assert values["boxes"] == pytest.approx(EXPECTED)


def test_an_ssd_whose_count_is_no_number_found_nothing() -> None:
    detector = Detector(DetectionSpec(layout="ssd"), specs(a=(-1, 1, 4), b=(-1, 1), c=(-1, 1), d=(-1, 1)), 100, 100)
    one = np.ones((1, 1), np.float32)
    answer = detector({"a": np.ones((1, 1, 4)), "b": one, "c": one, "d": one * np.nan}, PLACED)
    assert answer["count"].tolist() == [[0.0]]


@pytest.mark.parametrize(
    ("spec", "outputs"),
    [
        (DetectionSpec(), specs(a=(-1, 2), b=(-1, 2))),
        (DetectionSpec(layout="ssd"), specs(a=(-1, 2, 4))),
        (DetectionSpec(layout="yolo"), specs(a=(-1, 2))),
        (DetectionSpec(layout="named"), specs(a=(-1, 2, 4))),
        (DetectionSpec(), specs(boxes=(-1, 2, 4), scores=(-1, 2))),
        (DetectionSpec(class_count=9), specs(a=(-1, 7, 20))),
    ],
)
def test_outputs_that_cannot_be_read_are_found_when_the_model_is_loaded(
    spec: DetectionSpec, outputs: list[TensorSpec]
) -> None:
    with pytest.raises(ModelError, match="cannot be read") as caught:
        Detector(spec, outputs, 100, 100)
    assert caught.value.code == "incompatible"


@pytest.mark.parametrize(
    "outputs",
    [
        {"boxes": np.ones((1, 3, 4)), "scores": np.ones((1, 2)), "classes": np.ones((1, 2))},
        {"boxes": np.ones((1, 5)), "scores": np.ones((1, 2)), "classes": np.ones((1, 2))},
    ],
)
def test_outputs_that_contradict_each_other_are_an_error_of_the_call(outputs: dict[str, np.ndarray]) -> None:
    detector = Detector(DetectionSpec(), specs(boxes=(-1, -1, 4), scores=(-1, -1), classes=(-1, -1)), 100, 100)
    with pytest.raises(InferenceError) as caught:
        detector(outputs, PLACED)
    assert caught.value.code == "bad_output"


def test_a_yolo_without_a_class_is_an_error_of_the_call() -> None:
    detector = Detector(DetectionSpec(), specs(out=(-1, -1, -1)), 100, 100)
    with pytest.raises(InferenceError):
        detector({"out": np.ones((1, 9, 4), np.float32)}, PLACED)
