"""From the state of a chain of runtimes to the reasons of the mode. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edged.policy.chain import ChainState
from edged.policy.faults import fault_of

SERVICE_CODES = frozenset({"fallback_runtime", "rules_serving", "model_unusable", "accelerator_required"})
"""Who answers: at most one of them holds for a pipeline."""

DISTRUSTED = frozenset(
    {"parity_failed", "golden_mismatch", "not_repeatable", "not_finite", "placement_rejected", "crashes"}
)
"""Why a rung is disabled that would answer, but not rightly."""


def service_cause(at: int | None, *, stand_in: bool, nobody: str | None) -> str | None:
    """The reason for who answers. at: the rung, 0 the best; None: none, then rules or a memory, if there are any.

    nobody: the reason when nobody answers; None where no model is configured.
    """
    if at is not None:
        return "fallback_runtime" if at else None
    return "rules_serving" if stand_in and nobody is not None else nobody


def rung_causes(pipeline: str, state: ChainState) -> Iterator[tuple[str, str, str]]:
    """(code, subject, detail) for every rung that an operator should know of."""
    for rung in state.rungs:
        detail = f"{rung.name}: {rung.code}: {rung.detail}"
        if rung.state == "power_cycle":
            yield "needs_power_cycle", pipeline, detail
        elif rung.state == "disabled" and rung.code in DISTRUSTED:
            yield "rung_disabled", f"{pipeline}/{rung.name}", detail
        elif rung.state in ("resting", "loading") and _is_lost(rung.code):
            yield "accelerator_lost", pipeline, detail


def _is_lost(code: str) -> bool:
    """Whether a device of this box is gone. The upstream is none: `upstream_away` says it when it is away."""
    return bool(code) and fault_of(code).scope in ("device", "worker") and not code.startswith("upstream_")
