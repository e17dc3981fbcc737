"""SKAB through broker and daemon: 17 runs, each with a detector of its own, answered row by row as offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.realdata import skab
from tests.realdata.conftest import Show
from tests.realdata.replay import Plant, Result, by_seq, deviation, plant, table

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(180)]

# The model computes in double precision and rounds its score to float32 once; both sides run the same file, so that
# only the batch a row happens to be in can differ: the order of additions, far below one float32 step of 1.2e-7.
TOLERANCE = 1e-6


class Replayed(NamedTuple):
    """One run: what was sent, what the model says offline, what the daemon said."""

    run: skab.Run
    offline: list[float | None]
    answers: dict[int, Result]

    @property
    def alarms(self) -> list[bool]:
        """The daemon's alarms over the rows after the training; a row without an answer raises none."""
        rows = range(skab.TRAINING_ROWS, len(self.run.values))
        return [row in self.answers and self.answers[row]["label"] == "anomaly" for row in rows]

    @property
    def labels(self) -> list[bool]:
        return self.run.anomaly[skab.TRAINING_ROWS :]


def slug(run: skab.Run) -> str:
    return run.name.replace("/", "-")


def messages(run: skab.Run) -> Iterator[tuple[str, bytes]]:
    """The rows after the training as events: time, row number as seq, the eight sensors."""
    for row in range(skab.TRAINING_ROWS, len(run.values)):
        sensors = dict(zip(run.fields, run.values[row].tolist(), strict=True))
        yield f"skab/{slug(run)}", json.dumps({"ts": run.times[row], "seq": row, **sensors}).encode()


def interleaved(runs: list[skab.Run]) -> Iterator[tuple[str, bytes]]:
    """One row of each run after the other, as 17 machines would send them."""
    sources = [messages(run) for run in runs]
    while sources:
        rows = [(source, next(source, None)) for source in sources]
        sources = [source for source, message in rows if message is not None]
        yield from (message for _, message in rows if message is not None)


@pytest.fixture(scope="module")
def replayed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plant, list[Replayed]]]:
    folder = tmp_path_factory.mktemp("skab")
    runs = [skab.read_run(path) for path in skab.run_files(shared_data)]
    tables, offline = [], []
    for run in runs:
        model = skab.to_onnx(skab.fit(run.values[: skab.TRAINING_ROWS]))
        file = folder / f"{slug(run)}.onnx"
        file.write_bytes(model)
        output = f'{{ kind = "anomaly", threshold = {skab.THRESHOLD} }}'
        window = f"window = {skab.WINDOW}"
        tables.append(table(slug(run), f"skab/{slug(run)}", file, output, fields=run.fields, more=window))
        offline.append(skab.model_scores(model, run.values[skab.TRAINING_ROWS :]))
    windows = sum(score is not None for scores in offline for score in scores)
    with plant(folder, *tables) as running:
        results = running.replay(interleaved(runs), windows)
        yield (
            running,
            [
                Replayed(run, scores, by_seq(result for result in results if result["pipeline"] == slug(run)))
                for run, scores in zip(runs, offline, strict=True)
            ],
        )


def test_every_row_has_the_score_and_label_of_the_offline_detector(
    replayed: tuple[Plant, list[Replayed]], show: Show
) -> None:
    largest = 0.0
    for run, offline, answers in replayed[1]:
        expected = {row: score for row, score in enumerate(offline, skab.TRAINING_ROWS) if score is not None}
        assert list(answers) == list(expected), run.name
        scores = [answer["score"] for answer in answers.values()]
        found = deviation(scores, list(expected.values()))
        assert found <= TOLERANCE, run.name
        largest = max(largest, found)
        labels = ["anomaly" if score > skab.THRESHOLD else "normal" for score in expected.values()]
        assert [answer["label"] for answer in answers.values()] == labels, run.name
    answered = sum(len(answers) for _, _, answers in replayed[1])
    show(f"SKAB  {answered} scores from the daemon, largest relative deviation from offline {largest:.1e}")


def test_every_answer_is_good_and_names_device_time_and_model(replayed: tuple[Plant, list[Replayed]]) -> None:
    for run, _, answers in replayed[1]:
        for row, answer in answers.items():
            assert (answer["quality"], answer["quality_reasons"]) == (192, [])
            assert (answer["device"], answer["model"], answer["runtime"]) == (slug(run), slug(run), "onnxruntime:cpu")
            assert answer["ts"] == answer["input"]["ts"] == run.times[row].replace(" ", "T") + ".000Z"


def test_nothing_was_refused_late_or_missing(replayed: tuple[Plant, list[Replayed]]) -> None:
    running, runs = replayed
    running.quiet()
    pipelines = running.daemon.status()["pipelines"]
    assert {name: pipeline["windows"]["late"] for name, pipeline in pipelines.items()} == {
        slug(each.run): 0 for each in runs
    }


def test_the_pooled_figures_of_the_daemon_are_those_of_the_manifest(
    replayed: tuple[Plant, list[Replayed]], show: Show
) -> None:
    runs = replayed[1]
    figures = skab.pooled((each.labels, each.alarms) for each in runs)
    always = skab.pooled((each.labels, [True] * len(each.labels)) for each in runs)
    for name, found in (("T2+Q, daemon", figures), ("always alarm", always)):
        show(
            f"SKAB  {name:13} F1 {found.f1:.3f}  FAR {found.far:6.2f} %  MAR {found.mar:6.2f} %  "
            f"({found.rows} rows, {len(runs)} runs)"
        )
    assert figures.rows == 11_645
    assert (round(figures.f1, 3), round(figures.far, 2), round(figures.mar, 2)) == (0.714, 23.26, 32.54)
    assert (always.far, always.mar) == (100.0, 0.0)
