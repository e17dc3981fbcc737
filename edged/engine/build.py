"""From the configured pipelines to sources and runners: the adapter between configuration and decisions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.engine.intake import Source
from edged.engine.patterns import (
    FRAME_BATCH,
    Larger,
    around,
    fitted_frames,
    frame_output,
    image_source,
    queue_limit,
    upstream_larger,
)
from edged.engine.runner import Runner
from edged.engine.runner_parts import READY_LIMIT, RunnerParts
from edged.engine.stand_in import StandIn, StandInSpec
from edged.errors import ConfigError, ModelError
from edged.infer.chain import Chain, ChainSpec, Serving, load_chain
from edged.infer.lane import Lane, LaneLimits
from edged.infer.proof import Calls
from edged.infer.rules import RUNTIME as RULES
from edged.infer.rules import Rule
from edged.infer.runtime import LoadOptions
from edged.infer.upstream import upstream_address
from edged.ingest.decode_json import JsonSource
from edged.ingest.sequence import SequenceTracker
from edged.ingest.spec import SequenceSpec, SourceSpec
from edged.messages import ModelInfo
from edged.pipeline.alarm import AlarmBank
from edged.pipeline.assemble import Assembler
from edged.pipeline.postprocess import Postprocessor
from edged.pipeline.spec import AlarmRule, CalibratedThreshold, InputSpec, OutputSpec, Scaling
from edged.pipeline.windows import WindowBank
from edged.policy.batching import Cost, best_batch, choose_commit, choose_host
from edged.policy.chain import Limits

if TYPE_CHECKING:
    from edged.config.pipeline import Calibration, Output, Pipeline
    from edged.config.settings import Config
    from edged.engine.draft import Present
    from edged.infer.proof import Live
    from edged.infer.rung import Hosting
    from edged.pipeline.frames import FrameAssembler
    from edged.ports import Clock, Model

STUCK_DEADLINES = 20  # a call this many times over its deadline is not slow but stuck ...
STUCK_AT_LEAST_S = 5.0  # ... but never sooner than this: a swapped-out box answers late and is fine


class Built(NamedTuple):
    sources: tuple[Source, ...]
    runners: tuple[Runner, ...]
    filters: tuple[tuple[str, Source], ...]
    chains: tuple[Chain, ...]


class Loaded(NamedTuple):
    """A pipeline with its model tried; made in a thread, since loading blocks."""

    pipeline: Pipeline
    serving: Serving
    width: int | None
    smaller: Serving | None = None
    larger: Larger | None = None


def load_models(config: Config, clock: Clock, hosting: Hosting | None = None) -> list[Loaded]:
    """Load every pipeline's model. Blocks; a model that cannot be used is an answer, not an exception.

    hosting: who runs accelerators in processes of their own.
    """
    loaded = [_load(config, pipeline, clock, hosting) for pipeline in config.pipelines]
    # Only now: what they load in the background would disturb the measurement of the others.
    for item in loaded:
        item.serving.chain.start()
        if item.smaller is not None:
            item.smaller.chain.start()
        if item.larger is not None and item.larger.chain is not None:
            item.larger.chain.start()
    return loaded


def _load(config: Config, pipeline: Pipeline, clock: Clock, hosting: Hosting | None) -> Loaded:
    model, wanted = pipeline.model, config.hardware.fallback
    fits = _Fits(config, pipeline)
    spec = ChainSpec(
        pipeline.name,
        Path(model.path) if model.path else Path(model.slot_dir(config.gateway.state_dir)),
        model.chain or config.hardware.chain,
        model.version or "",
        allow_unsigned=config.security.allow_unsigned,
        max_bytes=config.hardware.limits.model_bytes,
        options=LoadOptions(
            max(1, config.hardware.cpu_threads),
            Path(config.gateway.state_dir) / "engines",
            upstream_address(config),
        ),
        limits=Limits(
            retry_first_s=wanted.retry_first_s,
            restarts_count=wanted.restarts,
            return_probes=wanted.return_probes,
            probe_every_s=wanted.probe_every_s,
            return_after_s=wanted.return_after_s,
            return_most_s=wanted.return_most_s,
            warm_count=wanted.warm,
        ),
        require_accelerator=model.require_accelerator,
        fits=fits,
        calls=Calls(model.hang_s, model.max_batch),
    )
    serving = load_chain(spec, clock, hosting=hosting)
    smaller = None
    if model.smaller is not None:
        other = model.smaller
        location = Path(other.path) if other.path else Path(other.slot_dir(config.gateway.state_dir))
        smaller = load_chain(spec._replace(location=location, version=other.version or ""), clock, hosting=hosting)
    larger = _larger(config, pipeline, spec, clock, hosting)
    if fits.contradiction is not None:
        raise fits.contradiction
    info = None if serving.model is None else serving.model.info
    return Loaded(pipeline, serving, _row_width(pipeline, info), smaller, larger)


def _larger(
    config: Config, pipeline: Pipeline, spec: ChainSpec, clock: Clock, hosting: Hosting | None
) -> Larger | None:
    """The larger model of a cascade; one that cannot be used leaves the small answers as they are."""
    cascade = pipeline.model.cascade
    if cascade is None:
        return None
    if cascade.where == "upstream":
        return upstream_larger(config, cascade.sha256 or "")
    location = Path(cascade.path) if cascade.path else Path(cascade.slot_dir(config.gateway.state_dir))
    other = spec._replace(location=location, version=cascade.version or "", chain=cascade.chain or spec.chain)
    return Larger(load_chain(other, clock, hosting=hosting).chain)


class _Fits:
    """Does a model fit a pipeline? A configuration that contradicts itself is no fault of the model: it is kept."""

    def __init__(self, config: Config, pipeline: Pipeline) -> None:
        self._config = config
        self._pipeline = pipeline
        self.contradiction: ConfigError | None = None

    def __call__(self, info: ModelInfo) -> None:
        """Raises ModelError (`incompatible`)."""
        try:
            _fitted(self._config, self._pipeline, _row_width(self._pipeline, info), info)
        except ConfigError as error:
            self.contradiction = error
            raise ModelError("incompatible", str(error)) from error


def _fitted(
    config: Config, pipeline: Pipeline, width: int | None, info: ModelInfo
) -> tuple[Assembler | FrameAssembler, Postprocessor]:
    """What stands around a model. Raises `ModelError` (`incompatible`) for one that takes or gives something else."""
    output = frame_output(pipeline, _output_spec(pipeline.output))
    if pipeline.codec == "image":
        return fitted_frames(pipeline, info, output, config.limits.max_devices)
    return (
        Assembler(_input_spec(config, pipeline, width), info.inputs),
        Postprocessor(output, info.outputs, config.limits.max_devices),
    )


def _row_width(pipeline: Pipeline, info: ModelInfo | None) -> int | None:
    """Numbers per event, where fields may be waveforms: as many as the model's input wants.

    0, any number, where features are taken of them, or where no model says how many it wanted.
    """
    spec = pipeline.input
    if spec.window > 1 or spec.stride > 1 or spec.resample_ms or pipeline.codec == "image":
        return None
    if info is None or spec.features:
        return 0
    if len(info.inputs) != 1:
        return None
    size = 1
    for axis in info.inputs[0].shape[1:]:
        if axis < 0:
            return None
        size *= axis
    return size if size > len(spec.fields) else None


def build(
    config: Config, loaded: Sequence[Loaded], clock: Clock, present: Present, post: Callable[..., object]
) -> Built:
    """Connect sources, windows, models and lanes. Raises `ConfigError` for what contradicts itself."""
    runners = []
    by_source: dict[tuple[object, ...], list[tuple[Loaded, Runner]]] = {}
    for item in loaded:
        runner = _runner(config, item, clock, present, post)
        runners.append(runner)
        by_source.setdefault(_source_key(item), []).append((item, runner))
    sources, filters = [], []
    for members in by_source.values():
        first = members[0][0].pipeline
        source = Source(
            first.name,
            image_source(config, first) if first.codec == "image" else JsonSource(_source_spec(config, members[0][0])),
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
    chains = tuple(
        each.chain
        for item in loaded
        for each in (item.serving, item.smaller, item.larger)
        if each is not None and each.chain is not None
    )
    return Built(tuple(sources), tuple(runners), tuple(filters), chains)


def _source_key(item: Loaded) -> tuple[object, ...]:
    """Pipelines that read the same events in the same way share one source: decoded, stored and counted once."""
    pipeline = item.pipeline
    spec = pipeline.input
    constraints = tuple(sorted((name, limit.min, limit.max) for name, limit in spec.constraints.items()))
    return (
        pipeline.topics, pipeline.codec, pipeline.device, spec.fields, item.width, spec.ts, spec.seq, spec.boot,
        spec.ts_unit, spec.ts_source, constraints, *((spec.frame, spec.policy) if pipeline.codec == "image" else ()),
    )  # fmt: skip


def _source_spec(config: Config, item: Loaded) -> SourceSpec:
    pipeline, spec = item.pipeline, item.pipeline.input
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


def _input_spec(config: Config, pipeline: Pipeline, width: int | None) -> InputSpec:
    spec = pipeline.input
    scaling = None
    if spec.scaling:
        lines = [spec.scaling.get(name) for name in spec.fields]
        scaling = Scaling(
            scale=tuple(1.0 if line is None else line.factor for line in lines),
            offset=tuple(0.0 if line is None else line.shift for line in lines),
        )
    return InputSpec(
        fields=spec.fields,
        width=width,
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
        inputs=pipeline.model.inputs,
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


def _runner(config: Config, item: Loaded, clock: Clock, present: Present, post: Callable[..., object]) -> Runner:
    pipeline, serving = item.pipeline, item.serving
    inputs, output = _input_spec(config, pipeline, item.width), _output_spec(pipeline.output)
    rules_alone = not serving.chain.names and not pipeline.model.require_accelerator
    bare = RunnerParts(
        name=pipeline.name,
        bank=WindowBank(inputs),
        assemble=None,
        interpret=None,
        alarms=AlarmBank(output.alarms) if output.alarms else None,
        model=None,
        lane=None,
        info=_no_model(pipeline),
        deadline_ms=pipeline.model.deadline_ms,
        max_batch=pipeline.model.max_batch,
        degraded=False,
        unusable_reason=serving.reason or "model_unusable",
        latest_only=pipeline.input.policy == "latest",
        arrival_is_ts=pipeline.input.ts_source == "arrival",
        may_slow=pipeline.input.may_slow or pipeline.input.policy == "latest",
        chain=serving.chain,
        stand_in=_stand_in(config, pipeline, rules_alone),
        rates_hz=pipeline.model.rates_hz,
        frames=pipeline.codec == "image",
        larger=item.larger.chain if item.larger is not None else None,
        ready_limit=queue_limit(config) if pipeline.codec == "image" else READY_LIMIT,
    )
    refit = _Refit(config, item, clock, post)
    live = serving.chain.serving
    parts = refit(bare, live) if live is not None else None
    return Runner((parts or bare)._replace(refit=refit), clock, present, _smaller(config, item, bare, clock, post))


def _smaller(
    config: Config, item: Loaded, bare: RunnerParts, clock: Clock, post: Callable[..., object]
) -> RunnerParts | None:
    """The same pipeline with its smaller model; None where there is none, or it cannot be used."""
    other = item.smaller
    live = other.chain.serving if other is not None else None
    if other is None or live is None:
        return None
    refit = _Refit(config, item._replace(serving=other), clock, post)
    return refit(bare._replace(chain=other.chain), live)


class _Refit:
    """Makes the parts of one pipeline for the rung that serves. Belongs to the loop."""

    def __init__(self, config: Config, item: Loaded, clock: Clock, post: Callable[..., object]) -> None:
        self._config = config
        self._item = item
        self._clock = clock
        self._post = post

    def __call__(self, parts: RunnerParts, live: Live) -> RunnerParts | None:
        """Parts with a model, on a lane where the rung is slow; None when `parts` are right as they are."""
        lane_needed = parts.lane is None and self._is_slow(live.cost)
        if parts.model is not None and not lane_needed:
            return None
        pipeline, chain = self._item.pipeline, self._item.serving.chain
        width = _row_width(pipeline, live.info)
        assemble, interpret = parts.assemble, parts.interpret
        if parts.model is None:
            try:
                assemble, interpret = _fitted(self._config, pipeline, width, live.info)
            except (ModelError, ConfigError):  # the chain has asked before: another pipeline's business
                return None
        try:
            model = self._around(chain.model(), live.info)
        except ModelError:  # as above
            return None
        fresh = parts._replace(assemble=assemble, interpret=interpret, model=model, info=live.info)
        if self._item.width == 0 and not pipeline.input.features:
            fresh = fresh._replace(width=len(pipeline.input.fields) if width is None else width)
        if not lane_needed:
            return fresh
        return fresh._replace(
            lane=self._lane(model, live.info), max_batch=self._batch(live.cost), batch_for=self._batch
        )

    def _batch(self, cost: Cost) -> int:
        """How many windows one call of a rung takes, so that it ends within the deadline."""
        pipeline = self._item.pipeline
        most = pipeline.model.max_batch
        if pipeline.codec == "image":
            most = min(most, FRAME_BATCH)
        return best_batch(cost, most, pipeline.model.deadline_ms, largest=most)

    def _around(self, model: Model, info: ModelInfo) -> Model:
        """What the lane runs: `model`, and what stands around it. info: what it takes and gives."""
        pipeline = self._item.pipeline
        output = frame_output(pipeline, _output_spec(pipeline.output))
        return around(pipeline, model, info, self._item.larger, output, self._clock)

    def _is_slow(self, cost: Cost) -> bool:
        """Whether the model must leave the loop. A call of another process always does: it may hang."""
        lanes, model = self._config.hardware.lanes, self._item.pipeline.model
        if self._item.serving.chain.isolated or model.cascade is not None or self._item.pipeline.codec == "image":
            return True
        if choose_commit(model.commit, cost, together_max_ms=lanes.together_max_ms) == "after":
            return True
        return model.commit == "auto" and choose_host(cost, inline_max_us=lanes.inline_max_us) == "lane"

    def _lane(self, model: Model, info: ModelInfo) -> Lane:
        pipeline, chain = self._item.pipeline, self._item.serving.chain
        hang_s, cascade = pipeline.model.hang_s, pipeline.model.cascade
        return Lane(
            pipeline.name,
            model,
            reload=lambda: self._around(chain.renew(), info),
            clock=self._clock,
            post=self._post,
            limits=LaneLimits(
                deadline_s=hang_s,
                # Longer than a hang on every rung of the chain takes, and the wait for a larger model after it.
                stuck_after_s=(0.0 if cascade is None else cascade.deadline_ms / 1000)
                + max(
                    STUCK_AT_LEAST_S,
                    STUCK_DEADLINES * pipeline.model.deadline_ms / 1000,
                    2 * hang_s * (len(chain.names) + 1),
                ),
            ),
        )


def _stand_in(config: Config, pipeline: Pipeline, rules_alone: bool) -> StandIn | None:
    """Rules where they end the chain, else the memory of the last good answers; None where neither is declared."""
    model, fields = pipeline.model, pipeline.input.fields
    chain = model.chain or config.hardware.chain
    if model.require_accelerator:
        return None
    rules = tuple(
        Rule(rule.label, fields.index(rule.field), rule.above, rule.below) for rule in model.rules if RULES in chain
    )
    if not rules and not model.last_good_s:
        return None
    spec = StandInSpec(rules, model.last_good_s, len(fields), rules_alone, config.limits.max_devices)
    return StandIn(spec, pipeline.name)


def _no_model(pipeline: Pipeline) -> ModelInfo:
    name = pipeline.model.slot or Path(pipeline.model.path or "").stem
    return ModelInfo(name, pipeline.model.version or "", "", "none", (), ())
