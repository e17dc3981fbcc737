"""Trained networks in every runtime that can load them: published figures, and one answer from different vendors."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.runtime import LoadOptions
from edged.ops.clock import SystemClock
from edged.ports import Model
from tests.realdata.conftest import Show
from tests.unit.infer.models import read_tensor

pytestmark = pytest.mark.realdata

READS_TFLITE = ("litert:cpu", "openvino:cpu")
KEYWORDS = 500


def served(path: Path, *chain: str) -> Serving:
    return load_chain(ChainSpec("p", path, chain, allow_unsigned=True, options=LoadOptions()), SystemClock())


def answer(model: Model | None, inputs: np.ndarray) -> np.ndarray:
    """The one output of a model with one input."""
    assert model is not None
    (output,) = model.infer({model.info.inputs[0].name: inputs}, deadline_s=10).values()
    return output


def keywords(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Real cepstra as real numbers, and the class of each."""
    folder = shared_data / "tiny" / "kws01"
    raw = np.fromfile(folder / "eval_inputs_500x490_int8.bin", np.int8).reshape(KEYWORDS, 49, 10, 1)
    with (folder / "eval_labels.csv").open() as lines:
        labels = np.array([int(row[2]) for row in csv.reader(lines)])
    return (raw.astype(np.float32) - np.float32(83)) * np.float32(0.5847029089927673), labels


@pytest.mark.parametrize("rung", READS_TFLITE)
def test_keyword_spotting_scores_449_of_500_in_one_call_and_in_many(shared_data: Path, rung: str, show: Show) -> None:
    serving = served(shared_data / "tiny" / "kws01" / "kws_ref_model.tflite", rung)
    inputs, labels = keywords(shared_data)
    together = answer(serving.model, inputs)
    right = int((together.argmax(axis=1) == labels).sum())
    show(f"keyword spotting, int8, {rung}: {right} of {KEYWORDS}")
    assert right == 449
    alone = np.concatenate([answer(serving.model, inputs[row : row + 1]) for row in range(KEYWORDS)])
    np.testing.assert_array_equal(alone, together)


def test_two_vendors_differ_by_one_step_of_the_int8_scale_at_most(shared_data: Path) -> None:
    path = shared_data / "tiny" / "kws01" / "kws_ref_model.tflite"
    inputs, _ = keywords(shared_data)
    first, second = (answer(served(path, rung).model, inputs) for rung in READS_TFLITE)
    np.testing.assert_allclose(first, second, atol=1.001 / 256)


@pytest.mark.parametrize("rung", READS_TFLITE)
@pytest.mark.parametrize(("twin", "expected", "within"), [("fp32", 9.70710781, 1e-4), ("int8", 10.265, 0.05)])
def test_the_published_anomaly_score_of_a_machine_is_reproduced(
    shared_data: Path, rung: str, twin: str, expected: float, within: float, show: Show
) -> None:
    folder = shared_data / "tiny" / "ad01"
    frames = np.fromfile(folder / "normal_id_01_00000000_hist_librosa.bin", np.float32).reshape(200, 128)
    windows = np.stack([frames[start : start + 5].reshape(-1) for start in range(196)])
    score = float(((answer(served(folder / f"ad01_{twin}.tflite", rung).model, windows) - windows) ** 2).mean())
    show(f"anomaly score of normal_id_01_00000000, {twin}, {rung}: {score:.4f}, expected {expected:.4f}")
    assert score == pytest.approx(expected, abs=within)


def test_onnxruntime_and_openvino_read_the_same_digits(shared_data: Path, show: Show) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    inputs = np.concatenate([read_tensor(folder / f"test_data_set_{number}" / "input_0.pb") for number in (0, 1)])
    stored = np.concatenate([read_tensor(folder / f"test_data_set_{number}" / "output_0.pb") for number in (0, 1)])
    first, second = (
        answer(served(folder / "model.onnx", rung).model, inputs) for rung in ("onnxruntime:cpu", "openvino:cpu")
    )
    scale = float(np.abs(stored).max())
    show(f"MNIST, onnxruntime against OpenVINO: largest deviation {float(np.abs(first - second).max()) / scale:.1e}")
    for found in (first, second):
        np.testing.assert_allclose(found, stored, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("rung", READS_TFLITE)
def test_the_parrot_is_a_macaw(shared_data: Path, rung: str, show: Show) -> None:
    folder = shared_data / "coral"
    with Image.open(folder / "parrot.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((224, 224), Image.Resampling.BILINEAR), np.float32)
    scores = answer(served(folder / "mobilenet_v2_1.0_224_quant.tflite", rung).model, (pixels[None] - 128) / 128)[0]
    labels = (folder / "imagenet_labels.txt").read_text().splitlines()
    best = labels[int(scores.argmax())]
    show(f"parrot.jpg, {rung}: {best.strip()} {float(scores.max()):.3f}")
    assert "macaw" in best
    assert float(scores.max()) > 0.9


def test_a_recurrent_network_reads_a_nine_whatever_it_saw_before(shared_data: Path) -> None:
    folder = shared_data / "coral"
    with Image.open(folder / "mnist_nine.bmp") as photo:
        nine = np.asarray(photo.convert("L"), np.float32)[None] / 255
    serving = served(folder / "keras_lstm_mnist_ptq.tflite", "openvino:cpu", "litert:cpu")
    assert (serving.rung, [each.code for each in serving.skipped]) == ("litert:cpu", ["unsupported"])
    for before in (nine, 1 - nine, np.zeros_like(nine)):
        answer(serving.model, before)
        assert int(answer(serving.model, nine).argmax()) == 9


@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "tools/split_concat"])
def test_a_file_compiled_for_an_edge_tpu_alone_is_refused_by_every_processor_runtime(
    shared_data: Path, tmp_path: Path, name: str
) -> None:
    alone = shutil.copy(shared_data / "coral" / f"{name}_edgetpu.tflite", tmp_path)
    serving = served(Path(alone), *READS_TFLITE, "onnxruntime:cpu")
    assert serving.model is None
    assert [each.code for each in serving.skipped] == ["unsupported", "unsupported", "incompatible"]
    assert "Coral Edge TPU" in serving.detail
