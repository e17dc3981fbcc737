"""Named arrays from an .npz: bounded, without pickles, matched with the inputs of a model."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edged.messages import TensorSpec
from edged.workbench.refusal import Unfit

MAX_DATA_BYTES = 4_000_000_000
LABELS = "labels"
INPUT_PREFIX = "in."  # as in the golden vectors of a bundle
_CHUNK_BYTES = 1 << 20
_BROKEN = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, NotImplementedError, zipfile.error)


class Dataset(NamedTuple):
    """Samples from one file. `arrays`: every array of the file by its name."""

    path: Path
    sha256: str
    arrays: Mapping[str, np.ndarray]


def read_npz(path: Path, *, max_bytes: int = MAX_DATA_BYTES) -> Dataset:
    """All arrays of an .npz file.

    Raises:
        Unfit: `data_missing`, `data_too_large` (what it unpacks to counts), `data_unreadable`.
    """
    if not path.is_file():
        raise Unfit(
            "data_missing", f"Cannot read {path}: there is no such file", hint="numpy.savez(path, input=samples)"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > max_bytes:
            raise Unfit("data_too_large", f"{path} unpacks to {size} bytes, at most {max_bytes} are read")
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except _BROKEN as error:
        raise Unfit(
            "data_unreadable",
            f"Cannot read {path}: expected an .npz of plain arrays, {error}",
            hint="numpy.savez(path, input=samples), arrays of numbers only",
        ) from error
    return Dataset(path, file_sha256(path), arrays)


def file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def model_inputs(data: Dataset, specs: Sequence[TensorSpec], *, besides: Sequence[str] = ()) -> dict[str, np.ndarray]:
    """The arrays of `data` for the inputs of a model: by name, by `in.` + name, or the only one for the only input.

    besides: arrays that are no inputs, such as the labels.

    Raises:
        Unfit: `input_missing`, `input_unknown`, `input_dtype`, `input_shape`, `input_lengths`.
    """
    found = {name: array for name, array in data.arrays.items() if name not in besides}
    if len(specs) == 1 and len(found) == 1:
        chosen = {specs[0].name: next(iter(found.values()))}
    else:
        chosen = {}
        for spec in specs:
            name = spec.name if spec.name in found else INPUT_PREFIX + spec.name
            if name not in found:
                raise Unfit(
                    "input_missing",
                    f"{data.path}: expected an array {spec.name!r} for the input of that name, got {sorted(found)}",
                    hint=f"numpy.savez(path, **{{{spec.name!r}: samples}})",
                )
            chosen[spec.name] = found.pop(name)
        if found:
            raise Unfit("input_unknown", f"{data.path}: the model has no inputs {sorted(found)}")
    for spec in specs:
        _fits(data.path, spec, chosen[spec.name])
    lengths = {name: len(array) for name, array in chosen.items()}
    if len(set(lengths.values())) != 1:
        raise Unfit("input_lengths", f"{data.path}: expected as many samples for every input, got {lengths}")
    return chosen


def _fits(path: Path, spec: TensorSpec, array: np.ndarray) -> None:
    if str(array.dtype) != spec.dtype:
        raise Unfit(
            "input_dtype",
            f"{path}: input {spec.name} expects {spec.dtype}, got {array.dtype}",
            hint=f"samples.astype(numpy.{spec.dtype})",
        )
    expected = ("n", *("any" if axis < 0 else axis for axis in spec.shape[1:]))
    same_rank = array.ndim == len(spec.shape)
    if not same_rank or any(axis not in (-1, got) for axis, got in zip(spec.shape[1:], array.shape[1:], strict=True)):
        raise Unfit(
            "input_shape",
            f"{path}: input {spec.name} expects the shape ({', '.join(map(str, expected))}), got {array.shape}",
            hint="the first axis counts the samples; preprocess as the daemon will",
        )
