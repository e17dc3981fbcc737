"""Declared thresholds as a model."""

from __future__ import annotations

import numpy as np
import pytest

from edged.errors import InferenceError
from edged.infer.rules import Rule, RulesModel

RULES = (Rule("hot", 0, above=80), Rule("cold", 0, below=0), Rule("fast", 1, below=10, above=20))


def answers(*rows: tuple[float, float]) -> list[int]:
    model = RulesModel(RULES, "pump")
    found: list[int] = model.infer({"input": np.array(rows, np.float32)}, deadline_s=1)["rule"].tolist()
    return found


def test_each_row_is_answered_by_the_first_rule_that_holds() -> None:
    assert answers((81, 15), (80, 15), (-1, 15), (50, 9), (50, 21), (90, 21)) == [0, -1, 1, 2, 2, 0]


def test_a_value_that_is_no_number_trips_no_rule() -> None:
    assert answers((np.nan, 15)) == [-1]


def test_the_newest_sample_of_a_window_decides() -> None:
    window = np.array([[[99, 15], [50, 15]], [[50, 15], [99, 15]]], np.float32)
    assert RulesModel(RULES).infer({"x": window}, deadline_s=1)["rule"].tolist() == [-1, 0]


@pytest.mark.parametrize(
    "batch", [{}, {"a": np.zeros((1, 2)), "b": np.zeros((1, 2))}, {"a": np.zeros(3)}, {"a": np.zeros((1, 1))}]
)
def test_inputs_that_rules_cannot_read_are_refused(batch: dict[str, np.ndarray]) -> None:
    with pytest.raises(InferenceError) as caught:
        RulesModel(RULES).infer(batch, deadline_s=1)
    assert caught.value.code == "invalid_input"


def test_rules_say_what_they_are_and_close_quietly() -> None:
    model = RulesModel(RULES, "pump")
    assert (model.info.model, model.info.runtime) == ("rules-pump", "rules")
    assert RulesModel(()).info.model == "rules"
    model.close()
    model.close()
