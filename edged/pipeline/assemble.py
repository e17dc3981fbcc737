"""Ready windows → the arrays a model takes. All that can be wrong with shapes is found at load, not per batch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from edged.errors import ConfigError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.features import FeatureExtractor, WaveformFeatures
from edged.pipeline.layout import Layout, parse_layout
from edged.pipeline.scaling import Floats, Scaler
from edged.pipeline.spec import InputSpec
from edged.pipeline.windows import Block

Array = NDArray[Any]

DTYPES = ("float16", "float32", "float64", "uint8", "int8", "uint16", "int16", "int32", "int64")


class Batch(NamedTuple):
    """inputs: by model input. unusable: rows that the model's type cannot hold; 0 stands in, and no answer counts."""

    inputs: dict[str, Array]
    unusable: list[int]


class Assembler:
    """Builds the inputs of one model.

    columns: names of the features in the order the model gets them; empty without features.

    Raises:
        ConfigError: the spec contradicts itself. ModelError: `incompatible`, the model takes something else.
    """

    def __init__(self, spec: InputSpec, inputs: Sequence[TensorSpec]) -> None:
        fields, width = len(spec.fields), spec.row_width
        if not fields or width % fields:
            raise ConfigError(f"width = {width} is no whole number of samples for each of {fields} fields")
        self._waveform = width // fields  # samples per event and field
        if self._waveform != 1 and not spec.single:
            raise ConfigError(f"window = {spec.window} of waveforms", hint="use window = 1: an array is a window")
        self._single = spec.single
        self._width = width
        self._fields = fields
        self._samples = spec.window * self._waveform
        self._scale = Scaler(spec.scaling, fields) if spec.scaling else None
        self._features: FeatureExtractor | None = None
        self._any_length: WaveformFeatures | None = None
        bands = (spec.fft_bins, spec.sample_rate_hz)
        if width == 0:
            if not spec.features:
                raise ConfigError("waveforms of any length are no model input", hint="declare features of them")
            self._any_length = WaveformFeatures(spec.features, spec.fields, *bands, self._scale)
        elif spec.features:
            self._features = FeatureExtractor(spec.features, spec.fields, self._samples, *bands)
        features = self._features or self._any_length
        self.columns = features.names if features else ()
        self._inputs = [self._planned(spec, tensor, picked) for tensor, picked in _mapped(spec, inputs)]

    def assemble(self, blocks: Sequence[Block]) -> Batch:
        """One array per model input, one row per block (of `WindowBank.push`); at least one block."""
        columns, short = self._columns_of(blocks)
        arrays: dict[str, Array] = {}
        unusable = set(short)
        for plan in self._inputs:
            picked = columns if plan.picked is None else columns[:, :, plan.picked]
            arrays[plan.name], bad = _converted(plan.layout.apply(picked), plan.dtype)
            unusable.update(bad)
        return Batch(arrays, sorted(unusable))

    def _columns_of(self, blocks: Sequence[Block]) -> tuple[Floats, list[int]]:
        """What the model sees, as (batch, samples, fields) or (batch, 1, features), and the rows that have none."""
        if self._any_length is not None:
            features, short = self._any_length(cast("Sequence[Sequence[float]]", blocks))
            return features[:, np.newaxis, :], short
        samples = self._samples_of(blocks)
        if self._scale is not None:
            samples = self._scale(samples)
        if self._features is not None:
            samples = self._features(samples)[:, np.newaxis, :]
        return samples, []

    def _samples_of(self, blocks: Sequence[Block]) -> Floats:
        """All samples as (batch, samples, fields)."""
        count = len(blocks)
        if self._single:
            rows = cast("Sequence[Sequence[float]]", blocks)
            flat = np.fromiter(chain.from_iterable(rows), np.float64, count * self._width)
        else:
            flat = np.frombuffer(b"".join(cast("Sequence[bytes]", blocks)), np.float64)
        if self._waveform > 1:  # an event holds one waveform after the other
            return flat.reshape(count, self._fields, self._samples).transpose(0, 2, 1)
        return flat.reshape(count, self._samples, self._fields)

    def _planned(self, spec: InputSpec, tensor: TensorSpec, picked: list[int] | None) -> _Plan:
        """What to do for one model input; `picked` are the fields it gets, None for all."""
        if tensor.dtype not in DTYPES:
            raise ModelError("incompatible", f"input {tensor.name!r} is {tensor.dtype}; possible: {', '.join(DTYPES)}")
        fields = self._fields if picked is None else len(picked)
        window = self._samples
        if self.columns:
            each = len(self.columns) // self._fields
            picked = picked and [field * each + column for field in picked for column in range(each)]
            window, fields = 1, fields * each
        layout = parse_layout(spec.layout, window, fields, waveform=self._waveform > 1 and not self.columns)
        if not _fits(layout.shape, tensor.shape[1:]):
            wanted = ",".join("?" if size < 0 else str(size) for size in tensor.shape[1:])
            raise ModelError(
                "incompatible",
                f"input {tensor.name!r} takes (batch,{wanted}), fields and window give {('batch', *layout.shape)}",
                hint=f'set layout = "batch,{wanted}" if the values stand in that order, else change fields or window',
            )
        return _Plan(tensor.name, picked, layout, np.dtype(tensor.dtype))


class _Plan(NamedTuple):
    name: str
    picked: list[int] | None
    layout: Layout
    dtype: np.dtype[Any]


def _mapped(spec: InputSpec, inputs: Sequence[TensorSpec]) -> list[tuple[TensorSpec, list[int] | None]]:
    """Which fields each model input gets."""
    if not spec.inputs and len(inputs) == 1:
        return [(inputs[0], None)]
    names = [tensor.name for tensor in inputs]
    if sorted(names) != sorted(spec.inputs):
        raise ModelError(
            "incompatible",
            f"the model takes the inputs {names}, [pipeline.model.inputs] maps {sorted(spec.inputs)}",
            hint="map each input of the model to a list of fields",
        )
    for name, fields in spec.inputs.items():
        if not fields or not set(fields).issubset(spec.fields):
            raise ConfigError(f"input {name!r} gets {list(fields)}; possible are the fields {list(spec.fields)}")
    return [(tensor, [spec.fields.index(field) for field in spec.inputs[tensor.name]]) for tensor in inputs]


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(size == want or want < 0 for size, want in zip(shape, wanted, strict=True))


def _converted(values: Array, dtype: np.dtype[Any]) -> tuple[Array, list[int]]:
    """The values in the model's type, and the rows it cannot hold: a wrapped or infinite value is a wrong input."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(values, dtype)
        good = np.isfinite(array)
    else:
        limits = np.iinfo(dtype)
        rounded = np.rint(values)
        # `max` itself may be no float, `max + 1` always is one; NaN is on neither side
        good = (rounded >= limits.min) & (rounded < limits.max + 1)
        array = np.where(good, rounded, 0).astype(dtype)
    if good.all():
        return array, []
    array[~good] = 0
    return array, np.flatnonzero(~good.reshape(len(good), -1).all(axis=1)).tolist()
