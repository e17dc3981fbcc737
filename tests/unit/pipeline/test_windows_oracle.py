"""Windows against a model that keeps every sample and sorts."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edged.pipeline.spec import InputSpec
from edged.pipeline.windows import LATE_RUN, WindowBank


class Naive:
    """All samples since the last start as (ts, arrival), and how many there were."""

    def __init__(self, spec: InputSpec) -> None:
        self.spec = spec
        self.samples: list[tuple[int, int]] = []
        self.accepted = self.late = self.late_run = self.restarts = 0

    def push(self, ts: int, arrival: int) -> list[tuple[int, int]] | None:
        if self.samples:
            newest = self.samples[-1][0]
            if ts < newest:
                oldest = self.samples[-self.spec.window :][0][0]
                full = len(self.samples) >= self.spec.window
                if newest - ts > self.spec.lateness_ms or (full and ts < oldest):
                    self.late += 1
                    self.late_run += 1
                    if self.late_run < max(LATE_RUN, self.spec.window):
                        return None
                    self.restart()
            elif self.spec.max_gap_ms is not None and ts - newest > self.spec.max_gap_ms:
                self.restart()
        if not self.samples or ts >= self.samples[-1][0]:
            self.late_run = 0
        self.samples.append((ts, arrival))
        self.samples.sort()
        self.accepted += 1
        beyond = self.accepted - self.spec.window
        return self.samples[-self.spec.window :] if beyond >= 0 and beyond % self.spec.stride == 0 else None

    def restart(self) -> None:
        self.samples = []
        self.accepted = 0
        self.restarts += 1


@given(
    window=st.integers(2, 6),
    stride=st.integers(1, 8),
    lateness_ms=st.integers(0, 12),
    max_gap_ms=st.none() | st.integers(5, 20),
    moves=st.lists(st.integers(-15, 25), max_size=150),
    snapshot_at=st.integers(0, 150),
)
def test_every_window_and_every_count_agrees_with_a_model_that_sorts_everything(
    window: int, stride: int, lateness_ms: int, max_gap_ms: int | None, moves: list[int], snapshot_at: int
) -> None:
    spec = InputSpec(("ts", "ref"), window=window, stride=stride, lateness_ms=lateness_ms, max_gap_ms=max_gap_ms)
    bank, naive = WindowBank(spec), Naive(spec)
    ts = 1000
    for ref, move in enumerate(moves):
        if ref == snapshot_at:
            blob = bank.dump()
            bank = WindowBank(spec)
            assert bank.load(blob)
        ts += move
        ready, expected = bank.push("d", ts, (float(ts), float(ref)), ref), naive.push(ts, ref)
        if ready is None:
            assert expected is None
            continue
        assert isinstance(ready[2], bytes)
        rows = np.frombuffer(ready[2], np.float64).reshape(-1, 2)
        assert [(int(t), int(r)) for t, r in rows] == expected
        assert ready[:2] == expected[-1]
    assert (bank.late_count, bank.restart_count) == (naive.late, naive.restarts)


@given(
    step_ms=st.integers(1, 20),
    waits_ms=st.lists(st.integers(0, 60), min_size=1, max_size=60),
)
def test_resampled_points_lie_on_the_line_through_the_events(step_ms: int, waits_ms: list[int]) -> None:
    bank = WindowBank(InputSpec(("v",), window=1, resample_ms=step_ms, max_gap_ms=60))
    times = np.cumsum([7, *waits_ms])
    points: dict[int, float] = {}
    for ref, ts in enumerate(times.tolist()):
        ready = bank.push("d", ts, (float(ref * ref),), ref)
        if ready is not None:
            assert isinstance(ready[2], bytes)
            points[ts // step_ms * step_ms] = float(np.frombuffer(ready[2], np.float64)[0])
    first_of_each_time = {int(ts): ref for ref, ts in reversed(list(enumerate(times.tolist())))}
    last_of_each_time = {int(ts): ref for ref, ts in enumerate(times.tolist())}
    for point, value in points.items():
        after = min(ts for ts in first_of_each_time if ts >= point)
        before = max((ts for ts in last_of_each_time if ts < point), default=after)
        b = float(first_of_each_time[after] ** 2)
        a = float(last_of_each_time[before] ** 2) if before != after else b
        expected = b if before == after else a + (b - a) * (point - before) / (after - before)
        assert abs(value - expected) <= 1e-9 * max(1.0, abs(expected))
    assert bank.late_count == bank.restart_count == 0
