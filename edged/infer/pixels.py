"""One frame → the numbers that a model takes: decoded, resized, arranged. It blocks: never on the event loop."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from edged.errors import ModelError

if TYPE_CHECKING:
    from PIL import Image

    from edged.messages import TensorSpec

Colour = Literal["rgb", "bgr", "gray"]
_MODES: dict[str, str] = {"rgb": "RGB", "bgr": "RGB", "gray": "L"}


class RawFrame(NamedTuple):
    """Frames without a header: rows of pixels, from the top, a byte per channel."""

    width: int
    height: int
    colour: Colour


class FrameSpec(NamedTuple):
    """What happens to a frame before the model sees it.

    resize: `letterbox` keeps the proportions and fills the rest with `pad`; `stretch` does not keep them.
    size: (width, height) of the model's input where the model leaves them free.
    scale, mean, std: x·scale, then (x − mean) / std, per channel or once for all; pixels are 0 to 255.
    raw: frames are bare pixels; None: JPEG or PNG. max_pixels: larger images are not decoded.
    """

    resize: Literal["letterbox", "stretch"] = "letterbox"
    pad: int = 114
    colour: Colour = "rgb"
    layout: Literal["auto", "nchw", "nhwc"] = "auto"
    size: tuple[int, int] | None = None
    scale: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    raw: RawFrame | None = None
    max_pixels: int = 16_000_000


class Canvas(NamedTuple):
    """The input of a model as a picture."""

    width: int
    height: int
    channels_first: bool
    dtype: np.dtype[Any]


class Placed(NamedTuple):
    """How a frame lies on the canvas: scales in x and y, place of its left upper corner, its own size."""

    scale_x: float
    scale_y: float
    left: int
    top: int
    width: int
    height: int


class BadFrame(ValueError):
    """Raised for bytes that are no picture."""


def canvas_of(spec: FrameSpec, tensor: TensorSpec) -> Canvas:
    """Read a model's input as a picture.

    Raises:
        ModelError: `incompatible`.
    """
    channels = 1 if spec.colour == "gray" else 3
    if len(tensor.shape) != 4:
        raise _misfit(tensor, "expected four axes: batch, height, width and channels in one of two orders")
    if np.dtype(tensor.dtype).kind not in "fiu":
        raise _misfit(tensor, "expected numbers")
    first = tensor.shape[1] == channels if spec.layout == "auto" else spec.layout == "nchw"
    height, width, depth = (*tensor.shape[2:], tensor.shape[1]) if first else tensor.shape[1:]
    if depth not in {channels, -1}:
        raise _misfit(tensor, f"expected {channels} channels for colour {spec.colour!r}, got {depth}")
    wide, high = spec.size or (width, height)
    if wide <= 0 or high <= 0:
        raise _misfit(tensor, "it leaves width and height free; set size in [pipeline.input.frame]")
    if width not in {wide, -1} or height not in {high, -1}:
        raise _misfit(tensor, f"it takes {width} × {height} pixels, size says {wide} × {high}")
    return Canvas(wide, high, first, np.dtype(tensor.dtype))


def _misfit(tensor: TensorSpec, why: str) -> ModelError:
    return ModelError("incompatible", f"input {tensor.name!r} {tensor.shape} takes no frames: {why}")


def draw(spec: FrameSpec, frame: bytes, canvas: Canvas) -> tuple[np.ndarray, Placed]:
    """The frame as one row of the model's input, and where it lies in it.

    Raises:
        BadFrame: the bytes are no whole picture, or one that is too large.
    """
    from PIL import Image  # an extra; asked for when the model is loaded (see `require_decoder`)

    picture = _opened(spec, frame)
    if spec.resize == "stretch":
        size, corner = (canvas.width, canvas.height), (0, 0)
    else:
        ratio = min(canvas.width / picture.width, canvas.height / picture.height)
        size = max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio))
        corner = (canvas.width - size[0]) // 2, (canvas.height - size[1]) // 2
    small = picture if size == picture.size else picture.resize(size, Image.Resampling.BILINEAR)
    sheet = small
    if size != (canvas.width, canvas.height):
        fill = spec.pad if spec.colour == "gray" else (spec.pad,) * 3
        sheet = Image.new(picture.mode, (canvas.width, canvas.height), fill)
        sheet.paste(small, corner)
    placed = Placed(size[0] / picture.width, size[1] / picture.height, *corner, *picture.size)
    return _arranged(spec, np.asarray(sheet), canvas), placed


def _opened(spec: FrameSpec, frame: bytes) -> Image.Image:
    """The decoded picture, in RGB or in gray."""
    from PIL import Image

    mode = _MODES[spec.colour]
    if spec.raw is not None:
        raw = spec.raw
        decoder = {"rgb": ("RGB", "RGB"), "bgr": ("RGB", "BGR"), "gray": ("L", "L")}[raw.colour]
        try:
            return Image.frombytes(decoder[0], (raw.width, raw.height), frame, "raw", decoder[1]).convert(mode)
        except ValueError as error:
            raise BadFrame(str(error)) from error
    try:
        picture = Image.open(io.BytesIO(frame), formats=("JPEG", "PNG"))
        if picture.width * picture.height > spec.max_pixels:
            raise BadFrame(f"{picture.width} × {picture.height} pixels, at most {spec.max_pixels} are allowed")
        if picture.mode[0] in "IF":
            raise BadFrame(f"pixels of kind {picture.mode}, which 8 bits cannot hold")
        return picture.convert(mode)
    except BadFrame:
        raise
    # A decoder of hostile bytes raises what it likes; one bad frame must not take the others of its batch with it.
    except Exception as error:
        raise BadFrame(f"{type(error).__name__}: {error}") from error


def _arranged(spec: FrameSpec, sheet: np.ndarray, canvas: Canvas) -> np.ndarray:
    """(height, width[, channels]) of bytes as the model's axes, type and range."""
    pixels = sheet[:, :, np.newaxis] if sheet.ndim == 2 else sheet
    if spec.colour == "bgr":
        pixels = pixels[:, :, ::-1]
    if spec.scale != 1.0 or spec.mean or spec.std or canvas.dtype != np.uint8:
        values = pixels.astype(np.float32)
        values *= np.float32(spec.scale)
        if spec.mean:
            values -= np.array(spec.mean, np.float32)
        if spec.std:
            values /= np.array(spec.std, np.float32)
        if canvas.dtype.kind in "iu":
            limits = np.iinfo(canvas.dtype)
            np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
        pixels = values
    if canvas.channels_first:
        pixels = pixels.transpose(2, 0, 1)
    return np.ascontiguousarray(pixels, canvas.dtype)


def require_decoder() -> None:
    """Raise ModelError (`runtime_unavailable`) where pictures cannot be decoded."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise ModelError(
            "runtime_unavailable", f"frames cannot be decoded: {error}", hint="install edged with the extra image"
        ) from error
