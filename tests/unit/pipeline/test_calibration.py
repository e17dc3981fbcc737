"""Thresholds that devices set for themselves."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.errors import ConfigError
from edged.pipeline.calibration import Calibration, quantile
from edged.pipeline.spec import CalibratedThreshold


def learner(events: int = 3, *, factor: float = 1.0, max_devices: int = 10) -> Calibration:
    return Calibration(CalibratedThreshold(events, quantile=1.0, factor=factor), max_devices)


def test_the_first_scores_teach_and_the_next_is_judged() -> None:
    calibration = learner(factor=1.5)
    assert [calibration.threshold("d", score) for score in (1.0, 4.0, 2.0)] == [None] * 3
    assert calibration.threshold("d", 100.0) == 6.0
    assert calibration.threshold("d", 100.0) == 6.0


def test_devices_learn_apart() -> None:
    calibration = learner(1)
    calibration.threshold("a", 1.0)
    assert calibration.threshold("b", 2.0) is None
    assert (calibration.threshold("a", 0.0), calibration.threshold("b", 0.0)) == (1.0, 2.0)


def test_a_factor_makes_a_negative_threshold_harder_to_reach_too() -> None:
    calibration = learner(1, factor=1.5)
    calibration.threshold("d", -2.0)
    assert calibration.threshold("d", 0.0) == -1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_the_quantile_is_numpys(values: list[float], part: float) -> None:
    assert quantile(values, part) == pytest.approx(float(np.quantile(values, part)), abs=1e-6)


def test_of_too_many_devices_the_longest_known_learns_anew() -> None:
    calibration = learner(1, max_devices=2)
    for device in ("a", "b", "c"):
        calibration.threshold(device, 1.0)
    assert calibration.threshold("a", 1.0) is None
    slow = learner(5, max_devices=2)
    for device in ("a", "b", "c"):
        slow.threshold(device, 1.0)
    assert list(slow._scores) == ["b", "c"]


def test_a_loaded_state_goes_on_where_the_dumped_one_stood() -> None:
    calibration = learner(2)
    for device, score in (("a", 1.0), ("a", 2.0), ("b", 3.0)):
        calibration.threshold(device, score)
    loaded = learner(2)
    assert loaded.load(calibration.dump())
    assert loaded.threshold("a", 0.0) == 2.0
    assert loaded.threshold("b", 4.0) is None
    assert loaded.threshold("b", 0.0) == 4.0


def test_a_state_of_another_calibration_or_a_damaged_one_is_not_taken() -> None:
    calibration = learner(2)
    calibration.threshold("a", 1.0)
    for blob in (b"", b"\xc1", learner(3).dump(), msgspec.msgpack.encode([99, 2, {}, {}])):
        assert calibration.load(blob) is False
    calibration.threshold("a", 5.0)
    assert calibration.threshold("a", 0.0) == 5.0


@pytest.mark.parametrize(
    "spec",
    [
        CalibratedThreshold(0),
        CalibratedThreshold(5, quantile=1.1),
        CalibratedThreshold(5, quantile=-0.1),
        CalibratedThreshold(5, factor=0.0),
        CalibratedThreshold(5, factor=float("nan")),
    ],
)
def test_a_calibration_that_cannot_be_is_found_at_once(spec: CalibratedThreshold) -> None:
    with pytest.raises(ConfigError, match="calibrate_events"):
        Calibration(spec)
