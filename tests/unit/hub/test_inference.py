"""Questions to the hub: who may ask, what is refused with which reason, and that every question has one answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edged.hub.decisions import Sender
from edged.hub.inference import Asked, InferenceService, answerable, asking, served, subscriptions
from edged.hub.inference_models import LOOK_AGAIN_NS, ModelFolder
from edged.hub.metering import HubMetrics
from edged.hub.settings import GatewaysTable, InferenceTable
from edged.sync import inference
from edged.sync.envelope import Refusal
from edged.sync.inference import Answer, Packed, Question
from edged.sync.tensors import to_arrays, to_packed
from edged.workbench.arrays import file_sha256
from tests.doubles.clock import FakeClock
from tests.doubles.waiting import until
from tests.unit.hub.conftest import Write
from tests.unit.hub.test_configuration import problems

ROOT = "edged/v1"
TOPIC = f"{ROOT}/lyon/gw-01/infer/ask"
ANSWERS = f"{ROOT}/lyon/gw-01/infer/answer/abc"
ID = "0f" * 16
X = np.ones((2, 3), np.float32)


def write_model(path: Path, nodes: list[onnx.NodeProto] | None = None, outputs: list[Any] | None = None) -> str:
    """A model that doubles `x` into `y`, or another one; its digest."""
    graph = helper.make_graph(
        nodes or [helper.make_node("Add", ["x", "x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        outputs or [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return file_sha256(path)


def question(model: str, *tensors: Packed, **changes: Any) -> tuple[Question, bytes]:
    body = inference.body_of(tensors)
    made = Question(
        v=inference.VERSION, site="lyon", gateway="gw-01", id=ID, model=model, answer_to=ANSWERS, within_ms=1000,
        sha256=inference.digest_of(body), tensors=tuple(tensor.header for tensor in tensors),
    )  # fmt: skip
    made = msgspec.structs.replace(made, **changes)
    return made, inference.encode(made, body)


class Rig:
    """A service over a folder, and what it sent."""

    def __init__(self, folder: Path, threads: int = 1, **limits: Any) -> None:
        self.clock = FakeClock()
        self.metrics = HubMetrics("1")
        self.sent: list[tuple[str, Answer, dict[str, np.ndarray], bytes, int]] = []
        self.leaves = ""
        self.table = InferenceTable(models_dir=str(folder), **limits)
        self.models = ModelFolder(self.table, self.clock.mono_ns)
        self.service = InferenceService(
            ROOT, GatewaysTable(allow=("lyon/*",)), (), self.models, self.clock, self.metrics,
            threads=threads, max_waiting=self.table.max_waiting,
        )  # fmt: skip

    def reply(self, topic: str, payload: bytes, correlation: bytes, expiry_s: int) -> str:
        answer, tensors = inference.decode_answer(payload)
        self.sent.append((topic, answer, to_arrays(tensors), correlation, expiry_s))
        return self.leaves

    def offer(self, payload: bytes, topic: str = TOPIC, answer_to: str = "", correlation: bytes = b"") -> None:
        self.service.offer(Asked(topic, payload, answer_to, correlation, self.reply))

    def answered(self, count: int = 1) -> Answer:
        until(lambda: len(self.sent) >= count, f"{count} answers")
        return self.sent[-1][1]

    def counted(self) -> dict[str, float]:
        family: Any = self.metrics.registry.snapshot().get("edged_hub_inference_total", [])
        return {cell["outcome"]: cell["value"] for cell in family}


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    made = Rig(tmp_path)
    yield made
    made.service.close()


# --- decisions --------------------------------------------------------------------------------------------------


def test_only_the_topic_of_questions_is_one() -> None:
    assert asking(ROOT, TOPIC) == Sender("lyon", "gw-01")
    for topic in ("edged/v1/lyon/gw-01/infer/answer", "edged/v1/lyon/gw-01/ask", "x/lyon/gw-01/infer/ask",
                  "edged/v1/ly+on/gw/infer/ask", "edged/v1/lyon/gw-01/infer/ask/more"):  # fmt: skip
        assert asking(ROOT, topic) is None
    assert subscriptions(ROOT, (), "$share/g/") == ["$share/g/edged/v1/+/+/infer/ask"]
    assert subscriptions(ROOT, ("a", "b"), "") == ["edged/v1/a/+/infer/ask", "edged/v1/b/+/infer/ask"]


@pytest.mark.parametrize(
    ("answer_to", "said", "correlation", "right"),
    [
        (ANSWERS, "", b"", True),
        (ANSWERS, ANSWERS, bytes.fromhex(ID), True),
        (ANSWERS, f"{ANSWERS}x", b"", False),
        (ANSWERS, "", b"another one", False),
        ("edged/v1/lyon/gw-02/infer/answer/abc", "", b"", False),
        ("edged/v1/lyon/gw-01/cmd/reboot", "", b"", False),
        ("edged/v1/lyon/gw-01/infer/answer/", "", b"", False),
        ("edged/v1/lyon/gw-01/infer/answer/a/b", "", b"", False),
        ("edged/v1/lyon/gw-01/infer/answer/+", "", b"", False),
        ("edged/v1/lyon/gw-01/infer/answer/a\0", "", b"", False),
    ],
)
def test_an_answer_goes_to_the_gateway_that_asked_and_nowhere_else(
    answer_to: str, said: str, correlation: bytes, right: bool
) -> None:
    made, payload = question("a" * 64, answer_to=answer_to)
    asked = Asked(TOPIC, payload, said, correlation, lambda *_: "")

    assert answerable(ROOT, Sender("lyon", "gw-01"), asked, made) is right


def test_only_gateways_of_ours_are_served_and_only_in_their_own_name() -> None:
    made, _ = question("a" * 64)
    table = GatewaysTable(allow=("lyon/*",))

    assert served(Sender("lyon", "gw-01"), made, table, ())
    assert served(Sender("lyon", "gw-01"), made, table, ("lyon",))
    assert not served(Sender("lyon", "gw-01"), made, table, ("paris",))
    assert not served(Sender("lyon", "gw-02"), made, table, ())
    assert not served(Sender("lyon", "gw-01"), made, GatewaysTable(allow=("paris/*",)), ())


# --- the service ------------------------------------------------------------------------------------------------


def test_a_question_is_answered_with_tensors_and_where_the_time_went(rig: Rig, tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.onnx")

    rig.offer(question(digest, to_packed("x", X))[1], answer_to=ANSWERS, correlation=bytes.fromhex(ID))
    answer = rig.answered()

    topic, _, outputs, correlation, expiry_s = rig.sent[0]
    assert (topic, correlation.hex(), expiry_s) == (ANSWERS, ID, 1)
    assert (answer.status, answer.id, answer.model) == ("ok", ID, digest)
    assert np.array_equal(outputs["y"], X * 2)
    until(lambda: rig.counted() == {"ok": 1}, "it is counted")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("unknown", "unknown_model"), ("name", "wrong_tensors"), ("type", "wrong_tensors"), ("axis", "wrong_tensors"),
        ("rows", "wrong_tensors"), ("flipped", "bad_message"), ("foreign", "foreign_gateway"),
        ("not allowed", "foreign_gateway"), ("broken", "model_unusable"), ("fails", "infer_failed"),
        ("huge", "too_large"), ("sequence", "model_unusable"),
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_with_its_reason_and_the_next_question_is_answered(
    rig: Rig, tmp_path: Path, kind: str, reason: str
) -> None:
    digest = write_model(tmp_path / "m.onnx")
    good = question(digest, to_packed("x", X))[1]
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    failing = write_model(
        tmp_path / "fails.onnx",
        [helper.make_node("Constant", [], ["shape"], value_ints=[7]),
         helper.make_node("Reshape", ["x", "shape"], ["y"])],
    )  # fmt: skip
    huge = write_model(
        tmp_path / "huge.onnx",
        [helper.make_node("Constant", [], ["shape"], value_ints=[3000, 2, 3]),
         helper.make_node("Expand", ["x", "shape"], ["wide"]),
         helper.make_node("RandomNormalLike", ["wide"], ["many"]),
         helper.make_node("Concat", ["many"] * 40, ["y"], axis=0)],
    )  # fmt: skip
    sequence = write_model(
        tmp_path / "sequence.onnx", [helper.make_node("SequenceConstruct", ["x", "x"], ["y"])],
        [helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, None)],
    )  # fmt: skip
    bad = {
        "unknown": question("0" * 64, to_packed("x", X))[1],
        "name": question(digest, to_packed("z", X))[1],
        "type": question(digest, to_packed("x", X.astype(np.float64)))[1],
        "axis": question(digest, to_packed("x", np.ones((2, 4), np.float32)))[1],
        "rows": question(digest, to_packed("x", np.ones((257, 3), np.float32)))[1],
        "flipped": good[:-1] + bytes((good[-1] ^ 1,)),
        "foreign": question(digest, to_packed("x", X), site="paris")[1],
        "not allowed": question(
            digest, to_packed("x", X), site="rome", answer_to="edged/v1/rome/gw-01/infer/answer/abc"
        )[1],
        "broken": question(file_sha256(tmp_path / "broken.onnx"), to_packed("x", X))[1],
        "fails": question(failing, to_packed("x", X))[1],
        "huge": question(huge, to_packed("x", X))[1],
        "sequence": question(sequence, to_packed("x", X))[1],
    }

    rig.offer(bad[kind], "edged/v1/rome/gw-01/infer/ask" if kind == "not allowed" else TOPIC)
    refused = rig.answered()
    rig.offer(good)

    assert (refused.status, refused.reason) == ("refused", reason), refused
    assert rig.answered(2).status == "ok"
    assert rig.counted()[reason] == 1


@pytest.mark.parametrize(
    ("payload", "topic", "outcome"),
    [
        (b"garbage", TOPIC, "unreadable"),
        (question("a" * 64)[1], "edged/v1/lyon/gw-01/else/ask", "unreadable"),
        (question("a" * 64, answer_to="edged/v1/lyon/gw-01/cmd/x")[1], TOPIC, "bad_message"),
    ],
)
def test_who_cannot_be_answered_safely_is_only_counted(rig: Rig, payload: bytes, topic: str, outcome: str) -> None:
    rig.offer(payload, topic)

    assert (rig.counted(), rig.sent) == ({outcome: 1}, [])


def test_an_old_question_is_refused_before_anything_is_computed(rig: Rig, tmp_path: Path) -> None:
    digest = write_model(tmp_path / "m.onnx")
    rig.models.find(digest)
    entered, go = threading.Event(), threading.Event()
    find = rig.models.find

    def slow(wanted: str) -> Any:
        entered.set()
        go.wait(20)
        return find(wanted)

    rig.service._models = type("Slow", (), {"find": staticmethod(slow)})()
    payload = question(digest, to_packed("x", X))[1]
    rig.offer(payload)
    assert entered.wait(20)
    rig.offer(payload)
    rig.clock.advance_s(2)
    go.set()

    rig.answered(2)
    assert [answer.reason for _, answer, *_ in rig.sent] == ["expired", "expired"]


def test_more_than_may_wait_is_refused_at_once(tmp_path: Path) -> None:
    rig = Rig(tmp_path, max_waiting=2)
    entered, go = threading.Event(), threading.Event()

    def slow(_: str) -> Any:
        entered.set()
        go.wait(20)
        raise Refusal("unknown_model", "none")

    rig.service._models = type("Slow", (), {"find": staticmethod(slow)})()
    payload = question("0" * 64, to_packed("x", X))[1]
    rig.offer(payload)
    assert entered.wait(20)
    for _ in range(5):
        rig.offer(payload)

    assert [answer.reason for _, answer, *_ in rig.sent] == ["busy"] * 3
    go.set()
    rig.answered(6)
    rig.service.close()
    rig.service.close()


def test_an_answer_that_does_not_leave_is_counted(rig: Rig, tmp_path: Path) -> None:
    rig.leaves = "away"
    rig.offer(question(write_model(tmp_path / "m.onnx"), to_packed("x", X))[1])

    until(lambda: rig.counted() == {"ok": 1, "unsent": 1}, "it is counted")


def test_a_surprise_does_not_end_the_thread(rig: Rig, tmp_path: Path) -> None:
    class Odd:
        def find(self, _: str) -> Any:
            raise ZeroDivisionError

    models, rig.service._models = rig.models, Odd()  # type: ignore[assignment]
    digest = write_model(tmp_path / "m.onnx")
    rig.offer(question(digest, to_packed("x", X))[1])
    assert rig.answered().reason == "infer_failed"
    rig.service._models = models
    rig.offer(question(digest, to_packed("x", X))[1])
    assert rig.answered(2).status == "ok"


# --- the folder -------------------------------------------------------------------------------------------------


def test_a_call_that_takes_too_long_is_stopped_and_the_next_one_is_not(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Constant", [], ["shape"], value_ints=[300, 300]),
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Add", ["zeros", "total"], ["m0"]),  # of the input, or all would be computed at load
    ]
    nodes += [helper.make_node("MatMul", [f"m{at}", "m0"], [f"m{at + 1}"]) for at in range(3000)]
    nodes += [helper.make_node("ReduceSum", ["m3000"], ["sum"]), helper.make_node("Add", ["x", "sum"], ["y"])]
    digest = write_model(tmp_path / "slow.onnx", nodes)
    quick = write_model(tmp_path / "quick.onnx")
    folder = ModelFolder(InferenceTable(models_dir=str(tmp_path)), time.monotonic_ns)

    begun = time.monotonic()
    for _ in range(2):
        with pytest.raises(Refusal, match="expired: the call was stopped"):
            folder.find(digest).run({"x": X}, 0.05)
    assert time.monotonic() - begun < 20
    for _ in range(3):
        assert np.array_equal(folder.find(quick).run({"x": X}, 20.0)["y"], X * 2)
    assert not [
        each for each in threading.enumerate() if isinstance(each, threading.Timer) and not each.finished.is_set()
    ]


def test_files_that_come_change_or_go_are_noticed_without_a_look_for_each_question(tmp_path: Path) -> None:
    clock = FakeClock()
    folder = ModelFolder(InferenceTable(models_dir=str(tmp_path)), clock.mono_ns)

    def code(digest: str) -> str:
        try:
            folder.find(digest)
        except Refusal as refused:
            return refused.code
        return "found"

    assert code("0" * 64) == "unknown_model"
    first = write_model(tmp_path / "a.onnx")
    assert code(first) == "unknown_model"
    clock.advance_us(LOOK_AGAIN_NS / 1000)
    assert code(first) == "found"
    second = write_model(tmp_path / "b.onnx", [helper.make_node("Mul", ["x", "x"], ["y"])])
    (tmp_path / "gone.onnx").symlink_to(tmp_path / "nowhere")
    clock.advance_us(LOOK_AGAIN_NS / 1000)
    assert code(second) == "found"
    changed = tmp_path / "c.onnx"
    third = write_model(changed, [helper.make_node("Relu", ["x"], ["y"])])
    clock.advance_us(LOOK_AGAIN_NS / 1000)
    assert code("0" * 64) == "unknown_model"
    changed.write_bytes(b"something else")
    assert code(third) == "unknown_model"
    assert code(first) == "found"


def test_only_so_many_models_are_kept_and_none_that_is_too_large(tmp_path: Path) -> None:
    folder = ModelFolder(
        InferenceTable(models_dir=str(tmp_path), max_models=2, max_model_bytes=1000), FakeClock().mono_ns
    )
    digests = [
        write_model(tmp_path / f"{kind}.onnx", [helper.make_node(kind, ["x"], ["y"])])
        for kind in ("Relu", "Abs", "Neg")
    ]
    (tmp_path / "large.onnx").write_bytes(bytes(2000))

    kept = [folder.find(digest) for digest in digests]

    assert folder.find(digests[2]) is kept[2]
    assert folder.find(digests[0]) is not kept[0]
    with pytest.raises(Refusal, match="unknown_model"):
        folder.find(file_sha256(tmp_path / "large.onnx"))


# --- configuration ----------------------------------------------------------------------------------------------


def test_the_table_needs_a_folder_and_a_broker(write: Write, tmp_path: Path) -> None:
    (tmp_path / "models").mkdir(exist_ok=True)
    broker = '[broker]\nurl = "mqtt://127.0.0.1"\n'
    there = '[inference]\nmodels_dir = "models"\n'

    assert problems(write, broker + there) == {}
    assert "add [broker]" in problems(write, there)["inference.models_dir"]
    assert "is no folder" in problems(write, broker + '[inference]\nmodels_dir = "none"')["inference.models_dir"]
    assert "is missing" in problems(write, broker + "[inference]\nthreads = 2")["inference.models_dir"]
