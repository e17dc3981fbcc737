"""Where models can be cut, whether that pays, and halves that answer as the whole."""

from __future__ import annotations

import json
from contextlib import chdir
from itertools import pairwise
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edged.errors import ExitCode, ModelError
from edged.infer.loading import open_model
from edged.infer.split_file import Plan, folder_of, read_plan
from edged.workbench.refusal import Unfit
from edged.workbench.split_cut import Wanted, cut
from edged.workbench.split_graph import CutPoint, Node, cut_points
from edged.workbench.split_report import render
from edged.workbench.split_survey import Line, Measured, Size, Survey, document, survey
from tests.doubles import split_models
from tests.doubles.split_models import CUT, SplitModels
from tests.unit.workbench.conftest import Edged


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SplitModels:
    return split_models.make(tmp_path_factory.mktemp("models"))


def node(kind: str, inputs: str, outputs: str) -> Node:
    return Node(kind, tuple(inputs.split()), tuple(outputs.split()))


# --- cut points -------------------------------------------------------------------------------------------------


def test_a_straight_line_can_be_cut_between_any_two_operators() -> None:
    nodes = [node("Conv", "x w", "a"), node("Relu", "a", "b"), node("Gemm", "b v", "y")]

    assert cut_points(nodes, ["x"], ["y"]) == (CutPoint("a", "Conv", 1, 3), CutPoint("b", "Relu", 2, 3))


def test_beside_a_shortcut_there_is_no_cut() -> None:
    nodes = [node("Conv", "x", "a"), node("Conv", "a", "b"), node("Add", "a b", "c"), node("Relu", "c", "y")]

    assert [point.tensor for point in cut_points(nodes, ["x"], ["y"])] == ["a", "c"]


def test_constants_and_dead_ends_are_not_in_the_way() -> None:
    nodes = [
        node("Shape", "w", "shape"), node("Conv", "x w", "a"), node("Size", "a", "unused"),
        node("Reshape", "a shape", "b"), node("Relu", "b", "y"),
    ]  # fmt: skip

    found = cut_points(nodes, ["x"], ["y"])

    assert [point.tensor for point in found] == ["a", "b"]
    assert found[-1].total == 3


def test_an_output_in_the_middle_two_inputs_and_one_operator() -> None:
    early = [node("Conv", "x", "y"), node("Relu", "y", "a"), node("Relu", "a", "z")]
    two = [node("Add", "x1 x2", "a"), node("Relu", "a", "y")]
    late = [node("Conv", "x1", "a"), node("Relu", "a", "b"), node("Add", "b x2", "y")]

    assert cut_points(early, ["x"], ["y", "z"]) == ()
    assert [point.tensor for point in cut_points(two, ["x1", "x2"], ["y"])] == ["a"]
    assert cut_points(late, ["x1", "x2"], ["y"]) == ()
    assert cut_points([node("Relu", "x", "y")], ["x"], ["y"]) == ()


# --- the survey -------------------------------------------------------------------------------------------------


def test_the_survey_measures_every_cut_with_real_samples(models: SplitModels) -> None:
    found = survey(models.model.path, models.data, Line())

    assert [each.point.tensor for each in found.points] == ["convolved", "lit", CUT, "flat"]
    pooled = found.points[2]
    assert (pooled.shape, pooled.size.plain_bytes, pooled.size.u8_bytes) == ((1, 4, 5, 5), 400, 100)
    assert 0 < pooled.size.sent_bytes <= 100
    assert found.input_size.plain_bytes == 576
    assert all(each.head_ms > 0 and each.head_bytes > 0 for each in found.points)
    assert found.samples == 16
    facts = document(found)
    assert (facts["v"], facts["verdict"], len(facts["points"])) == ("edged.split-report/1", found.verdict, 4)
    json.dumps(facts, allow_nan=False)


def test_without_samples_nothing_is_deflated(models: SplitModels) -> None:
    found = survey(models.model.path, None, Line())

    assert (found.samples, found.points[2].size.sent_bytes) == (0, 100.0)
    assert "nothing is deflated here" in render(found)


def measured(tensor: str, total_ms: float, head_ms: float = 1.0, head_bytes: int = 100) -> Measured:
    size = Size(4000, 1000, 500.0)
    return Measured(CutPoint(tensor, "Relu", 1, 2), "float32", (1, 1000), size, head_bytes, head_ms, total_ms)


