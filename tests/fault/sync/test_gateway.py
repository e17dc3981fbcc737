"""The gateway's side dies: daemon, uplink, or the power of its disk, while rows are on their way home."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import pytest

from benchmarks.processes import family
from tests.doubles.power_cut_disk import PowerCutDisk
from tests.doubles.upstream_site import QUICK, UpstreamSite
from tests.doubles.waiting import until


def flows(site: UpstreamSite) -> None:
    """Wait until new rows are home."""
    before = site.books.count()
    site.until(lambda: site.books.count() > before, "rows flow", 30)


@pytest.mark.slow
def test_kills_of_the_daemon_while_rows_go_home_lose_and_double_nothing(tmp_path: Path, single_model: Path) -> None:
    """What the hub has called home and the store does not know yet is sent again, and is there once."""
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.trickle(0.005)
        for _ in range(4):
            flows(site)
            site.daemon.kill()
            site.daemon.start()
        site.daemon.connected()
        site.settle()
        account = site.account()
        assert (account.problems, account.tombstoned) == ([], 0)
        assert site.daemon.status()["ledger"]["balanced"]


def test_kills_of_the_uplink_do_not_touch_the_daemon_and_cost_nothing_but_time(
    tmp_path: Path, single_model: Path
) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.trickle(0.005)
        for _ in range(2):
            flows(site)
            child = until(lambda: uplink(site), "the uplink runs")
            os.kill(child, signal.SIGKILL)
            until(lambda child=child: uplink(site) not in {0, child}, "the uplink is started again")  # type: ignore[misc]
        site.settle()
        assert site.account().problems == []
        assert site.daemon.ended is None
        assert [result["seq"] for result in site.scada.results] == list(range(1, len(site.scada.results) + 1))


def uplink(site: UpstreamSite) -> int:
    """Process id of the uplink, 0 while there is none."""
    for child in family(site.daemon.pid)[1:]:
        with contextlib.suppress(OSError):  # it has ended
            if b"edged.uplink" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return 0


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_power_cuts_while_rows_go_home_lose_and_double_nothing(tmp_path: Path, single_model: Path) -> None:
    """Neither the memory of what is home nor a row that is not may be lost with what the disk had not written yet."""
    store = "snapshot_interval_s = 1\nfree_floor_bytes = 1000000"
    with (
        PowerCutDisk(tmp_path) as disk,
        UpstreamSite(tmp_path, single_model, state=disk.place / "state", store=store) as site,
    ):
        site.sensors.trickle(0.005)
        for _ in range(3):
            flows(site)
            assert site.daemon.ended is None, "the daemon had ended before the cut: this shows nothing"
            disk.lose_cache()
            site.daemon.kill()
            disk.power_off()
            disk.power_on()
            site.daemon.start().connected()
        site.settle()
        account = site.account()
        assert (account.problems, account.tombstoned) == ([], 0)
        assert len(site.extents) == 1, "the store came through every cut undamaged"
        site.daemon.kill()


def test_events_go_home_as_they_came_where_the_configuration_says_so(tmp_path: Path, single_model: Path) -> None:
    streams = 'streams = ["alarm", "result", "health", "telemetry"]\n'
    with UpstreamSite(tmp_path, single_model, upstream=QUICK + "\n" + streams) as site:
        site.sensors.round(20)
        site.settle()
        site.link.cut()
        site.sensors.round(100)
        site.sensors.pause()
        site.link.restore()
        site.settle()
        until(lambda: len(telemetry(site)) >= 480, "the events are home, too", 30)
        rows = telemetry(site)
        assert sorted(rows) == sorted((event.device, event.seq) for event in site.sensors.acknowledged)
        assert site.account().problems == []


def telemetry(site: UpstreamSite) -> list[tuple[str, int]]:
    return [(device, seq) for device, seq in site.books.ask("SELECT device, input_seq FROM telemetry")]
