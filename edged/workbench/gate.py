"""The verdict over a model: every check with what it wanted and what it got. Pure.

Green needs all of them, and the task metric on labelled data is one of them: parity alone has passed models that were
wrong on everything the plant does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from edged.messages import TensorSpec
from edged.workbench.metrics import Scored
from edged.workbench.onnx_model import Finding
from edged.workbench.parity import Parity


class Thresholds(NamedTuple):
    """max_drop: as `Metric.drop` counts. min_metric: a floor (for errors a ceiling) of the model's own figure."""

    max_drop: float = 0.01
    min_sqnr_db: float = 20.0
    min_metric: float | None = None


class Check(NamedTuple):
    """One condition; `code` is stable and is printed when it fails."""

    code: str
    passed: bool
    what: str
    got: str
    allowed: str


def judge(
    findings: Sequence[Finding],
    interface: Sequence[str],
    parity: Sequence[Parity],
    scored: Scored,
    thresholds: Thresholds,
) -> tuple[Check, ...]:
    """All checks, in the order in which people ask. interface: differences from the reference, in words."""
    fatal = [finding for finding in findings if finding.fatal]
    checks = [
        Check(finding.code, False, "The file can run where it is meant to", finding.detail, "") for finding in fatal
    ]
    if not fatal:
        checks.append(Check("static", True, "The file can run where it is meant to", "nothing against it", ""))
    checks.append(
        Check(
            "interface_differs",
            not interface,
            "Inputs and outputs are those of the reference",
            "; ".join(interface) or "the same",
            "the same names, types and shapes",
        )
    )
    for found in parity:
        checks.append(_finite(found))
        if found.finite:
            checks.append(_close(found, thresholds))
    checks.append(_drop(scored, thresholds))
    if thresholds.min_metric is not None:
        checks.append(_floor(scored, thresholds.min_metric))
    return tuple(checks)


def differences(
    reference: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
    model: tuple[Sequence[TensorSpec], Sequence[TensorSpec]],
) -> tuple[str, ...]:
    """What a pipeline would notice if the model took the place of the reference; ([inputs], [outputs]) of both."""
    found = []
    for kind, before, after in zip(("input", "output"), reference, model, strict=True):
        was, now = {spec.name: spec for spec in before}, {spec.name: spec for spec in after}
        found += [f"{kind} {name} is gone" for name in was if name not in now]
        found += [f"{kind} {name} is new" for name in now if name not in was]
        found += [
            f"{kind} {name} was {_spelled(was[name])}, is {_spelled(now[name])}"
            for name in was
            if name in now and was[name] != now[name]
        ]
    return tuple(found)


def _spelled(spec: TensorSpec) -> str:
    return f"{spec.dtype} ({', '.join('any' if axis < 0 else str(axis) for axis in spec.shape)})"


def _finite(found: Parity) -> Check:
    got = "all of them" if found.finite else "NaN or infinity"
    return Check("not_finite", found.finite, f"Output {found.output}: answers are numbers", got, "")


def _close(found: Parity, thresholds: Thresholds) -> Check:
    return Check(
        "sqnr_low",
        found.sqnr_db >= thresholds.min_sqnr_db,
        f"Output {found.output}: close to the reference",
        f"{found.sqnr_db:.1f} dB, cosine {found.cosine:.5f}, largest difference {found.max_abs:.4g}",
        f"{thresholds.min_sqnr_db:g} dB or more",
    )


def _drop(scored: Scored, thresholds: Thresholds) -> Check:
    unit = "points" if scored.higher_is_better else "of the naive error"
    return Check(
        "metric_drop",
        scored.drop <= thresholds.max_drop + 1e-12,  # 0.01 of 100 samples must be allowed, whatever binary thinks
        f"The task: {scored.metric} on {scored.samples} labelled samples",
        f"{scored.model:.4f} against {scored.reference:.4f}: {scored.drop:+.4f} {unit}",
        f"a drop of {thresholds.max_drop:g} {unit} at most",
    )


def _floor(scored: Scored, limit: float) -> Check:
    better = scored.model >= limit if scored.higher_is_better else scored.model <= limit
    return Check(
        "metric_insufficient",
        better,
        f"The task: {scored.metric} on its own",
        f"{scored.model:.4f}",
        f"{limit:g} or {'more' if scored.higher_is_better else 'less'}",
    )
