"""The demo's accelerator: a stand-in that says so, and what SCADA sees of its death."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edged.demo.accelerator import CHAIN, RUNG, RUNTIME, Accelerator, Outage, kill_workers
from edged.demo.accounting import Accounts
from edged.demo.scada import Picture
from edged.demo.settings import PIPELINES, ROOT, config_toml
from edged.demo.summary import Summary, facts, outage_sentence
from edged.infer.loading import open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from tests.unit.infer.models import sum_model

S = 1_000_000_000


class Trigger:
    """Stands for the process that is killed; `alive`: how many there are."""

    def __init__(self, alive: int = 1) -> None:
        self.alive = alive
        self.pulled = 0

    def __call__(self) -> int:
        self.pulled += 1
        return self.alive


def played(*, returns: bool = True, honest: bool = True) -> Accelerator:
    """Killed at 9 s of 60, answered by the processor 50 ms later, back after 13 s."""
    accelerator = Accelerator(Trigger(), start_ns=0, seconds=60)
    accelerator.result(RUNG, False, S)
    accelerator.tick(9 * S)
    accelerator.reasons(["fallback_runtime"], 9 * S + 10_000_000)
    accelerator.result("onnxruntime:cpu", True, 9 * S + 50_000_000)
    accelerator.result("onnxruntime:cpu", honest, 10 * S)
    if returns:
        accelerator.result(RUNG, True, 22 * S)
        accelerator.reasons([], 32 * S)
    return accelerator


def summary(accelerator: Accelerator | None, seconds: float = 60.0) -> Summary:
    accounts = Accounts(PIPELINES)
    accounts.published("p", 1, 0)
    accounts.acknowledged("p", 1, 0)
    tally = accounts.tally()._replace(events=1, lost=0)
    outages = accelerator.outages if accelerator is not None else None
    return Summary(seconds, tally, Picture(ROOT, "condition"), {}, (), 0, outages=outages)


def test_its_runtime_is_a_plug_in_that_computes_on_the_processor_and_says_who_it_is(tmp_path: Path) -> None:
    runtime = find_runtime("demo")
    assert runtime is RUNTIME
    assert runtime.abilities("accelerator").isolation == "process"
    probe = runtime.probe("accelerator")
    assert (probe.usable, probe.devices[0].kind) == (True, "cpu")
    file = open_model(sum_model(tmp_path / "sum.onnx"), allow_unsigned=True)
    runtime.prepare(file, "accelerator", LoadOptions())
    model = runtime.load(file, "accelerator", LoadOptions())
    assert model.info.runtime == RUNG
    assert model.infer({"x": np.ones((2, 4), np.float32)}, deadline_s=1)["y"].tolist() == [4, 4]
    model.close()
    assert runtime.health("accelerator").state == "ok"


def test_the_configuration_puts_it_before_the_processor(tmp_path: Path) -> None:
    assert 'chain = ["demo:accelerator", "onnxruntime:cpu"]' in config_toml(port=1, state_dir=tmp_path, chain=CHAIN)


def test_its_death_is_written_down_as_scada_saw_it() -> None:
    accelerator = played()
    assert accelerator.outages == [Outage(9.0, 0.05, 2, 2, 0.01, 13.0, 23.0)]
    text = outage_sentence(accelerator.outages[0])
    assert "50 ms later the processor answered, 2 results in all, each marked degraded" in text
    assert "serves again after 13.0 s, the reason left the mode after 23.0 s." in text
    assert facts(summary(accelerator))["accelerator"][0]["return_s"] == 13.0
    assert summary(accelerator).kept_its_promise


def test_it_is_killed_once_and_only_while_it_serves() -> None:
    trigger = Trigger()
    accelerator = Accelerator(trigger, start_ns=0, seconds=60)
    accelerator.tick(10 * S)  # nothing has been heard of it yet
    accelerator.result(RUNG, False, 10 * S)
    accelerator.tick(11 * S)
    accelerator.tick(12 * S)
    accelerator.result("onnxruntime:cpu", True, 13 * S)
    accelerator.tick(59 * S)
    assert (trigger.pulled, len(accelerator.outages)) == (1, 1)


def test_without_an_end_it_is_killed_again_when_all_was_well() -> None:
    accelerator = Accelerator(Trigger(), start_ns=0, seconds=None)
    for begun_s in (9, 100):
        accelerator.result(RUNG, False, begun_s * S)
        accelerator.tick(begun_s * S)
        accelerator.reasons(["fallback_runtime"], begun_s * S)
        accelerator.result("onnxruntime:cpu", True, (begun_s + 1) * S)
        accelerator.result(RUNG, True, (begun_s + 13) * S)
        accelerator.reasons(["clock_unsynced"], (begun_s + 23) * S)
    assert [outage.complete for outage in accelerator.outages] == [True, True]


def test_what_was_not_there_to_be_killed_is_tried_again() -> None:
    trigger = Trigger(alive=0)
    accelerator = Accelerator(trigger, start_ns=0, seconds=60)
    accelerator.result(RUNG, False, S)
    accelerator.tick(10 * S)
    accelerator.tick(11 * S)
    assert (trigger.pulled, accelerator.outages) == (2, [])


@pytest.mark.parametrize(
    ("accelerator", "seconds", "kept"),
    [
        (played(honest=False), 60.0, False),
        (played(returns=False), 60.0, False),
        (played(returns=False), 30.0, True),
        (None, 60.0, True),
    ],
)
def test_the_promise_holds_only_when_the_fall_was_told_and_the_return_came_in_time(
    accelerator: Accelerator | None, seconds: float, kept: bool
) -> None:
    assert summary(accelerator, seconds).kept_its_promise is kept


def test_an_unfinished_story_is_told_as_far_as_it_went() -> None:
    assert "has not come back yet" in outage_sentence(played(returns=False).outages[0])
    assert "ONLY 1 OF THEM" in outage_sentence(played(honest=False).outages[0])
    assert "nobody answered in its place" in outage_sentence(Outage(9.0))
    assert outage_sentence(Outage(9.0, 0.1, 1, 1, 0.1, 13.0)).endswith("after 13.0 s.")


def test_a_process_without_workers_has_none_to_kill() -> None:
    assert kill_workers(os.getpid()) == 0
