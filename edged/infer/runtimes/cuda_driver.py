"""The few functions of NVIDIA's driver library that running an engine needs: memory, one stream, and waiting.

`libcuda.so.1` comes with the driver: no further package is needed. What the runtime library of CUDA allocates in this
process lives in the same (primary) context.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import numpy as np

LIBRARY = "libcuda.so.1"
_NOT_READY = 600
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*
_NON_BLOCKING = 1
_NAME_BYTES = 256
_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 20e-6, 1e-3
_PAUSE_SHARE = 8  # a pause is an eighth of what was waited so far: at most that much is lost


class CudaError(Exception):
    """Raised when a function of the driver fails. The text reads like those of other libraries: `CUDA failure 700`."""

    def __init__(self, function: str, code: int, name: str) -> None:
        super().__init__(f"CUDA failure {code}: {name} in {function}")
        self.code = code


class Gpu(NamedTuple):
    """One device, by its number. sm: its architecture, `8.7`."""

    number: int
    name: str
    sm: str


class CudaDriver:
    """The library. Making it initialises the driver in this process.

    Raises:
        OSError: there is no library, so no driver. CudaError: there is no device, or the driver does not fit.
    """

    def __init__(self, library: str = LIBRARY, release_file: Path = Path("/sys/module/nvidia/version")) -> None:
        self._library = ctypes.CDLL(library)
        self.call("cuInit", ctypes.c_uint(0))
        version = ctypes.c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.version = (
            f"{_first_line(release_file) or 'unknown'} (CUDA {version.value // 1000}.{version.value % 1000 // 10})"
        )

    def gpus(self) -> tuple[Gpu, ...]:
        """Every device of this machine. Raises CudaError."""
        count = ctypes.c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return tuple(self._gpu(index) for index in range(count.value))

    def open(self, index: int) -> CudaContext:
        """The context of one device. Raises CudaError."""
        return CudaContext(self, self._device(index))

    def call(self, function: str, *arguments: Any) -> None:
        """Raises CudaError unless it succeeds."""
        if code := self.try_call(function, *arguments):
            name = ctypes.c_char_p()
            self.try_call("cuGetErrorName", ctypes.c_int(code), ctypes.byref(name))
            raise CudaError(function, code, (name.value or b"unknown").decode(errors="replace"))

    def try_call(self, function: str, *arguments: Any) -> int:
        return int(getattr(self._library, function)(*arguments))

    def _device(self, index: int) -> ctypes.c_int:
        device = ctypes.c_int()
        self.call("cuDeviceGet", ctypes.byref(device), ctypes.c_int(index))
        return device

    def _gpu(self, index: int) -> Gpu:
        device, name = self._device(index), ctypes.create_string_buffer(_NAME_BYTES)
        self.call("cuDeviceGetName", name, ctypes.c_int(_NAME_BYTES), device)
        sm = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int()
            self.call("cuDeviceGetAttribute", ctypes.byref(number), ctypes.c_int(attribute), device)
            sm.append(str(number.value))
        return Gpu(index, name.value.decode(errors="replace"), ".".join(sm))


class CudaContext:
    """Memory and one stream of one device. Every method but `close` raises CudaError."""

    def __init__(self, driver: CudaDriver, device: ctypes.c_int) -> None:
        self._driver = driver
        self._call = driver.call
        self._device = device
        self._allocated: list[int] = []
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._pause = Event()  # is never set: waiting for it is a pause
        self._call("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), device)
        self.use()
        self._call("cuStreamCreate", ctypes.byref(self._stream), ctypes.c_uint(_NON_BLOCKING))

    @property
    def stream(self) -> int:
        """For libraries that put their work into it."""
        return self._stream.value or 0

    def use(self) -> None:
        """What the calling thread does from now on concerns this device."""
        self._call("cuCtxSetCurrent", self._context)

    def allocate(self, size_bytes: int) -> int:
        """An address in the device's memory."""
        address = ctypes.c_uint64()
        self._call("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(size_bytes, 1)))
        self._allocated.append(address.value)
        return address.value

    def upload(self, address: int, array: np.ndarray) -> None:
        """Copy before what is put into the stream next. array: in one piece."""
        self._call(
            "cuMemcpyHtoDAsync_v2",
            ctypes.c_uint64(address),
            ctypes.c_void_p(array.ctypes.data),
            ctypes.c_size_t(array.nbytes),
            self._stream,
        )

    def download(self, array: np.ndarray, address: int) -> None:
        """Copy at once; the stream has to be at rest. array: in one piece."""
        here, there = ctypes.c_void_p(array.ctypes.data), ctypes.c_uint64(address)
        self._call("cuMemcpyDtoH_v2", here, there, ctypes.c_size_t(array.nbytes))

    def wait(self, timeout_s: float) -> float:
        """Until the stream is at rest: the pauses in seconds, at most as long as it took. Raises TimeoutError."""
        waited_s = 0.0
        while not self._at_rest():
            if waited_s >= timeout_s:
                raise TimeoutError
            pause_s = min(max(waited_s / _PAUSE_SHARE, _SHORTEST_PAUSE_S), _LONGEST_PAUSE_S)
            self._pause.wait(pause_s)
            waited_s += pause_s
        return waited_s

    def close(self) -> None:
        """Give memory and device back. Never raises: of a device that has gone nothing is left to give back."""
        self._driver.try_call("cuCtxSetCurrent", self._context)
        for address in self._allocated:
            self._driver.try_call("cuMemFree_v2", ctypes.c_uint64(address))
        self._allocated.clear()
        self._driver.try_call("cuStreamDestroy_v2", self._stream)
        self._driver.try_call("cuDevicePrimaryCtxRelease_v2", self._device)

    def _at_rest(self) -> bool:
        try:
            self._call("cuStreamQuery", self._stream)
        except CudaError as error:
            if error.code == _NOT_READY:
                return False
            raise
        return True


def _first_line(path: Path) -> str:
    try:
        return path.read_text(errors="replace").partition("\n")[0].strip()
    except OSError:
        return ""
