"""Duplicates and gaps: the rules, one by one."""

from __future__ import annotations

import msgspec
import pytest

from edged.ingest.sequence import DUPLICATE, STREAMS_KEPT, TOO_MANY_DEVICES, Gap, SequenceTracker
from edged.ingest.spec import SequenceSpec

GRACE_MS = 1000


def tracker(**changes: int) -> SequenceTracker:
    return SequenceTracker(SequenceSpec(**({"gap_grace_ms": GRACE_MS} | changes)))


def feed(
    judge: SequenceTracker, *numbers: int, boot: str | None = "b", now_ms: int = 0, ts: int | None = 0
) -> list[str | None]:
    return [judge.admit("d", boot, number, ts, now_ms) for number in numbers]


def gap(first: int, last: int, kind: str = "sequence", boot: str | None = "b") -> Gap:
    return Gap("d", boot, first, last, last - first + 1, kind)  # type: ignore[arg-type]


def test_numbers_in_order_are_new_and_nothing_is_reported() -> None:
    judge = tracker()
    assert feed(judge, 7, 8, 9) == [None] * 3
    assert judge.expire(10**9) == []


def test_a_number_seen_before_is_a_duplicate() -> None:
    judge = tracker()
    assert feed(judge, 1, 2, 2, 1) == [None, None, DUPLICATE, DUPLICATE]


def test_missing_numbers_are_reported_once_when_the_grace_is_over() -> None:
    judge = tracker()
    feed(judge, 1, 5, now_ms=100)
    assert judge.expire(100 + GRACE_MS - 1) == []
    assert judge.expire(100 + GRACE_MS) == [gap(2, 4)]
    assert judge.expire(10**9) == []


def test_numbers_that_come_late_but_within_the_grace_are_never_reported() -> None:
    judge = tracker()
    feed(judge, 1, 5, 3, 2, 4)
    assert judge.expire(10**9) == []
    assert feed(judge, 2, 3, 4) == [DUPLICATE] * 3


def test_what_is_left_of_a_hole_is_reported_in_pieces() -> None:
    judge = tracker()
    feed(judge, 1, 9, 4, 8)
    assert judge.expire(GRACE_MS) == [gap(2, 3), gap(5, 7)]


def test_numbers_that_come_after_the_report_are_taken_and_reported_as_filled() -> None:
    judge = tracker()
    feed(judge, 1, 9)
    judge.expire(GRACE_MS)
    assert feed(judge, 3, 4, 5, 8) == [None] * 4
    assert judge.expire(GRACE_MS) == [gap(3, 5, "filled"), gap(8, 8, "filled")]
    assert feed(judge, 4) == [DUPLICATE]


def test_filled_numbers_of_two_devices_are_not_mixed_up() -> None:
    judge = tracker()
    for device in ("d", "e"):
        judge.admit(device, "b", 1, 0, 0)
        judge.admit(device, "b", 9, 0, 0)
    judge.expire(GRACE_MS)
    judge.admit("d", "b", 2, 0, 0)
    judge.admit("e", "b", 3, 0, 0)
    assert [(item.device, item.first, item.last) for item in judge.expire(0)] == [("d", 2, 2), ("e", 3, 3)]


def test_holes_of_different_age_are_reported_when_each_is_due() -> None:
    judge = tracker()
    feed(judge, 1, 3, now_ms=0)
    feed(judge, 5, now_ms=500)
    assert judge.expire(GRACE_MS) == [gap(2, 2)]
    assert judge.expire(GRACE_MS + 500) == [gap(4, 4)]


def test_a_huge_jump_is_one_hole() -> None:
    judge = tracker()
    assert feed(judge, 1, 2**62) == [None, None]
    assert judge.expire(GRACE_MS) == [gap(2, 2**62 - 1)]


# --- boots ---------------------------------------------------------------------------------------------------------


def test_a_new_boot_starts_anew_and_is_no_gap() -> None:
    judge = tracker()
    feed(judge, 100, 101, boot="a")
    assert feed(judge, 40, 41, boot="b") == [None, None]
    assert judge.expire(10**9) == []


