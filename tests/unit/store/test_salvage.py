"""Which rows of a damaged store are taken over, and which are left behind."""

from __future__ import annotations

import pytest

from edged.store.salvage import StoredRow, is_intact
from edged.store.segment import Packer
from tests.unit.store.samples import unit

SEGMENT = Packer().segment(unit(11, 5, 21, 4, n_notices=2))
ROW = StoredRow(7, 11, 5, 21, 4, 2, 1_790_000_000_000, 42, "boot-1", "synced", *SEGMENT)
FOLLOWING = ROW._replace(batch=8, event_first=16, result_first=25)


def test_a_whole_row_is_intact_before_the_one_that_follows_it() -> None:
    assert is_intact(ROW, None)
    assert is_intact(ROW, FOLLOWING)
    assert is_intact(ROW._replace(events=None, event_n=0), FOLLOWING)


@pytest.mark.parametrize(
    "broken",
    [
        ROW._replace(event_n=6),
        ROW._replace(result_first=22),
        ROW._replace(batch=-1),
        ROW._replace(events=None),
        ROW._replace(notice_n=0),
        ROW._replace(meta=SEGMENT.meta[:-1] + b"?"),
        ROW._replace(results=b"\2" + b"no frame"),
        ROW._replace(events=b""),
    ],
)
def test_a_row_that_contradicts_itself_or_its_neighbour_is_left_behind(broken: StoredRow) -> None:
    assert not is_intact(broken, FOLLOWING)
