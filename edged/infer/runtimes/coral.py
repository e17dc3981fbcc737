"""Coral Edge TPU on USB and PCIe: LiteRT with the system library libedgetpu, strict.

A file that was compiled for the Edge TPU or nothing: LiteRT computes any other one on the processor, silently.
Opening the device holds the interpreter's lock for seconds, a library of the wrong version ends the process, and a call
that hangs cannot be cancelled: it belongs into a process of its own (`isolation = process`).
"""

from __future__ import annotations

import ctypes
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ai_edge_litert.interpreter import Delegate, Interpreter

from edged.errors import ModelError
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.infer.runtimes.tflite_io import InterpreterRunner, TfliteModel, describe, in_short, is_out_of_memory
from edged.infer.tflite_file import EDGETPU_OP, read_declared

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile

LIBRARY_VARIABLE = "EDGED_LIBEDGETPU"  # for a library that does not lie where the system looks, and for tests
LIBRARY = "libedgetpu.so.1"
TESTED_PAIRS: frozenset[tuple[str, str]] = frozenset()
"""(what libedgetpu calls itself, version of ai-edge-litert) that computed right on a device. None was, so far."""

_DEVICE = re.compile(r"(usb|pci)(?::(\d{1,3}))?")
_USB_IDS: Mapping[tuple[str, str], str] = {
    ("1a6e", "089a"): "Coral USB Accelerator before its firmware is loaded",
    ("18d1", "9302"): "Coral USB Accelerator",
}
_LIBRARY_HINT = (
    "install a libedgetpu that was built for this version of LiteRT (Google's own was built for TensorFlow 2.5 and "
    "crashes); where it lies elsewhere, name it in EDGED_LIBEDGETPU"
)
_LOST_TEXTS = ("usb transfer error", "usb error", "libusb", "deadline exceeded", "no such device", "hib error", "apex")
_DELEGATE_NODE = "DELEGATE"  # what the interpreter calls a node that a delegate has taken


class _Runner(InterpreterRunner):
    """An interpreter whose device stays lost once it was: what it answers afterwards is worth nothing."""

    def __init__(self, data: bytes, delegate: Delegate, threads: int) -> None:
        super().__init__(Interpreter(model_content=data, num_threads=threads, experimental_delegates=[delegate]))
        self._lost = ""

    def run(self, arrays: list[np.ndarray]) -> list[np.ndarray]:
        if self._lost:
            raise RuntimeError(self._lost)
        try:
            return super().run(arrays)
        except RuntimeError as error:
            if code_of(str(error)) == "device_lost":
                self._lost = str(error)
            raise


class Coral:
    """The runtime `coral`. Devices: `usb`, `usb:0`, `pci`, `pci:1`; without a number the library chooses.

    library: name or path of libedgetpu. sysfs, dev: where the kernel shows devices.
    """

    name = "coral"

    def __init__(self, library: str = LIBRARY, sysfs: Path = Path("/sys"), dev: Path = Path("/dev")) -> None:
        self._library = library
        self._sysfs = sysfs
        self._dev = dev

    def abilities(self, device: str) -> Abilities:
        return Abilities(("tflite-edgetpu",), isolation="process", exclusive=True)

    def probe(self, device: str) -> Probe:
        """Is the library there and a device to be seen? It is not opened: that takes seconds and disturbs its user."""
        versions = {"ai-edge-litert": version("ai-edge-litert")}
        devices = self._seen(device)
        try:
            versions["libedgetpu"] = _version_of(_open_library(self._library))
            versions["pair"] = judge_pair(versions["libedgetpu"], versions["ai-edge-litert"])
            _check_name(device)
        except ModelError as error:
            return Probe(False, devices, versions, error.code, str(error))
        if not devices:
            return Probe(False, (), versions, "device_unavailable", self._nothing_seen(device))
        return Probe(True, devices, versions)

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make: the file was compiled where it was made."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> TfliteModel:
        """Open the device and put `model` on it.

        Raises:
            ModelError: `incompatible`, `placement_rejected`, `runtime_unavailable`, `device_unavailable`,
                `unsupported`, `corrupt`, `out_of_memory`; those of reading.
        """
        _check_name(device)
        if model.format != "tflite-edgetpu":
            raise ModelError(
                "incompatible",
                f"{model.path.name} is {model.format}, not compiled for an Edge TPU: it would compute on the processor",
                hint="compile it with edgetpu_compiler and put both files into the bundle",
            )
        data = model.read()
        declared = read_declared(model.path, data, known={EDGETPU_OP})
        if EDGETPU_OP not in declared.custom_operators:
            raise ModelError(
                "placement_rejected",
                f"No operator of {model.path.name} is {EDGETPU_OP}: all of it would compute on the processor",
                hint="compile it with edgetpu_compiler",
            )
        _open_library(self._library)
        delegate = self._open_device(device)
        try:
            runner = _Runner(data, delegate, options.threads)
            placement = find_placement(runner.interpreter._get_ops_details())
        except MemoryError as error:
            raise ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True) from error
        except (RuntimeError, ValueError) as error:
            raise _load_error(model, error) from error
        info = describe(model, f"{self.name}:{device}", declared, runner.interpreter, free=False)
        return TfliteModel(runner, info._replace(placement=placement), declared, code_of)

    def health(self, device: str) -> DeviceHealth:
        """Is it to be seen? How warm it is says the device health of the daemon, not this."""
        if self._seen(device):
            return DeviceHealth("ok")
        return DeviceHealth("unknown", (self._nothing_seen(device),))

    def _open_device(self, device: str) -> Delegate:
        try:
            return Delegate(self._library, {"device": device})
        except ValueError as error:
            said = in_short(error)
            seen = ", ".join(found.name for found in self._seen(device))
            raise ModelError(
                "device_unavailable",
                f"libedgetpu opens no {device}: {said or 'it does not say why'}; "
                + (f"seen: {seen}" if seen else self._nothing_seen(device)),
                hint="is it plugged in, in use by another process, or not permitted (group plugdev or apex)? "
                "unplug it and plug it in again",
                retryable=True,
            ) from error

    def _seen(self, device: str) -> tuple[Device, ...]:
        """The devices that `device` may mean, in the kernel's order."""
        kind, _, number = device.partition(":")
        found = self._seen_on_usb() if kind == "usb" else self._seen_on_pci() if kind == "pci" else []
        return tuple(found if not number else [each for each in found if each.id == device])

    def _seen_on_usb(self) -> list[Device]:
        found: list[Device] = []
        for folder in sorted((self._sysfs / "bus" / "usb" / "devices").glob("*")):
            name = _USB_IDS.get((_text(folder / "idVendor"), _text(folder / "idProduct")))
            if name is not None:
                found.append(Device(f"usb:{len(found)}", "tpu", f"{name} at {folder.name}", "Google"))
        return found

    def _seen_on_pci(self) -> list[Device]:
        nodes = sorted(self._dev.glob("apex_*"))
        return [Device(f"pci:{index}", "tpu", str(node), "Google", "apex") for index, node in enumerate(nodes)]

    def _nothing_seen(self, device: str) -> str:
        if device.startswith("pci"):
            return f"no {self._dev}/apex_N for {device}: is the driver (gasket, apex) loaded?"
        ids = " or ".join(":".join(pair) for pair in _USB_IDS)
        return f"no USB device {ids} for {device}"


