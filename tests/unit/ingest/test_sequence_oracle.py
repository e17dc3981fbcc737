"""Duplicates and gaps against a model that remembers every number."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.ingest.sequence import DUPLICATE, SequenceTracker
from edged.ingest.spec import SequenceSpec

GRACE_MS = 10

numbers = st.integers(min_value=0, max_value=40)
steps = st.lists(
    st.tuples(st.sampled_from(["event", "event", "event", "expire", "snapshot"]), numbers, st.integers(0, 8)),
    max_size=120,
)


class Naive:
    """Every number of one boot, and since when each missing one is missing."""

    def __init__(self) -> None:
        self.first = self.hi = -1
        self.seen: set[int] = set()
        self.since: dict[int, int] = {}
        self.told: set[int] = set()
        self.filled: list[int] = []

    def admit(self, seq: int, now_ms: int) -> str | None:
        if self.hi < 0:
            self.first = seq
        elif seq > self.hi:
            self.since |= dict.fromkeys(range(self.hi + 1, seq), now_ms)
        elif seq < self.first or seq in self.seen:
            return DUPLICATE
        elif seq in self.told:
            self.filled.append(seq)
            self.since.pop(seq)
        else:
            self.since.pop(seq)
        self.hi = max(self.hi, seq)
        self.seen.add(seq)
        return None

    def expire(self, now_ms: int) -> set[int]:
        due = {seq for seq, since in self.since.items() if now_ms - since >= GRACE_MS and seq not in self.told}
        self.told |= due
        return due


@given(steps)
def test_every_verdict_and_every_report_agrees_with_a_model_that_remembers_everything(
    script: list[tuple[str, int, int]],
) -> None:
    spec = SequenceSpec(gap_grace_ms=GRACE_MS, max_ranges=1000)
    judge, naive = SequenceTracker(spec), Naive()
    now_ms = 0
    for act, seq, wait_ms in script:
        now_ms += wait_ms
        if act == "event":
            assert judge.admit("d", "b", seq, now_ms, now_ms) == naive.admit(seq, now_ms)
        elif act == "expire":
            reports = judge.expire(now_ms)
            missing = [n for gap in reports if gap.kind == "sequence" for n in range(gap.first, gap.last + 1)]
            filled = [n for gap in reports if gap.kind == "filled" for n in range(gap.first, gap.last + 1)]
            assert set(missing) == naive.expire(now_ms)
            assert len(missing) == len(set(missing))
            assert filled == naive.filled
            naive.filled = []
        else:
            loaded = SequenceTracker(spec)
            assert loaded.load(judge.dump(), now_ms)
            judge = loaded
            naive.since = {n: since if n in naive.told else now_ms for n, since in naive.since.items()}


@given(st.lists(st.tuples(st.integers(0, 300), st.booleans()), min_size=1, max_size=300), st.integers(1, 5))
def test_taken_plus_reported_minus_filled_is_the_span_of_numbers_however_few_holes_are_remembered(
    script: list[tuple[int, bool]], max_ranges: int
) -> None:
    judge = SequenceTracker(SequenceSpec(gap_grace_ms=0, max_ranges=max_ranges))
    taken = [seq for seq, _ in script[:1]]
    reports = []
    for seq, expire in script:
        if judge.admit("d", "b", seq, 0, 0) is None:
            taken.append(seq)
        if expire:
            reports += judge.expire(0)
    reports += judge.expire(0)
    reported = sum(gap.count for gap in reports if gap.kind == "sequence")
    filled = sum(gap.count for gap in reports if gap.kind == "filled")
    del taken[0]  # the first was put in to make the list never empty
    assert len(taken) == len(set(taken))
    assert len(taken) + reported - filled == max(taken) - taken[0] + 1
    assert all(len(stream.missing) <= max_ranges for stream in judge._streams("d"))


@given(
    st.lists(
        st.tuples(st.sampled_from([None, "a", "b"]), st.integers(0, 50), st.integers(0, 50) | st.none()), max_size=150
    ),
    st.integers(0, 150),
)
def test_a_snapshot_at_any_point_changes_no_later_verdict(
    script: list[tuple[str | None, int, int | None]], at: int
) -> None:
    straight, broken = SequenceTracker(SequenceSpec()), SequenceTracker(SequenceSpec())
    for position, (boot, seq, ts) in enumerate(script):
        if position == at:
            blob = broken.dump()
            broken = SequenceTracker(SequenceSpec())
            assert broken.load(blob, 0)
        assert straight.admit("d", boot, seq, ts, 0) == broken.admit("d", boot, seq, ts, 0)
    assert straight.expire(10**9) == broken.expire(10**9)
