"""Runs command lines in this process, as `main` would, and keeps what they print."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest

from edged.cli.main import run


class Ran(NamedTuple):
    """Exit code and output of one command line."""

    code: int
    out: str
    err: str


Edged = Callable[..., Ran]


@pytest.fixture
def edged(capsys: pytest.CaptureFixture[str]) -> Edged:
    """edged("check", "--json") → code, out, err."""

    def edged(*arguments: object) -> Ran:
        code = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return edged
