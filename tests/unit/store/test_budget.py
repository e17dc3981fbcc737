"""The arithmetic of room: nothing is given up while there is room, and enough when there is none."""

from __future__ import annotations

import pytest

from edged.store.budget import Limits, Usage, file_allowance, pages_to_return, row_bytes, shortage

LIMITS = Limits(budget_bytes=10_000_000, free_floor_bytes=1_000_000, page_bytes=1024)
ROOMY = Usage(pages=1000, free_pages=0, wal_bytes=0, other_bytes=0, disk_free_bytes=10**12)


def test_the_wal_comes_home_at_a_sixteenth_of_a_small_budget_and_at_ten_thousand_pages_of_a_large_one() -> None:
    assert LIMITS.wal_pages == 610
    assert LIMITS._replace(budget_bytes=2_000_000_000).wal_pages == 10_000
    assert LIMITS._replace(budget_bytes=1).wal_pages == 100


def test_with_room_nothing_is_missing() -> None:
    assert shortage(ROOMY, LIMITS, 5000) == 0


def test_what_exceeds_the_budget_is_missing() -> None:
    full = ROOMY._replace(pages=file_allowance(ROOMY, LIMITS) // 1024)
    assert 5000 - 1024 < shortage(full, LIMITS, 5000) <= 5000
    assert shortage(full._replace(free_pages=5), LIMITS, 5000) == 0, "free pages inside the file are room"


@pytest.mark.parametrize("taken", [Usage(1000, 0, 9_000_000, 0, 10**12), Usage(1000, 0, 0, 9_000_000, 10**12)])
def test_a_long_wal_and_other_files_count_against_the_budget(taken: Usage) -> None:
    assert shortage(taken, LIMITS, 5000) > 0


def test_the_file_may_not_grow_below_the_free_floor_of_the_disk() -> None:
    tight = ROOMY._replace(disk_free_bytes=1_002_000)
    assert shortage(tight, LIMITS, 2000) == 0
    assert shortage(tight, LIMITS, 5000) == 3000
    assert shortage(tight._replace(disk_free_bytes=0), LIMITS, 5000) == 5000
    assert shortage(tight._replace(free_pages=5), LIMITS, 5000) == 0, "reusing pages does not fill the disk"


def test_a_file_within_its_allowance_gives_nothing_back() -> None:
    assert pages_to_return(ROOMY._replace(free_pages=1000), LIMITS) == 0


def test_a_file_that_is_too_large_gives_back_its_free_pages_only() -> None:
    large = ROOMY._replace(pages=20_000, free_pages=7)
    assert pages_to_return(large, LIMITS) == 7
    returned = pages_to_return(large._replace(free_pages=19_000), LIMITS)
    allowed = file_allowance(large, LIMITS)
    assert allowed - 1024 < (20_000 - returned) * 1024 <= allowed, "no part of a page is too much"


def test_a_row_takes_whole_pages() -> None:
    assert row_bytes(0, 1024) == 2048
    assert row_bytes(2000, 1024) == 4096