def test_events_of_the_boot_before_are_still_told_apart() -> None:
    judge = tracker()
    feed(judge, 1, 2, 5, boot="a")
    feed(judge, 1, boot="b")
    assert feed(judge, 5, 3, boot="a") == [DUPLICATE, None]
    assert judge.expire(GRACE_MS) == [gap(4, 4, boot="a")]


def test_a_boot_long_ago_is_forgotten_and_its_holes_are_reported() -> None:
    judge = tracker()
    feed(judge, 1, 5, boot="0")
    for boot in range(1, STREAMS_KEPT + 1):
        feed(judge, 1, boot=str(boot))
    assert judge.expire(0) == [gap(2, 4, boot="0")]
    assert judge.forgotten_count == 1
    assert feed(judge, 5, boot="0") == [None]  # as of a new boot


# --- sensors without a boot id that start over --------------------------------------------------------------------


@pytest.mark.parametrize(("hi", "seq"), [(16, 0), (16, 1), (500, 1), (2000, 900)])
def test_a_sensor_far_back_in_number_and_later_in_time_has_started_over(hi: int, seq: int) -> None:
    judge = tracker()
    feed(judge, hi, boot=None, ts=100)
    assert feed(judge, seq, seq + 1, boot=None, ts=101) == [None, None]
    assert judge.expire(10**9) == [Gap("d", None, hi, seq, 0, "sequence_reset")]


@pytest.mark.parametrize(
    ("hi", "seq", "ts", "boot"),
    [
        (15, 0, 101, None),  # too early to tell from reordering
        (500, 2, 101, None),  # not the beginning, and not far back
        (500, 1, 100, None),  # not later
        (500, 1, 99, None),  # older: sent again
        (500, 1, 101, "b"),  # the boot id would have changed
        (1500, 476, 101, None),  # just not far enough
    ],
)
def test_otherwise_an_old_number_is_a_duplicate(hi: int, seq: int, ts: int, boot: str | None) -> None:
    judge = tracker()
    feed(judge, hi, boot=boot, ts=100)
    assert feed(judge, seq, boot=boot, ts=ts) == [DUPLICATE]
    assert judge.expire(10**9) == []


def test_an_event_from_before_the_restart_is_judged_by_the_numbers_of_that_time() -> None:
    judge = tracker()
    feed(judge, 998, 1000, boot=None, ts=100)
    feed(judge, 0, boot=None, ts=200)
    assert feed(judge, 1000, boot=None, ts=100) == [DUPLICATE]
    assert feed(judge, 999, boot=None, ts=100) == [None]
    assert feed(judge, 998, boot=None, ts=50) == [DUPLICATE]
    assert feed(judge, 1, boot=None, ts=201) == [None]
    assert [item.kind for item in judge.expire(10**9)] == ["sequence_reset"]


def test_the_next_number_with_an_older_time_is_new_all_the_same() -> None:
    judge = tracker()
    feed(judge, 5, boot=None, ts=100)
    assert feed(judge, 6, boot=None, ts=90) == [None]
    assert feed(judge, 7, boot=None, ts=95) == [None]


def test_without_event_times_a_missing_number_is_late_and_any_other_far_back_is_a_restart() -> None:
    judge = tracker()
    feed(judge, 1, 2000, boot=None, ts=None)
    assert feed(judge, 3, boot=None, ts=None) == [None]
    assert judge.expire(0) == []
    assert feed(judge, 1, 2, boot=None, ts=None) == [None, None]
    assert [item.kind for item in judge.expire(0)] == ["sequence_reset"]


# --- without numbers -----------------------------------------------------------------------------------------------


def test_an_unnumbered_event_is_a_duplicate_when_topic_time_and_payload_repeat() -> None:
    judge = tracker()
    assert judge.admit_unnumbered("d", "t", 1, b"x") is None
    assert judge.admit_unnumbered("d", "t", 1, b"x") == DUPLICATE
    assert judge.admit_unnumbered("d", "t", 2, b"x") is None
    assert judge.admit_unnumbered("d", "u", 1, b"x") is None
    assert judge.admit_unnumbered("d", "t", 1, b"y") is None


def test_a_constant_reading_without_a_time_is_never_a_duplicate() -> None:
    judge = tracker()
    assert [judge.admit_unnumbered("d", "t", None, b"x") for _ in range(3)] == [None] * 3


