"""From a configuration to pipelines that see, and to pipelines that ask a larger model."""

from __future__ import annotations

import asyncio
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from edged.config import Config, load
from edged.engine.build import Built, build, load_models
from edged.engine.draft import Present
from edged.engine.patterns import FRAME_BATCH
from edged.engine.runner import Runner
from edged.errors import ConfigError, InferenceError, ModelError, Refused
from edged.infer.chain import Chain
from edged.infer.lane import Lane
from edged.infer.notes import NotedOutputs
from edged.infer.runtime import PlainRuntime, Runtime
from edged.ops.clock import SystemClock
from tests.doubles.broker import free_port
from tests.unit.engine.test_compute import Plant, Rung, aside
from tests.unit.infer.models import save

HEAD = """\
[gateway]
site = "lyon"
id = "gw"
state_dir = "{folder}/state"
[broker]
url = "mqtt://127.0.0.1:1883"
[security]
allow_unsigned = true
{upstream}
[[pipeline]]
name = "p"
topics = ["in/+"]
device = "{{topic[1]}}"
"""
SEES = """
codec = "image"
input = {{ {source} }}
model = {{ path = "{folder}/small.onnx", chain = ["onnxruntime:cpu"], deadline_ms = 5000{model} }}
output = {{ {output} }}
"""
CLASSES = 'kind = "classification", labels = ["dark", "bright"]'
UNIT = "scale = 0.00392156862745098, pad = 0"


