"""At the start the first runtime that can serve serves; a bad model is an answer, never an exception."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.chain import ChainSpec, load_chain
from edged.infer.registry import BUILT_IN, find_runtime
from edged.infer.runtime import LoadOptions
from edged.messages import TensorSpec
from edged.ops.clock import SystemClock
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel, loaders
from tests.unit.infer.models import sum_model
from tests.unit.infer.tflite_models import sum_tflite

CHAIN = ("good:cpu", "spare:cpu", "rules")


@pytest.fixture
def spec(tmp_path: Path) -> ChainSpec:
    return ChainSpec("pump", sum_model(tmp_path / "m.onnx"), CHAIN, allow_unsigned=True)


def test_the_first_runtime_serves_when_nothing_is_wrong(spec: ChainSpec) -> None:
    model = StandInModel()
    serving = load_chain(spec, FakeClock(), find=loaders(good=model))
    assert (serving.rung, serving.skipped, serving.reason, serving.detail) == ("good:cpu", (), None, "")
    assert serving.model is not None
    assert serving.model.info is model.info


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (ModelError("unsupported", "old opset"), "unsupported"),
        (ZeroDivisionError("a plug-in's bug"), "load_failed"),
        (StandInModel(script=[InferenceError("infer_failed", "scripted")]), "warmup_failed"),
        (StandInModel(script=[lambda batch: {"y": np.array([np.nan])}]), "not_finite"),
        (StandInModel(inputs=(TensorSpec("x", "float32", ()),)), "incompatible"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_a_runtime_that_fails_is_skipped_with_its_reason_and_the_next_serves(
    spec: ChainSpec, bad: StandInModel | Exception, code: str
) -> None:
    spare = StandInModel()
    serving = load_chain(spec, FakeClock(), find=loaders(good=bad, spare=spare))
    assert (serving.rung, serving.reason) == ("spare:cpu", "fallback_runtime")
    assert serving.model is not None
    assert serving.model.info is spare.info
    assert [(skipped.rung, skipped.code) for skipped in serving.skipped] == [("good:cpu", code)]
    assert code in serving.detail
    if isinstance(bad, StandInModel):
        assert bad.closed.is_set(), "a model that does not serve must not keep its memory"


def test_when_no_runtime_can_serve_every_reason_is_told(spec: ChainSpec) -> None:
    serving = load_chain(spec, FakeClock(), find=loaders())
    assert (serving.model, serving.rung, serving.reason) == (None, "", "model_unusable")
    assert [skipped.code for skipped in serving.skipped] == ["runtime_unknown", "runtime_unknown"]


def test_a_missing_model_file_is_the_reason_of_every_runtime(spec: ChainSpec, tmp_path: Path) -> None:
    gone = spec._replace(location=tmp_path / "gone.onnx")
    serving = load_chain(gone, FakeClock(), find=loaders(good=StandInModel()))
    assert [skipped.code for skipped in serving.skipped] == ["missing", "missing"]
    assert serving.reason == "model_unusable"


def test_rules_as_the_first_choice_are_no_fallback(spec: ChainSpec, tmp_path: Path) -> None:
    serving = load_chain(spec._replace(chain=("rules",), location=tmp_path / "none.onnx"), FakeClock())
    assert (serving.model, serving.rung, serving.reason) == (None, "", None)


def test_the_real_runtime_serves_and_is_measured(spec: ChainSpec) -> None:
    serving = load_chain(spec._replace(chain=("litert:cpu", "onnxruntime:cpu"), version="7"), SystemClock())
    assert serving.rung == "onnxruntime:cpu"
    assert [skipped.code for skipped in serving.skipped] == ["incompatible"]
    assert serving.model is not None
    assert serving.model.info.version == "7"
    assert serving.cost.batch_us(32) > 0


def test_three_runtimes_of_three_vendors_stand_in_for_one_another(spec: ChainSpec, tmp_path: Path) -> None:
    batch = {"x": np.arange(12, dtype=np.float32).reshape(3, 4)}
    answers = []
    for location, chain, rung, skipped in (
        (spec.location, ("openvino:cpu", "onnxruntime:cpu"), "openvino:cpu", []),
        (spec.location, ("openvino:npu", "onnxruntime:cpu"), "onnxruntime:cpu", ["device_unavailable"]),
        (spec.location, ("litert:cpu", "openvino:gpu", "openvino:cpu"), "openvino:cpu",
         ["incompatible", "device_unavailable"]),
        (sum_tflite(tmp_path / "m.tflite"), ("onnxruntime:cpu", "litert:cpu"), "litert:cpu", ["incompatible"]),
    ):  # fmt: skip
        serving = load_chain(spec._replace(location=location, chain=chain), SystemClock())
        assert (serving.rung, [each.code for each in serving.skipped]) == (rung, skipped)
        assert serving.reason == ("fallback_runtime" if skipped else None)
        assert serving.model is not None
        assert serving.model.info.runtime == rung
        answers.append(serving.model.infer(batch, deadline_s=1)["y"].tolist())
    assert answers == [[6.0, 22.0, 38.0]] * 4


def test_a_bundle_whose_golden_vectors_disagree_does_not_serve(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    folder.mkdir()
    sum_model(folder / "m.onnx")
    x = np.ones((2, 4), np.float32)
    entries: list[dict[str, Any]] = []
    arrays: dict[str, Any] = {"in.x": x, "out.y": x.sum(axis=1) + 1}
    np.savez(folder / "golden.npz", **arrays)
    for name, role in (("m.onnx", "model"), ("golden.npz", "golden")):
        data = (folder / name).read_bytes()
        entries.append({"path": name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role})
    manifest: dict[str, Any] = {"v": "edged.model/1", "model_id": "sum", "version": "1", "files": entries}
    manifest["golden"] = {"file": "golden.npz", "tolerance": 1e-5}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    serving = load_chain(ChainSpec("p", folder, ("onnxruntime:cpu",), allow_unsigned=True), SystemClock())
    assert [skipped.code for skipped in serving.skipped] == ["golden_mismatch"]


def test_a_signed_slot_is_not_loaded_as_long_as_nobody_checks_signatures(spec: ChainSpec) -> None:
    serving = load_chain(spec._replace(allow_unsigned=False), FakeClock(), find=loaders(good=StandInModel()))
    assert {skipped.code for skipped in serving.skipped} == {"unsigned"}


# --- registry ---


def test_every_built_in_runtime_can_be_found() -> None:
    assert all(find_runtime(name).name == name for name in BUILT_IN)


def test_a_runtime_nobody_knows_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        find_runtime("abacus")
    assert caught.value.code == "runtime_unknown"
    assert "abacus" in str(caught.value)


def _run(code: str, folder: Path) -> str:
    """Output of Python code in a process of its own, with `folder` first on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


