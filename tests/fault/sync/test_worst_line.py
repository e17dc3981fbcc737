"""Real TCP over a line that loses packets: 40 % of them, two seconds late, 64 kbit/s."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.doubles.netns import Loss, LossyLine
from tests.doubles.upstream_site import UpstreamSite
from tests.fault.sync.conftest import thorough

WORST_S = float(os.environ.get("EDGED_WORST_S", "1500"))  # how long the worst line may take
KBIT_64 = 8000.0


@pytest.fixture
def line() -> Iterator[LossyLine]:
    with LossyLine() as line:
        yield line


@pytest.mark.timeout(180)
@pytest.mark.parametrize(
    "loss",
    [
        pytest.param(Loss(loss=0.1, delay_s=0.2, rate_bytes_s=KBIT_64), id="10 %, 0.2 s, 64 kbit/s"),
        pytest.param(Loss(loss=0.4, delay_s=0.02), marks=thorough, id="40 %"),
        pytest.param(Loss(delay_s=2.0, jitter_s=0.2, rate_bytes_s=KBIT_64), marks=thorough, id="2 s, 64 kbit/s"),
    ],
)
def test_everything_comes_home_over_a_bad_line(tmp_path: Path, single_model: Path, line: LossyLine, loss: Loss) -> None:
    with UpstreamSite(tmp_path, single_model, line=line) as site:
        line.shape(loss)
        site.sensors.round(100)
        site.settle(150)
        account = site.account()
        assert (account.problems, account.rows) == ([], 400)


@thorough
@pytest.mark.timeout(WORST_S + 60)
def test_everything_comes_home_over_the_worst_line(tmp_path: Path, single_model: Path, line: LossyLine) -> None:
    """40 % lost, two seconds late, 64 kbit/s, all at once: TCP itself needs minutes for its handshake."""
    with UpstreamSite(tmp_path, single_model, line=line) as site:
        line.shape(Loss(loss=0.4, delay_s=2.0, rate_bytes_s=KBIT_64))
        begun = time.monotonic()
        site.sensors.round(100)
        site.settle(WORST_S)
        account = site.account()
        assert (account.problems, account.rows) == ([], 400)
        print(f"400 rows home over the worst line in {time.monotonic() - begun:.0f} s")
