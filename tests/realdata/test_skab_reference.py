"""The offline reference reproduces the published protocol on the runs that are here."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.realdata import skab

pytestmark = pytest.mark.realdata


@pytest.fixture(scope="module")
def runs(shared_data: Path) -> list[tuple[skab.Run, skab.Detector]]:
    read = [skab.read_run(path) for path in skab.run_files(shared_data)]
    return [(run, skab.fit(run.values[: skab.TRAINING_ROWS])) for run in read]


def test_the_model_file_reproduces_the_pooled_figures_of_the_manifest(
    runs: list[tuple[skab.Run, skab.Detector]],
) -> None:
    test_rows = skab.TRAINING_ROWS
    figures = skab.pooled(
        (run.anomaly[test_rows:], skab.alarms(skab.model_scores(skab.to_onnx(detector), run.values[test_rows:])))
        for run, detector in runs
    )
    assert figures.rows == 11_645
    assert (round(figures.f1, 3), round(figures.far, 2), round(figures.mar, 2)) == (0.714, 23.26, 32.54)


def test_a_detector_that_always_alarms_scores_nearly_as_well_so_f1_alone_proves_nothing(
    runs: list[tuple[skab.Run, skab.Detector]],
) -> None:
    labels = [run.anomaly[skab.TRAINING_ROWS :] for run, _ in runs]
    figures = skab.pooled((label, [True] * len(label)) for label in labels)
    assert (figures.far, figures.mar) == (100.0, 0.0)
    assert figures.f1 == pytest.approx(0.684, abs=0.001)


def test_the_model_file_answers_as_the_same_formulas_in_double_precision(
    runs: list[tuple[skab.Run, skab.Detector]],
) -> None:
    for run, detector in runs:
        live = run.values[skab.TRAINING_ROWS :]
        expected = skab.expected_scores(detector, live)
        answered = skab.model_scores(skab.to_onnx(detector), live)
        assert answered[:4] == expected[:4] == [None] * 4
        # inputs are rounded to float32, relative 6e-8, and voltages are 300 times their own spread
        np.testing.assert_allclose(np.array(answered[4:], float), np.array(expected[4:], float), rtol=2e-4)
        assert skab.alarms(answered) == skab.alarms(expected)
