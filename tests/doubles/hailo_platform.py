"""A stand-in for the vendor's package of a Hailo: one chip that doubles its input, and ways in which it fails.

A file of it is the magic, the word `double`, and nothing else; `compiled` writes one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

__version__ = "4.99"
MAGIC = b"\x01HEF"
SHAPE = (2, 2, 1)


class HailoRTException(Exception):
    pass


class HailoRTInvalidHEFException(HailoRTException):
    pass


class HailoRTHEFNotCompatibleWithDevice(HailoRTException):
    pass


class HailoRTTimeout(HailoRTException):
    pass


class Chip:
    """What the stand-in does next. opened: contexts that are open."""

    ids: Sequence[str] = ("0000:01:00.0",)
    scan_error: Exception | None = None
    configure_error: Exception | None = None
    infer_error: Exception | None = None
    close_error: Exception | None = None
    opened = 0


def compiled(path: Path) -> Path:
    path.write_bytes(MAGIC + b"double" * 20)
    return path


class Device:
    @staticmethod
    def scan() -> list[str]:
        if Chip.scan_error is not None:
            raise Chip.scan_error
        return list(Chip.ids)


class HEF:
    def __init__(self, source: bytes) -> None:
        if source != MAGIC + b"double" * 20:
            raise HailoRTInvalidHEFException("Invalid HEF. See hailort.log for more information")

    def get_input_vstream_infos(self) -> list[Any]:
        return [SimpleNamespace(name="net/input", shape=SHAPE)]

    def get_output_vstream_infos(self) -> list[Any]:
        return [SimpleNamespace(name="net/output", shape=SHAPE)]


class _Context:
    def __enter__(self) -> Any:
        Chip.opened += 1
        return self

    def __exit__(self, *_error: object) -> None:
        Chip.opened -= 1
        if Chip.close_error is not None:
            raise Chip.close_error


class VDevice(_Context):
    def __init__(self, *, device_ids: Sequence[str]) -> None:
        assert len(device_ids) == 1

    def configure(self, hef: HEF, params: object) -> list[Any]:
        if Chip.configure_error is not None:
            raise Chip.configure_error
        return [_Group()]


class _Group:
    def create_params(self) -> object:
        return object()

    def activate(self, params: object) -> _Context:
        return _Context()


class HailoStreamInterface:
    PCIe = "PCIe"
    INTEGRATED = "integrated"


class FormatType:
    FLOAT32 = "FLOAT32"


class ConfigureParams:
    @staticmethod
    def create_from_hef(hef: HEF, interface: str) -> object:
        return interface


class InputVStreamParams:
    @staticmethod
    def make(group: object, format_type: str) -> object:
        return format_type


OutputVStreamParams = InputVStreamParams


class InferVStreams(_Context):
    def __init__(self, group: object, inputs: object, outputs: object) -> None:
        self._buffer = np.zeros(0, np.float32)

    def infer(self, batch: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
        if Chip.infer_error is not None:
            raise Chip.infer_error
        return {"net/output": batch["net/input"] * np.float32(2)}