@pytest.mark.parametrize(
    ("points", "local_ms", "remote_ms", "verdict", "best", "words"),
    [
        ((measured("a", 30), measured("b", 20)), 100.0, 80.0, "pays", "b", "It pays"),
        ((measured("a", 30), measured("b", 20, 9.0)), 10.0, 80.0, "pays_if_whole_does_not_fit", "a", "does not fit"),
        ((measured("a", 30), measured("b", 20, 9.0)), 10.0, 25.0, "never", "b", "nearly the whole"),
        ((measured("a", 90), measured("b", 95)), 10.0, 80.0, "never", "a", "run it whole here"),
        ((measured("a", 90), measured("b", 95)), 200.0, 80.0, "never", "a", "send the input"),
        ((), 10.0, 80.0, "never", None, "cannot be split"),
    ],
)
def test_the_verdict_says_openly_when_it_does_not_pay(
    models: SplitModels,
    points: tuple[Measured, ...],
    local_ms: float,
    remote_ms: float,
    verdict: str,
    best: str | None,
    words: str,
) -> None:
    file = models.model._replace(size_bytes=1000)
    found = Survey(file, Line(), 16, Size(4000, 1000, 900.0), local_ms, remote_ms, points, 3, ("a note",))

    assert found.verdict == verdict
    assert (None if found.best is None else found.best.point.tensor) == best
    assert words in found.words
    page = render(found)
    assert "a note" in page
    assert "3 more cut points" in page


def test_the_line_decides_between_staying_and_sending() -> None:
    line = Line(kbit_s=8.0, rtt_ms=100.0)

    assert line.carry_ms(400) == 100 + 1000


# --- the cut ----------------------------------------------------------------------------------------------------


def test_the_halves_answer_as_the_whole_and_bear_its_digest(models: SplitModels) -> None:
    plan = read_plan(models.model)

    assert plan == models.split.plan
    assert plan.whole.sha256 == models.model.sha256
    assert (plan.cut.name, plan.cut.coding, plan.cut.zero_point) == (CUT, "u8", 0)
    assert (plan.inputs[0].shape, plan.outputs[0].shape) == ((-1, 1, 12, 12), (-1, 5))
    assert models.split.agreement == 1.0
    assert models.split.exact[0].sqnr_db > 60
    assert 25 < models.split.coded[0].sqnr_db < 100
    assert plan.verified["calls"] == 60


def test_a_model_with_a_fixed_batch_is_cut_too(tmp_path: Path) -> None:
    made = split_models.make(tmp_path / "m", batch=4)

    assert made.split.plan.cut.shape == (4, 4, 5, 5)
    assert made.split.samples == 15
    assert [each.shape[0] for each in survey(made.model.path, made.data, Line()).points] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"tensor": "nowhere"}, "no_cut_point"),
        ({"data": None}, "samples_needed"),
        ({"few": True}, "too_few_samples"),
        ({"wanted": Wanted(min_sqnr_db=150.0)}, "sqnr_low"),
        ({"wanted": Wanted(min_agreement=1.01)}, "labels_differ"),
    ],
)
def test_nothing_is_written_when_the_halves_are_not_good_enough(
    models: SplitModels, tmp_path: Path, change: dict[str, object], code: str
) -> None:
    data: Path | None = models.data
    if "data" in change:
        data = None
    if change.get("few"):
        data = tmp_path / "few.npz"
        np.savez(data, x=models.samples[:3])
    wanted = change.get("wanted", Wanted())
    assert isinstance(wanted, Wanted)

    with pytest.raises(Unfit) as refused:
        cut(models.model.path, str(change.get("tensor", CUT)), tmp_path / "out", data, coding="u8", wanted=wanted)

    assert refused.value.code == code
    assert not (tmp_path / "out").exists()


def test_plain_halves_need_no_samples_and_are_exact(models: SplitModels, tmp_path: Path) -> None:
    made = cut(models.model.path, CUT, tmp_path / "out", None, coding="plain", wanted=Wanted(min_sqnr_db=60.0))

    assert (made.plan.cut.coding, made.plan.cut.range) == ("plain", None)
    assert made.plan.verified["data_sha256"] is None


