"""What a file declares is read without running it; what keeps it from running elsewhere is named."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from edged.workbench import rungs
from edged.workbench.onnx_model import Facts, Tensor, find_problems, first_line, nodes, parse, read_facts
from edged.workbench.refusal import Unfit
from tests.unit.workbench.conftest import Bench

PLAIN = Facts(
    "onnx", 1000, 9, 17, "", (Tensor("x", "float32", (-1, 4)),), (Tensor("y", "float32", (-1, 2)),), {}, 10, False, {}
)


def codes(facts: Facts, *, max_bytes: int = 10_000, fatal: bool = True) -> list[str]:
    return [found.code for found in find_problems(facts, max_bytes=max_bytes) if found.fatal is fatal]


def refused(path: Path) -> str:
    with pytest.raises(Unfit) as error:
        parse(rungs.open_file(path))
    return error.value.code


def test_facts_are_those_of_the_graph(bench: Bench) -> None:
    facts = read_facts(rungs.open_file(bench.model))
    assert (facts.opset, facts.ir_version, facts.quantized) == (17, 8, False)
    assert facts.operators == {"Gemm": 2, "Relu": 1}
    assert facts.inputs == (Tensor("x", "float32", (-1, 16)),)
    assert facts.parameters == 16 * 96 + 96 + 96 * 8 + 8
    assert codes(facts, max_bytes=facts.size_bytes) == []


def test_a_format_that_is_not_onnx_has_a_size_and_nothing_more(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    facts = read_facts(rungs.open_file(path))
    assert (facts.format, facts.opset) == ("tflite", 0)
    assert codes(facts, max_bytes=50) == ["too_large"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"size_bytes": 10_001}, "too_large"),
        ({"opset": 6}, "old_opset"),
        ({"operators": {"Conv": 1, "com.acme::Fast": 1}}, "custom_operators"),
        ({"inputs": (Tensor("x", "object", (-1, 4)),)}, "unsupported_dtype"),
        ({"inputs": (Tensor("x", "sequence_type", None),)}, "unsupported_dtype"),
        ({"outputs": (Tensor("y", "float32", ()),)}, "no_batch_axis"),
    ],
)
def test_what_keeps_a_model_from_running_is_fatal(change: dict[str, object], code: str) -> None:
    assert codes(PLAIN._replace(**change)) == [code]  # type: ignore[arg-type]


def test_what_is_only_unusual_is_said() -> None:
    assert codes(PLAIN._replace(inputs=(Tensor("x", "float32", (-1, -1)),)), fatal=False) == ["free_axes"]
    assert codes(PLAIN._replace(outputs=(Tensor("y", "float32", None),)), fatal=False) == ["unknown_shape"]
    assert codes(PLAIN._replace(operators={"ai.onnx.ml::Scaler": 1})) == []


def test_bytes_that_are_no_graph_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\x08\x07\x12" + b"\xff" * 40)
    assert refused(path) == "corrupt"
    path.write_bytes(onnx.ModelProto(ir_version=9).SerializeToString())
    assert refused(path) == "corrupt"


def test_a_graph_that_breaks_the_rules_is_refused(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Relu", ["nowhere"], ["y"])], "g", [], [value])
    path = tmp_path / "m.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    assert refused(path) == "invalid_graph"


def test_operators_in_branches_count() -> None:
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "branch", [], [value])
    outer = helper.make_graph(
        [helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)], "outer", [], [value]
    )
    assert sorted(node.op_type for node in nodes(outer)) == ["If", "Relu", "Relu"]


def test_what_libraries_say_is_shortened_and_loses_its_paths() -> None:
    assert first_line(ValueError("bad node at /build/onnx/checker.cc:12\nand more")) == "bad node at checker.cc:12"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line("x" * 1000)) == 300
