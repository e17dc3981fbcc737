"""`layout` texts → how the samples of a batch become the axes of a model input."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from numpy.typing import NDArray

from edged.errors import ConfigError

Array = NDArray[Any]


class Layout(NamedTuple):
    """swap: whether (batch, window, fields) first becomes (batch, fields, window). shape: of one row, afterwards."""

    swap: bool
    shape: tuple[int, ...]

    def apply(self, samples: Array) -> Array:
        """Arrange (batch, window, fields)."""
        if self.swap:
            samples = samples.transpose(0, 2, 1)
        return samples.reshape(len(samples), *self.shape)


def parse_layout(text: str | None, window: int, fields: int, *, waveform: bool) -> Layout:
    """Understand a layout for rows of `window` samples of `fields` fields.

    Without a text: (batch, fields) when window is 1, waveforms one after the other in (batch, fields · window),
    else (batch, window, fields). Numbers alone are a reshape of that order; among names they must be 1.

    Raises:
        ConfigError: not a layout, or not for this many samples.
    """
    if text is None or text.strip() == "auto":
        if waveform:
            return Layout(swap=True, shape=(fields * window,))
        return Layout(swap=False, shape=(fields,) if window == 1 else (window, fields))
    batch, *axes = [axis.strip() for axis in text.split(",")]
    names = [axis for axis in axes if not axis.isdecimal()]
    if batch != "batch" or not axes or not {"window", "fields"}.issuperset(names) or len(set(names)) < len(names):
        raise ConfigError(
            f"layout = {text!r} is not known", hint="begin with batch, then window and fields in any order, or sizes"
        )
    sizes = {"window": window, "fields": fields}
    shape = tuple(int(axis) if axis.isdecimal() else sizes[axis] for axis in axes)
    if math.prod(shape) != window * fields:
        raise ConfigError(
            f"layout = {text!r} holds {math.prod(shape)} numbers, there are {window * fields}: "
            f"window {window} × fields {fields}"
        )
    if not names:
        return Layout(swap=waveform, shape=shape)
    if math.prod(sizes[name] for name in names) != window * fields:
        raise ConfigError(f"layout = {text!r} mixes names and sizes other than 1", hint="name both window and fields")
    return Layout(swap=names == ["fields", "window"], shape=shape)
