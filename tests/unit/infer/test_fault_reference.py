"""The page of error codes is what the tables say."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.infer.fault_reference import main, reference
from edged.policy.chain import MEANINGS
from edged.policy.faults import FAULTS

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "runtime-errors.md"


def test_the_page_is_current_and_complete() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(), "write it anew: make docs"
    assert all(f"| `{name}` |" in reference() for name in (*FAULTS, *MEANINGS))


def test_the_page_can_be_written_and_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main([str(tmp_path / "page.md")])
    main([])
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == capsys.readouterr().out == reference()
