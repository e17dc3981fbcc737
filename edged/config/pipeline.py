"""The tables below `[[pipeline]]` as frozen values: what comes in, how it becomes model input, what goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from edged.config.keys import NAME_PATTERN, STRICT_TABLE, Key
from edged.config.patterns import Cascade, Detection, Frame

Codec = Literal["json", "senml", "sparkplug_b", "packed", "image"]
Feature = Literal["rms", "peak", "crest", "kurtosis", "skewness", "mean", "std", "fft"]
Kind = Literal["classification", "anomaly", "regression", "detection", "tensor"]
Severity = Literal["low", "medium", "high", "critical"]

FieldPath = str  # dotted path into the event: "motor.temp_c"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How one field is scaled before the model sees it: either x*scale + offset, or (x - mean) / std."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    scale: Annotated[float | None, Key("Factor of x*scale + offset; 1 when absent.")] = None
    offset: Annotated[float | None, Key("Summand of x*scale + offset, in the scaled unit; 0 when absent.")] = None
    mean: Annotated[float | None, Key("Mean of (x - mean) / std, as the model was trained; 0 when absent.")] = None
    std: Annotated[
        float | None, Key("Standard deviation of (x - mean) / std; 1 when absent.", why="it is a divisor", gt=0)
    ] = None

    @property
    def standardised(self) -> bool:
        """True for (x - mean) / std, False for x*scale + offset."""
        return self.mean is not None or self.std is not None

    @property
    def factor(self) -> float:
        """Slope of the line that both forms are."""
        if self.standardised:
            return 1.0 / (1.0 if self.std is None else self.std)
        return 1.0 if self.scale is None else self.scale

    @property
    def shift(self) -> float:
        """Value at 0 of the line that both forms are."""
        if self.standardised:
            return -(self.mean or 0.0) * self.factor
        return self.offset or 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraint:
    """What is physically possible for one field; an event outside is refused with reason `out_of_range`."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    min: Annotated[float | None, Key("Smallest possible value, in the unit of the field.")] = None
    max: Annotated[float | None, Key("Largest possible value, in the unit of the field.")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """Which fields of an event feed the model, and how single events become windows."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    fields: Annotated[
        tuple[FieldPath, ...],
        Key(
            "Dotted paths into the event, in the order the model expects; each names a number or an array of numbers. "
            "Needed unless the codec is `image`.",
            why="one field at least is needed, and 4096 columns are more than any sensor event carries",
            min_items=1,
            max_items=4096,
            max_chars=256,
        ),
    ] = ()
    window: Annotated[
        int,
        Key(
            "Events the model sees at once; 1: every event on its own.",
            why="a window is kept in memory for each device",
            unit="events",
            ge=1,
            le=65_536,
        ),
    ] = 1
    stride: Annotated[
        int,
        Key(
            "Events between the starts of two windows.",
            why="a stride beyond the window would skip events unseen",
            unit="events",
            ge=1,
            le=65_536,
        ),
    ] = 1
    policy: Annotated[
        Literal["queue", "latest"],
        Key("queue: every event counts. latest: the newest frame wins, the others are counted as skipped."),
    ] = "queue"
    may_slow: Annotated[
        bool,
        Key(
            "Under pressure (heat, lateness, a missing accelerator) only a half or a quarter of the windows of each "
            "device is answered; the others are counted as left out. Inputs with policy latest always may."
        ),
    ] = False
    ts: Annotated[FieldPath, Key("Path of the event time.", max_chars=256, why="the name of a field, not a text")] = (
        "ts"
    )
    seq: Annotated[
        FieldPath,
        Key(
            "Path of the sensor's sequence number; with it gaps are found.",
            max_chars=256,
            why="the name of a field, not a text",
        ),
    ] = "seq"
    boot: Annotated[
        FieldPath,
        Key(
            "Path of the sensor's boot id; a new one restarts its numbers.",
            max_chars=256,
            why="the name of a field, not a text",
        ),
    ] = "boot"
    ts_unit: Annotated[
        Literal["iso", "s", "ms", "us", "ns"] | None,
        Key("How the event time is written; absent: text is ISO 8601 and numbers are milliseconds."),
    ] = None
    ts_source: Annotated[
        Literal["payload", "arrival"],
        Key("arrival: the time of arrival is the event time, and that is good enough to be called good quality."),
    ] = "payload"
    frame: Annotated[Frame | None, Key("Codec image: how pictures become the input of the model.")] = None
    layout: Annotated[
        str | None,
        Key(
            "Axes of the model's input: `auto` (absent means the same), names like `batch,fields,window`, or a reshape "
            "like `batch,1,28,28`.",
            max_chars=128,
            why="a handful of axes",
        ),
    ] = None
    max_gap_ms: Annotated[
        int | None,
        Key(
            "A hole longer than this between two events restarts the window; absent: holes are bridged.",
            why="0 would restart at every event; a day is no window any more",
            ge=1,
            le=86_400_000,
        ),
    ] = None
    lateness_ms: Annotated[
        int,
        Key(
            "How far an event may lie behind the newest one and still take its place in the next windows; "
            "later ones are left out.",
            why="a window does not wait: an event an hour late changes nothing that was answered",
            ge=0,
            le=60_000,
        ),
    ] = 0
    resample_ms: Annotated[
        int | None,
        Key(
            "Distance of samples after linear resampling; absent: samples as they come.",
            why="timestamps have millisecond resolution",
            ge=1,
            le=3_600_000,
        ),
    ] = None
    scaling: Annotated[Mapping[FieldPath, Scaling], Key("Scaling by field: { scale, offset } or { mean, std }.")] = (
        field(default_factory=dict)
    )
    constraints: Annotated[
        Mapping[FieldPath, Constraint], Key("Possible values by field: { min, max }; others are refused.")
    ] = field(default_factory=dict)
    features: Annotated[
        tuple[Feature, ...],
        Key("Features computed from each field's samples; they replace the samples as model input."),
    ] = ()
    fft_bins: Annotated[
        int | None,
        Key(
            "Number of bands the amplitude spectrum is averaged into; needed with the feature fft.",
            why="a band needs at least one spectral line",
            ge=1,
            le=8192,
        ),
    ] = None
    sample_rate_hz: Annotated[
        float | None,
        Key(
            "Sampling rate of waveform fields (arrays in one event).",
            why="no rate is zero; 10 MHz is far beyond vibration",
            gt=0,
            le=10_000_000,
        ),
    ] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One declared threshold: what is said about a device when no model can answer."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    label: Annotated[str, Key("Label of the result while the rule holds.", max_chars=128, why="it stands in results")]
    field: Annotated[
        FieldPath,
        Key("Which of input.fields is compared, as the sensor sends it.", max_chars=256, why="a name, not a text"),
    ]
    above: Annotated[float | None, Key("The rule holds above this value.", unit="unit of the field")] = None
    below: Annotated[float | None, Key("The rule holds below this value.", unit="unit of the field")] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Smaller:
    """A smaller model for the same inputs and outputs, on the same chain, for times of pressure."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    path: Annotated[
        str | None, Key("A model file without signature; needs [security] allow_unsigned = true.", is_file=True)
    ] = None
    slot: Annotated[
        str | None,
        Key("A signed model slot: {state_dir}/models/{slot}/.", pattern=NAME_PATTERN, why="it becomes a folder name"),
    ] = None
    version: Annotated[
        str | None,
        Key(
            "Version written into its results; absent: the manifest's, or unknown.",
            max_chars=64,
            why="it stands in every result",
        ),
    ] = None

    def slot_dir(self, state_dir: str) -> str:
        """Folder of the slot below the state folder; "" when the model is a plain file."""
        return f"{state_dir}/models/{self.slot}" if self.slot else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """Which model answers, on which runtimes, and how long it may take."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    path: Annotated[
        str | None, Key("A model file without signature; needs [security] allow_unsigned = true.", is_file=True)
    ] = None
    slot: Annotated[
        str | None,
        Key("A signed model slot: {state_dir}/models/{slot}/.", pattern=NAME_PATTERN, why="it becomes a folder name"),
    ] = None
    version: Annotated[
        str | None,
        Key(
            "Version written into results; absent: the manifest's, or unknown.",
            max_chars=64,
            why="it stands in every result",
        ),
    ] = None
    chain: Annotated[
        tuple[str, ...],
        Key(
            "Runtimes in the order they are tried, as runtime:device; absent: the chain of the hardware class.",
            max_items=8,
            why="each entry is one more start-up attempt before an answer",
        ),
    ] = ()
    deadline_ms: Annotated[
        int,
        Key("Longest time one call may take.", why="below 1 ms only noise is measured", ge=1, le=60_000),
    ] = 50
    hang_ms: Annotated[
        int | None,
        Key(
            "A call on an accelerator that takes longer is hung: its process is ended, the next runtime answers; "
            "absent: four times deadline_ms, at least 250.",
            why="a late answer is better than a restart; a minute without answers is an outage",
            ge=1,
            le=60_000,
        ),
    ] = None
    require_accelerator: Annotated[
        bool,
        Key("The processor and rules must never answer: without an accelerator results have quality 0, loudly."),
    ] = False
    rules: Annotated[
        tuple[Rule, ...],
        Key(
            'Thresholds that answer when no runtime can; the first that holds wins. Used where "rules" ends the chain.',
            max_items=64,
            why="what needs more rules needs a model",
        ),
    ] = ()
    last_good_s: Annotated[
        float,
        Key(
            "When neither a runtime nor a rule can answer, the device's last good answer is repeated with quality 64 "
            "while it is not older; 0: never.",
            why="a repeated answer hides that nothing is measured; an hour is no answer any more",
            ge=0,
            le=3600,
        ),
    ] = 0.0
    rates_hz: Annotated[
        Mapping[str, float],
        Key('With input.policy = "latest": most calls a second by runtime of the chain; others count as skipped.'),
    ] = field(default_factory=dict)
    inputs: Annotated[
        Mapping[str, tuple[FieldPath, ...]],
        Key("For models with several inputs: the fields of each input by its name."),
    ] = field(default_factory=dict)
    commit: Annotated[
        Literal["auto", "together", "after"],
        Key(
            "Whether results are committed with their events (together) or later (after); "
            "auto decides by the measured speed of the model."
        ),
    ] = "auto"
    max_batch: Annotated[
        int,
        Key(
            "Largest number of windows in one call.",
            why="one call cannot be interrupted, and its arrays are memory",
            unit="windows",
            ge=1,
            le=65_536,
        ),
    ] = 256

    @property
    def hang_s(self) -> float:
        """When a call counts as hung."""
        return max(0.25, 4 * self.deadline_ms / 1000) if self.hang_ms is None else self.hang_ms / 1000

    smaller: Annotated[
        Smaller | None, Key("A smaller model that answers under pressure, until it is over; results name it.")
    ] = None
    cascade: Annotated[Cascade | None, Key("A larger model that is asked about what this one is not sure of.")] = None

    def slot_dir(self, state_dir: str) -> str:
        """Folder of the slot below the state folder; "" when the model is a plain file."""
        return f"{state_dir}/models/{self.slot}" if self.slot else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A threshold learnt per device from its first events, which are taken as healthy."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    calibrate_events: Annotated[
        int,
        Key(
            "Number of first scores per device that are learnt from.",
            why="a quantile of fewer than 10 scores says nothing; the scores are kept in memory",
            unit="scores",
            ge=10,
            le=100_000,
        ),
    ]
    quantile: Annotated[
        float, Key("Quantile of the learnt scores.", why="a quantile is a share of all scores", gt=0, le=1)
    ] = 0.995
    factor: Annotated[
        float, Key("Margin: the threshold is the quantile times this.", why="a threshold must stay positive", gt=0)
    ] = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """When a result becomes an alarm, and when the alarm ends."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    label: Annotated[
        str | None,
        Key("Classification: the label that raises the alarm.", max_chars=128, why="it stands in every result"),
    ] = None
    min_score: Annotated[
        float | None,
        Key("Smallest score that raises the alarm; absent: any score of the label, or a score above the threshold."),
    ] = None
    severity: Annotated[Severity, Key("How urgent it is for the operator.")] = "medium"
    code: Annotated[
        str | None,
        Key(
            "Name of the alarm in its topic; absent: the label, or `anomaly`.",
            pattern=NAME_PATTERN,
            why="it becomes a topic level",
        ),
    ] = None
    clear_after: Annotated[
        int,
        Key(
            "Healthy results in a row that end the alarm.",
            why="1 lets an alarm flutter, a thousand keeps it for ever",
            unit="results",
            ge=1,
            le=1000,
        ),
    ] = 3

    @property
    def effective_code(self) -> str:
        """Last level of the alarm's topic."""
        return self.code or self.label or "anomaly"


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What the model's numbers mean."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    kind: Annotated[Kind, Key("Meaning of the model's output.")]
    labels: Annotated[
        tuple[str, ...],
        Key(
            "Classification and detection: the names of the classes in the order of the model's scores.",
            max_items=10_000,
            why="the names of the largest public classifiers; each stands in results",
            max_chars=128,
        ),
    ] = ()
    softmax: Annotated[bool, Key("Classification: turn raw scores (logits) into shares that sum to 1.")] = False
    threshold: Annotated[
        float | Calibration | None,
        Key("Anomaly: a fixed score, or a table to learn it per device from the first events."),
    ] = None
    names: Annotated[
        tuple[str, ...],
        Key("Regression: names of the output values in their order.", max_chars=128, why="it stands in every result"),
    ] = ()
    score_output: Annotated[
        str | None,
        Key("Name of the model output that carries the scores; absent: the only output, or the last one of floats."),
    ] = None
    detection: Annotated[Detection | None, Key("Detection: how boxes, scores and classes are read.")] = None
    alarm: Annotated[tuple[Alarm, ...], Key("One table or a list of tables: what becomes an alarm.")] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pipeline:
    """One way from topics through a model to results."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    name: Annotated[str, Key("Name in topics and results.", pattern=NAME_PATTERN, why="it becomes a topic level")]
    topics: Annotated[
        tuple[str, ...],
        Key(
            "MQTT topic filters whose messages feed this pipeline.",
            min_items=1,
            max_items=64,
            why="each filter is one subscription that the broker matches",
        ),
    ]
    device: Annotated[
        str,
        Key(
            "Device name: text with {topic[N]} (level N from 0, or from the end as -1) and {payload.path}.",
            max_chars=256,
            why="it becomes a topic level",
        ),
    ]
    codec: Annotated[Codec, Key("How payloads are written.")] = "json"
    input: Annotated[Input, Key("From events to model input.")]
    model: Annotated[ModelSource, Key("The model and its runtimes.")]
    output: Annotated[Output, Key("From model output to results.")]
