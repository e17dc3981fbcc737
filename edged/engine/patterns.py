"""What stands around a loaded model where a pipeline sees pictures, or asks a larger model about what is unsure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from edged.config.patterns import Detection, Frame
from edged.infer.aside import Aside
from edged.infer.cascade import CascadeModel, CascadeSpec, Renaming, UpstreamModel
from edged.infer.frames import FRAMES, Finish, FrameModel, only_input
from edged.infer.pixels import FrameSpec, RawFrame, canvas_of, require_decoder
from edged.infer.upstream import upstream_address
from edged.ingest.image import ImageSource, ImageSpec, RawSize
from edged.messages import QUALITY_BAD, TensorSpec
from edged.pipeline.detection import DetectionSpec, Detector
from edged.pipeline.frames import FrameAssembler
from edged.pipeline.postprocess import Postprocessor
from edged.policy.cascade import Band

if TYPE_CHECKING:
    import numpy as np

    from edged.config.pipeline import Pipeline
    from edged.config.settings import Config
    from edged.infer.chain import Chain
    from edged.infer.upstream import Upstream
    from edged.messages import ModelInfo
    from edged.pipeline.spec import OutputSpec
    from edged.ports import Clock, Model

FRAME_BATCH = 8  # pictures in one call: each is several megabytes once it is decoded
QUEUED_BYTES = 64 * 1024 * 1024  # of pictures that wait in memory where every one counts; the others wait in the store


# --- pictures ---------------------------------------------------------------------------------------------------


def image_source(config: Config, pipeline: Pipeline) -> ImageSource:
    """The decoder of a source of pictures."""
    frame = pipeline.input.frame or Frame()
    raw = frame.raw
    arrival = pipeline.input.ts_source == "arrival"
    return ImageSource(
        ImageSpec(
            device=pipeline.device,
            raw=None if raw is None else RawSize(raw.width, raw.height, 1 if raw.colour == "gray" else 3),
            ts_level=None if arrival else frame.ts_level,
            seq_level=frame.seq_level,
            boot_level=frame.boot_level,
            ts_unit=pipeline.input.ts_unit,
            keep=pipeline.input.policy == "queue",
            max_pixels=frame.max_pixels,
            max_payload_bytes=config.limits.max_payload_bytes,
        )
    )


def queue_limit(config: Config) -> int:
    """Pictures that may wait in memory."""
    return max(2 * FRAME_BATCH, QUEUED_BYTES // config.limits.max_payload_bytes)


def fitted_frames(
    pipeline: Pipeline, info: ModelInfo, output: OutputSpec, max_devices: int
) -> tuple[FrameAssembler, Postprocessor]:
    """What stands around a model of pictures. Raises `ModelError` for one that takes or gives something else."""
    require_decoder()
    _, outputs = _finish(pipeline, info)
    return FrameAssembler((TensorSpec(FRAMES, "object", (-1,)),)), Postprocessor(output, outputs, max_devices)


def frame_output(pipeline: Pipeline, output: OutputSpec) -> OutputSpec:
    """The outputs of a detector come sorted out: their names and the least score are known."""
    if pipeline.codec != "image" or output.kind != "detection":
        return output
    return replace(output, threshold=_detection(pipeline).min_score, outputs={})


def _detection(pipeline: Pipeline) -> Detection:
    return pipeline.output.detection or Detection()


def _frame_spec(pipeline: Pipeline) -> FrameSpec:
    frame = pipeline.input.frame or Frame()
    return FrameSpec(
        resize=frame.resize,
        pad=frame.pad,
        colour=frame.colour,
        layout=frame.layout,
        size=None if frame.width is None or frame.height is None else (frame.width, frame.height),
        scale=frame.scale,
        mean=frame.mean,
        std=frame.std,
        raw=None if frame.raw is None else RawFrame(frame.raw.width, frame.raw.height, frame.raw.colour),
        max_pixels=frame.max_pixels,
    )


def _finish(pipeline: Pipeline, info: ModelInfo) -> tuple[Finish | None, tuple[TensorSpec, ...]]:
    """What is done to the outputs of a model of pictures, and the outputs after it."""
    canvas = canvas_of(_frame_spec(pipeline), only_input(info))
    if pipeline.output.kind != "detection":
        return None, info.outputs
    wanted = _detection(pipeline)
    spec = DetectionSpec(
        layout=wanted.layout,
        box=wanted.box,
        normalised=wanted.normalised,
        objectness=wanted.objectness,
        class_count=len(pipeline.output.labels),
        min_score=wanted.min_score,
        max_iou=wanted.max_iou,
        limit=wanted.limit,
    )
    detector = Detector(spec, info.outputs, canvas.width, canvas.height)
    return detector, detector.outputs


def _seeing(pipeline: Pipeline, model: Model, info: ModelInfo) -> Model:
    """`model`, asked with frames as they came where these are pictures. info: what it takes and gives."""
    if pipeline.codec != "image":
        return model
    finish, outputs = _finish(pipeline, info)
    return FrameModel(model, _frame_spec(pipeline), info, finish, outputs)


# --- cascades ---------------------------------------------------------------------------------------------------


class Larger(NamedTuple):
    """Where the larger model of a cascade is. chain: here. connect: with the receiver of the results, by its digest."""

    chain: Chain | None = None
    connect: Callable[[], Upstream] | None = None
    digest: str = ""


def upstream_larger(config: Config, digest: str) -> Larger:
    """A larger model with the receiver of the results."""
    address = upstream_address(config)
    assert address is not None, "the configuration says where to ask"

    def connect() -> Upstream:
        from edged.infer import upstream_mqtt  # its client library is an extra

        return upstream_mqtt.connect(address)

    return Larger(connect=connect, digest=digest)


def around(
    pipeline: Pipeline, model: Model, info: ModelInfo, larger: Larger | None, output: OutputSpec, clock: Clock
) -> Model:
    """The model that a lane runs. `info` of the result is that of whatever answers.

    Args:
        info: what `model` takes and gives; a chain whose rungs are all away cannot say.

    Raises:
        ModelError: `incompatible`.
    """
    small = _seeing(pipeline, model, info)
    cascade = pipeline.model.cascade
    if cascade is None or larger is None:
        return small
    spec = CascadeSpec(Band(cascade.low, cascade.high), cascade.max_escalations_per_s, cascade.deadline_ms / 1000)

    def make() -> Model:
        if larger.chain is not None:
            names = [tensor.name for tensor in info.inputs]
            found: Model = larger.chain.renew()
            return Renaming(found, names) if pipeline.codec != "image" else _seeing(pipeline, found, found.info)
        assert larger.connect is not None, "a larger model is here or there"
        return _seeing(pipeline, UpstreamModel(larger.connect(), larger.digest, info), info)

    outputs = info.outputs if pipeline.codec != "image" else _finish(pipeline, info)[1]
    return CascadeModel(small, Aside(f"{pipeline.name}-larger", make), spec, _scores(output, outputs), clock)


def _scores(
    output: OutputSpec, outputs: tuple[TensorSpec, ...]
) -> Callable[[Mapping[str, np.ndarray], int], list[float | None]]:
    """How sure an answer is: its score. Nothing found is 0; what is no answer has none."""
    plain = replace(output, threshold=0.0 if output.kind == "anomaly" else output.threshold, alarms=())
    interpret = Postprocessor(plain, outputs)

    def scores(answer: Mapping[str, np.ndarray], count: int) -> list[float | None]:
        read = interpret(answer, [""] * count)
        return [
            None if quality == QUALITY_BAD else 0.0 if score is None else score
            for quality, score in zip(read.quality, read.score, strict=True)
        ]

    return scores