def model_of(path: Path, nodes: list[onnx.NodeProto], kind: int = TensorProto.FLOAT, **weights: np.ndarray) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", kind, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_what_is_no_number_cannot_be_coded(tmp_path: Path) -> None:
    path = model_of(
        tmp_path / "m.onnx",
        [helper.make_node("Div", ["x", "zero"], ["a"]), helper.make_node("IsInf", ["a"], ["b"]),
         helper.make_node("Cast", ["b"], ["y"], to=TensorProto.FLOAT)],
        zero=np.zeros(4, np.float32),
    )  # fmt: skip
    data = tmp_path / "d.npz"
    np.savez(data, x=np.ones((12, 4), np.float32))

    with pytest.raises(Unfit) as refused:
        cut(path, "a", tmp_path / "out", data, coding="u8", wanted=Wanted())

    assert refused.value.code == "not_finite"
    found = {each.point.tensor: each.size for each in survey(path, data, Line()).points}
    assert found["a"].u8_bytes == found["a"].plain_bytes
    assert cut(path, "b", tmp_path / "out", data, coding="u8", wanted=Wanted()).plan.cut.coding == "plain"


def test_a_branch_that_reads_across_the_cut_is_not_cut_through(tmp_path: Path) -> None:
    """`If` reads `x` from inside: what looks like a cut behind it is one, what is before it is not."""
    inner = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["inside"])], "then", [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, None)],
    )  # fmt: skip
    path = model_of(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["a"]),
         helper.make_node("ReduceSum", ["a"], ["sum"], keepdims=0),
         helper.make_node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
         helper.make_node("If", ["flag"], ["b"], then_branch=inner, else_branch=inner),
         helper.make_node("Relu", ["b"], ["y"])],
    )  # fmt: skip

    found = survey(path, None, Line())

    assert {each.point.tensor for each in found.points} <= {"b"}


def test_a_branch_that_reads_what_the_head_would_leave_out_is_told_and_not_cut(tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("Add", ["k", "k"], ["inside"])], "then", [],
        [helper.make_tensor_value_info("inside", TensorProto.FLOAT, ["n", 4])],
    )  # fmt: skip
    path = model_of(
        tmp_path / "m.onnx",
        [helper.make_node("Relu", ["x"], ["k"]),
         helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
         helper.make_node("Cast", ["sum"], ["flag"], to=TensorProto.BOOL),
         helper.make_node("If", ["flag"], ["b"], then_branch=inner, else_branch=inner),
         helper.make_node("Relu", ["b"], ["y"])],
    )  # fmt: skip

    found = survey(path, None, Line())

    assert found.points == ()
    assert "cut_through" in found.notes[0]
    assert found.words.startswith("It cannot be split")
    with pytest.raises(Unfit) as refused:
        cut(path, "b", tmp_path / "out", None, coding="plain", wanted=Wanted())
    assert refused.value.code == "cut_through"


def test_long_models_are_measured_evenly_and_texts_are_no_cut(tmp_path: Path) -> None:
    names = ["x", *(f"t{at}" for at in range(70)), "y"]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    nodes[3] = helper.make_node("Cast", ["t2"], ["t3"], to=TensorProto.STRING)
    nodes[4] = helper.make_node("Cast", ["t3"], ["t4"], to=TensorProto.FLOAT)
    found = survey(model_of(tmp_path / "m.onnx", nodes), None, Line(), cpu_ns=iter(range(0, 10**15, 10**8)).__next__)

    assert (found.left_out, len(found.points), found.notes) == (5, 64, ())
    assert "t3" not in {each.point.tensor for each in found.points}
    assert {found.points[0].point.tensor, found.points[-1].point.tensor} == {"t0", "t69"}


def test_fewer_samples_than_a_call_takes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    split_models.write_model(path, batch=4)
    np.savez(tmp_path / "few.npz", x=split_models.samples_of(3))

    with pytest.raises(Unfit) as refused:
        survey(path, tmp_path / "few.npz", Line())

    assert refused.value.code == "too_few_samples"


