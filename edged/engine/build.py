"""From the configured pipelines to sources and runners: the adapter between configuration and decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.engine.intake import Source
from edged.engine.runner import Runner, RunnerParts
from edged.errors import ConfigError, ModelError
from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.lane import Lane, LaneLimits
from edged.infer.runtime import LoadOptions
from edged.ingest.decode_json import JsonSource
from edged.ingest.sequence import SequenceTracker
from edged.ingest.spec import SequenceSpec, SourceSpec
from edged.messages import ModelInfo
from edged.pipeline.alarm import AlarmBank
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import AlarmRule, CalibratedThreshold, InputSpec, OutputSpec, Scaling
from edged.pipeline.windows import WindowBank
from edged.policy.batching import best_batch, choose_commit, choose_host

if TYPE_CHECKING:
    from edged.config.pipeline import Calibration, Output, Pipeline
    from edged.config.settings import Config
    from edged.engine.draft import Present
    from edged.ports import Clock

STUCK_DEADLINES = 20  # a call this many times over its deadline is not slow but stuck ...
STUCK_AT_LEAST_S = 5.0  # ... but never sooner than this: a swapped-out box answers late and is fine


class Reason(NamedTuple):
    """Why a pipeline does not run as configured; goes into the mode."""

    code: str
    pipeline: str
    detail: str


class Built(NamedTuple):
    sources: tuple[Source, ...]
    runners: tuple[Runner, ...]
    filters: tuple[tuple[str, Source], ...]
    lanes: tuple[Lane, ...]
    reasons: tuple[Reason, ...]


class Loaded(NamedTuple):
    """A pipeline with its model tried; made in a thread, since loading blocks."""

    pipeline: Pipeline
    serving: Serving
    width: int | None


def load_models(config: Config, clock: Clock) -> list[Loaded]:
    """Load every pipeline's model. Blocks; a model that cannot be used is an answer, not an exception."""
    return [_load(config, pipeline, clock) for pipeline in config.pipelines]


def _load(config: Config, pipeline: Pipeline, clock: Clock) -> Loaded:
    model = pipeline.model
    location = Path(model.path) if model.path else Path(model.slot_dir(config.gateway.state_dir))
    spec = ChainSpec(
        pipeline.name,
        location,
        model.chain or config.hardware.chain,
        model.version or "",
        allow_unsigned=config.security.allow_unsigned,
        max_bytes=config.hardware.limits.model_bytes,
        options=LoadOptions(max(1, config.hardware.cpu_threads)),
    )
    serving = load_chain(spec, clock)
    return Loaded(pipeline, serving, _row_width(pipeline, serving))


def _row_width(pipeline: Pipeline, serving: Serving) -> int | None:
    """Numbers per event, where fields may be waveforms: as many as the model's input wants.

    0, any number, where features are taken of them, or where no model says how many it wanted.
    """
    spec = pipeline.input
    if spec.window > 1 or spec.stride > 1 or spec.resample_ms:
        return None
    if serving.model is None or spec.features:
        return 0
    if len(serving.model.info.inputs) != 1:
        return None
    size = 1
    for axis in serving.model.info.inputs[0].shape[1:]:
        if axis < 0:
            return None
        size *= axis
    return size if size > len(spec.fields) else None


def build(
    config: Config, loaded: Sequence[Loaded], clock: Clock, present: Present, post: Callable[..., object]
) -> Built:
    """Connect sources, windows, models and lanes. Raises `ConfigError` for what contradicts itself."""
    runners, lanes, reasons = [], [], []
    by_source: dict[tuple[object, ...], list[tuple[Loaded, Runner]]] = {}
    for item in loaded:
        runner, lane, reason = _runner(config, item, clock, present, post)
        runners.append(runner)
        lanes += [lane] if lane is not None else []
        reasons += [reason] if reason is not None else []
        by_source.setdefault(_source_key(item), []).append((item, runner))
    sources, filters = [], []
    for members in by_source.values():
        first = members[0][0].pipeline
        source = Source(
            first.name,
            JsonSource(_source_spec(config, members[0][0])),
            SequenceTracker(
                SequenceSpec(
                    gap_grace_ms=config.limits.gap_grace_ms,
                    max_devices=config.limits.max_devices,
                    max_keys=config.limits.dedup_keys,
                )
            ),
            [runner for _, runner in members],
        )
        sources.append(source)
        filters += [(text, source) for text in first.topics]
    return Built(tuple(sources), tuple(runners), tuple(filters), tuple(lanes), tuple(reasons))


def _source_key(item: Loaded) -> tuple[object, ...]:
    """Pipelines that read the same events in the same way share one source: decoded, stored and counted once."""
    pipeline = item.pipeline
    spec = pipeline.input
    constraints = tuple(sorted((name, limit.min, limit.max) for name, limit in spec.constraints.items()))
    return (
        pipeline.topics, pipeline.codec, pipeline.device, spec.fields, item.width, spec.ts, spec.seq, spec.boot,
        spec.ts_unit, spec.ts_source, constraints,
    )  # fmt: skip


