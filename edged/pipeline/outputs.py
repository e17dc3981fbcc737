"""Model outputs as the kinds of answers want them: by role, one row per input, finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edged.errors import InferenceError, ModelError
from edged.messages import TensorSpec
from edged.pipeline.spec import OutputSpec

Array = NDArray[Any]


def rows_of(outputs: Mapping[str, Array], name: str, count: int) -> Array:
    """One output as (count, columns)."""
    array = outputs[name]
    if array.ndim == 0 or array.shape[0] != count:
        raise bad_output(name, array.shape, f"{count} rows, batch axis first")
    rows: Array = array.reshape(count, math.prod(array.shape[1:]))  # not -1: a row may be empty
    return rows if rows.dtype.kind == "f" else rows.astype(np.float64)


def finite_rows(rows: Array) -> tuple[Array, list[int]]:
    """The rows with what is not a number set to 0, and which rows had any."""
    finite = np.isfinite(rows)
    if finite.all():
        return rows, []
    return np.where(finite, rows, 0), np.flatnonzero(~finite.all(axis=1)).tolist()


def chosen_output(spec: OutputSpec, outputs: Sequence[TensorSpec], role: str) -> TensorSpec:
    """The output that plays a role: as declared, or by its own name.

    The scores of all kinds but detection are else the last output of floats: what labels they have come before them.
    """
    wanted = spec.outputs.get(role, role)
    named = [output for output in outputs if output.name == wanted]
    if not named and role not in spec.outputs and spec.kind != "detection":
        named = [output for output in outputs if output.dtype.startswith("float")][-1:] or list(outputs[:1])
    if named:
        return named[0]
    raise ModelError(
        "incompatible",
        f"no output {wanted!r} for {role}; the model has {[output.name for output in outputs]}",
        hint="set score_output in [pipeline.output]"
        if role == "scores"
        else f"rename an output of the model to {role}",
    )


def declared_columns(output: TensorSpec) -> int | None:
    """Numbers per row, as far as the model declares them."""
    columns = 1
    for size in output.shape[1:]:
        if size < 0:
            return None
        columns *= size
    return columns


def checked_columns(output: TensorSpec, wanted: int | None, what: str) -> int | None:
    found = declared_columns(output)
    if found is not None and wanted is not None and found != wanted:
        raise ModelError(
            "incompatible", f"output {output.name!r} has {found} numbers per row, expected {wanted} for {what}"
        )
    return wanted if found is None else found


def column_names(outputs: Sequence[str], widths: Sequence[int]) -> tuple[str, ...]:
    return tuple(
        name if width == 1 else f"{name}_{column}"
        for name, width in zip(outputs, widths, strict=True)
        for column in range(width)
    )


def bad_output(name: str, shape: tuple[int, ...], expected: str) -> InferenceError:
    return InferenceError("bad_output", f"output {name!r} has the shape {shape}, expected {expected}")