def dim_model(path: Path, side: int = 8, gain: float = 1.0) -> None:
    """(n, 3, side, side) → the mean times `gain`, as the score of class 1; the rest is the score of class 0."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "gain"], ["scaled"]),
        helper.make_node("Unsqueeze", ["scaled", "one"], ["bright"]),
        helper.make_node("Sub", ["unit", "bright"], ["dark"]),
        helper.make_node("Concat", ["dark", "bright"], ["y"], axis=1),
    ]
    constants = [
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array([1], np.float32), "unit"),
        numpy_helper.from_array(np.array(gain, np.float32), "gain"),
    ]
    inputs, outputs = {"x": (TensorProto.FLOAT, ["n", 3, side, side])}, {"y": (TensorProto.FLOAT, ["n", 2])}
    save(path, nodes, inputs, outputs, initializer=constants)


def made(folder: Path, *, source: str = "", model: str = "", output: str = CLASSES, upstream: str = "") -> Built:
    """Blocks; call it in a thread."""
    if not (folder / "small.onnx").exists():
        dim_model(folder / "small.onnx")
    text = (HEAD + SEES).format(
        folder=folder, source=source, model=model.format(folder=folder), output=output, upstream=upstream
    )
    (folder / "edged.toml").write_text(text)
    config: Config = load([folder / "edged.toml"])
    clock = SystemClock()
    return build(config, load_models(config, clock), clock, Present("boot"), lambda *_: None)


async def built(folder: Path, **more: str) -> Built:
    return await asyncio.to_thread(made, folder, **more)


async def close(*all_of: Built) -> None:
    for each in all_of:
        for runner in each.runners:
            if runner.parts.lane is not None:
                await asyncio.to_thread(runner.parts.lane.close, 10)
        for chain in each.chains:
            await asyncio.to_thread(chain.close)


def picture(level: int, size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (level, level, level)).save(buffer, "PNG")
    return buffer.getvalue()


async def asked(runner: Runner, *blocks: bytes) -> tuple[dict[str, np.ndarray], list[str]]:
    """What the model of the lane says to these frames: outputs, and the notes as text."""
    parts = runner.parts
    assert parts.assemble is not None
    assert parts.model is not None
    inputs, _ = parts.assemble.assemble(blocks)
    outputs = await asyncio.to_thread(parts.model.infer, inputs, deadline_s=5.0)
    assert isinstance(outputs, NotedOutputs)
    return dict(outputs), ["" if note.info is None else note.info.model for note in outputs.notes]


async def test_pictures_always_go_through_a_lane_in_small_batches(tmp_path: Path) -> None:
    one = await built(tmp_path, source=f"frame = {{ {UNIT} }}")
    (runner,) = one.runners
    assert runner.parts.lane is not None
    assert runner.parts.max_batch <= FRAME_BATCH
    assert (runner.parts.frames, runner.parts.ready_limit) == (True, 67)
    outputs, _ = await asked(runner, picture(255), picture(0))
    np.testing.assert_allclose(outputs["y"], [[0, 1], [1, 0]], atol=1e-6)
    await close(one)


@pytest.mark.parametrize(("policy", "kept"), [("queue", True), ("latest", False)])
async def test_the_policy_decides_whether_the_store_has_the_pixels(tmp_path: Path, policy: str, kept: bool) -> None:
    one = await built(tmp_path, source=f'policy = "{policy}"')
    (source,) = one.sources
    (parsed,) = source.parse("in/gate", picture(1))
    assert not isinstance(parsed, Refused)
    assert (source.reread("in/gate", parsed[5]) == picture(1)) is kept
    await close(one)


async def test_raw_pixels_and_places_in_the_topic_are_read_as_configured(tmp_path: Path) -> None:
    raw = 'raw = { width = 2, height = 3, colour = "gray" }'
    one = await built(tmp_path, source=f"frame = {{ {raw}, seq_level = 1, width = 8, height = 8 }}")
    (source,) = one.sources
    (parsed,) = source.parse("in/7", bytes(6))
    assert not isinstance(parsed, Refused)
    assert parsed[:3] == ("7", None, 7)
    await close(one)


async def test_of_two_pipelines_that_see_alike_the_picture_is_read_once(tmp_path: Path) -> None:
    dim_model(tmp_path / "small.onnx")
    both = SEES + HEAD[HEAD.index("[[pipeline]]") :].replace('"p"', '"q"') + SEES
    text = (HEAD + both).format(folder=tmp_path, source="", model="", output=CLASSES, upstream="")
    (tmp_path / "edged.toml").write_text(text)
    clock = await asyncio.to_thread(SystemClock)
    config = await asyncio.to_thread(load, [tmp_path / "edged.toml"])
    loaded = await asyncio.to_thread(load_models, config, clock)
    one = build(config, loaded, clock, Present("boot"), lambda *_: None)
    (source,) = one.sources
    assert [runner.name for runner in source.runners] == ["p", "q"]
    await close(one)


async def test_a_model_that_takes_no_pictures_is_no_rung(tmp_path: Path) -> None:
    one = await built(tmp_path, source='frame = { colour = "gray" }')
    (runner,) = one.runners
    assert runner.parts.model is None
    assert "incompatible" in one.chains[0].troubles()
    await close(one)


async def test_an_output_that_is_no_detector_is_found_when_it_is_loaded(tmp_path: Path) -> None:
    one = await built(tmp_path, output='kind = "detection"')
    assert "cannot be read" in one.chains[0].troubles()
    await close(one)


async def test_detections_are_published_with_the_declared_score_and_in_the_frame(tmp_path: Path) -> None:
    nodes = [helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0)]
    nodes += [
        helper.make_node("Reshape", ["m", "to"], ["r"]),
        helper.make_node("Mul", ["r", "gain"], ["g"]),
        helper.make_node("Add", ["g", "place"], ["y"]),
    ]
    constants = [
        numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "to"),
        numpy_helper.from_array(np.array([[[0], [0], [0], [0], [0.3]]], np.float32), "gain"),
        numpy_helper.from_array(np.array([[[4], [4], [8], [8], [0]]], np.float32), "place"),
    ]
    shapes = {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["n", 5, 1])}
    save(tmp_path / "small.onnx", nodes, *shapes, initializer=constants)
    output = 'kind = "detection", labels = ["cat"], detection = { min_score = 0.2, limit = 5 }'
    one = await built(tmp_path, source=f"frame = {{ {UNIT} }}", output=output)
    (runner,) = one.runners
    outputs, _ = await asked(runner, picture(255, (80, 80)))
    assert runner.parts.interpret is not None
    answers = runner.parts.interpret(outputs, ["gate"])
    assert answers.label == ["cat"]
    assert answers.score == [pytest.approx(0.3)]
    assert answers.values == [
        {"count": 1, "boxes": [0, 0, 80, 80], "scores": [pytest.approx(0.3)], "classes": [0]}
    ]  # fmt: skip
    await close(one)


async def test_a_cascade_has_a_chain_of_its_own_that_is_shown_and_closed(tmp_path: Path) -> None:
    dim_model(tmp_path / "large.onnx", side=16, gain=0.0)
    cascade = ', cascade = {{ path = "{folder}/large.onnx", high = 0.9 }}'
    one = await built(tmp_path, source=f"frame = {{ {UNIT} }}", model=cascade)
    (runner,) = one.runners
    assert len(one.chains) == 2
    outputs, whose = await asked(runner, picture(255), picture(150))
    assert whose == ["", "large"]
    np.testing.assert_allclose(outputs["y"], [[0, 1], [1, 0]], atol=1e-6)
    report = runner.report()
    assert [rung["rung"] for rung in report["larger"]] == ["onnxruntime:cpu"]  # type: ignore[attr-defined]
    await close(one)


async def test_a_cascade_of_detections_takes_nothing_found_for_unsure(tmp_path: Path) -> None:
    for name, score in (("small", 0.0), ("large", 0.8)):
        place = numpy_helper.from_array(np.array([[[4], [4], [8], [8], [score]]], np.float32), "place")
        nodes = [
            helper.make_node("ReduceMean", ["x"], ["m"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("Reshape", ["m", "to"], ["r"]),
            helper.make_node("Mul", ["r", "none"], ["zero"]),
            helper.make_node("Add", ["zero", "place"], ["y"]),
        ]
        constants = [
            place,
            numpy_helper.from_array(np.array([-1, 1, 1], np.int64), "to"),
            numpy_helper.from_array(np.array(0, np.float32), "none"),
        ]
        shapes = {"x": (TensorProto.FLOAT, ["n", 3, 8, 8])}, {"y": (TensorProto.FLOAT, ["n", 5, 1])}
        save(tmp_path / f"{name}.onnx", nodes, *shapes, initializer=constants)
    cascade = ', cascade = {{ path = "{folder}/large.onnx", high = 0.3 }}'
    one = await built(tmp_path, model=cascade, output='kind = "detection"')
    outputs, whose = await asked(one.runners[0], picture(9))
    assert whose == ["large"]
    assert outputs["count"].tolist() == [[1.0]]
    await close(one)


async def test_a_cascade_at_the_upstream_needs_one_that_can_be_asked(tmp_path: Path) -> None:
    cascade = f', cascade = {{{{ where = "upstream", sha256 = "{"a" * 64}" }}}}'
    with pytest.raises(ConfigError) as caught:
        await built(tmp_path, model=cascade)
    assert "cannot be asked" in caught.value.problems[0]


async def test_a_line_to_the_upstream_that_is_down_costs_no_answer(tmp_path: Path) -> None:
    cascade = f', cascade = {{{{ where = "upstream", sha256 = "{"a" * 64}", high = 0.9, deadline_ms = 2000 }}}}'
    upstream = f'[upstream]\nurl = "mqtt://127.0.0.1:{free_port()}"'
    one = await built(tmp_path, source=f"frame = {{ {UNIT} }}", model=cascade, upstream=upstream)
    (runner,) = one.runners
    assert "larger" not in runner.report()
    outputs, whose = await asked(runner, picture(150))
    assert whose == [""]
    assert outputs["y"][0, 1] == pytest.approx(150 / 255)
    await close(one)


async def test_a_chain_whose_rungs_are_all_away_when_a_call_is_left_behind_still_takes_pictures_later(
    tmp_path: Path,
) -> None:
    one = await built(tmp_path)
    (runner,), (chain,) = one.runners, one.chains
    lane = runner.parts.lane
    assert isinstance(lane, Lane)
    live = chain.serving
    assert live is not None
    chain.fell(live, InferenceError("infer_timeout", "a call did not return"))
    renewed = await asyncio.to_thread(lane.reload)
    frame = np.empty(1, object)
    frame[0] = picture(1)
    with pytest.raises(InferenceError) as caught:
        await asyncio.to_thread(renewed.infer, {"frame": frame}, deadline_s=1.0)
    assert caught.value.code == "model_unusable"
    await close(one)


async def test_a_larger_model_that_is_away_is_a_reason_of_the_mode_until_it_serves(tmp_path: Path) -> None:
    plant = Plant(tmp_path)
    present: list[str] = []

    def find(name: str) -> Runtime:
        def load(_model: Any, _device: str, _options: Any) -> Rung:
            if not present:
                raise ModelError("device_unavailable", "unplugged")
            return Rung(name)

        return PlainRuntime(name, load)

    spec = plant.chain.spec._replace(chain=("npu:x",))
    larger = Chain(spec, plant.rig.clock, find=find, spawn=lambda _name, work: work())
    aside(larger.settle, 1)
    runner = plant.rig.runner
    runner.parts = runner._wanted = runner.parts._replace(larger=larger)
    runner.models = (runner.parts,)
    await plant.rig.start()
    plant.keep()
    assert plant.codes() == {"larger_model_away"}
    assert (await plant.event(0))["degraded"]
    present.append("npu")
    for _ in range(20):
        plant.rig.clock.advance_s(1)
        for _ in range(6):
            aside(larger.pump, 0)
        plant.keep()
    assert plant.codes() == set()
    assert not (await plant.event(1))["degraded"]
