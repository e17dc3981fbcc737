"""From rungs to reasons of the mode."""

from __future__ import annotations

import pytest

from edged.policy.causes import CAUSES
from edged.policy.chain import ChainState, Rung, RungState
from edged.policy.compute import SERVICE_CODES, rung_causes, service_cause
from edged.policy.faults import FAULTS, UNKNOWN, fault_of


@pytest.mark.parametrize(
    ("at", "stand_in", "nobody", "cause"),
    [
        (0, False, "model_unusable", None),
        (0, True, "model_unusable", None),
        (1, True, "model_unusable", "fallback_runtime"),
        (None, True, "model_unusable", "rules_serving"),
        (None, False, "model_unusable", "model_unusable"),
        (None, False, "accelerator_required", "accelerator_required"),
        (None, True, None, None),
    ],
)
def test_who_answers_is_at_most_one_reason(at: int | None, stand_in: bool, nobody: str | None, cause: str) -> None:
    assert service_cause(at, stand_in=stand_in, nobody=nobody) == cause


@pytest.mark.parametrize(
    ("state", "code", "causes"),
    [
        ("ready", "", []),
        ("ready", "worker_crashed", []),
        ("resting", "worker_crashed", [("accelerator_lost", "pump")]),
        ("loading", "device_lost", [("accelerator_lost", "pump")]),
        ("loading", "", []),
        ("resting", "upstream_timeout", []),
        ("resting", "load_failed", []),
        ("power_cycle", "worker_crashed", [("needs_power_cycle", "pump")]),
        ("disabled", "parity_failed", [("rung_disabled", "pump/npu:x")]),
        ("disabled", "runtime_unavailable", []),
    ],
)
def test_an_operator_is_told_of_lost_stuck_and_lying_rungs(
    state: RungState, code: str, causes: list[tuple[str, str]]
) -> None:
    told = list(rung_causes("pump", ChainState((Rung("npu:x", state, code=code, detail="why"),))))
    assert [(cause, subject) for cause, subject, _ in told] == causes
    assert all(detail == f"npu:x: {code}: why" for _, _, detail in told)


def test_every_reason_of_a_chain_is_one_that_the_mode_knows() -> None:
    assert {*SERVICE_CODES, "accelerator_lost", "needs_power_cycle", "rung_disabled"} <= CAUSES.keys()


def test_codes_that_a_plug_in_made_up_move_the_chain_on() -> None:
    assert fault_of("made_up") == UNKNOWN
    assert (fault_of("made_up").action, fault_of("made_up").scope) == ("next", "model")


def test_what_is_the_input_s_fault_never_ends_a_process_or_disables_a_rung() -> None:
    of_inputs = {fault.action for fault in FAULTS.values() if fault.scope == "request"}
    assert of_inputs <= {"refuse", "retry", "next"}
    assert all(fault.scope in ("worker", "device") for fault in FAULTS.values() if fault.action == "restart")
