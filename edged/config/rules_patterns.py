"""Which settings of pictures, detections and cascades go together. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from edged.config.patterns import Cascade, Frame
from edged.config.pipeline import Input, Pipeline
from edged.config.problems import Finding
from edged.config.rules_links import RULES, check_chain
from edged.config.settings import Security

_OF_NUMBERS = ("fields", "resample_ms", "layout", "scaling", "constraints", "features", "fft_bins", "sample_rate_hz")
_GRADED = ("classification", "anomaly", "detection")  # kinds whose answers have a score


def check_codec(pipeline: Pipeline) -> Iterator[Finding]:
    """Pictures need no fields and everything else does."""
    if pipeline.codec == "image":
        yield from _check_picture(pipeline)
        return
    if not pipeline.input.fields:
        cure = "add it: dotted paths into the event, in the order the model expects"
        yield Finding(("input", "fields"), "is missing", allowed="list of text, at least 1", cure=cure)
    if pipeline.input.frame is not None:
        cure = 'write codec = "image", or remove it'
        yield Finding(("input", "frame"), "is for pictures", {"frame": ...}, cure=cure, uses=("codec",))
    if pipeline.output.detection is not None:
        cure = 'write codec = "image", or remove it: other detectors must suppress doubles themselves'
        yield Finding(("output", "detection"), "is for pictures", {"detection": ...}, cure=cure, uses=("codec",))


def _check_picture(pipeline: Pipeline) -> Iterator[Finding]:
    source = pipeline.input
    for key in _OF_NUMBERS:
        if value := getattr(source, key):
            yield Finding(("input", key), "has no meaning for pictures", _shown(value), cure="remove it")
    if source.window > 1:
        yield Finding(("input", "window"), "has no meaning for pictures", source.window, cure="remove it")
    if "{payload." in pipeline.device:
        cure = "take the device from the topic: {topic[N]}"
        yield Finding(("device",), "looks into the payload, which is a picture", pipeline.device, cure=cure)
    if pipeline.model.commit == "together":
        cure = "remove it: a picture is decoded and answered after its event is committed"
        yield Finding(("model", "commit"), "is not possible for pictures", "together", cure=cure)
    if RULES in pipeline.model.chain:
        cure = "remove it: rules compare numbers of an event"
        yield Finding(("model", "chain"), "has rules, which cannot see", pipeline.model.chain, cure=cure)
    yield from (finding.below("input", "frame") for finding in _check_frame(source.frame or Frame(), source))
    if pipeline.output.detection is not None and pipeline.output.kind != "detection":
        cure = 'write kind = "detection", or remove it'
        yield Finding(("output", "detection"), "has no meaning for this kind", pipeline.output.kind, cure=cure)


def _check_frame(frame: Frame, source: Input) -> Iterator[Finding]:
    channels = 1 if frame.colour == "gray" else 3
    for key in ("mean", "std"):
        if len(given := getattr(frame, key)) not in {0, 1, channels}:
            yield Finding((key,), "has another length than there are channels", given, allowed=f"1 or {channels}")
    if (frame.width is None) != (frame.height is None):
        missing = "width" if frame.width is None else "height"
        yield Finding((missing,), "is missing", allowed="width and height, or neither", cure=f"add {missing}")
    if frame.scale == 0:
        yield Finding(("scale",), "makes every pixel equal", 0, allowed="a number other than 0")
    if frame.raw is not None and (size := frame.raw.width * frame.raw.height) > frame.max_pixels:
        yield Finding(("raw",), "is larger than max_pixels", size, allowed=f"up to {frame.max_pixels} pixels")
    if frame.ts_level is not None and source.ts_source == "arrival":
        cure = "remove one of the two"
        yield Finding(("ts_level",), 'has no effect with ts_source = "arrival"', frame.ts_level, cure=cure)


def check_graded(pipeline: Pipeline) -> Iterator[Finding]:
    """A cascade needs answers that say how sure they are, and time to ask."""
    if pipeline.model.cascade is None:
        return
    if pipeline.output.kind not in _GRADED:
        allowed = f"with kind {' or '.join(_GRADED)} only"
        yield Finding(("model", "cascade"), "needs answers with a score", pipeline.output.kind, allowed=allowed)
    if pipeline.model.commit == "together":
        cure = "remove it: an escalated answer comes later than its event"
        yield Finding(("model", "commit"), "is not possible for a cascade", "together", cure=cure)


def check_cascade(cascade: Cascade, security: Security | None) -> Iterator[Finding]:
    """A larger model that can be found, and a band of scores with something in it."""
    named = [key for key in ("path", "slot", "sha256") if getattr(cascade, key) is not None]
    if cascade.where == "upstream":
        if named != ["sha256"]:
            allowed = "sha256, and neither path nor slot"
            yield Finding((), "does not name the model of the upstream", named, allowed=allowed, uses=("where",))
    elif cascade.sha256 is not None:
        cure = 'write where = "upstream", or remove it'
        yield Finding(("sha256",), "is for a model of the upstream", cascade.sha256, cure=cure, uses=("where",))
    elif len(named) != 1:
        yield Finding(
            () if cascade.path is None else ("path",),
            "names no larger model" if cascade.path is None else "contradicts slot",
            allowed="either slot or path",
            cure='slot = "NAME" for a signed model, path = "FILE" for an unsigned one',
            uses=("path", "slot"),
        )
    elif cascade.path is not None and security is not None and not security.allow_unsigned:
        cure = "write [security] allow_unsigned = true, or use a slot"
        yield Finding(("path",), "is an unsigned model, which [security] refuses", cascade.path, cure=cure)
    if cascade.low >= cascade.high:
        allowed = f"below high, {cascade.high}"
        yield Finding(("low",), "leaves nothing to ask about", cascade.low, allowed=allowed, uses=("high",))
    yield from check_chain(cascade.chain)
    if RULES in cascade.chain:
        yield Finding(("chain",), "names rules, which are no larger model", cascade.chain, cure="remove it")


def _shown(value: object) -> object:
    return value if isinstance(value, int | float | str | tuple) else "a table"
