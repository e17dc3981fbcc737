"""Events become windows: the rules, one by one."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from edged.errors import ConfigError
from edged.pipeline.spec import InputSpec
from edged.pipeline.windows import LATE_RUN, Ready, WindowBank


def bank(**changes: Any) -> WindowBank:
    return WindowBank(InputSpec(**({"fields": ("v",)} | changes)))


def values(ready: Ready | None) -> list[float] | None:
    """The samples of a window of one field."""
    if ready is None:
        return None
    assert isinstance(ready[2], bytes)
    return [float(value) for value in np.frombuffer(ready[2], np.float64)]


def push(windows: WindowBank, *times: int) -> list[list[float] | None]:
    """Push events whose value is their time."""
    return [values(windows.push("d", ts, (float(ts),), ts)) for ts in times]


def test_a_window_of_one_event_is_the_event_itself_and_nothing_is_kept() -> None:
    windows = bank()
    row = (1.0,)
    assert windows.single
    assert windows.push("d", 5, row, 7) == (5, 7, row)
    ready = windows.push("d", 1, row, 8)  # order does not matter
    assert ready is not None
    assert ready[2] is row
    assert windows._windows == {}


def test_a_window_closes_with_its_last_event_and_then_every_stride() -> None:
    assert push(bank(window=3, stride=2), 1, 2, 3, 4, 5, 6, 7) == [
        None, None, [1, 2, 3], None, [3, 4, 5], None, [5, 6, 7],
    ]  # fmt: skip


def test_a_stride_beyond_the_window_leaves_events_out() -> None:
    assert push(bank(window=2, stride=3), 1, 2, 3, 4, 5) == [None, [1, 2], None, None, [4, 5]]
    assert push(bank(window=1, stride=2), 1, 2, 3) == [[1], None, [3]]


def test_a_window_names_its_newest_event_and_holds_rows_oldest_first() -> None:
    windows = WindowBank(InputSpec(fields=("a", "b"), window=2))
    windows.push("d", 10, (1.0, 2.0), 100)
    ready = windows.push("d", 20, (3.0, 4.0), 101)
    assert ready is not None
    assert ready[:2] == (20, 101)
    assert values(ready) == [1, 2, 3, 4]


def test_devices_do_not_mix() -> None:
    windows = bank(window=2)
    windows.push("a", 1, (1.0,), 1)
    windows.push("b", 2, (2.0,), 2)
    assert values(windows.push("a", 3, (3.0,), 3)) == [1, 3]


def test_a_silence_longer_than_allowed_begins_the_window_anew() -> None:
    windows = bank(window=2, max_gap_ms=10)
    assert push(windows, 0, 10, 21, 31) == [None, [0, 10], None, [21, 31]]
    assert windows.restart_count == 1


def test_events_of_the_same_millisecond_keep_their_order() -> None:
    windows = bank(window=2, lateness_ms=5)
    windows.push("d", 1, (1.0,), 1)
    assert values(windows.push("d", 1, (2.0,), 2)) == [1, 2]


# --- out of order --------------------------------------------------------------------------------------------------


def test_an_event_within_the_lateness_takes_its_place() -> None:
    windows = bank(window=3, lateness_ms=10)
    assert push(windows, 1, 9, 5, 10) == [None, None, [1, 5, 9], [5, 9, 10]]
    assert windows.late_count == 0


def test_a_window_closed_by_a_late_event_still_names_the_newest() -> None:
    windows = bank(window=2, lateness_ms=10)
    windows.push("d", 9, (9.0,), 100)
    ready = windows.push("d", 5, (5.0,), 101)
    assert ready is not None
    assert ready[:2] == (9, 100)


def test_an_event_beyond_the_lateness_is_counted_and_not_used() -> None:
    windows = bank(window=2, lateness_ms=3)
    assert push(windows, 10, 6, 7, 11) == [None, None, [7, 10], [10, 11]]
    assert windows.late_count == 1


def test_an_event_older_than_a_full_window_is_counted_and_not_used() -> None:
    windows = bank(window=2, lateness_ms=100)
    assert push(windows, 10, 11, 9) == [None, [10, 11], None]
    assert windows.late_count == 1


def test_a_clock_that_went_back_does_not_silence_a_device_for_ever() -> None:
    windows = bank(window=2)
    push(windows, 10**12)
    assert push(windows, *range(LATE_RUN - 1)) == [None] * (LATE_RUN - 1)
    assert push(windows, 100, 101) == [None, [100, 101]]
    assert (windows.late_count, windows.restart_count) == (LATE_RUN, 1)


def test_an_event_in_time_ends_the_run_of_late_ones() -> None:
    windows = bank(window=2)
    for round_number in range(5):
        push(windows, 10**12 + round_number, *range(LATE_RUN - 1))
    assert windows.restart_count == 0


def test_an_event_that_has_only_its_time_of_arrival_is_the_newest_even_if_the_wall_clock_went_back() -> None:
    windows = bank(window=2)
    assert values(windows.push("d", 10**12, (1.0,), 1, True)) is None
    ready = windows.push("d", 5, (2.0,), 2, True)
    assert ready is not None
    assert (ready[:2], values(ready)) == ((5, 2), [1, 2])
    assert (windows.late_count, windows.restart_count) == (0, 0)


@pytest.mark.parametrize("changes", [{"lateness_ms": 5}, {"resample_ms": 1, "max_gap_ms": 10**4}])
def test_where_times_must_ascend_a_wall_clock_that_went_back_begins_the_window_anew(changes: dict[str, int]) -> None:
    windows = bank(window=2, **changes)
    windows.push("d", 10**12, (1.0,), 1, True)
    assert windows.push("d", 5, (2.0,), 2, True) is None
    assert values(windows.push("d", 6, (3.0,), 3, True)) == [2, 3]
    assert windows.restart_count == 1


# --- resampling ----------------------------------------------------------------------------------------------------


def test_resampling_puts_samples_on_the_grid_between_the_events() -> None:
    windows = bank(window=2, resample_ms=10)
    assert push(windows, 5, 12, 18, 25) == [None, None, None, [10, 20]]


def test_an_event_on_the_grid_is_its_own_sample() -> None:
    assert push(bank(window=2, resample_ms=10), 0, 10, 20) == [None, [0, 10], [10, 20]]


def test_one_event_that_closes_several_windows_gives_the_newest_and_counts_the_others() -> None:
    windows = bank(window=2, resample_ms=10, max_gap_ms=1000)
    assert push(windows, 0, 40) == [None, [30, 40]]
    assert windows.coalesced_count == 3


def test_resampling_never_bridges_more_than_a_window_unless_told_to() -> None:
    windows = bank(window=2, resample_ms=10)
    assert push(windows, 0, 21, 30) == [None, None, None]
    assert windows.restart_count == 1


def test_with_resampling_an_event_behind_the_newest_is_too_late() -> None:
    windows = bank(window=2, resample_ms=10)
    assert push(windows, 10, 9, 10, 20) == [None, None, None, [10, 20]]
    assert windows.late_count == 1


def test_single_events_may_be_resampled_too() -> None:
    windows = bank(resample_ms=10, max_gap_ms=100)
    assert not windows.single
    assert push(windows, 5, 15) == [None, [10]]


# --- bounds and snapshots ------------------------------------------------------------------------------------------


def test_of_too_many_devices_the_longest_known_is_forgotten() -> None:
    windows = bank(window=2, max_devices=2)
    for device in ("a", "b", "c"):
        windows.push(device, 1, (1.0,), 1)
    assert list(windows._windows) == ["b", "c"]
    assert windows.evicted_count == 1


def test_what_is_kept_of_a_device_is_one_window() -> None:
    windows = bank(window=3, stride=7, lateness_ms=50)
    push(windows, *range(1000))
    kept = windows._windows["d"]
    assert len(kept.rows) == len(kept.times) == 3


@pytest.mark.parametrize("changes", [{"lateness_ms": 5}, {"resample_ms": 10, "max_gap_ms": 100}])
def test_a_loaded_state_goes_on_where_the_dumped_one_stood(changes: dict[str, int]) -> None:
    straight, other = bank(window=3, stride=2, **changes), bank(window=3, stride=2, **changes)
    push(straight, 0, 15, 12, 30, 1)
    assert other.load(straight.dump())
    assert push(straight, 42, 50, 61) == push(other, 42, 50, 61)
    assert other.late_count == straight.late_count > 0


def test_a_state_of_other_windows_or_a_damaged_one_is_not_taken() -> None:
    windows = bank(window=3)
    push(windows, 1, 2)
    for blob in (b"", b"\xc1", msgspec.msgpack.encode([99, [3, 1, 0, 0, 1], {}, [0, 0, 0, 0]]), bank(window=4).dump()):
        assert windows.load(blob) is False
    assert push(windows, 3) == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"window": 0}, "at least 1"),
        ({"stride": 0}, "at least 1"),
        ({"width": 0, "window": 2}, "any length"),
        ({"lateness_ms": -1}, "negative"),
        ({"resample_ms": -1}, "negative"),
        ({"max_gap_ms": -1}, "negative"),
        ({"resample_ms": 10, "lateness_ms": 1}, "final"),
        ({"resample_ms": 1, "max_gap_ms": 86_400_000}, "interpolated"),
    ],
)
def test_a_contradiction_in_the_spec_is_found_at_once(changes: dict[str, int], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        bank(**changes)