def code_of(text: str) -> str:
    """The code for what the library said when a call failed."""
    lowered = text.lower()
    return "device_lost" if any(known in lowered for known in _LOST_TEXTS) else "infer_failed"


def judge_pair(library: str, litert: str) -> str:
    """What is known about these two versions together; a wrong pair crashes when it loads or computes."""
    return "tested" if (library, litert) in TESTED_PAIRS else "untested: not recorded that these two work together"


def find_placement(operators: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    """How many operators compute where; the compiler decided about those on the processor, and the file says so.

    operators: every node of the interpreter, those that a delegate replaced included.

    Raises:
        ModelError: `placement_rejected` when an operator for the Edge TPU was not taken by a delegate.
    """
    taken = {int(tensor) for node in operators if node["op_name"] == _DELEGATE_NODE for tensor in node["outputs"]}
    compiled = [node for node in operators if node["op_name"] == EDGETPU_OP]
    left = sum(not taken.issuperset(int(tensor) for tensor in node["outputs"]) for node in compiled)
    if left or not compiled:
        raise ModelError(
            "placement_rejected", f"The Edge TPU has taken {len(compiled) - left} of {len(compiled)} compiled operators"
        )
    names = Counter(str(node["op_name"]) for node in operators)
    return ("edgetpu", len(compiled)), ("cpu", names.total() - names[EDGETPU_OP] - names[_DELEGATE_NODE])


def _check_name(device: str) -> None:
    if not _DEVICE.fullmatch(device):
        raise ModelError("device_unavailable", f"Coral is usb, usb:N, pci or pci:N, not {device!r}")


def _open_library(library: str) -> ctypes.CDLL:
    """The library, opened before LiteRT does it: a failure there leaves a broken object, which complains on stderr."""
    try:
        opened = ctypes.CDLL(library)
        _ = opened.tflite_plugin_create_delegate, opened.tflite_plugin_destroy_delegate
    except (OSError, AttributeError) as error:
        raise ModelError("runtime_unavailable", f"Cannot use {library}: {error}", hint=_LIBRARY_HINT) from error
    return opened


def _version_of(library: ctypes.CDLL) -> str:
    """What the library calls itself, without the date and the compiler of its build."""
    try:
        ask = library.edgetpu_version
    except AttributeError:
        return "unknown"
    ask.restype = ctypes.c_char_p
    text = (ask() or b"unknown").decode(errors="replace")
    return text.rpartition(", ")[2]


def _load_error(model: ModelFile, error: Exception) -> ModelError:
    text = in_short(error)
    if is_out_of_memory(error):
        return ModelError("out_of_memory", f"Cannot load {model.path}: not enough memory", retryable=True)
    if "custom op handler" in text or "unresolved custom op" in text:
        return ModelError(
            "runtime_unavailable", f"libedgetpu and LiteRT do not understand one another: {text}", hint=_LIBRARY_HINT
        )
    if "requires runtime version" in text:
        return ModelError(
            "unsupported",
            f"{model.path.name} was compiled for a newer libedgetpu: {text}",
            hint="install a newer libedgetpu, or compile with edgetpu_compiler --min_runtime_version",
        )
    if code_of(text) == "device_lost":
        return ModelError("device_unavailable", f"Lost the Edge TPU while loading {model.path.name}: {text}")
    return ModelError("unsupported", f"The Edge TPU cannot run {model.path}: {text}", hint="compile the model again")


def _text(path: Path) -> str:
    """A short text of the kernel; empty where there is none."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


RUNTIME = Coral(os.environ.get(LIBRARY_VARIABLE, LIBRARY))
