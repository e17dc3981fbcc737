"""Real series through the pure parts of the daemon: row by row what the offline references say."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from edged.ingest.spec import SourceSpec
from edged.pipeline.spec import InputSpec, OutputSpec, Scaling
from tests.realdata import cwru, nab, skab
from tests.realdata.chain import run_chain

pytestmark = pytest.mark.realdata


def numbers(scores: Iterable[float | None]) -> NDArray[np.float64]:
    """Scores as an array, NaN where there is no answer."""
    return np.array([np.nan if score is None else score for score in scores], np.float64)


@pytest.mark.parametrize("batch", [1, 32])
def test_skab_is_answered_row_by_row_as_offline_and_pools_to_the_published_figures(
    shared_data: Path, batch: int
) -> None:
    pairs = []
    for path in skab.run_files(shared_data):
        run = skab.read_run(path)
        model = skab.to_onnx(skab.fit(run.values[: skab.TRAINING_ROWS]))
        live = run.values[skab.TRAINING_ROWS :]
        payloads = [
            json.dumps({"ts": time, "seq": number} | dict(zip(run.fields, row, strict=True))).encode()
            for number, (time, row) in enumerate(zip(run.times[skab.TRAINING_ROWS :], live.tolist(), strict=True))
        ]
        chain = run_chain(
            model,
            payloads,
            SourceSpec(run.fields),
            InputSpec(run.fields, window=skab.WINDOW),
            OutputSpec("anomaly", threshold=skab.THRESHOLD),
            batch=batch,
        )
        assert (chain.refused, chain.late) == ([], 0)
        offline = skab.model_scores(model, live)
        scores = dict.fromkeys(range(len(live))) | {answer.event: answer.score for answer in chain.answers}
        np.testing.assert_allclose(numbers(scores.values()), numbers(offline), rtol=1e-6)
        alarms = {answer.event for answer in chain.answers if answer.label == "anomaly"}
        assert [index in alarms for index in range(len(live))] == skab.alarms(offline)
        pairs.append((run.anomaly[skab.TRAINING_ROWS :], [index in alarms for index in range(len(live))]))
    figures = skab.pooled(pairs)
    assert (figures.rows, round(figures.f1, 3), round(figures.far, 2), round(figures.mar, 2)) == (
        11_645, 0.714, 23.26, 32.54,
    )  # fmt: skip


def test_the_machine_temperature_is_watched_with_a_learnt_threshold_across_the_hour_its_clock_went_back(
    shared_data: Path,
) -> None:
    series = nab.read_series(shared_data)
    payloads = [
        json.dumps({"ts": time, "value": value}).encode()
        for time, value in zip(series.times, series.values, strict=True)
    ]
    chain = run_chain(
        nab.to_onnx(),
        payloads,
        SourceSpec(("value",)),
        InputSpec(("value",), window=nab.WINDOW),
        OutputSpec("anomaly", threshold=nab.THRESHOLD),
        batch=64,
    )
    kept = nab.in_order(series.times)
    assert chain.late == len(series.times) - len(kept) == 11
    assert [answer.event for answer in chain.answers] == kept[nab.WINDOW - 1 :]
    offline = nab.expected_scores(np.array(series.values)[kept])
    np.testing.assert_allclose(numbers(answer.score for answer in chain.answers), offline, rtol=1e-9)
    learnt = nab.THRESHOLD.calibrate_events
    assert {answer.quality for answer in chain.answers[:learnt]} == {64}
    threshold = float(np.quantile(offline[:learnt], nab.THRESHOLD.quantile))
    judged = chain.answers[learnt:]
    assert [answer.label == "anomaly" for answer in judged] == (offline[learnt:] > threshold).tolist()

    alarms = [datetime.fromisoformat(series.times[answer.event]) for answer in judged if answer.label == "anomaly"]
    inside = [any(first <= alarm <= last for first, last in series.labelled) for alarm in alarms]
    scored = [window for window in series.labelled if window[0].isoformat(" ") > series.times[nab.PROBATION_ROWS]]
    assert sum(any(first <= alarm <= last for alarm in alarms) for first, last in scored) == len(scored) == 3
    assert inside.count(False) / len(judged) < 0.001


def test_bearings_are_classified_as_offline_with_declared_scaling_and_softmax(shared_data: Path) -> None:
    table = cwru.read_table(shared_data)
    classifier = cwru.fit(table)
    payloads = [
        json.dumps({"ts": index} | dict(zip(table.fields, row, strict=True))).encode()
        for index, row in enumerate(table.held_back.tolist())
    ]
    chain = run_chain(
        classifier.model,
        payloads,
        SourceSpec(table.fields),
        InputSpec(table.fields, scaling=Scaling(mean=classifier.mean, std=classifier.std)),
        OutputSpec("classification", classifier.labels, softmax=True),
    )
    shares = cwru.expected_shares(classifier, table.held_back)
    assert [answer.label for answer in chain.answers] == [classifier.labels[best] for best in shares.argmax(axis=1)]
    np.testing.assert_allclose(numbers(answer.score for answer in chain.answers), shares.max(axis=1), rtol=1e-4)
    right = [answer.label == label for answer, label in zip(chain.answers, table.held_back_labels, strict=True)]
    assert len(right) == 575
    assert np.mean(right) > 0.85  # of ten classes; a straight line per class can do no more


def test_digits_sent_as_pixels_give_the_stored_logits(shared_data: Path) -> None:
    folder = shared_data / "onnx" / "mnist_8"
    for name in ("test_data_set_0", "test_data_set_1"):
        tensors = [
            onnx.TensorProto.FromString((folder / name / f"{part}_0.pb").read_bytes()) for part in ("input", "output")
        ]
        pixels, logits = (numpy_helper.to_array(tensor) for tensor in tensors)
        chain = run_chain(
            (folder / "model.onnx").read_bytes(),
            [json.dumps({"ts": 0, "image": pixels.ravel().tolist()}).encode()],
            SourceSpec(("image",), width=784),
            InputSpec(("image",), width=784, layout="batch,1,28,28"),
            OutputSpec("classification", tuple("0123456789")),
            batch=1,
        )
        (answer,) = chain.answers
        assert answer.label == str(int(logits.argmax()))
        assert answer.score == pytest.approx(float(logits.max()), rel=1e-5)
