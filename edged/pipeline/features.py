"""Features of vibration and other sampled signals, for all windows and fields of a batch at once.

Where a feature is not defined (the crest factor of silence, the kurtosis of a constant) it is 0: a machine that
stands still is no failed inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from edged.errors import ConfigError

Floats = NDArray[np.float64]

_LENGTHS_KEPT = 16  # of waveforms whose spectrum is prepared; sensors have one or two settings

_STATISTICS: dict[str, Callable[[Floats], Floats]] = {
    "mean": lambda x: x.mean(axis=1),
    "std": lambda x: x.std(axis=1),
    "rms": lambda x: np.sqrt(np.square(x).mean(axis=1)),
    "peak": lambda x: np.abs(x).max(axis=1),
    "crest": lambda x: _ratio(np.abs(x).max(axis=1), np.sqrt(np.square(x).mean(axis=1))),
    "skewness": lambda x: _moment(x, 3),
    "kurtosis": lambda x: _moment(x, 4),  # of a Gaussian: 3
}
FEATURES = (*_STATISTICS, "fft")


class FeatureExtractor:
    """Computes the declared features.

    names: of the columns, in order: field by field, the features of each as declared.

    Raises:
        ConfigError: an unknown feature, too few samples, or bands that cannot be made.
    """

    def __init__(
        self,
        features: Sequence[str],
        fields: Sequence[str],
        samples: int,
        fft_bins: int = 0,
        sample_rate_hz: float | None = None,
    ) -> None:
        if unknown := [name for name in features if name not in FEATURES]:
            raise ConfigError(f"feature {unknown[0]!r} is not known", hint=f"use {', '.join(FEATURES)}")
        if samples < 2:
            raise ConfigError(
                f"features of {samples} sample: {', '.join(features)}",
                hint="features need a window of several events, or fields that are waveforms",
            )
        self._features = tuple(features)
        self._bands = _Bands(samples, fft_bins) if "fft" in features else None
        columns: list[str] = []
        for feature in features:
            columns += self._bands.names(sample_rate_hz) if feature == "fft" and self._bands else [feature]
        self.names = tuple(f"{field}.{column}" for field in fields for column in columns)

    def __call__(self, samples: Floats) -> Floats:
        """Features of (batch, samples, fields) as (batch, columns)."""
        parts = []
        for feature in self._features:
            if feature == "fft":
                assert self._bands is not None
                parts.append(self._bands(samples))
            else:
                parts.append(_STATISTICS[feature](samples)[:, :, np.newaxis])
        return np.concatenate(parts, axis=2).reshape(len(samples), -1)


class WaveformFeatures:
    """Features of waveforms of any length, event by event.

    Raises:
        ConfigError: as `FeatureExtractor`.
    """

    def __init__(
        self,
        features: Sequence[str],
        fields: Sequence[str],
        fft_bins: int,
        sample_rate_hz: float | None,
        scale: Callable[[Floats], Floats] | None,
    ) -> None:
        self._make: Callable[[int], FeatureExtractor] = lambda samples: FeatureExtractor(
            features, fields, samples, fft_bins, sample_rate_hz
        )
        self.fewest = max(2, 2 * (fft_bins - 1)) if "fft" in features else 2
        self.names = self._make(self.fewest).names
        self._fields = len(fields)
        self._scale = scale
        self._extractors: dict[int, FeatureExtractor] = {}

    def __call__(self, rows: Sequence[Sequence[float]]) -> tuple[Floats, list[int]]:
        """(batch, columns), and which rows are too short to have these features; they are 0."""
        found = np.zeros((len(rows), len(self.names)))
        short = []
        for index, row in enumerate(rows):
            samples = len(row) // self._fields
            if samples < self.fewest:
                short.append(index)
                continue
            wave = np.array(row).reshape(self._fields, samples).T[np.newaxis]
            found[index] = self._extractor(samples)(wave if self._scale is None else self._scale(wave))[0]
        return found, short

    def _extractor(self, samples: int) -> FeatureExtractor:
        extractor = self._extractors.get(samples)
        if extractor is None:
            if len(self._extractors) >= _LENGTHS_KEPT:
                self._extractors.clear()
            extractor = self._extractors[samples] = self._make(samples)
        return extractor


class _Bands:
    """Amplitude spectrum in equally wide bands from 0 to half the sampling rate, each the mean of its lines.

    The mean of the signal is taken out first and a Hann window applied; a sine of amplitude A reads A at its line.
    """

    def __init__(self, samples: int, bins: int) -> None:
        lines = samples // 2 + 1
        if not 1 <= bins <= lines:
            raise ConfigError(f"fft_bins = {bins}: {samples} samples have a spectrum of {lines} lines")
        self._window = np.hanning(samples + 1)[:-1]  # periodic, as a spectrum needs it
        self._amplitude = 2.0 / self._window.sum()
        self._starts = np.arange(bins) * lines // bins
        self._lines = np.diff(np.append(self._starts, lines))
        self._bins = bins

    def names(self, sample_rate_hz: float | None) -> list[str]:
        if sample_rate_hz is None:
            return [f"fft_{band}" for band in range(self._bins)]
        width_hz = sample_rate_hz / 2 / self._bins
        return [f"fft_{band * width_hz:g}_{(band + 1) * width_hz:g}_hz" for band in range(self._bins)]

    def __call__(self, samples: Floats) -> Floats:
        """(batch, samples, fields) → (batch, fields, bins)."""
        centred = samples - samples.mean(axis=1, keepdims=True)
        spectrum = np.abs(np.fft.rfft(centred * self._window[:, np.newaxis], axis=1)) * self._amplitude
        bands = np.add.reduceat(spectrum, self._starts, axis=1) / self._lines[:, np.newaxis]
        return bands.transpose(0, 2, 1)


def _moment(x: Floats, order: int) -> Floats:
    """Standardised central moment."""
    centred = x - x.mean(axis=1, keepdims=True)
    return _ratio((centred**order).mean(axis=1), x.std(axis=1) ** order)


def _ratio(above: Floats, below: Floats) -> Floats:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
