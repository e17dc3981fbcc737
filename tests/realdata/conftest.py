"""The figures that a replay finds are shown at the end of the test run, where a person reads them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Show = Callable[[str], None]
_FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_FIGURES] = []


@pytest.fixture(scope="session")
def show(request: pytest.FixtureRequest) -> Show:
    """Keep one line of figures for the end of the run."""
    return request.config.stash[_FIGURES].append


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if lines := config.stash.get(_FIGURES, []):
        terminalreporter.section("figures on real data")
        for line in lines:
            terminalreporter.write_line(line)
