"""Green needs every check; each that fails has its own code."""

from __future__ import annotations

import pytest

from edged.messages import TensorSpec
from edged.workbench.gate import Thresholds, differences, judge
from edged.workbench.metrics import Scored
from edged.workbench.onnx_model import Finding
from edged.workbench.parity import Parity

CLOSE = Parity("y", 35.0, 0.999, 0.1, 0.01, True, (34.0, 36.0))
GOOD = Scored("accuracy", True, 400, 0.95, 0.945, 0.2, 0.005, (0.0, 0.01), (3, 1))
IN, OUT = (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1, 2)),)


def failed(
    *,
    findings: tuple[Finding, ...] = (),
    interface: tuple[str, ...] = (),
    parity: Parity = CLOSE,
    scored: Scored = GOOD,
    thresholds: Thresholds | None = None,
) -> list[str]:
    checks = judge(findings, interface, (parity,), scored, thresholds or Thresholds())
    return [check.code for check in checks if not check.passed]


def test_a_model_that_passes_every_check_is_green() -> None:
    assert failed() == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"findings": (Finding("too_large", "9 bytes", fatal=True),)}, "too_large"),
        ({"interface": ("output y is gone",)}, "interface_differs"),
        ({"parity": CLOSE._replace(sqnr_db=19.9)}, "sqnr_low"),
        ({"parity": CLOSE._replace(finite=False)}, "not_finite"),
        ({"scored": GOOD._replace(drop=0.0101)}, "metric_drop"),
        ({"scored": GOOD._replace(drop=float("nan"))}, "metric_drop"),
        ({"thresholds": Thresholds(min_metric=0.95)}, "metric_insufficient"),
        (
            {
                "scored": GOOD._replace(metric="rmse", higher_is_better=False, model=0.3),
                "thresholds": Thresholds(min_metric=0.2),
            },
            "metric_insufficient",
        ),
    ],
)
def test_each_failure_has_its_own_code(change: dict[str, object], code: str) -> None:
    assert failed(**change) == [code]  # type: ignore[arg-type]


def test_closeness_does_not_make_up_for_the_task() -> None:
    assert failed(parity=CLOSE._replace(sqnr_db=90.0), scored=GOOD._replace(drop=0.5)) == ["metric_drop"]


def test_a_drop_of_exactly_what_is_allowed_passes() -> None:
    assert failed(scored=GOOD._replace(drop=1.0 - 0.99)) == []


def test_what_is_only_unusual_fails_nothing() -> None:
    assert failed(findings=(Finding("free_axes", "x", fatal=False),)) == []


def test_what_a_pipeline_would_notice_is_named() -> None:
    assert differences((IN, OUT), (IN, OUT)) == ()
    other = (TensorSpec("y", "float32", (-1, 3)), TensorSpec("z", "float32", (-1,)))
    assert differences((IN, OUT), ((), other)) == (
        "input x is gone",
        "output z is new",
        "output y was float32 (any, 2), is float32 (any, 3)",
    )
