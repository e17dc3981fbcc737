"""The toolchain on networks that were really trained: quantised they keep their task, and what ruins them is caught.

The networks are those of MLPerf Tiny, carried over from TFLite (tflite_graph.py), and the MNIST network.
"""

from __future__ import annotations

import csv
import json
import random
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import pytest

from edged.cli.main import run
from edged.errors import ExitCode
from edged.workbench import quantizing, rungs
from edged.workbench.arrays import read_npz
from edged.workbench.gate import Thresholds
from edged.workbench.hardware import find_target
from edged.workbench.onnx_model import parse
from edged.workbench.optimizing import optimize
from edged.workbench.refusal import Unfit
from edged.workbench.verifying import Verified, verify
from tests.realdata.conftest import Show
from tests.realdata.tflite_graph import to_onnx

pytestmark = pytest.mark.realdata

KEYWORDS = 500
FLIPS = 40


class Task(NamedTuple):
    """A float model, samples to calibrate with, and labelled ones."""

    folder: Path
    model: Path
    calibration: Path
    labelled: Path


@pytest.fixture(scope="module")
def keywords(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Keyword spotting: 500 recordings as 49 × 10 cepstra, 12 classes; calibrated with every third."""
    folder, source = tmp_path_factory.mktemp("keywords"), shared_data / "tiny" / "kws01"
    converted = to_onnx(source / "kws_ref_model.tflite")
    raw = np.fromfile(source / "eval_inputs_500x490_int8.bin", np.int8).reshape(KEYWORDS, 49, 10, 1)
    samples = ((raw.astype(np.float32) - converted.zero_point) * converted.scale).astype(np.float32)
    with (source / "eval_labels.csv").open() as lines:
        labels = np.array([int(row[2]) for row in csv.reader(lines)])
    return task(folder, converted.model, samples, samples[::3], labels)


@pytest.fixture(scope="module")
def machine(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Task:
    """Anomaly detection: an autoencoder over 196 windows of one spectrogram of a toy car."""
    folder, source = tmp_path_factory.mktemp("machine"), shared_data / "tiny" / "ad01"
    spectrum = np.fromfile(source / "normal_id_01_00000000_hist_librosa.bin", np.float32)
    windows = np.stack([spectrum[at * 128 : at * 128 + 640] for at in range(196)])
    return task(folder, to_onnx(source / "ad01_fp32.tflite").model, windows, windows[::2], windows)


def task(
    folder: Path, model: onnx.ModelProto, samples: np.ndarray, calibration: np.ndarray, labels: np.ndarray
) -> Task:
    made = Task(folder, folder / "float.onnx", folder / "calibration.npz", folder / "labelled.npz")
    made.model.write_bytes(model.SerializeToString())
    np.savez(made.calibration, input=calibration)
    np.savez(made.labelled, input=samples, labels=labels)
    return made


def judged(
    of: Task, name: str, *, metric: str = "accuracy", max_drop: float = 0.01, min_sqnr_db: float = 20
) -> Verified:
    return verify(
        of.folder / name,
        of.model,
        of.labelled,
        metric=metric,
        thresholds=Thresholds(max_drop, min_sqnr_db),
        target=find_target(None),
    )


def test_keyword_spotting_keeps_its_accuracy_in_int8(keywords: Task, show: Show) -> None:
    optimize(
        keywords.model, keywords.calibration, keywords.folder / "cpu.onnx", precision="int8", target=find_target("cpu")
    )
    found = judged(keywords, "cpu.onnx")
    right = round(found.scored.model * KEYWORDS), round(found.scored.reference * KEYWORDS)
    show(f"keywords INT8 (cpu): {right[0]} of 500 right, float {right[1]}; {found.parity[0].sqnr_db:.1f} dB")
    assert right[1] == 450  # 449 in the stored file, whose own activations are int8
    assert right[0] >= 445
    assert found.passed


def test_the_portable_form_keeps_the_task_within_a_point(keywords: Task, show: Show) -> None:
    to = keywords.folder / "portable.onnx"
    optimize(keywords.model, keywords.calibration, to, precision="int8", target=find_target(None))
    found = judged(keywords, "portable.onnx", min_sqnr_db=15)
    show(
        f"keywords INT8 (portable): accuracy {found.scored.model:.3f}, float {found.scored.reference:.3f};"
        f" {found.parity[0].sqnr_db:.1f} dB"
    )
    assert found.passed


def test_fp16_changes_nothing_that_anybody_sees(keywords: Task) -> None:
    to = keywords.folder / "half.onnx"
    optimize(keywords.model, keywords.calibration, to, precision="fp16", target=find_target(None))
    found = judged(keywords, "half.onnx", min_sqnr_db=40)
    assert found.passed
    assert found.scored.drop == pytest.approx(0, abs=0.002)


def test_one_recording_of_silence_as_calibration_is_refused_and_where_forced_caught(keywords: Task, show: Show) -> None:
    silence = keywords.folder / "silence.npz"
    np.savez(silence, input=np.zeros((1, 49, 10, 1), np.float32))
    arguments = [
        "optimize",
        str(keywords.model),
        "--calibration",
        str(silence),
        "--to",
        str(keywords.folder / "x.onnx"),
    ]
    assert run(["model", *arguments]) == ExitCode.REFUSED

    trapped = keywords.folder / "trapped.onnx"
    cleaned = quantizing.clean(onnx.load(str(keywords.model)), keywords.folder)
    quantizing.to_int8(cleaned, read_npz(silence).arrays, trapped, form="portable", batch=1)
    found = judged(keywords, "trapped.onnx")
    show(f"keywords calibrated with one input of zeros: accuracy {found.scored.model:.3f}, refused")
    assert found.scored.model < 0.5
    assert {failed.code for failed in found.failures} == {"sqnr_low", "metric_drop"}


def test_the_command_exits_with_77_and_leaves_a_red_document(keywords: Task, tmp_path: Path) -> None:
    trapped = keywords.folder / "red.onnx"
    cleaned = quantizing.clean(onnx.load(str(keywords.model)), tmp_path)
    quantizing.to_int8(cleaned, {"input": np.zeros((1, 49, 10, 1), np.float32)}, trapped, form="cpu", batch=1)
    data = ["--reference", str(keywords.model), "--data", str(keywords.labelled), "--report", str(tmp_path)]
    assert run(["model", "verify", str(trapped), *data]) == ExitCode.REFUSED
    assert json.loads((tmp_path / "verification.json").read_text())["passed"] is False


def test_the_anomaly_score_of_a_machine_stays_where_it_was_published(machine: Task, show: Show) -> None:
    to = machine.folder / "cpu.onnx"
    optimize(machine.model, machine.calibration, to, precision="int8", target=find_target("cpu"))
    found = judged(machine, "cpu.onnx", metric="rmse", max_drop=0.02)
    before, after = found.scored.reference**2, found.scored.model**2
    show(f"machine sound: mean squared error {before:.4f} (published 9.7071), INT8 {after:.4f}")
    assert before == pytest.approx(9.7071, abs=1e-3)
    assert after == pytest.approx(before, rel=0.02)
    assert found.passed


@pytest.mark.parametrize("name", ["vww01/vww_96_float", "ic01/pretrainedResnet"])
def test_image_networks_with_trained_weights_can_be_quantised(name: str, shared_data: Path, tmp_path: Path) -> None:
    converted = to_onnx(shared_data / "tiny" / f"{name}.tflite").model
    shape = [axis.dim_value for axis in converted.graph.input[0].type.tensor_type.shape.dim][1:]
    images = np.random.default_rng(0).random((24, *shape)).astype(np.float32)
    made = task(tmp_path, converted, images, images * (255 if "ic01" in name else 1), np.zeros(24))
    found = optimize(made.model, made.calibration, tmp_path / "o.onnx", precision="int8", target=find_target("cpu"))
    assert found.parity[0].sqnr_db > 15
    assert found.source.size_bytes > 2.5 * found.result.size_bytes


def test_an_old_network_of_the_zoo_is_raised_and_quantised(shared_data: Path, tmp_path: Path) -> None:
    digits = [
        next(
            array.ravel()
            for array in np.load(shared_data / "onnx" / "mnist_8" / f"labelled_digit_{at}.npz").values()
            if array.size == 784
        )
        for at in (0, 1)
    ]
    noise = np.random.default_rng(0).integers(-20, 20, (40, 784))
    images = np.clip(np.stack(digits * 20) + noise, 0, 255).astype(np.float32).reshape(40, 1, 28, 28)
    np.savez(tmp_path / "c.npz", Input3=images)
    model = shared_data / "onnx" / "mnist_8" / "model.onnx"
    found = optimize(model, tmp_path / "c.npz", tmp_path / "o.onnx", precision="int8", target=find_target(None))
    assert (found.before.opset, found.after.opset) == (8, 17)
    assert found.parity[0].sqnr_db > 25


@pytest.mark.parametrize("verb", ["optimize", "verify", "benchmark"])
def test_hostile_models_are_refused_without_a_traceback(
    verb: str, shared_data: Path, keywords: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {
        "optimize": ["--calibration", str(keywords.calibration), "--to", str(tmp_path / "o.onnx")],
        "verify": ["--reference", str(keywords.model), "--data", str(keywords.labelled), "--report", str(tmp_path)],
        "benchmark": ["--seconds", "0.1"],
    }[verb]
    files = sorted((shared_data / "hostile" / "models").iterdir())
    assert len(files) == 10
    for path in files:
        assert run(["model", verb, str(path), *arguments]) == ExitCode.REFUSED, path.name
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_bit_is_refused_or_gives_a_model_that_is_still_judged(
    shared_data: Path, tmp_path: Path, show: Show
) -> None:
    source, chance = (shared_data / "onnx" / "mnist_8" / "model.onnx").read_bytes(), random.Random(7)
    path, ends = tmp_path / "flipped.onnx", Counter[str]()
    for _ in range(FLIPS):
        flipped = bytearray(source)
        flipped[chance.randrange(700)] ^= 1 << chance.randrange(8)
        path.write_bytes(flipped)
        try:
            file = rungs.open_file(path)
            parse(file)
            rungs.load(rungs.DEFAULT_RUNG, file).close()
            ends["loads"] += 1
        except Unfit as refusal:
            ends[refusal.code] += 1
    show(f"{FLIPS} flipped bits at the head of a model: {dict(ends)}")
    assert ends.total() == FLIPS
    assert ends["loads"] < FLIPS
