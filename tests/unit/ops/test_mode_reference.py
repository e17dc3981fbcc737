"""The page about modes is made from the tables, and the tables know every reason that the code can give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.ops.mode_reference import MACHINE_MEANINGS, main, reference
from edged.policy import chain
from edged.policy.causes import CAUSES, MACHINES, MODES
from edged.policy.governor import LEVELS

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "modes.md"

# How a reason is named where it is given: literally, as a constant, or as what a fault is classified as.
_GIVEN = (
    r'modes\.set\(\s*"([a-z_]+)"',
    r'^(?:PUBLISH_DENIED|SUBSCRIBE_DENIED|DUPLICATE_CLIENT_ID) = "([a-z_]+)"',
    r'return "(store_[a-z]+)", detail',
    r'"(fallback_runtime|rules_serving|model_unusable)"',
)


def test_the_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), f"write it anew: python -m edged.ops.mode_reference {PAGE}"


def test_every_mode_and_every_reason_stands_on_the_page() -> None:
    page = reference()
    assert all(f"| `{name}` |" in page for name in (*MODES, *CAUSES))


def test_no_cell_breaks_the_table() -> None:
    assert not any("|" in cell for cause in CAUSES.values() for cell in cause if isinstance(cell, str))


def test_every_reason_that_the_code_gives_is_in_the_table() -> None:
    given = {
        code
        for path in (REPOSITORY / "edged").rglob("*.py")
        for pattern in _GIVEN
        for code in re.findall(pattern, path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert given - set(CAUSES) == set()
    assert {"gap", "broker_away", "store_locked", "duplicate_client_id"} <= given


def test_the_page_is_written_or_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "modes.md")])
    main([])
    assert (tmp_path / "modes.md").read_text(encoding="utf-8") == capsys.readouterr().out == reference()


def test_every_small_machine_its_causes_every_level_and_every_state_of_a_rung_stand_on_the_page() -> None:
    page = reference()
    assert set(MACHINE_MEANINGS) == set(MACHINES.values())
    assert all(f"| {machine} | {MACHINE_MEANINGS[machine]} |" in page for machine in MACHINE_MEANINGS)
    assert all(f"| `{state}` |" in page for state in (*LEVELS, *chain.MEANINGS))
    assert all(page.count(f"`{code}`") >= 2 for code in CAUSES)  # with its machine, and with its row


def test_no_row_leaves_open_how_it_is_detected_what_happens_what_is_seen_or_how_it_ends() -> None:
    assert all(all(cell for cell in cause if isinstance(cell, str)) for cause in CAUSES.values())


def test_there_is_one_page_about_modes() -> None:
    assert sorted((REPOSITORY / "docs").rglob("modes.md")) == [PAGE]