def test_naming_no_runtime_imports_none(tmp_path: Path) -> None:
    code = "import sys, edged.infer.chain; print([m for m in sys.modules if m.startswith('onnxruntime')])"
    assert _run(code, tmp_path) == "[]"


def test_a_runtime_whose_package_does_not_import_is_unavailable_with_its_cure(tmp_path: Path) -> None:
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libstdc++ is too old')\n")
    code = (
        "from edged.infer.registry import find_runtime\n"
        "from edged.errors import ModelError\n"
        "try: find_runtime('onnxruntime')\n"
        "except ModelError as e: print(e.code, '|', e)\n"
    )
    said = _run(code, tmp_path)
    assert said.startswith("runtime_unavailable |")
    assert "libstdc++ is too old" in said
    assert "pip install 'edged[cpu]'" in said


@pytest.mark.parametrize("package", ["openvino", "ai_edge_litert"])
def test_a_chain_goes_on_with_what_is_installed(tmp_path: Path, package: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(f"raise ImportError('no {package} here')\n")
    rung = "openvino:cpu" if package == "openvino" else "litert:cpu"
    code = (
        "from pathlib import Path\n"
        "from edged.infer.chain import ChainSpec, load_chain\n"
        "from edged.ops.clock import SystemClock\n"
        f"spec = ChainSpec('p', Path({str(sum_model(tmp_path / 'm.onnx'))!r}), ({rung!r}, 'onnxruntime:cpu'),"
        " allow_unsigned=True)\n"
        "serving = load_chain(spec, SystemClock())\n"
        "print(serving.rung, serving.reason, serving.detail)"
    )
    said = _run(code, tmp_path)
    assert said.startswith(f"onnxruntime:cpu fallback_runtime {rung}: runtime_unavailable: ")
    assert f"no {package} here" in said


def test_a_runtime_of_another_package_is_found_by_its_entry_point(tmp_path: Path) -> None:
    (tmp_path / "abacus.py").write_text("def load(model, device, options): return ('abacus', device)\n")
    info = tmp_path / "abacus-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: abacus\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[edged.runtimes]\nabacus = abacus:load\n")
    code = (
        "from edged.infer.registry import find_runtime\n"
        "from edged.infer.runtime import LoadOptions\n"
        "print(find_runtime('abacus').load(None, 'beads', LoadOptions()))"
    )
    assert _run(code, tmp_path) == "('abacus', 'beads')"


def test_load_options_default_to_one_thread() -> None:
    assert LoadOptions().threads == 1
