"""The tables of patterns: pictures as input, detections as output, a cascade of two models. Frozen values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from edged.config.keys import NAME_PATTERN, STRICT_TABLE, Key

Colour = Literal["rgb", "bgr", "gray"]

_LEVEL = {"unit": "level", "ge": -32, "le": 32, "why": "a topic has a handful of levels"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPixels:
    """Frames without a header: rows of pixels from the top, a byte per channel."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    width: Annotated[int, Key("Width of every frame.", unit="pixels", ge=1, le=16_384, why="beyond any camera")]
    height: Annotated[int, Key("Height of every frame.", unit="pixels", ge=1, le=16_384, why="beyond any camera")]
    colour: Annotated[Colour, Key("Order of the channels; gray has one.")] = "rgb"


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """How a picture becomes the input of a model; for codec `image`. Pixels are numbers from 0 to 255 at first."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    resize: Annotated[
        Literal["letterbox", "stretch"],
        Key("letterbox: keeps the proportions and fills the rest with `pad`. stretch: fills the whole input."),
    ] = "letterbox"
    pad: Annotated[
        int, Key("Brightness of the bars of a letterbox.", unit="of 255", ge=0, le=255, why="it is a pixel")
    ] = 114
    colour: Annotated[Colour, Key("Order of the channels that the model was trained with.")] = "rgb"
    layout: Annotated[
        Literal["auto", "nchw", "nhwc"], Key("Axes of the model's input; auto: by which of them has the channels.")
    ] = "auto"
    width: Annotated[
        int | None,
        Key(
            "Width of the model's input, where the model leaves it free.",
            unit="pixels",
            ge=1,
            le=8192,
            why="an input is memory",
        ),
    ] = None
    height: Annotated[
        int | None,
        Key(
            "Height of the model's input, where the model leaves it free.",
            unit="pixels",
            ge=1,
            le=8192,
            why="an input is memory",
        ),
    ] = None
    scale: Annotated[float, Key("Each pixel is multiplied by it first; 1/255 is 0.00392156862745098.")] = 1.0
    mean: Annotated[
        tuple[float, ...],
        Key("Subtracted after scaling: one number, or one per channel.", max_items=3, why="there are three channels"),
    ] = ()
    std: Annotated[
        tuple[float, ...],
        Key("Divides after that: one number, or one per channel.", max_items=3, gt=0, why="it is a divisor"),
    ] = ()
    raw: Annotated[RawPixels | None, Key("Frames are bare pixels; absent: JPEG or PNG.")] = None
    max_pixels: Annotated[
        int,
        Key(
            "Larger pictures are refused before they are decoded, however small their payload is.",
            unit="pixels",
            ge=1,
            le=64_000_000,
            why="a decoded picture takes three bytes for each of them",
        ),
    ] = 16_000_000
    ts_level: Annotated[
        int | None,
        Key("Level of the topic (N from 0, or from the end as -1) that holds the time of the frame.", **_LEVEL),
    ] = None
    seq_level: Annotated[
        int | None, Key("Level of the topic that holds the number of the frame; with it gaps are found.", **_LEVEL)
    ] = None
    boot_level: Annotated[int | None, Key("Level of the topic that holds the camera's boot id.", **_LEVEL)] = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Detection:
    """How the outputs of a detector are read, and which of its boxes stay; for frames and kind `detection`."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    layout: Annotated[
        Literal["auto", "ssd", "yolo", "named"],
        Key(
            "ssd: boxes, classes, scores and count, as TFLite gives them. yolo: one output of boxes and class scores. "
            "named: outputs called boxes, scores and classes. auto: by their number and names."
        ),
    ] = "auto"
    box: Annotated[
        Literal["xyxy", "yxyx", "cxcywh"] | None,
        Key("How a box is written: two corners, corners with y first, or centre and size; absent: as the layout does."),
    ] = None
    normalised: Annotated[
        bool | None,
        Key("Whether 1 is the whole width or height of the input, not a pixel; absent: as the layout does."),
    ] = None
    objectness: Annotated[bool, Key("yolo: a column between box and classes that multiplies their scores.")] = False
    min_score: Annotated[
        float, Key("Least score of a detection.", ge=0, le=1, why="scores are shares of certainty")
    ] = 0.5
    max_iou: Annotated[
        float,
        Key(
            "Boxes of one class that overlap more (intersection over union) show the same thing: the best stays.",
            unit="share",
            gt=0,
            le=1,
            why="1 keeps every box, 0 would keep none beside another",
        ),
    ] = 0.45
    limit: Annotated[
        int,
        Key(
            "Most detections of one result, the best ones.",
            unit="detections",
            ge=1,
            le=100,
            why="a result stays a few kilobytes",
        ),
    ] = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """A larger model that is asked about what the small one is not sure of."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    where: Annotated[
        Literal["local", "upstream"],
        Key("local: the larger model runs here. upstream: the receiver of the results runs it, asked over the line."),
    ] = "local"
    path: Annotated[
        str | None,
        Key("The larger model, a file without signature; needs [security] allow_unsigned = true.", is_file=True),
    ] = None
    slot: Annotated[
        str | None,
        Key("The larger model, a signed slot: {state_dir}/models/{slot}/.", pattern=NAME_PATTERN, why="a folder name"),
    ] = None
    sha256: Annotated[
        str | None,
        Key(
            "Upstream: digest of the larger model's file, by which the receiver knows it.",
            pattern="^[0-9a-f]{64}$",
            why="it names one file and no other",
        ),
    ] = None
    version: Annotated[
        str | None,
        Key("Version of an unsigned larger model.", max_chars=64, why="it stands in every result"),
    ] = None
    chain: Annotated[
        tuple[str, ...],
        Key(
            "Runtimes of the larger model in the order they are tried; absent: those of the small one.",
            max_items=8,
            why="each entry is one more start-up attempt",
        ),
    ] = ()
    low: Annotated[
        float,
        Key(
            "Answers with a score from here on are asked about ...",
            unit="score",
            ge=0,
            le=1,
            why="confidences are shares",
        ),
    ] = 0.0
    high: Annotated[
        float,
        Key(
            "... up to below this; what is surer than that stands.",
            unit="score",
            ge=0,
            le=1,
            why="confidences are shares",
        ),
    ] = 0.7
    max_escalations_per_s: Annotated[
        float,
        Key(
            "Most questions to the larger model, on average; what is unused of the last second may be used at once.",
            gt=0,
            le=10_000,
            why="the budget is what keeps the larger model from taking the processor of the small one",
        ),
    ] = 1.0
    deadline_ms: Annotated[
        int,
        Key(
            "Longest wait for the larger model; after it the small answer stands.",
            ge=1,
            le=60_000,
            why="below 1 ms only noise is measured",
        ),
    ] = 500

    def slot_dir(self, state_dir: str) -> str:
        """Folder of the slot below the state folder; "" when the model is a plain file."""
        return f"{state_dir}/models/{self.slot}" if self.slot else ""
