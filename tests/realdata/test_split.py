"""A trained network split between a gateway and a real hub: the stored digits are read as they are by the whole."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.infer.loading import open_model
from edged.infer.registry import find_runtime
from edged.infer.rung import load_rung
from edged.infer.runtime import LoadOptions
from edged.infer.split_file import folder_of
from edged.infer.upstream import UpstreamAddress
from edged.workbench.parity import compare
from edged.workbench.split_cut import Wanted, cut
from edged.workbench.split_survey import Line, survey
from tests.doubles.broker import Mosquitto
from tests.doubles.hub_process import HubProcess
from tests.realdata.conftest import Show
from tests.realdata.test_mnist import LABELLED, STORED, labelled, tensor

pytestmark = pytest.mark.realdata

CUT = "Pooling160_Output_0"


@pytest.fixture(scope="module")
def digits(shared_data: Path) -> np.ndarray[Any, Any]:
    stored = shared_data / "onnx" / "mnist_8"
    images = [tensor(stored / name / "input_0.pb") for name in STORED]
    images += [labelled(stored / f"{name}.npz")[0].reshape(1, 1, 28, 28).astype(np.float32) for name in LABELLED]
    return np.concatenate(images)


@pytest.fixture(scope="module")
def samples(digits: np.ndarray[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits, moved by up to two pixels each way."""
    path = tmp_path_factory.mktemp("samples") / "digits.npz"
    moved = [np.roll(digits, shift, (2, 3)) for shift in product(range(-2, 3), repeat=2)]
    np.savez(path, Input3=np.concatenate(moved))
    return path


def test_digits_split_over_a_real_hub_are_read_as_by_the_whole(
    shared_data: Path, digits: np.ndarray[Any, Any], samples: Path, tmp_path: Path, show: Show
) -> None:
    path = tmp_path / "mnist.onnx"
    path.write_bytes((shared_data / "onnx" / "mnist_8" / "model.onnx").read_bytes())
    made = cut(path, CUT, folder_of(path), samples, coding="u8", wanted=Wanted())
    served = tmp_path / "served"
    served.mkdir()
    (folder_of(path) / "tail.onnx").rename(served / "mnist-tail.onnx")
    model = open_model(path, allow_unsigned=True)
    with Mosquitto(tmp_path) as broker:
        tables = (
            f'[broker]\nurl = "mqtt://127.0.0.1:{broker.port}"\n[inference]\nmodels_dir = {json.dumps(str(served))}\n'
        )
        with HubProcess(tmp_path / "hub", tables) as hub:
            hub.start().healthy()
            address = UpstreamAddress("127.0.0.1", broker.port, "lyon", "gw-01", kbit_s=100_000)
            split = load_rung("split:upstream", model, LoadOptions(upstream=address), find_runtime)
            whole = load_rung("onnxruntime:cpu", model, LoadOptions(), find_runtime)
            wanted = whole.infer({"Input3": digits}, deadline_s=30.0)
            got = split.infer({"Input3": digits}, deadline_s=30.0)
            split.close()
    (found,) = compare(wanted, got)
    closeness = f"{found.sqnr_db:.1f} dB from the whole"
    show(f"MNIST split at {CUT}: {made.cut_bytes:.0f} bytes a digit instead of 3136, {closeness}")
    assert np.array_equal(wanted["Plus214_Output_0"].argmax(axis=1), got["Plus214_Output_0"].argmax(axis=1))
    assert found.sqnr_db > 35
    assert made.cut_bytes < 256


def test_splitting_so_small_a_network_never_pays_and_is_not_recommended(
    shared_data: Path, samples: Path, show: Show
) -> None:
    for line in (Line(), Line(kbit_s=100_000, rtt_ms=1.0, times_faster=100.0)):
        found = survey(shared_data / "onnx" / "mnist_8" / "model.onnx", samples, line)
        show(f"MNIST, {line.kbit_s:g} kbit/s: {found.words}")
        assert found.verdict != "pays"
        assert found.local_ms < 5