def _source_spec(config: Config, item: Loaded) -> SourceSpec:
    pipeline, spec = item.pipeline, item.pipeline.input
    if pipeline.codec != "json":
        raise ConfigError(
            f"pipeline {pipeline.name!r}: codec {pipeline.codec!r} is not built yet", hint='use codec = "json"'
        )
    return SourceSpec(
        fields=spec.fields,
        width=item.width,
        ts=spec.ts,
        seq=spec.seq,
        boot=spec.boot,
        ts_unit=spec.ts_unit,
        ts_source=spec.ts_source,
        device=pipeline.device,
        constraints={name: (limit.min, limit.max) for name, limit in spec.constraints.items()},
        max_events=config.limits.max_events_per_message,
        max_payload_bytes=config.limits.max_payload_bytes,
    )


def _input_spec(config: Config, item: Loaded) -> InputSpec:
    spec = item.pipeline.input
    scaling = None
    if spec.scaling:
        lines = [spec.scaling.get(name) for name in spec.fields]
        scaling = Scaling(
            scale=tuple(1.0 if line is None else line.factor for line in lines),
            offset=tuple(0.0 if line is None else line.shift for line in lines),
        )
    return InputSpec(
        fields=spec.fields,
        width=item.width,
        window=spec.window,
        stride=spec.stride,
        max_gap_ms=spec.max_gap_ms,
        lateness_ms=spec.lateness_ms,
        resample_ms=spec.resample_ms or 0,
        scaling=scaling,
        features=spec.features,
        fft_bins=spec.fft_bins or 0,
        sample_rate_hz=spec.sample_rate_hz,
        layout=None if spec.layout == "auto" else spec.layout,
        inputs=item.pipeline.model.inputs,
        max_devices=config.limits.max_devices,
    )


def _output_spec(output: Output) -> OutputSpec:
    threshold = output.threshold
    return OutputSpec(
        kind=output.kind,
        labels=output.labels,
        softmax=output.softmax,
        threshold=threshold if threshold is None or isinstance(threshold, float | int) else _calibrated(threshold),
        names=output.names,
        outputs={"scores": output.score_output} if output.score_output else {},
        alarms=tuple(
            AlarmRule(
                code=alarm.effective_code,
                label=alarm.label or ("anomaly" if output.kind == "anomaly" else None),
                min_score=alarm.min_score if alarm.min_score is not None else float("-inf"),
                above_threshold=alarm.min_score if output.kind == "regression" else None,
                severity=alarm.severity,
                clear_after=alarm.clear_after,
            )
            for alarm in output.alarm
        ),
    )


def _calibrated(calibration: Calibration) -> CalibratedThreshold:
    return CalibratedThreshold(calibration.calibrate_events, calibration.quantile, calibration.factor)


def _runner(
    config: Config, item: Loaded, clock: Clock, present: Present, post: Callable[..., object]
) -> tuple[Runner, Lane | None, Reason | None]:
    pipeline, serving = item.pipeline, item.serving
    inputs, output = _input_spec(config, item), _output_spec(pipeline.output)
    deadline_ms = pipeline.model.deadline_ms
    model, lane = serving.model, None
    assemble = interpret = None
    reason = Reason(serving.reason, pipeline.name, serving.detail) if serving.reason else None
    if model is not None:
        try:
            assemble = Assembler(inputs, model.info.inputs)
            interpret = Postprocessor(output, model.info.outputs, config.limits.max_devices)
        except ModelError as error:  # loads, but does not fit this pipeline: unusable, and said so
            reason = Reason("model_unusable", pipeline.name, str(error))
            model = None
    max_batch = pipeline.model.max_batch
    if model is not None:
        lanes = config.hardware.lanes
        after = choose_commit(pipeline.model.commit, serving.cost, together_max_ms=lanes.together_max_ms) == "after"
        if after or (
            pipeline.model.commit == "auto" and choose_host(serving.cost, inline_max_us=lanes.inline_max_us) == "lane"
        ):
            assert serving.reload is not None
            max_batch = best_batch(serving.cost, max_batch, deadline_ms, largest=max_batch)
            lane = Lane(
                pipeline.name,
                model,
                reload=serving.reload,
                clock=clock,
                post=post,
                limits=LaneLimits(
                    deadline_s=deadline_ms / 1000,
                    stuck_after_s=max(STUCK_AT_LEAST_S, STUCK_DEADLINES * deadline_ms / 1000),
                ),
            )
    parts = RunnerParts(
        name=pipeline.name,
        bank=WindowBank(inputs),
        assemble=assemble,
        interpret=interpret,
        alarms=AlarmBank(output.alarms) if output.alarms else None,
        model=model,
        lane=lane,
        info=model.info if model is not None else _no_model(pipeline),
        deadline_ms=deadline_ms,
        max_batch=max_batch,
        degraded=reason is not None,
        unusable_reason=_unusable_code(reason),
        latest_only=pipeline.input.policy == "latest",
        arrival_is_ts=pipeline.input.ts_source == "arrival",
    )
    return Runner(parts, clock, present), lane, reason


def _no_model(pipeline: Pipeline) -> ModelInfo:
    name = pipeline.model.slot or Path(pipeline.model.path or "").stem
    return ModelInfo(name, pipeline.model.version or "", "", "none", (), ())


def _unusable_code(reason: Reason | None) -> str:
    return reason.code if reason is not None else "model_unusable"
