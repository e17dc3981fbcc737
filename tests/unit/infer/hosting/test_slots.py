"""Arrays go through shared memory unchanged; what cannot be there is refused."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np
import pytest

from edged.infer.hosting.slots import NAME_OF_TYPE, Slot, SlotError, new_slot_memory
from edged.infer.hosting.wire import Place

MOST = 4 << 20


@pytest.fixture
def sides() -> Iterator[tuple[Slot, Slot]]:
    descriptor = new_slot_memory("test", MOST)
    writer, reader = Slot(descriptor, MOST), Slot(descriptor, MOST)
    yield writer, reader
    writer.close()
    reader.close()
    os.close(descriptor)


@pytest.mark.parametrize("dtype", NAME_OF_TYPE, ids=str)
def test_every_type_of_tensor_travels(sides: tuple[Slot, Slot], dtype: np.dtype) -> None:
    writer, reader = sides
    arrays = {"a": np.arange(6).reshape(2, 3).astype(dtype), "b": np.array([1], dtype)}
    read = reader.copies(writer.put(arrays))
    for name, array in arrays.items():
        assert read[name].dtype == dtype
        assert read[name].tolist() == array.tolist()


def test_arrays_without_rows_and_without_axes_travel(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    read = reader.copies(writer.put({"none": np.empty((0, 5), np.float32), "scalar": np.array(7, np.int64)}))
    assert read["none"].shape == (0, 5)
    assert read["scalar"].item() == 7
    assert reader.copies(writer.put({})) == {}


def test_arrays_that_are_not_contiguous_travel(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    array = np.arange(24, dtype=np.int32).reshape(4, 6)[::2, ::-1]
    assert reader.copies(writer.put({"a": array}))["a"].tolist() == array.tolist()


def test_a_second_batch_of_the_same_shape_replaces_the_first(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    first = writer.put({"a": np.zeros(4, np.float32)})
    copied = reader.copies(first)
    again = writer.put({"a": np.ones(4, np.float32)})
    assert again is first
    assert reader.views(again)["a"].tolist() == [1, 1, 1, 1]
    assert copied["a"].tolist() == [0, 0, 0, 0], "a copy is the caller's own"


def test_a_slot_grows_for_a_large_batch_and_the_reader_follows(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    before = writer.size_bytes
    array = np.arange(3_000_000, dtype=np.uint8)
    places = writer.put({"small": np.ones(3, np.float32), "large": array})
    assert before < writer.size_bytes <= MOST
    assert np.array_equal(reader.copies(places)["large"], array)
    assert reader.size_bytes == writer.size_bytes
    assert reader.copies(writer.put({"small": np.ones(3, np.float32)}))["small"].tolist() == [1, 1, 1]


def test_a_view_outlives_the_slot_that_grew_under_it(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    view = reader.views(writer.put({"a": np.full(4, 3, np.float32)}))["a"]
    reader.views(writer.put({"b": np.zeros(2_000_000, np.uint8)}))
    reader.close()
    assert len(view) == 4


def test_a_batch_beyond_the_limit_is_refused_with_figures_and_the_slot_still_works(sides: tuple[Slot, Slot]) -> None:
    writer, reader = sides
    with pytest.raises(SlotError, match=f"{8 << 20} bytes at once, the limit is {MOST}"):
        writer.put({"a": np.zeros(8 << 20, np.uint8)})
    assert reader.copies(writer.put({"a": np.ones(2, np.float32)}))["a"].tolist() == [1, 1]


@pytest.mark.parametrize(
    "array",
    [np.array(["text"]), np.array([None]), np.array([1.0], ">f4"), np.array([1j]), np.zeros((1,) * 17, np.int8)],
    ids=["text", "object", "other byte order", "complex", "too many axes"],
)
def test_what_no_model_takes_is_refused(sides: tuple[Slot, Slot], array: np.ndarray) -> None:
    with pytest.raises(SlotError):
        sides[0].put({"a": array})


@pytest.mark.parametrize(
    "place",
    [
        Place("y", "float32", (1 << 30,), 0),
        Place("y", "float32", (4,), 1 << 39),
        Place("y", "float32", (1 << 40, 1 << 40), 0),
        Place("y", "float32", (0, *[1 << 40] * 10), 0),
        Place("y", "object", (1,), 0),
        Place("y", "float32", (-4,), 0),
    ],
    ids=["beyond", "offset", "product", "empty and huge", "type", "negative"],
)
def test_a_forged_place_is_refused(sides: tuple[Slot, Slot], place: Place) -> None:
    with pytest.raises(SlotError):
        sides[1].copies((place,))


def test_memory_that_the_other_side_made_larger_than_allowed_is_refused() -> None:
    descriptor = new_slot_memory("test", MOST)
    reader = Slot(descriptor, MOST)
    os.ftruncate(descriptor, 2 * MOST)
    with pytest.raises(SlotError):
        reader.views([Place("y", "uint8", (2 * MOST,), 0)])
    os.close(descriptor)


def test_nobody_can_cut_a_slot_off_under_its_reader() -> None:
    descriptor = new_slot_memory("test", MOST)
    with pytest.raises(PermissionError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
