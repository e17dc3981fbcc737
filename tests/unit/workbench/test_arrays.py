"""Arrays from files: whatever else than plain arrays of the right kind is refused by its code."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.messages import TensorSpec
from edged.workbench.arrays import Dataset, model_inputs, read_npz
from edged.workbench.refusal import Unfit

X = TensorSpec("x", "float32", (-1, 4))
MASK = TensorSpec("mask", "int64", (-1, -1))


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(Unfit) as error:
        read_npz(path, **options)
    return error.value.code


def unmatched(specs: tuple[TensorSpec, ...], **arrays: np.ndarray) -> str:
    with pytest.raises(Unfit) as error:
        model_inputs(Dataset(Path("d.npz"), "", arrays), specs)
    return error.value.code


def floats(rows: int = 3, width: int = 4) -> np.ndarray:
    return np.ones((rows, width), np.float32)


def test_arrays_come_back_with_the_digest_of_their_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=floats(), labels=np.arange(3))
    data = read_npz(tmp_path / "a.npz")
    assert sorted(data.arrays) == ["labels", "x"]
    assert len(data.sha256) == 64


def test_files_that_are_no_arrays_are_refused(tmp_path: Path) -> None:
    assert refused(tmp_path / "absent.npz") == "data_missing"
    assert refused(tmp_path) == "data_missing"
    (tmp_path / "text.npz").write_text("no archive")
    assert refused(tmp_path / "text.npz") == "data_unreadable"
    np.save(tmp_path / "one.npy", floats())
    assert refused(tmp_path / "one.npy") == "data_unreadable"


def test_pickles_are_never_opened(tmp_path: Path) -> None:
    np.savez(tmp_path / "p.npz", x=np.array([{"a": 1}], dtype=object))
    assert refused(tmp_path / "p.npz") == "data_unreadable"


def test_an_archive_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", b"\0" * 1_000_000)
    assert refused(tmp_path / "bomb.npz", max_bytes=999_999) == "data_too_large"


def test_inputs_are_found_by_name_with_or_without_prefix() -> None:
    data = Dataset(Path("d.npz"), "", {"in.x": floats(), "mask": np.ones((3, 9), np.int64), "labels": np.arange(3)})
    assert sorted(model_inputs(data, (X, MASK), besides=("labels",))) == ["mask", "x"]


def test_the_only_array_is_for_the_only_input_whatever_its_name() -> None:
    assert list(model_inputs(Dataset(Path("d.npz"), "", {"arr_0": floats()}), (X,))) == ["x"]


def test_arrays_that_do_not_fit_are_refused() -> None:
    assert unmatched((X, MASK), x=floats()) == "input_missing"
    assert unmatched((X,), x=floats(), y=floats()) == "input_unknown"
    assert unmatched((X,), x=floats().astype(np.float64)) == "input_dtype"
    assert unmatched((X,), x=floats(width=5)) == "input_shape"
    assert unmatched((X,), x=floats().reshape(3, 2, 2)) == "input_shape"
    assert unmatched((X, MASK), x=floats(2), mask=np.ones((3, 9), np.int64)) == "input_lengths"
