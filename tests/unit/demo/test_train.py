"""The shipped models answer right on pumps they have not learnt from, and are what the script makes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from edged.demo import train
from edged.demo.fleet import FAULT_KINDS, random_plant
from edged.demo.plant import FIELDS

HELD_OUT_SEED = 4711


@pytest.fixture(scope="module")
def held_out() -> train.Recording:
    assert HELD_OUT_SEED != train.TRAINING_SEED
    return train.record(random_plant(80, HELD_OUT_SEED), 600)


def run(model: Path | bytes, values: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        model if isinstance(model, bytes) else str(model), providers=["CPUExecutionProvider"]
    )
    (output,) = session.run(None, {session.get_inputs()[0].name: values.astype(np.float32)})
    return np.asarray(output)


def test_the_condition_model_is_right_in_more_than_95_percent_of_windows_of_unknown_pumps(
    held_out: train.Recording,
) -> None:
    batch, truth = train.windows(held_out)
    scores = run(train.MODELS / "condition.onnx", batch)
    right = scores.argmax(axis=1) == truth

    assert right.mean() > 0.95
    for kind, label in enumerate(train.LABELS):
        assert right[truth == kind].mean() > 0.9, label
    assert scores.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_the_anomaly_model_is_quiet_about_sound_pumps_and_speaks_up_about_broken_ones(
    held_out: train.Recording,
) -> None:
    scores = run(train.MODELS / "anomaly.onnx", held_out.values.reshape(-1, len(FIELDS)))
    above = (scores > 1.0).reshape(held_out.truth.shape)

    assert above[:, ::FAULT_KINDS].mean() < 0.005
    assert above[held_out.truth != 0].mean() > 0.9


def test_the_shipped_files_are_what_the_script_makes(held_out: train.Recording) -> None:
    network, detector = train.fit()
    batch, _ = train.windows(held_out)
    samples = held_out.values.reshape(-1, len(FIELDS))
    made, shipped = run(train.condition_onnx(network), batch), run(train.MODELS / "condition.onnx", batch)

    assert (made.argmax(axis=1) == shipped.argmax(axis=1)).mean() > 0.99
    assert run(train.anomaly_onnx(detector), samples) == pytest.approx(
        run(train.MODELS / "anomaly.onnx", samples), rel=1e-3
    )


def test_the_shipped_files_stay_small_enough_to_lie_beside_the_source() -> None:
    assert {path.name for path in train.MODELS.glob("*.onnx")} == {"anomaly.onnx", "condition.onnx"}
    assert all(path.stat().st_size < 10_000 for path in train.MODELS.glob("*.onnx"))


def test_the_script_writes_both_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train.main(tmp_path / "models")

    assert {path.name for path in (tmp_path / "models").iterdir()} == {"anomaly.onnx", "condition.onnx"}
    assert "bytes" in capsys.readouterr().out
