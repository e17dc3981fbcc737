"""NAB's machine temperature through broker and daemon: a learnt threshold, across the hour its clock went back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.realdata import nab
from tests.realdata.conftest import Show
from tests.realdata.replay import Plant, Result, by_seq, deviation, plant, table

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(180)]

LEARNT = nab.THRESHOLD.calibrate_events


class Replayed(NamedTuple):
    """kept: rows that are not behind the newest before them. offline: the score of each full window of these."""

    plant: Plant
    series: nab.Series
    kept: list[int]
    offline: list[float]
    answers: dict[int, Result]

    def at(self, row: int) -> datetime:
        return datetime.fromisoformat(self.series.times[row])


@pytest.fixture(scope="module")
def replayed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    folder = tmp_path_factory.mktemp("nab")
    series = nab.read_series(shared_data)
    kept = nab.in_order(series.times)
    offline = nab.expected_scores(np.array(series.values)[kept])
    model = folder / "z-score.onnx"
    model.write_bytes(nab.to_onnx())
    threshold = f"{{ calibrate_events = {LEARNT}, quantile = {nab.THRESHOLD.quantile} }}"
    output = f'{{ kind = "anomaly", threshold = {threshold} }}'
    messages = (
        ("temperature/machine", json.dumps({"ts": time, "seq": row, "value": value}).encode())
        for row, (time, value) in enumerate(zip(series.times, series.values, strict=True))
    )
    pipeline = table("z-score", "temperature/+", model, output, fields=["value"], more=f"window = {nab.WINDOW}")
    with plant(folder, pipeline) as running:
        answers = by_seq(running.replay(messages, len(offline)))
        yield Replayed(running, series, kept, offline.tolist(), answers)


def test_every_full_window_has_the_score_of_the_offline_detector(replayed: Replayed, show: Show) -> None:
    assert list(replayed.answers) == replayed.kept[nab.WINDOW - 1 :]
    scores = [answer["score"] for answer in replayed.answers.values()]
    largest = deviation(scores, replayed.offline)
    show(f"NAB   {len(scores)} scores from the daemon, largest relative deviation from offline {largest:.1e}")
    assert largest <= 1e-9


def test_the_threshold_is_learnt_first_and_then_judges_as_offline(replayed: Replayed) -> None:
    answers = list(replayed.answers.values())
    said = {(answer["label"], answer["quality"], *answer["quality_reasons"]) for answer in answers[:LEARNT]}
    assert said == {("calibrating", 64, "calibrating")}
    threshold = float(np.quantile(replayed.offline[:LEARNT], nab.THRESHOLD.quantile))
    labels = ["anomaly" if score > threshold else "normal" for score in replayed.offline[LEARNT:]]
    assert [answer["label"] for answer in answers[LEARNT:]] == labels
    assert {answer["quality"] for answer in answers[LEARNT:]} == {192}


def test_the_rows_of_the_hour_that_came_twice_are_counted_as_late_and_nothing_else_is_missing(
    replayed: Replayed,
) -> None:
    replayed.plant.quiet()
    status = replayed.plant.daemon.status()
    assert status["pipelines"]["z-score"]["windows"]["late"] == len(replayed.series.times) - len(replayed.kept) == 11
    assert status["ledger"]["inputs"]["z-score"]["stored"] == len(replayed.series.times) == 22_695


def test_each_scored_window_of_nab_holds_an_alarm(replayed: Replayed, show: Show) -> None:
    labelled = replayed.series.labelled
    judged = [row for row, answer in replayed.answers.items() if answer["label"] != "calibrating"]
    alarms = [replayed.at(row) for row in judged if replayed.answers[row]["label"] == "anomaly"]
    begin = replayed.at(nab.PROBATION_ROWS)
    scored = [(first, last) for first, last in labelled if first > begin]
    found = [sum(first <= alarm <= last for alarm in alarms) for first, last in scored]
    outside = [alarm for alarm in alarms if not any(first <= alarm <= last for first, last in labelled)]
    in_windows = sum(any(first <= replayed.at(row) <= last for first, last in labelled) for row in judged)
    show(
        f"NAB   machine temperature: {len(scored)} scored windows, {sum(map(bool, found))} with an alarm {found}; "
        f"{len(outside)} of {len(judged) - in_windows} rows outside alarmed"
    )
    show(
        f"NAB   always alarm: {len(scored)} of {len(scored)} windows; "
        f"{len(judged) - in_windows} of {len(judged) - in_windows} rows outside alarmed"
    )
    assert len(scored) == 3
    assert all(found)
    assert len(outside) < 0.001 * (len(judged) - in_windows)
