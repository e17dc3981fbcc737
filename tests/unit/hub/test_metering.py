"""The numbers of all workers come together under their labels."""

from __future__ import annotations

import msgspec

from edged.hub.metering import Cell, HubMetrics, Report


def test_what_workers_measure_is_shown_together() -> None:
    supervisor = HubMetrics()
    for number in ("1", "2"):
        worker = HubMetrics(number)
        worker.answer("mqtt", "alarm", "ok", "")
        worker.home("alarm", "rows", 10, 1)
        worker.received("mqtt", 500)
        worker.ignored("topic")
        worker.unsent("away")
        worker.connected()
        worker.committed(1_000, 2_000_000, 3_000_000)
        worker.holding(2, 1000)
        worker.up("database", True)
        worker.up("broker", None)
        assert worker.answered() == 1
        travelled = msgspec.json.decode(msgspec.json.encode(worker.dump()), type=tuple[Cell, ...])
        supervisor.load(travelled)
        supervisor.load(travelled)  # each report replaces the last one
    supervisor.restarted(2)
    text = supervisor.registry.prometheus_text().decode()
    for line in (
        'edged_hub_rows_total{kind="rows",stream="alarm",worker="1"} 10.0',
        'edged_hub_rows_total{kind="rows",stream="alarm",worker="2"} 10.0',
        'edged_hub_commit_seconds_count{worker="2"} 1.0',
        'edged_hub_inflight_batches{worker="1"} 2.0',
        'edged_hub_up{what="database",worker="1"} 1.0',
        'edged_hub_worker_restarts_total{worker="2"} 1.0',
    ):
        assert line in text, text
    assert 'what="broker"' not in text


def test_numbers_of_another_version_are_left_out() -> None:
    metrics = HubMetrics()
    metrics.load(
        (Cell("unknown", ("1",), 5), Cell("edged_hub_rows", ("1",), 5), Cell("edged_hub_wait_seconds", ("1",), 5))
    )
    assert b"5.0" not in metrics.registry.prometheus_text()


def test_a_report_is_one_line() -> None:
    report = Report(
        worker=1,
        pid=5,
        receiver="r",
        faults=(("a", "b\nc"),),
        moving=True,
        inflight_batches=0,
        inflight_bytes=0,
        answered=0,
    )
    assert b"\n" not in msgspec.json.encode(report)
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report
