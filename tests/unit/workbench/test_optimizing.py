"""The optimiser makes what it says, writes all or nothing, and never over what it reads."""

from __future__ import annotations

import hashlib
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.workbench import optimizing, quantizing
from edged.workbench.hardware import find_target
from edged.workbench.optimizing import Optimized, document, optimize
from edged.workbench.parity import compare
from edged.workbench.refusal import Unfit
from tests.unit.infer import models
from tests.unit.workbench.conftest import Bench, classifier, cluster_samples, nodes_of


def refused(model: Path, calibration: Path, to: Path, *, target: str | None = None) -> str:
    with pytest.raises(Unfit) as error:
        optimize(model, calibration, to, precision="int8", target=find_target(target))
    return error.value.code


def constants(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(str(path)).graph.initializer}


def accuracy(path: Path, bench: Bench) -> float:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (answers,) = session.run(None, {"x": bench.samples})
    return float((answers.argmax(axis=1) == bench.labels).mean())


def test_the_portable_form_is_signed_symmetric_and_per_channel(portable: Optimized) -> None:
    weights = constants(portable.result.path)
    steps = [node for node in nodes_of(portable.result.path) if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert steps
    for node in steps:
        zero = weights[node.input[2]]
        assert zero.dtype == np.int8
        assert not zero.any()
    scales = [weights[node.input[1]] for node in steps if node.input[0] in weights]
    assert sorted(scale.size for scale in scales) == [8, 96]  # one per output of each layer


def test_the_form_for_processors_folds_the_relu_in(for_cpu: Optimized, portable: Optimized) -> None:
    assert "Relu" in portable.after.operators
    assert "Relu" not in for_cpu.after.operators
    weights = constants(for_cpu.result.path)
    zeros = {weights[node.input[2]].dtype for node in nodes_of(for_cpu.result.path) if node.op_type == "QuantizeLinear"}
    assert zeros == {np.dtype(np.uint8)}


def test_quantised_models_keep_what_the_original_knows(portable: Optimized, for_cpu: Optimized, bench: Bench) -> None:
    original = accuracy(bench.model, bench)
    assert original > 0.9
    assert accuracy(portable.result.path, bench) >= original - 0.01
    assert accuracy(for_cpu.result.path, bench) >= original - 0.01


def test_the_result_says_where_it_comes_from(portable: Optimized) -> None:
    said = portable.after.metadata
    assert said["edged.source_sha256"] == portable.source.sha256
    assert said["edged.calibration_sha256"] == portable.data.sha256
    assert (said["edged.precision"], said["edged.form"]) == ("int8", "portable")
    low, high = (float(part) for part in said["edged.input_range.x"].split())
    assert low < 0 < high


def test_the_document_has_every_figure_and_no_verdict(portable: Optimized) -> None:
    facts = document(portable)
    assert facts["v"] == "edged.optimization/1"
    assert facts["result"]["sha256"] == portable.result.sha256
    assert facts["parity"][0]["sqnr_db"] > 20
    assert facts["layers"]
    assert facts["cpu_ms"]["before"] > 0
    assert facts["verified"] is False


def test_fp16_keeps_float_inputs_and_outputs(bench: Bench, tmp_path: Path) -> None:
    made = optimize(
        bench.model, bench.calibration, tmp_path / "half.onnx", precision="fp16", target=find_target("jetson-vision")
    )
    assert {tensor.dtype for tensor in (*made.after.inputs, *made.after.outputs)} == {"float32"}
    assert {array.dtype for array in constants(made.result.path).values()} == {np.dtype(np.float16)}
    assert made.parity[0].sqnr_db > 40


def test_numbers_that_do_not_fit_float16_are_refused(tmp_path: Path) -> None:
    weights = numpy_helper.from_array(np.full((4, 2), 60_000.0, np.float32), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 4])}, {"y": (TensorProto.FLOAT, ["n", 2])}
    model = models.save(tmp_path / "big.onnx", nodes, inputs, outputs, initializer=[weights])
    np.savez(tmp_path / "c.npz", x=cluster_samples(40, 9)[0][:, :4] * 9)
    with pytest.raises(Unfit) as error:
        optimize(model, tmp_path / "c.npz", tmp_path / "o.onnx", precision="fp16", target=find_target(None))
    assert error.value.code == "fp16_overflow"
    assert not (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("batch", [1, 4])
def test_a_model_with_a_fixed_batch_stays_one(batch: int, bench: Bench, tmp_path: Path) -> None:
    model = classifier(tmp_path / "fixed.onnx", batch=batch)
    made = optimize(model, bench.calibration, tmp_path / "o.onnx", precision="int8", target=find_target("cpu"))
    assert made.after.inputs[0].shape == (batch, 16)
    assert made.parity[0].sqnr_db > 20


def test_an_old_opset_is_raised(bench: Bench, tmp_path: Path) -> None:
    made = optimize(
        classifier(tmp_path / "old.onnx", opset=11),
        bench.calibration,
        tmp_path / "o.onnx",
        precision="int8",
        target=find_target(None),
    )
    assert (made.before.opset, made.after.opset) == (11, 17)


def test_the_input_is_never_written_over(bench: Bench, tmp_path: Path) -> None:
    before = bench.model.read_bytes()
    (tmp_path / "link.onnx").symlink_to(bench.model)
    (tmp_path / "hard.onnx").hardlink_to(bench.model)
    for to in (bench.model, tmp_path / "link.onnx", tmp_path / "hard.onnx"):
        assert refused(bench.model, bench.calibration, to) == "over_input"
    assert bench.model.read_bytes() == before


def test_a_destination_that_cannot_be_is_refused_at_once(bench: Bench, tmp_path: Path) -> None:
    assert refused(bench.model, bench.calibration, tmp_path / "o.bin") == "wrong_format"
    assert refused(bench.model, bench.calibration, tmp_path / "nowhere" / "o.onnx") == "no_folder"
    (tmp_path / "folder.onnx").mkdir()
    assert refused(bench.model, bench.calibration, tmp_path / "folder.onnx") == "over_input"


def test_useless_samples_leave_nothing_behind(bench: Bench, tmp_path: Path) -> None:
    np.savez(tmp_path / "zero.npz", x=np.zeros((1, 16), np.float32))
    out = tmp_path / "o.onnx"
    out.write_bytes(b"what was there")
    assert refused(bench.model, tmp_path / "zero.npz", out) == "calibration_too_few"
    np.savez(tmp_path / "zero.npz", x=np.zeros((200, 16), np.float32))
    assert refused(bench.model, tmp_path / "zero.npz", out) == "calibration_all_zero"
    assert out.read_bytes() == b"what was there"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.onnx", "zero.npz"]


def test_a_result_replaces_another_file_as_a_whole(bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    out.write_bytes(b"an older result")
    made = optimize(bench.model, bench.calibration, out, precision="int8", target=find_target("cpu"))
    assert hashlib.sha256(out.read_bytes()).hexdigest() == made.result.sha256
    assert [path.name for path in tmp_path.iterdir()] == ["o.onnx"]


def test_models_that_cannot_be_quantised_are_refused(portable: Optimized, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    assert refused(portable.result.path, bench.calibration, out) == "already_quantized"
    assert refused(models.unary(tmp_path / "s.onnx", "Sin"), _four(tmp_path), out) == "nothing_to_quantize"
    custom = models.unary(tmp_path / "c.onnx", "Fast", domain="com.acme")
    assert refused(custom, _four(tmp_path), out) == "custom_operators"
    tflite = tmp_path / "m.tflite"
    tflite.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    assert refused(tflite, bench.calibration, out) == "not_onnx"
    assert refused(models.unary(tmp_path / "log.onnx", "Log"), _four(tmp_path), out) == "not_finite"
    assert not out.exists()


def _four(folder: Path) -> Path:
    np.savez(folder / "four.npz", x=cluster_samples(40, 9)[0][:, :4])
    return folder / "four.npz"


def test_a_class_whose_runtimes_read_no_onnx_is_refused(bench: Bench, tmp_path: Path) -> None:
    assert refused(bench.model, bench.calibration, tmp_path / "o.onnx", target="coral-usb") == "class_reads_no_onnx"
    assert refused(bench.model, bench.calibration, tmp_path / "o.onnx", target="toaster") == "class_unknown"


@pytest.mark.parametrize(("name", "form"), [(None, "portable"), ("cpu", "cpu"), ("factory-gateway-gpu", "portable")])
def test_the_class_decides_the_form(name: str | None, form: str) -> None:
    assert find_target(name).form == form


def test_answers_far_from_the_original_are_refused() -> None:
    parity = compare({"y": np.ones((4, 4))}, {"y": np.zeros((4, 4))})
    with pytest.raises(Unfit, match="far_apart"):
        optimizing._refuse_apart(parity)


def test_the_tools_leave_no_trace_in_the_process(portable: Optimized, bench: Bench, tmp_path: Path) -> None:
    before = list(sys.path), list(logging.root.handlers), logging.root.manager.disable
    quantizing.to_fp16(bench.model, tmp_path / "half.onnx")
    assert (list(sys.path), list(logging.root.handlers), logging.root.manager.disable) == before


def test_what_the_tools_raise_becomes_a_refusal(bench: Bench, tmp_path: Path) -> None:
    inputs: dict[str, Any] = {"wrong": np.ones((20, 16), np.float32)}
    with pytest.raises(Unfit) as error:
        quantizing.to_int8(bench.model, inputs, tmp_path / "o.onnx", form="portable", batch=1)
    assert error.value.code == "cannot_quantize"


def test_a_class_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / "odd.toml").write_text("limits = [")
    with pytest.raises(Unfit, match="class_unreadable"):
        find_target("odd", (tmp_path,))


def test_an_operator_that_cannot_be_raised_to_a_current_opset_is_refused(tmp_path: Path) -> None:
    model = models.unary(tmp_path / "m.onnx", "Nonesuch", opset=9)
    with pytest.raises(Unfit, match="old_opset"):
        quantizing.clean(onnx.load(str(model)), tmp_path)
