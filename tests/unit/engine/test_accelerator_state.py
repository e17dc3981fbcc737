"""What the governor hears of accelerators: as configured, a fallback, or lost for good; of a processor, nothing."""

from __future__ import annotations

from typing import NamedTuple

from edged.engine.accelerator_state import state_of, worst_of
from edged.policy.chain import ChainState, Rung, RungState
from tests.doubles.engine_rig import Rig


class Chained(NamedTuple):
    """As much of a chain as is looked at."""

    state: ChainState


def rig(state: RungState, *, usable: bool = True) -> Rig:
    """A pipeline that `double:cpu` serves, whose accelerator `double:npu` is in `state`."""
    made = Rig(usable=usable)
    chain = Chained(ChainState((Rung("double:npu", state), Rung("double:cpu", "ready"))))
    made.runner.parts = made.runner.parts._replace(chain=chain)  # type: ignore[arg-type]
    return made


def test_the_state_of_an_accelerator_follows_from_the_chain_and_what_serves() -> None:
    assert state_of(("onnxruntime:cpu",), "onnxruntime:cpu") is None
    assert state_of(("rules",), "rules") is None
    assert state_of((), "") is None
    assert state_of(("openvino:gpu", "openvino:cpu"), "openvino:gpu") == "ok"
    assert state_of(("openvino:gpu", "openvino:cpu"), "openvino:cpu") == "fallback"
    assert state_of(("openvino:gpu",), "") == "fallback"
    assert state_of(("openvino:npu", "openvino:gpu", "openvino:cpu"), "openvino:gpu") == "ok"
    assert state_of(("onnxruntime:cpu", "openvino:gpu"), "onnxruntime:cpu") is None
    assert state_of(("openvino:gpu", "openvino:cpu"), "openvino:cpu", {"openvino:gpu"}) == "failed"
    assert state_of(("coral:usb", "openvino:gpu"), "", {"coral:usb"}) == "fallback"


async def test_the_worst_of_all_pipelines_counts() -> None:
    chain = ("double:npu", "double:cpu")
    resting, lost = rig("resting").runner, rig("power_cycle", usable=False).runner
    alone = Rig().runner
    assert worst_of([(("double:cpu",), alone)]) is None
    assert worst_of([(("double:cpu",), alone), (chain, alone)]) == "fallback"  # no chain: nothing is known to be lost
    assert worst_of([(chain, resting), (("double:cpu",), alone)]) == "fallback"
    assert worst_of([(chain, resting), (chain, lost)]) == "failed"
