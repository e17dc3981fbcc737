"""Runs command lines of `edged-hub` in this process, as `main` would, and keeps what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from edged.hub.cli import run


class Ran(NamedTuple):
    """Exit code and output of one command line."""

    code: int
    out: str
    err: str


HubCommand = Callable[..., Ran]


@pytest.fixture
def edged_hub(capsys: pytest.CaptureFixture[str]) -> HubCommand:
    """edged_hub("check", "--json") → code, out, err."""

    def edged_hub(*arguments: object) -> Ran:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return edged_hub


Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(text) → the file of a configuration; without a [database] it gets one."""

    def write(text: str) -> Path:
        file = tmp_path / "hub.toml"
        database = "" if "[database]" in text else '[database]\nurl = "sqlite:///hub.db"\n'
        file.write_text(database + text, encoding="utf-8")
        return file

    return write
