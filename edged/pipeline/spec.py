"""What one pipeline does before and after its model, as plain values. The names are those of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

OutputKind = Literal["classification", "anomaly", "regression", "detection", "tensor"]
Severity = Literal["low", "medium", "high", "critical"]


@dataclass(frozen=True, slots=True)
class Scaling:
    """y = (x · scale + offset − mean) / std; each given once for all fields or once per field, empty: not applied."""

    scale: tuple[float, ...] = ()
    offset: tuple[float, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How events become model inputs.

    fields: names of the values of an event, in row order. width: numbers per event; more than fields: waveforms;
    0: waveforms of any length, of which features are taken.
    window, stride: events per window and between windows; 1 and 1: every event on its own.
    max_gap_ms: a longer silence starts the window anew. lateness_ms: how far behind the newest event one may come.
    resample_ms: grid of the window (linear between events); 0: events as they come.
    scaling: of each field, before everything else.
    features: names out of `edged.pipeline.features.FEATURES`, of each field over its window or waveform; they replace
    the samples. fft_bins: bands of the feature `fft`. sample_rate_hz: of a waveform; names the bands.
    layout: axes of the model input, such as `batch,fields,window` or `batch,1,28,28`; None: (batch, fields) of single
    events, features and waveforms, else (batch, window, fields).
    inputs: model input → the fields it gets, for models with several; empty: all fields to the only input.
    """

    fields: tuple[str, ...]
    width: int | None = None
    window: int = 1
    stride: int = 1
    max_gap_ms: int | None = None
    lateness_ms: int = 0
    resample_ms: int = 0
    scaling: Scaling | None = None
    features: tuple[str, ...] = ()
    fft_bins: int = 0
    sample_rate_hz: float | None = None
    layout: str | None = None
    inputs: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_devices: int = 10_000

    @property
    def row_width(self) -> int:
        """Numbers per event."""
        return len(self.fields) if self.width is None else self.width

    @property
    def single(self) -> bool:
        """Whether every event is a model input on its own."""
        return self.window == 1 and self.stride == 1 and not self.resample_ms


@dataclass(frozen=True, slots=True)
class CalibratedThreshold:
    """Threshold per device: `factor` times the `quantile` of its first `calibrate_events` scores."""

    calibrate_events: int
    quantile: float = 0.999
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class AlarmRule:
    """When a result is an alarm.

    It is one when its label is `label` and its score at least `min_score`, or when its score (of a regression its
    first value) is above `above_threshold`. It clears after `clear_after` results in a row that are not.
    """

    code: str
    label: str | None = None
    min_score: float = 0.0
    above_threshold: float | None = None
    severity: Severity = "high"
    clear_after: int = 1


@dataclass(frozen=True, slots=True)
class OutputSpec:
    """What the outputs of a model mean.

    labels: names of the classes. softmax: the outputs are logits.
    threshold: of the anomaly score, or the least score of a detection. names: of the values of a regression.
    outputs: role (scores, boxes, classes, count) → name of the model output, where the order does not tell.
    """

    kind: OutputKind
    labels: tuple[str, ...] = ()
    softmax: bool = False
    threshold: float | CalibratedThreshold | None = None
    names: tuple[str, ...] = ()
    outputs: Mapping[str, str] = field(default_factory=dict)
    alarms: tuple[AlarmRule, ...] = ()
