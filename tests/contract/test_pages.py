"""The reference pages say what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from edged.errors import ExitCode
from tests.contract.pages import main, pages
from tests.contract.promises import REFERENCE, asyncapi


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


@pytest.mark.parametrize("name", ["topics.md", "cli.md", "metrics.md"])
def test_a_page_is_current(made: dict[str, str], name: str) -> None:
    assert (REFERENCE / name).read_text("utf-8") == made[name], f"{name} is stale: make docs"


def test_the_pages_are_written_where_one_asks_for_them(made: dict[str, str], tmp_path: Path) -> None:
    main(str(tmp_path))

    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == made


def test_every_topic_stands_on_the_page(made: dict[str, str]) -> None:
    for channel in asyncapi()["channels"].values():
        if channel["address"] is not None:
            assert f"| `R/{channel['address'].split('/', 4)[4]}` |" in made["topics.md"]


def test_every_exit_code_stands_on_its_page_and_no_other() -> None:
    page = (REFERENCE / "exit-codes.md").read_text("utf-8")

    assert {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == set(ExitCode) | {130}
