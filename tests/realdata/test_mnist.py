"""A trained network with stored vectors through broker and daemon: digits travel as 784 numbers in one event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from tests.realdata.conftest import Show
from tests.realdata.replay import Plant, Result, by_seq, deviation, plant, table

pytestmark = pytest.mark.realdata

LAYOUT = 'layout = "batch,1,28,28"'
CLASSES = '{ kind = "classification", labels = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"] }'
STORED = ("test_data_set_0", "test_data_set_1")
LABELLED = ("labelled_digit_0", "labelled_digit_1")


class Replayed(NamedTuple):
    """logits, digits: what the two pipelines over the same events answered, by seq."""

    plant: Plant
    folder: Path
    logits: dict[int, Result]
    digits: dict[int, Result]


def tensor(path: Path) -> np.ndarray[Any, Any]:
    return np.asarray(numpy_helper.to_array(onnx.TensorProto.FromString(path.read_bytes())))


def labelled(path: Path) -> tuple[np.ndarray[Any, Any], int]:
    """Pixels and the digit they show."""
    arrays = list(np.load(path).values())
    pixels, label = sorted(arrays, key=lambda array: -array.size)
    return pixels, int(label.argmax())


@pytest.fixture(scope="module")
def replayed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    folder, stored = tmp_path_factory.mktemp("mnist"), shared_data / "onnx" / "mnist_8"
    images = [tensor(stored / name / "input_0.pb") for name in STORED]
    images += [labelled(stored / f"{name}.npz")[0] for name in LABELLED]
    messages = [
        ("camera/one", json.dumps({"ts": seq, "seq": seq, "image": image.ravel().tolist()}).encode())
        for seq, image in enumerate(images)
    ]
    model = stored / "model.onnx"
    tables = [
        table("logits", "camera/+", model, '{ kind = "tensor" }', fields=["image"], more=LAYOUT),
        table("digits", "camera/+", model, CLASSES, fields=["image"], more=LAYOUT),
    ]
    with plant(folder, *tables) as running:
        results = running.replay(messages, 2 * len(messages))
        yield Replayed(
            running,
            stored,
            by_seq(result for result in results if result["pipeline"] == "logits"),
            by_seq(result for result in results if result["pipeline"] == "digits"),
        )


def test_stored_inputs_give_the_stored_outputs(replayed: Replayed, show: Show) -> None:
    for seq, name in enumerate(STORED):
        expected = tensor(replayed.folder / name / "output_0.pb").ravel()
        (answered,) = replayed.logits[seq]["values"].values()
        largest = deviation(answered, expected)
        show(f"MNIST {name}: 10 logits from the daemon, largest relative deviation from stored {largest:.1e}")
        assert largest <= 1e-4  # logits of up to 5000 in float32
        assert replayed.digits[seq]["label"] == str(int(expected.argmax()))
        assert replayed.digits[seq]["score"] == pytest.approx(float(expected.max()), rel=1e-4)
    replayed.plant.quiet()


def test_labelled_digits_are_read_as_five_and_zero(replayed: Replayed, show: Show) -> None:
    expected = [str(labelled(replayed.folder / f"{name}.npz")[1]) for name in LABELLED]
    answered = [replayed.digits[seq]["label"] for seq in range(len(STORED), len(STORED) + len(LABELLED))]
    show(f"MNIST labelled digits {', '.join(expected)} read as {', '.join(answered)}")
    assert answered == expected == ["5", "0"]
