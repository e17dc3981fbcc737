"""How the accelerators that the configuration counts on are: a fact for the governor, from what computes now."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import TYPE_CHECKING

from edged.infer.rung import is_processor
from edged.policy.governor import ACCELERATOR_STATES, AcceleratorState

if TYPE_CHECKING:
    from edged.engine.runner import Runner


def worst_of(pipelines: Iterable[tuple[Sequence[str], Runner]]) -> AcceleratorState | None:
    """The worst of all pipelines, each with its chain; None: no chain begins with an accelerator."""
    states = (state_of(chain, _serving(runner), _lost(runner)) for chain, runner in pipelines)
    return max((state for state in states if state is not None), key=ACCELERATOR_STATES.index, default=None)


def state_of(chain: Sequence[str], serving: str, lost: Container[str] = ()) -> AcceleratorState | None:
    """How the accelerators of one pipeline are; None: its chain begins with a processor or with rules.

    serving: the `runtime:device` that answers, "" when none does. lost: rungs that do not come back without hands.
    """
    accelerators = [rung for rung in chain if not is_processor(rung)]
    if not accelerators or chain[0] not in accelerators:
        return None
    if serving in accelerators:
        return "ok"
    return "failed" if all(rung in lost for rung in accelerators) else "fallback"


def _serving(runner: Runner) -> str:
    return runner.info.runtime if runner.parts.model is not None else ""


def _lost(runner: Runner) -> frozenset[str]:
    chain = runner.parts.chain
    rungs = () if chain is None else chain.state.rungs
    return frozenset(rung.name for rung in rungs if rung.state in ("power_cycle", "disabled"))
