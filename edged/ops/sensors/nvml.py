"""NVIDIA GPUs through the driver's own library (NVML), by ctypes: no package, and no trace where there is no driver.

A GPU that is lost is a value here, not an exception. Calls into a sick driver may take seconds or never return: use one
`Nvml` from one thread or, better, from a child process, and never from the loop.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char, c_int, c_uint, c_ulonglong, c_void_p
from typing import Any, NamedTuple

from edged.ops.sensors.files import limit_c, plausible_c

LIBRARY = "libnvidia-ml.so.1"
_MOST_GPUS = 16

_SUCCESS, _FUNCTION_NOT_FOUND = 0, 13
_PROBLEMS = {
    1: "uninitialized",
    4: "no_permission",
    9: "driver_not_loaded",
    10: "timeout",
    11: "irq_issue",
    12: "library_not_found",
    13: "function_not_found",
    15: "gpu_is_lost",
    16: "reset_required",
    17: "operating_system",
    18: "driver_library_mismatch",
    999: "unknown_error",
}
_LOST = frozenset({15, 16})

_SENSOR_GPU = 0
_TEMPERATURE_V1 = 0x0100000C
_SHUTDOWN, _SLOWDOWN = 0, 1
_UNCORRECTED, _SINCE_DRIVER_LOAD = 1, 0
_NAME_BYTES = 96

_CLOCK_REASONS = {
    0x004: "power_cap",
    0x008: "hw_slowdown",
    0x020: "sw_thermal",
    0x040: "hw_thermal",
    0x080: "hw_power_brake",
    0x200: "board_limit",
    0x400: "reliability",
}
SLOWED_BY_DISTRESS = frozenset({"hw_slowdown", "sw_thermal", "hw_thermal", "hw_power_brake"})
"""Clock reasons of heat or a failing supply; a power cap is how many cards run at full load."""


class _Utilization(ctypes.Structure):
    _fields_ = [("gpu", c_uint), ("memory", c_uint)]


class _MemoryInfo(ctypes.Structure):
    _fields_ = [("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong)]


class _Temperature(ctypes.Structure):
    _fields_ = [("version", c_uint), ("sensor", c_uint), ("celsius", c_int)]


class Gpu(NamedTuple):
    """One GPU; each value None where this card does not say.

    `problem`: why it does not answer (`gpu_is_lost`, `reset_required`, …), None while it does. `slowed_by`: reasons
    for a lower clock now, empty when there are none. `uncorrected_errors`: of its memory since the driver was loaded.
    `repair_pending`: bad memory is taken out of use at the next reset; `repair_failed`: the card must be replaced.
    """

    number: int
    name: str | None
    uuid: str | None
    problem: str | None
    celsius: float | None = None
    slowdown_c: float | None = None
    shutdown_c: float | None = None
    slowed_by: tuple[str, ...] | None = None
    power_w: float | None = None
    power_limit_w: float | None = None
    load_share: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    uncorrected_errors: int | None = None
    repair_pending: bool | None = None
    repair_failed: bool | None = None


class NvmlReading(NamedTuple):
    """`problem`: why nothing is known (`library_not_found`: no driver here). Without one, `gpus` are all there are."""

    problem: str | None
    gpus: tuple[Gpu, ...] = ()


class Nvml:
    """The library, opened at the first reading and again after trouble. `loader`: turns a name into a library."""

    def __init__(self, name: str = LIBRARY, loader: Callable[[str], Any] = ctypes.CDLL) -> None:
        self._name = name
        self._loader = loader
        self._library: Any = None

    def read(self) -> NvmlReading:
        """All GPUs, at most 16. Never raises; see the module for how long it may take."""
        if self._library is None:
            problem = self._open()
            if problem is not None:
                return NvmlReading(problem)
        number = c_uint()
        code = self._call("nvmlDeviceGetCount_v2", byref(number))
        if code != _SUCCESS:
            self.close()  # the next reading begins anew: a driver that was loaded again answers only then
            return NvmlReading(_problem(code))
        gpus = tuple(self._gpu(each) for each in range(min(number.value, _MOST_GPUS)))
        if any(gpu.problem is not None for gpu in gpus):
            self.close()
        return NvmlReading(None, gpus)

    def close(self) -> None:
        """Let go of the library; a later reading opens it again."""
        if self._library is not None:
            self._call("nvmlShutdown")
            self._library = None

    def _open(self) -> str | None:
        try:
            self._library = self._loader(self._name)
        except OSError:
            return "library_not_found"
        code = self._call("nvmlInit_v2")
        if code == _SUCCESS:
            return None
        self._library = None
        return _problem(code)

    def _call(self, function: str, *arguments: object) -> int:
        """The code that NVML answers; a library too old for the function counts as that answer, too."""
        found = getattr(self._library, function, None)
        return _FUNCTION_NOT_FOUND if found is None else int(found(*arguments))

    def _gpu(self, number: int) -> Gpu:
        handle = c_void_p()
        code = self._call("nvmlDeviceGetHandleByIndex_v2", c_uint(number), byref(handle))
        if code != _SUCCESS:
            return Gpu(number, None, None, _problem(code))
        name, uuid = self._text("nvmlDeviceGetName", handle), self._text("nvmlDeviceGetUUID", handle)
        code, celsius = self._temperature(handle)
        if code in _LOST:
            return Gpu(number, name, uuid, _problem(code))
        load, memory, repair = self._load(handle), self._memory(handle), self._repair(handle)
        return Gpu(
            number=number,
            name=name,
            uuid=uuid,
            problem=None,
            celsius=celsius,
            slowdown_c=self._threshold(handle, _SLOWDOWN),
            shutdown_c=self._threshold(handle, _SHUTDOWN),
            slowed_by=self._slowed_by(handle),
            power_w=_thousandths(self._number("nvmlDeviceGetPowerUsage", handle)),
            power_limit_w=_thousandths(self._number("nvmlDeviceGetEnforcedPowerLimit", handle)),
            load_share=load,
            memory_used_bytes=None if memory is None else int(memory.used),
            memory_total_bytes=None if memory is None else int(memory.total),
            uncorrected_errors=self._errors(handle),
            repair_pending=None if repair is None else repair[0],
            repair_failed=None if repair is None else repair[1],
        )

    def _text(self, function: str, handle: c_void_p) -> str | None:
        buffer = (c_char * _NAME_BYTES)()
        if self._call(function, handle, buffer, c_uint(_NAME_BYTES)) != _SUCCESS:
            return None
        return buffer.value.decode("utf-8", "replace") or None

    def _number(self, function: str, handle: c_void_p) -> int | None:
        value = c_uint()
        return value.value if self._call(function, handle, byref(value)) == _SUCCESS else None

    def _temperature(self, handle: c_void_p) -> tuple[int, float | None]:
        """The code and °C. Newer drivers have another function for it, and will drop the old one."""
        value = c_uint()
        code = self._call("nvmlDeviceGetTemperature", handle, c_uint(_SENSOR_GPU), byref(value))
        if code == _SUCCESS:
            return code, plausible_c(float(value.value))
        if code != _FUNCTION_NOT_FOUND:
            return code, None
        newer = _Temperature(_TEMPERATURE_V1, _SENSOR_GPU, 0)
        code = self._call("nvmlDeviceGetTemperatureV", handle, byref(newer))
        return code, plausible_c(float(newer.celsius)) if code == _SUCCESS else None

    def _threshold(self, handle: c_void_p, which: int) -> float | None:
        value = c_uint()
        code = self._call("nvmlDeviceGetTemperatureThreshold", handle, c_uint(which), byref(value))
        return limit_c(float(value.value)) if code == _SUCCESS else None

    def _slowed_by(self, handle: c_void_p) -> tuple[str, ...] | None:
        """The function was renamed with driver 535; old drivers know only the old name, new ones will drop it."""
        for function in ("nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetCurrentClocksThrottleReasons"):
            mask = c_ulonglong()
            if self._call(function, handle, byref(mask)) == _SUCCESS:
                return tuple(name for bit, name in _CLOCK_REASONS.items() if mask.value & bit)
        return None

    def _load(self, handle: c_void_p) -> float | None:
        found = _Utilization()
        code = self._call("nvmlDeviceGetUtilizationRates", handle, byref(found))
        return found.gpu / 100 if code == _SUCCESS and found.gpu <= 100 else None

    def _memory(self, handle: c_void_p) -> _MemoryInfo | None:
        found = _MemoryInfo()
        code = self._call("nvmlDeviceGetMemoryInfo", handle, byref(found))
        return found if code == _SUCCESS and found.used <= found.total else None

    def _errors(self, handle: c_void_p) -> int | None:
        value = c_ulonglong()
        kinds = c_uint(_UNCORRECTED), c_uint(_SINCE_DRIVER_LOAD)
        code = self._call("nvmlDeviceGetTotalEccErrors", handle, *kinds, byref(value))
        return value.value if code == _SUCCESS else None

    def _repair(self, handle: c_void_p) -> tuple[bool, bool | None] | None:
        """Pending and failed: by remapped rows (Ampere and later), else by retired pages, which cannot say failed."""
        corrected, uncorrected, pending, failed = c_uint(), c_uint(), c_uint(), c_uint()
        rows = byref(corrected), byref(uncorrected), byref(pending), byref(failed)
        if self._call("nvmlDeviceGetRemappedRows", handle, *rows) == _SUCCESS:
            return bool(pending.value), bool(failed.value)
        retired = self._number("nvmlDeviceGetRetiredPagesPendingStatus", handle)
        return None if retired is None else (bool(retired), None)


def _problem(code: int) -> str:
    return _PROBLEMS.get(code, f"nvml_error_{code}")


def _thousandths(number: int | None) -> float | None:
    return None if number is None else number / 1000
