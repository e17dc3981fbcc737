"""From a configuration to runners: what fits, what is slow, what is not there yet, and what contradicts itself."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from edged.config import Config, load
from edged.engine.build import Built, Loaded, build, load_models
from edged.engine.draft import Present
from edged.errors import ConfigError, InferenceError, ModelError
from edged.infer.chain import Chain, ChainSpec, serving_of
from edged.infer.runtime import Abilities, Isolation, PlainRuntime, Runtime
from tests.doubles.clock import FakeClock
from tests.doubles.runtime import StandInModel
from tests.fault.conftest import summing

TEXT = """\
[gateway]
site = "lyon"
id = "gw"
state_dir = "{folder}/state"
[broker]
url = "mqtt://127.0.0.1:1883"
[security]
allow_unsigned = true
[[pipeline]]
name = "p"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["a", "b"]{more_input} }}
model = {{ path = "{folder}/m.onnx"{more_model} }}
output = {{ kind = "regression", names = ["total"] }}
"""


def configuration(folder: Path, *, more_input: str = "", more_model: str = "") -> Config:
    summing(folder / "m.onnx", 2)
    path = folder / "edged.toml"
    path.write_text(TEXT.format(folder=folder, more_input=more_input, more_model=more_model))
    return load([path])


async def built(config: Config, loaded: list[Loaded], clock: Any = None) -> Built:
    post = asyncio.get_running_loop().call_soon_threadsafe
    return build(config, loaded, clock or FakeClock(), Present("boot"), post)


async def close(made: Built) -> None:
    for runner in made.runners:
        if runner.parts.lane is not None:
            await asyncio.to_thread(runner.parts.lane.close, 10)
    for chain in made.chains:
        await asyncio.to_thread(chain.close)


async def test_a_small_model_of_the_processor_runs_inline_and_its_chain_is_kept(tmp_path: Path) -> None:
    config = await asyncio.to_thread(configuration, tmp_path)
    made = await built(config, await asyncio.to_thread(load_models, config, FakeClock()))
    (runner,) = made.runners
    assert (runner.parts.lane, runner.info.runtime) == (None, "onnxruntime:cpu")
    assert [chain.names for chain in made.chains] == [("onnxruntime:cpu",)]
    await close(made)


async def test_a_model_that_does_not_fit_its_pipeline_is_no_rung_and_says_why(tmp_path: Path) -> None:
    config = await asyncio.to_thread(configuration, tmp_path, more_input=", window = 4")
    made = await built(config, await asyncio.to_thread(load_models, config, FakeClock()))
    (runner,) = made.runners
    assert runner.parts.model is None
    assert "onnxruntime:cpu: incompatible" in made.chains[0].troubles()
    await close(made)


async def test_a_configuration_that_contradicts_itself_is_no_fault_of_the_model(tmp_path: Path) -> None:
    config = await asyncio.to_thread(configuration, tmp_path)
    (pipeline,) = config.pipeline
    odd = replace(pipeline, output=replace(pipeline.output, kind="anomaly", names=()))  # as a slot may leave it
    with pytest.raises(ConfigError, match="threshold"):
        await asyncio.to_thread(load_models, replace(config, pipeline=(odd,)), FakeClock())


class Late:
    """A runtime that is there when `present`; costs `cost_us` a call."""

    def __init__(self, clock: FakeClock, isolation: Isolation = "thread") -> None:
        self.present = False
        self.cost_us = 0.0
        self._clock = clock
        self._isolation: Isolation = isolation

    def find(self, name: str) -> Runtime:
        def load(_model: Any, _device: str, _options: Any) -> StandInModel:
            if not self.present:
                raise ModelError("device_unavailable", "unplugged")
            model = StandInModel(clock=self._clock, cost_us=(self.cost_us, 0), runtime=f"{name}:x")
            (spec,) = model.info.inputs
            model.info = model.info._replace(inputs=(spec._replace(shape=(-1, 2)),))
            return model

        return PlainRuntime(name, load, Abilities(("onnx",), isolation=self._isolation))


async def chained(config: Config, late: Late, clock: FakeClock, *names: str) -> tuple[Built, Chain]:
    def make() -> Chain:
        spec = ChainSpec("p", Path(config.pipelines[0].model.path or ""), names, allow_unsigned=True)
        chain = Chain(spec, clock, find=late.find, spawn=lambda _name, work: work())
        chain.settle(0)
        return chain

    chain = await asyncio.to_thread(make)
    await pump(chain, clock, 0)
    serving = serving_of(chain)
    width = None if serving.model is not None else 0
    return await built(config, [Loaded(config.pipelines[0], serving, width)], clock), chain


async def pump(chain: Chain, clock: FakeClock, after_s: float) -> None:
    clock.advance_s(after_s)
    for _ in range(5):
        await asyncio.to_thread(chain.pump, 0)


async def test_a_pipeline_whose_model_appears_later_begins_to_serve(tmp_path: Path) -> None:
    config, clock = await asyncio.to_thread(configuration, tmp_path), FakeClock()
    late = Late(clock)
    made, chain = await chained(config, late, clock, "npu:x")
    (runner,) = made.runners
    runner.refit()
    assert (runner.parts.model, runner.info.runtime) == (None, "none")
    late.present = True
    await pump(chain, clock, 5)
    runner.refit()
    assert runner.parts.model is not None
    assert (runner.parts.width, runner.parts.lane, runner.parts.info.runtime) == (2, None, "npu:x")
    before = runner.parts
    runner.refit()
    assert runner.parts is before, "what fits is left alone"
    await close(made)


async def test_a_rung_that_is_too_slow_for_the_loop_moves_to_a_lane(tmp_path: Path) -> None:
    config, clock = await asyncio.to_thread(configuration, tmp_path), FakeClock()
    late = Late(clock)
    late.present = True
    made, chain = await chained(config, late, clock, "npu:x")
    (runner,) = made.runners
    assert runner.report()["host"] == "inline"
    late.cost_us = 50_000
    chain.fell(chain.order[0], InferenceError("device_lost", "scripted"))
    await pump(chain, clock, 0)
    await pump(chain, clock, 5)
    runner.refit()
    assert runner.report()["host"] == "lane"
    await close(made)


@pytest.mark.parametrize("isolation", ["thread", "process"])
async def test_a_chain_with_a_process_always_leaves_the_loop(tmp_path: Path, isolation: Isolation) -> None:
    config, clock = await asyncio.to_thread(configuration, tmp_path), FakeClock()
    late = Late(clock, isolation)
    late.present = True
    made, _ = await chained(config, late, clock, "npu:x")
    assert (made.runners[0].parts.lane is not None) == (isolation == "process")
    await close(made)


RULES = ', rules = [{ label = "hot", field = "b", above = 80 }]'


@pytest.mark.parametrize(
    ("more", "info"),
    [
        (', chain = ["npu:x", "rules"]' + RULES, "rules"),
        (', chain = ["npu:x"], last_good_s = 5', "last_good"),
        (', chain = ["npu:x", "rules"]', None),
        (', chain = ["npu:x"], require_accelerator = true', None),
    ],
)
async def test_what_stands_in_is_what_is_declared(tmp_path: Path, more: str, info: str | None) -> None:
    config, clock = await asyncio.to_thread(configuration, tmp_path, more_model=more), FakeClock()
    made, _ = await chained(config, Late(clock), clock, "npu:x")
    stand_in = made.runners[0].parts.stand_in
    assert (stand_in.info.runtime if stand_in is not None else None) == info
    await close(made)
