"""An Edge TPU in a chain: the twin on the processor serves when it is away, and when it answers nonsense."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.loading import open_model
from edged.infer.parity import parity_inputs
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.coral import LIBRARY, Coral
from edged.ops.clock import SystemClock
from edged.ports import Model
from tests.doubles.libedgetpu import TpuDouble
from tests.unit.infer.coral.rig import AFFINE, compiled, stored
from tests.unit.infer.tflite_models import unary


def chain(path: Path, coral: Coral) -> Serving:
    def find(name: str) -> Runtime:
        return coral if name == "coral" else find_runtime(name)

    spec = ChainSpec("p", path, ("coral:usb", "litert:cpu"), allow_unsigned=True)
    return load_chain(spec, SystemClock(), find=find)


def bundle(folder: Path, twin: Callable[[Path], Path], x: list[float], y: list[float]) -> Path:
    """A slot with both forms and golden vectors."""
    folder.mkdir()
    compiled(folder / "m_edgetpu.tflite")
    twin(folder / "m.tflite")
    vectors: dict[str, Any] = {"in.x": np.array([x], np.float32), "out.y": np.array([y], np.float32)}
    np.savez(folder / "golden.npz", **vectors)
    files = [
        {"path": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role}
        for path, role in (
            (folder / "m_edgetpu.tflite", "model"),
            (folder / "m.tflite", "model"),
            (folder / "golden.npz", "golden"),
        )
        if (data := path.read_bytes())
    ]
    golden = {"file": "golden.npz", "tolerance": 1e-4}
    manifest = {"v": "edged.model/1", "model_id": "m", "version": "1", "files": files, "golden": golden}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def relu(path: Path) -> Path:
    return unary(path, "uint8", builtin=BuiltinOperator.RELU, affine=AFFINE, rows=1)


def test_a_device_that_answers_nonsense_is_found_out_and_the_twin_serves(
    coral: Coral, tpu: TpuDouble, tmp_path: Path
) -> None:
    slot = bundle(tmp_path / "slot", relu, [-1, 0, 1, 2], [0, 0, 1, 2])
    serving = chain(slot, coral)
    assert (serving.rung, [skipped.code for skipped in serving.skipped]) == ("litert:cpu", ["golden_mismatch"])
    tpu.knows([stored([8, 10, 12, 14], [10, 10, 12, 14])])
    serving = chain(slot, coral)
    assert (serving.rung, serving.skipped) == ("coral:usb", ())


def test_without_a_device_the_twin_beside_the_file_serves_and_the_mode_says_so(
    coral: Coral, tpu: TpuDouble, tmp_path: Path
) -> None:
    tpu.become("absent")
    compiled(tmp_path / "m_edgetpu.tflite")
    relu(tmp_path / "m.tflite")
    serving = chain(tmp_path / "m_edgetpu.tflite", coral)
    assert (serving.rung, serving.reason) == ("litert:cpu", "fallback_runtime")
    assert [skipped.code for skipped in serving.skipped] == ["device_unavailable"]


def parrot(shared_data: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    with image.open(shared_data / "coral" / "parrot.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((128, 128), image.Resampling.BILINEAR), np.float32)
    return (pixels[None] - 128) / 128


def answers_of(model: Model, *batches: np.ndarray) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """What the double has to know to compute as the twin does: MobileNet's scales are 1/128 around 128, and 1/256."""
    found = []
    for row in np.concatenate(batches):
        (scores,) = model.infer({"input": row[None]}, deadline_s=10).values()
        pixels = np.clip(np.rint(row * 128) + 128, 0, 255)
        found.append(([pixels.astype(np.uint8)], [np.rint(scores * 256).astype(np.uint8)]))
    return found


def best(serving: Serving, shared_data: Path) -> str:
    assert serving.model is not None
    (scores,) = serving.model.infer({"input": parrot(shared_data)}, deadline_s=10).values()
    return (shared_data / "coral" / "imagenet_labels.txt").read_text().splitlines()[int(scores[0].argmax())].strip()


@pytest.mark.realdata
def test_the_parrot_is_a_macaw_with_the_device_and_without(
    coral: Coral, tpu: TpuDouble, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    tpu.become("absent")
    twin = chain(path, coral)
    assert (twin.rung, best(twin, shared_data)) == ("litert:cpu", "macaw")
    tpu.become("ok")
    assert [skipped.code for skipped in chain(path, coral).skipped] == ["parity_failed"]
    assert twin.model is not None
    tpu.knows(answers_of(twin.model, parity_inputs(twin.model.info.inputs)["input"], parrot(shared_data)))
    serving = chain(path, coral)
    assert (serving.rung, best(serving, shared_data)) == ("coral:usb", "macaw")
    assert serving.model is not None
    assert serving.model.info.placement == (("edgetpu", 1), ("cpu", 0))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "tools/split_concat"])
def test_every_compiled_model_loads_through_the_double_and_is_refused_without_it(
    coral: Coral, shared_data: Path, tmp_path: Path, name: str
) -> None:
    alone = Path(shutil.copy(shared_data / "coral" / f"{name}_edgetpu.tflite", tmp_path))
    file = open_model(alone, allow_unsigned=True)
    model = coral.load(file, "usb", LoadOptions())
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.info.inputs}
    assert model.infer(zeros, deadline_s=5).keys() == {spec.name for spec in model.info.outputs}
    serving = chain(alone, Coral(str(tmp_path / LIBRARY)))
    assert [skipped.code for skipped in serving.skipped] == ["runtime_unavailable", "unsupported"]