def test_a_model_that_is_none_and_one_of_another_format_are_refused(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\x08\x07nothing")
    (tmp_path / "m.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(64))

    for name, code in (("m.onnx", "corrupt"), ("m.tflite", "not_onnx")):
        with pytest.raises(Unfit) as refused:
            survey(tmp_path / name, None, Line())
        assert refused.value.code == code


# --- split.json -------------------------------------------------------------------------------------------------


def test_a_plan_about_another_model_of_another_version_or_broken_is_refused(
    models: SplitModels, tmp_path: Path
) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.model.read())
    model = open_model(path, allow_unsigned=True)
    folder_of(path).mkdir()
    plan_file = folder_of(path) / "split.json"

    def code(data: bytes) -> str:
        plan_file.write_bytes(data)
        with pytest.raises(ModelError) as refused:
            read_plan(model)
        return refused.value.code

    plan = models.split.plan
    replace = msgspec.structs.replace
    assert code(b"{") == "corrupt"
    assert code(b" " * 1_000_001) == "corrupt"
    assert code(msgspec.json.encode(replace(plan, v="edged.split/9"))) == "incompatible"
    other = replace(plan.whole, sha256="0" * 64)
    assert code(msgspec.json.encode(replace(plan, whole=other))) == "incompatible"
    for scale, zero_point in ((0.0, 0), (-1.0, 0), (1.0, 256)):
        bad = replace(plan.cut, scale=scale, zero_point=zero_point)
        assert code(msgspec.json.encode(replace(plan, cut=bad))) == "corrupt"
    plan_file.unlink()
    with pytest.raises(ModelError, match="edged model split") as missing:
        read_plan(model)
    assert missing.value.code == "incompatible"


def test_in_a_bundle_only_a_listed_plan_counts(models: SplitModels, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(models.model.read())
    model = open_model(path, allow_unsigned=True)
    folder_of(path).mkdir()
    data = msgspec.json.encode(models.split.plan)
    (folder_of(path) / "split.json").write_bytes(data)
    manifest = tmp_path / "manifest.json"

    def listing(**entry: object) -> None:
        manifest.write_text(json.dumps({"files": [{"path": "m.split/split.json", "size": len(data), **entry}]}))

    import hashlib

    listing(sha256=hashlib.sha256(data).hexdigest())
    assert read_plan(model) == msgspec.json.decode(data, type=Plan)
    listing(sha256="0" * 64)
    with pytest.raises(ModelError) as refused:
        read_plan(model)
    assert refused.value.code == "changed"
    manifest.write_text('{"files": []}')
    with pytest.raises(ModelError) as refused:
        read_plan(model)
    assert refused.value.code == "unsigned"
    manifest.write_text("{")
    with pytest.raises(ModelError) as refused:
        read_plan(model)
    assert refused.value.code == "bad_manifest"


# --- the command ------------------------------------------------------------------------------------------------


def test_the_command_lists_reports_and_cuts(edged: Edged, models: SplitModels, tmp_path: Path) -> None:
    listed = edged("model", "split", models.model.path, "--data", models.data, "--report", tmp_path)
    assert listed.code == ExitCode.OK
    assert "It never pays" in listed.out
    assert json.loads((tmp_path / "split.json").read_text())["v"] == "edged.split-report/1"
    assert "<svg" in (tmp_path / "split.html").read_text()

    done = edged("model", "split", models.model.path, "--at", CUT, "--data", models.data, "--out", tmp_path / "o")
    assert (done.code, done.err) == (ExitCode.OK, "")
    assert "belong into bars.split beside bars.onnx" in done.out
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["head.onnx", "split.json", "tail.onnx"]

    facts = json.loads(edged("model", "split", models.model.path, "--json").out)
    assert facts["samples"] == 0
    again = edged("model", "split", models.model.path, "--at", CUT, "--data", models.data, "--json")
    assert json.loads(again.out)["whole"]["sha256"] == models.model.sha256


def test_a_report_without_a_folder_lands_here(edged: Edged, models: SplitModels, tmp_path: Path) -> None:
    with chdir(tmp_path):
        assert edged("model", "split", models.model.path, "--report").code == ExitCode.OK

    assert sorted(path.name for path in tmp_path.iterdir()) == ["split.html", "split.json"]


def test_the_command_says_what_is_wrong(edged: Edged, models: SplitModels, tmp_path: Path) -> None:
    refused = edged("model", "split", models.model.path, "--at", "nowhere", "--data", models.data)
    assert refused.code == ExitCode.REFUSED
    assert "no_cut_point" in refused.err
    assert CUT in refused.err
    assert edged("model", "split", models.model.path, "--report", tmp_path / "none").code == ExitCode.REFUSED
    assert "edged model split" in edged("model", "split", "--help").out
    plain = edged("model", "split", models.model.path)
    assert "without --data nothing is deflated" in plain.out
