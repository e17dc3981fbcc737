"""Arrays in memory that two processes share: a slot has one writer, grows when needed, never shrinks, is bounded.

The memory is anonymous (memfd): nothing remains when both processes are gone, however they ended. It is sealed against
shrinking, so that a reader cannot be killed by a writer that cuts it off under him.
"""

from __future__ import annotations

import fcntl
import mmap
import os
from collections.abc import Mapping, Sequence

import numpy as np

from edged.infer.hosting.wire import Place

_ALIGN_BYTES = 64  # a cache line, and what vector instructions like
_FIRST_BYTES = 1 << 20
_MAX_AXES = 16

NAME_OF_TYPE = {
    np.dtype(name): name
    for name in (
        *("float16", "float32", "float64", "bool"),
        *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    )
}
"""Types that may travel, in the byte order of this machine."""
TYPE_OF_NAME = {name: dtype for dtype, name in NAME_OF_TYPE.items()}


class SlotError(ValueError):
    """Raised when arrays do not fit into a slot, or when places in it are not what they can be."""


class Slot:
    """One side's view of a slot. `descriptor` stays the caller's; `close` does not close it."""

    def __init__(self, descriptor: int, most_bytes: int) -> None:
        self._descriptor = descriptor
        self._most_bytes = most_bytes
        self._memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
        self._layout: tuple[object, ...] = ()
        self._places: tuple[Place, ...] = ()
        self._views: list[np.ndarray] = []
        self._seen: tuple[Place, ...] = ()
        self._seen_views: dict[str, np.ndarray] = {}

    @property
    def size_bytes(self) -> int:
        return len(self._memory)

    def put(self, arrays: Mapping[str, np.ndarray]) -> tuple[Place, ...]:
        """Copy `arrays` in and say where they lie. Raises SlotError for types that do not travel, or too many bytes."""
        layout = tuple([(name, array.dtype, array.shape) for name, array in arrays.items()])
        if layout != self._layout or not self._places:
            self._lay_out(arrays)
            self._layout = layout
        for view, array in zip(self._views, arrays.values(), strict=True):
            view[...] = array
        return self._places

    def views(self, places: Sequence[Place]) -> dict[str, np.ndarray]:
        """The arrays at `places`, without a copy: valid until the writer writes again. Raises SlotError."""
        return {place.name: self._view(place) for place in places}

    def copies(self, places: tuple[Place, ...]) -> dict[str, np.ndarray]:
        """The arrays at `places`, the caller's own."""
        if places != self._seen:  # they are the same for every batch of one shape
            self._seen_views = {place.name: self._view(place) for place in places}
            self._seen = places
        return {name: view.copy() for name, view in self._seen_views.items()}

    def close(self) -> None:
        """Give the memory back as soon as no view of it is left."""
        self._forget()
        try:
            self._memory.close()
        except BufferError:  # somebody still looks at an array: it goes with the last of these
            pass

    def _lay_out(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Give each array a place; the same arrays get the same ones, so this is done once per shape."""
        places = []
        end = 0
        for name, array in arrays.items():
            kind = NAME_OF_TYPE.get(array.dtype)
            if kind is None or array.ndim > _MAX_AXES:
                raise SlotError(f"{name} is {array.dtype} {array.shape}, which no model takes")
            places.append(Place(name, kind, array.shape, end))
            end += -(-array.nbytes // _ALIGN_BYTES) * _ALIGN_BYTES
        if end > self._most_bytes:
            raise SlotError(f"{end} bytes at once, the limit is {self._most_bytes}")
        if end > len(self._memory):
            size = min(self._most_bytes, 1 << (end - 1).bit_length())
            os.ftruncate(self._descriptor, size)
            self._map(size)
        self._places = tuple(places)
        self._views = [self._view(place) for place in places]

    def _view(self, place: Place) -> np.ndarray:
        dtype = TYPE_OF_NAME.get(place.dtype)
        if dtype is None:
            raise SlotError(f"{place.name} is {place.dtype!r}, which is no type of array")
        size = dtype.itemsize
        for axis in place.shape:
            size *= axis
        if place.offset + size > len(self._memory):
            self._reach(place.offset + size)
        try:
            return np.ndarray(place.shape, dtype, self._memory, place.offset)
        except (ValueError, TypeError, OverflowError) as error:
            raise SlotError(f"{place.name} cannot be {place.shape}: {error}") from error

    def _reach(self, end: int) -> None:
        """Map what the writer has added."""
        size = os.fstat(self._descriptor).st_size
        if end > size or size > self._most_bytes:
            raise SlotError(f"something at byte {end}, in {size} bytes of at most {self._most_bytes}")
        self._map(size)

    def _map(self, size: int) -> None:
        self._forget()
        self._memory = mmap.mmap(self._descriptor, size)  # the old one goes with the last view of it

    def _forget(self) -> None:
        self._views, self._places = [], ()
        self._seen, self._seen_views = (), {}


def new_slot_memory(name: str, most_bytes: int) -> int:
    """A descriptor of shared memory with room for a small batch. `name` shows in /proc/PID/maps."""
    descriptor = os.memfd_create(f"edged {name}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, min(_FIRST_BYTES, most_bytes))
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL)
    return descriptor
