"""Real TCP over a line that loses packets: 40 % of them, two seconds late, 64 kbit/s."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.netns import Loss, LossyLine
from tests.doubles.upstream_site import UpstreamSite

WORST_S = float(os.environ.get("EDGED_WORST_S", "0"))  # how long the worst line may take; 0: not in this run
KBIT_64 = 8000.0


@pytest.fixture
def line() -> Iterator[LossyLine]:
    with LossyLine() as line:
        yield line


@pytest.mark.slow
@pytest.mark.timeout(150)
@pytest.mark.parametrize(
    "loss",
    [
        Loss(loss=0.1, delay_s=0.3, jitter_s=0.1, rate_bytes_s=KBIT_64),
        Loss(loss=0.4, delay_s=0.02),
        Loss(delay_s=2.0, jitter_s=0.2, rate_bytes_s=KBIT_64),
    ],
    ids=["bad day: 10 %, 0.3 s, 64 kbit/s", "40 % loss", "2 s and 64 kbit/s"],
)
def test_everything_comes_home_over_a_bad_line(tmp_path: Path, single_model: Path, line: LossyLine, loss: Loss) -> None:
    with UpstreamSite(tmp_path, single_model, line=line) as site:
        line.shape(loss)
        site.sensors.round(100)
        site.settle(120)
        account = site.account()
        assert (account.problems, account.rows) == ([], 400)


@pytest.mark.slow
@pytest.mark.skipif(not WORST_S, reason="takes many minutes: make worst-line, or EDGED_WORST_S=1800")
@pytest.mark.timeout(WORST_S + 120)
def test_everything_comes_home_over_the_worst_line(tmp_path: Path, single_model: Path, line: LossyLine) -> None:
    """All three at once: TCP itself needs minutes for its handshake."""
    with UpstreamSite(tmp_path, single_model, line=line) as site:
        line.shape(Loss(loss=0.4, delay_s=2.0, rate_bytes_s=KBIT_64))
        site.sensors.round(100)
        site.settle(WORST_S)
        account = site.account()
        assert (account.problems, account.rows) == ([], 400)