def test_only_so_many_unnumbered_events_are_remembered() -> None:
    judge = tracker(max_keys=2)
    for ts in (1, 2, 3):
        judge.admit_unnumbered("d", "t", ts, b"x")
    assert judge.admit_unnumbered("d", "t", 3, b"x") == DUPLICATE
    assert judge.admit_unnumbered("d", "t", 1, b"x") is None
    assert len(judge._keys) == len(judge._key_order) == 2


def test_a_device_may_begin_to_number_its_events() -> None:
    judge = tracker()
    judge.admit_unnumbered("d", "t", 1, b"x")
    assert feed(judge, 4, 6, 4) == [None, None, DUPLICATE]
    assert judge.device_count == 1


# --- bounds --------------------------------------------------------------------------------------------------------


def test_more_devices_than_allowed_are_refused_and_known_ones_are_served_on() -> None:
    judge = tracker(max_devices=2)
    judge.admit("a", None, 1, 0, 0)
    judge.admit_unnumbered("b", "t", 1, b"")
    assert judge.admit("c", None, 1, 0, 0) == TOO_MANY_DEVICES
    assert judge.admit_unnumbered("c", "t", 1, b"") == TOO_MANY_DEVICES
    assert judge.admit("a", None, 2, 0, 0) is None
    assert judge.admit("b", None, 2, 0, 0) is None
    assert judge.device_count == 2


def test_of_too_many_holes_the_oldest_is_given_up_and_reported_at_once() -> None:
    judge = tracker(max_ranges=2)
    feed(judge, 1, 3, 5, 7)
    assert judge.expire(0) == [gap(2, 2)]
    assert judge.forgotten_count == 1
    assert feed(judge, 2, 4) == [DUPLICATE, None]
    assert judge.expire(GRACE_MS) == [gap(6, 6)]


def test_a_hole_that_was_reported_is_given_up_silently() -> None:
    judge = tracker(max_ranges=1)
    feed(judge, 1, 3)
    judge.expire(GRACE_MS)
    feed(judge, 5, now_ms=GRACE_MS)
    assert judge.expire(GRACE_MS) == []
    assert judge.forgotten_count == 1


def test_a_hole_split_in_two_stays_within_the_bound() -> None:
    judge = tracker(max_ranges=1)
    feed(judge, 1, 9, 5)
    assert judge.expire(0) == [gap(2, 4)]
    assert judge.expire(GRACE_MS) == [gap(6, 8)]


# --- snapshots -----------------------------------------------------------------------------------------------------


def test_a_loaded_state_judges_as_the_dumped_one_with_the_grace_begun_anew() -> None:
    judge = tracker()
    feed(judge, 1, 9, boot="a", now_ms=10**9)
    judge.expire(10**9 + GRACE_MS)
    feed(judge, 1, 3, boot="b", now_ms=10**9)
    judge.admit_unnumbered("e", "t", 1, b"x")
    loaded = tracker()
    assert loaded.load(judge.dump(), now_ms=50)
    assert loaded.admit_unnumbered("e", "t", 1, b"x") == DUPLICATE
    assert feed(loaded, 3, 4, boot="b", now_ms=50) == [DUPLICATE, None]
    assert feed(loaded, 2, boot="a", now_ms=50) == [None]
    assert loaded.expire(50 + GRACE_MS - 1) == [gap(2, 2, "filled", boot="a")]
    assert loaded.expire(50 + GRACE_MS) == [gap(2, 2)]


def test_what_was_to_be_reported_survives_the_snapshot() -> None:
    judge = tracker(max_ranges=1)
    feed(judge, 1, 3, 5)
    loaded = tracker(max_ranges=1)
    assert loaded.load(judge.dump(), now_ms=0)
    assert loaded.expire(0) == [gap(2, 2)]
    assert loaded.forgotten_count == 1


@pytest.mark.parametrize("blob", [b"", b"\xc1", msgspec.msgpack.encode([99, {}, [], [], 0])])
def test_a_snapshot_that_cannot_be_read_changes_nothing(blob: bytes) -> None:
    judge = tracker()
    feed(judge, 1)
    assert judge.load(blob, now_ms=0) is False
    assert feed(judge, 1) == [DUPLICATE]
