"""Features of sampled signals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from edged.errors import ConfigError
from edged.pipeline.features import FEATURES, FeatureExtractor

STATISTICS = [name for name in FEATURES if name != "fft"]


def extract(features: Sequence[str], signal: NDArray[np.float64], **options: Any) -> list[float]:
    """Features of one window of one field."""
    extractor = FeatureExtractor(features, ["v"], len(signal), **options)
    return [float(value) for value in extractor(signal[np.newaxis, :, np.newaxis])[0]]


def sine(amplitude: float, cycles: int, samples: int) -> NDArray[np.float64]:
    return amplitude * np.sin(2 * np.pi * cycles * np.arange(samples) / samples)


def test_the_features_of_a_sine_are_the_textbook_ones() -> None:
    found = dict(zip(STATISTICS, extract(STATISTICS, 5 + sine(2.0, 4, 1024)), strict=True))
    assert found["mean"] == pytest.approx(5)
    assert found["std"] == pytest.approx(2 / np.sqrt(2))
    assert found["rms"] == pytest.approx(np.sqrt(25 + 2))
    assert found["peak"] == pytest.approx(7)
    assert found["crest"] == pytest.approx(7 / np.sqrt(27))
    assert found["skewness"] == pytest.approx(0, abs=1e-9)
    assert found["kurtosis"] == pytest.approx(1.5)


def test_the_kurtosis_of_noise_is_three_and_a_skewed_signal_is_skewed() -> None:
    noise = np.random.default_rng(1).normal(size=100_000)
    assert extract(["kurtosis"], noise)[0] == pytest.approx(3, abs=0.1)
    assert extract(["skewness"], np.exp(noise / 2))[0] > 1


def test_a_machine_that_stands_still_has_features_that_are_numbers() -> None:
    for level in (0.0, 3.0):
        found = extract([*STATISTICS, "fft"], np.full(16, level), fft_bins=3)
        assert np.isfinite(found).all()
    assert extract(["crest", "kurtosis", "skewness"], np.zeros(16)) == [0, 0, 0]


def test_a_sine_reads_its_amplitude_at_its_line_whatever_the_offset() -> None:
    lines = extract(["fft"], 100 + sine(2.0, 10, 256), fft_bins=129)
    assert int(np.argmax(lines)) == 10
    assert lines[10] == pytest.approx(2.0)
    assert max(lines[:8] + lines[13:]) < 1e-9


def test_bands_are_means_of_their_lines_and_cover_all_of_them() -> None:
    signal = np.random.default_rng(2).normal(size=63)  # 32 lines
    lines = np.array(extract(["fft"], signal, fft_bins=32))
    assert extract(["fft"], signal, fft_bins=4) == pytest.approx(lines.reshape(4, 8).mean(axis=1))
    uneven = extract(["fft"], signal, fft_bins=5)
    counts = np.diff([0, 6, 12, 19, 25, 32])
    assert float(np.dot(uneven, counts)) == pytest.approx(lines.sum())


def test_columns_go_field_by_field_and_are_named() -> None:
    extractor = FeatureExtractor(["mean", "fft"], ["a", "b"], 8, 2, sample_rate_hz=1000.0)
    assert extractor.names == ("a.mean", "a.fft_0_250_hz", "a.fft_250_500_hz", "b.mean", "b.fft_0_250_hz", "b.fft_250_500_hz")  # fmt: skip  # noqa: E501
    assert FeatureExtractor(["fft"], ["a"], 8, 2).names == ("a.fft_0", "a.fft_1")
    samples = np.stack([np.full((8, 2), (1.0, 2.0)), np.full((8, 2), (3.0, 4.0))])
    assert extractor(samples)[:, [0, 3]].tolist() == [[1, 2], [3, 4]]


@given(arrays(np.float64, (3, 16, 2), elements=st.floats(-1e6, 1e6)))
def test_a_batch_is_as_good_as_its_windows_one_by_one(samples: NDArray[np.float64]) -> None:
    extractor = FeatureExtractor(FEATURES, ["a", "b"], 16, 4)
    together = extractor(samples)
    assert together.shape == (3, len(extractor.names))
    for row in range(3):
        np.testing.assert_allclose(together[row], extractor(samples[row : row + 1])[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("features", "samples", "options", "complaint"),
    [
        (["median"], 16, {}, "not known"),
        (["rms"], 1, {}, "window of several"),
        (["fft"], 16, {}, "fft_bins = 0"),
        (["fft"], 16, {"fft_bins": 10}, "9 lines"),
    ],
)
def test_features_that_cannot_be_computed_are_found_at_once(
    features: list[str], samples: int, options: dict[str, int], complaint: str
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        FeatureExtractor(features, ["v"], samples, **options)
