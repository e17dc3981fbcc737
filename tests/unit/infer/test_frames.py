"""Frames as cameras send them → what the model sees; one bad frame costs the others nothing."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edged.errors import InferenceError, ModelError
from edged.infer.frames import FRAMES, FrameModel
from edged.infer.notes import NotedOutputs
from edged.infer.pixels import BadFrame, Canvas, FrameSpec, RawFrame, canvas_of, draw
from edged.messages import ModelInfo, TensorSpec

CANVAS = Canvas(8, 8, False, np.dtype(np.float32))


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def plain(width: int, height: int, *colour: int) -> bytes:
    return png(np.full((height, width, 3), colour, np.uint8))


def frames(*pictures: bytes) -> dict[str, np.ndarray]:
    array = np.empty(len(pictures), object)
    array[:] = pictures
    return {FRAMES: array}


class Mean:
    """The mean of each picture."""

    def __init__(self, *shape: int, inputs: int = 1) -> None:
        specs = tuple(TensorSpec(f"x{number}", "float32", (-1, *shape)) for number in range(inputs))
        self.info = ModelInfo("mean", "1", "0", "double:cpu", specs, (TensorSpec("y", "float32", (-1, 1)),))
        self.closed = False

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        (pictures,) = batch.values()
        return {"y": pictures.reshape(len(pictures), -1).mean(axis=1, keepdims=True), "n": np.arange(len(pictures))}

    def close(self) -> None:
        self.closed = True


def seeing(inner: Mean) -> FrameModel:
    return FrameModel(inner, FrameSpec(), inner.info)


def test_a_letterbox_keeps_the_proportions_and_says_where_the_frame_lies() -> None:
    row, placed = draw(FrameSpec(pad=7), plain(16, 8, 200, 100, 50), CANVAS)
    assert row.shape == (8, 8, 3)
    assert row[0].tolist() == [[7, 7, 7]] * 8
    assert row[2].tolist() == [[200, 100, 50]] * 8
    assert placed == (0.5, 0.5, 0, 2, 16, 8)


def test_a_stretched_frame_fills_everything() -> None:
    row, placed = draw(FrameSpec(resize="stretch"), plain(16, 4, 200, 100, 50), CANVAS)
    assert (row == [200, 100, 50]).all()
    assert placed == (0.5, 2.0, 0, 0, 16, 4)


def test_colours_are_in_the_order_of_the_model_and_gray_has_one_channel() -> None:
    bgr, _ = draw(FrameSpec(colour="bgr"), plain(8, 8, 200, 100, 50), CANVAS)
    gray, _ = draw(FrameSpec(colour="gray"), plain(4, 8, 90, 90, 90), CANVAS)
    assert bgr[0, 0].tolist() == [50, 100, 200]
    assert gray.shape == (8, 8, 1)
    assert gray[0, 0, 0] == 114
    assert gray[0, 4, 0] == 90


def test_pixels_are_scaled_then_normalised_by_channel_and_arranged_channels_first() -> None:
    spec = FrameSpec(scale=1 / 255, mean=(0.5, 0.0, 0.0), std=(0.5, 1.0, 2.0))
    row, _ = draw(spec, plain(8, 8, 255, 255, 255), CANVAS._replace(channels_first=True))
    assert row.shape == (3, 8, 8)
    assert row[:, 0, 0].tolist() == [1.0, 1.0, 0.5]
    assert row.flags.c_contiguous


@pytest.mark.parametrize(("dtype", "mean", "expected"), [("uint8", (), 200), ("int8", (128.0,), 72), ("int8", (), 127)])
def test_models_of_integers_get_integers_within_their_range(dtype: str, mean: tuple[float, ...], expected: int) -> None:
    row, _ = draw(FrameSpec(mean=mean), plain(8, 8, 200, 200, 200), CANVAS._replace(dtype=np.dtype(dtype)))
    assert (row.dtype, row[0, 0, 0]) == (np.dtype(dtype), expected)


@pytest.mark.parametrize(
    ("colour", "frame", "expected"),
    [("rgb", bytes((1, 2, 3)), [1, 2, 3]), ("bgr", bytes((1, 2, 3)), [3, 2, 1]), ("gray", b"\5", [5, 5, 5])],
)
def test_raw_pixels_are_taken_as_declared(colour: str, frame: bytes, expected: list[int]) -> None:
    spec = FrameSpec(raw=RawFrame(2, 1, colour))  # type: ignore[arg-type]
    row, _ = draw(spec, frame * 2, CANVAS._replace(width=2, height=1))
    assert row[0, 0].tolist() == expected


@pytest.mark.parametrize(
    ("spec", "frame"),
    [
        (FrameSpec(), b"nothing"),
        (FrameSpec(), plain(8, 8, 1, 2, 3)[:-30]),
        (FrameSpec(), png(np.full((8, 8), 40_000, np.uint16))),
        (FrameSpec(max_pixels=63), plain(8, 8, 1, 2, 3)),
        (FrameSpec(raw=RawFrame(2, 2, "rgb")), bytes(11)),
    ],
)
def test_what_cannot_be_decoded_or_is_too_large_is_a_bad_frame(spec: FrameSpec, frame: bytes) -> None:
    with pytest.raises(BadFrame):
        draw(spec, frame, CANVAS)


@pytest.mark.parametrize(
    ("spec", "shape", "expected"),
    [
        (FrameSpec(), (-1, 3, 6, 4), (4, 6, True)),
        (FrameSpec(), (-1, 6, 4, 3), (4, 6, False)),
        (FrameSpec(colour="gray"), (-1, 6, 4, 1), (4, 6, False)),
        (FrameSpec(layout="nhwc"), (-1, 3, 3, 3), (3, 3, False)),
        (FrameSpec(layout="nchw", size=(4, 6)), (-1, 3, -1, -1), (4, 6, True)),
    ],
)
def test_a_models_input_is_read_as_a_picture(
    spec: FrameSpec, shape: tuple[int, ...], expected: tuple[int, int, bool]
) -> None:
    assert canvas_of(spec, TensorSpec("x", "float32", shape))[:3] == expected


@pytest.mark.parametrize(
    ("spec", "dtype", "shape"),
    [
        (FrameSpec(), "float32", (-1, 4)),
        (FrameSpec(), "str", (-1, 4, 4, 3)),
        (FrameSpec(), "float32", (-1, 4, 4, 1)),
        (FrameSpec(), "float32", (-1, -1, -1, 3)),
        (FrameSpec(size=(5, 5)), "float32", (-1, 4, 4, 3)),
    ],
)
def test_an_input_that_takes_no_pictures_is_incompatible(spec: FrameSpec, dtype: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError) as caught:
        canvas_of(spec, TensorSpec("x", dtype, shape))
    assert caught.value.code == "incompatible"


def test_a_bad_frame_fails_alone_and_the_others_keep_their_places() -> None:
    inner = Mean(4, 4, 3)
    model = FrameModel(inner, FrameSpec(), inner.info)
    outputs = model.infer(frames(plain(4, 4, 9, 9, 9), b"nothing", plain(4, 4, 3, 3, 3)), deadline_s=1)
    assert isinstance(outputs, NotedOutputs)
    assert [note.failed for note in outputs.notes] == ["", "bad_image", ""]
    assert outputs["y"][[0, 2], 0].tolist() == [9.0, 3.0]
    assert np.isnan(outputs["y"][1, 0])
    assert outputs["n"].tolist() == [0, 0, 1]
    assert model.info is inner.info
    model.close()
    assert inner.closed


def test_the_model_is_not_asked_when_no_frame_can_be_decoded() -> None:
    with pytest.raises(InferenceError) as caught:
        seeing(Mean(4, 4, 3)).infer(frames(b"1", b"2"), deadline_s=1)
    assert caught.value.code == "bad_image"


def test_answers_are_finished_in_terms_of_the_frame() -> None:
    def finish(outputs: Mapping[str, np.ndarray], placed: np.ndarray) -> Mapping[str, np.ndarray]:
        return {"width": placed[:, 4]}

    width = (TensorSpec("width", "float32", (-1,)),)
    model = FrameModel(inner := Mean(4, 4, 3), FrameSpec(), inner.info, finish, width)
    assert model.outputs == width
    assert model.infer(frames(plain(20, 4, 1, 1, 1)), deadline_s=1)["width"].tolist() == [20.0]


def test_a_model_of_two_inputs_takes_no_frames() -> None:
    with pytest.raises(ModelError, match="expected one input"):
        seeing(Mean(4, 4, 3, inputs=2))


WHOLE = plain(16, 16, 200, 100, 50)
JPEG = io.BytesIO()
Image.new("RGB", (32, 32), (200, 100, 50)).save(JPEG, "JPEG")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([WHOLE, JPEG.getvalue()]),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), min_size=1, max_size=20),
    st.integers(0, 100),
)
def test_a_damaged_picture_is_drawn_or_refused_and_nothing_else_happens(
    whole: bytes, damage: list[tuple[int, int]], cut: int
) -> None:
    broken = bytearray(whole)
    for place, value in damage:
        broken[place % len(broken)] = value
    try:
        row, _ = draw(FrameSpec(max_pixels=10_000), bytes(broken[: len(broken) - cut]), CANVAS)
    except BadFrame:
        return
    assert row.shape == (8, 8, 3)


def test_without_the_extra_a_model_of_frames_is_refused_with_the_cure() -> None:
    lines = (
        "import sys; sys.modules['PIL'] = None",
        "from edged.errors import ModelError",
        "from edged.infer.pixels import require_decoder",
        "try: require_decoder()",
        "except ModelError as error: print(error.code, '|', error.hint)",
    )
    told = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "runtime_unavailable | install edged with the extra image"
