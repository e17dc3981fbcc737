"""Modes that nobody upstream could see: after the outage the hub has every change, with the time of its own."""

from __future__ import annotations

import json
import time
from itertools import groupby
from pathlib import Path
from typing import Any

from tests.doubles.upstream_site import UpstreamSite

Told = tuple[str, str, tuple[tuple[str, str], ...]]
"""Mode, since, and code and since of each reason."""


def told(mode: str, since: str, reasons: list[dict[str, Any]]) -> Told:
    return mode, since, tuple((reason["code"], reason["since"]) for reason in reasons)


def ours(document: Told) -> tuple[str, tuple[str, ...]]:
    """The mode, and what this test did; the machine that it runs on may have reasons of its own."""
    return document[0], tuple(sorted({code for code, _ in document[2]} & {"upstream_away", "gap"}))


def at_the_hub(site: UpstreamSite) -> list[tuple[Told, float]]:
    """What the view `modes` has, in order, with the time of each row."""
    rows = site.books.ask("SELECT mode, since, reasons, ts FROM modes ORDER BY epoch, seq")
    return [
        (told(mode, since, json.loads(reasons) if isinstance(reasons, str) else reasons), site.books.time_s(ts))
        for mode, since, reasons, ts in rows
    ]


def test_every_change_of_the_mode_during_an_outage_is_at_the_hub_afterwards(tmp_path: Path, single_model: Path) -> None:
    with UpstreamSite(tmp_path, single_model) as site:
        site.sensors.round(5)
        site.settle()
        before = len(at_the_hub(site))

        cut_s = time.time()
        site.link.cut()
        site.until(lambda: "upstream_away" in site.daemon.codes(), "the link upstream is away")
        site.sensors.publish(site.sensors.names[0], skip=5)
        site.sensors.round(2)
        site.until(lambda: "gap" in site.daemon.codes(), "five numbers are missing")
        site.until(lambda: site.scada.modes[-1]["mode"] == "degraded", "the plant sees the mode")
        assert len(at_the_hub(site)) == before  # nobody upstream knows
        restored_s = time.time()
        site.link.restore()
        site.sensors.pause()
        site.until(site.is_home, "everything is home", 30, every_s=0.1)

        found = at_the_hub(site)
        history = {document for document, _ in found}
        # The plant's broker keeps only the newest, so that a SCADA may miss some; the hub has them all.
        seen = {told(document["mode"], document["since"], document["reasons"]) for document in site.scada.modes}
        assert seen - history == set()
        meanwhile = [ours(document) for document, at_s in found if cut_s <= at_s <= restored_s]
        assert [stage for stage, _ in groupby(meanwhile)] == [
            ("offline", ("upstream_away",)),
            ("degraded", ("gap", "upstream_away")),
        ]
        assert [at_s for _, at_s in found] == sorted(at_s for _, at_s in found)
        assert not any(books["missing"] for books in site.books.ledger().values())
