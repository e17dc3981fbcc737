"""Hailo accelerators as a runtime of edged: `chain = ["hailo:pcie", "onnxruntime:cpu"]`.

Not verified on hardware: tested against a stand-in for the vendor's package `hailo_platform`, with names and errors of
HailoRT 4. A .hef is compiled for one kind of chip; put the model that it was compiled from (NHWC, float32) beside it in
the bundle, for the rungs that come after.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.batch_check import BatchCheck
from edged.infer.loading import ModelFile
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.messages import ModelInfo, TensorSpec

_KINDS = ("pcie", "integrated")  # on a card or module; on the chip itself (Hailo-15)
# By the name of the vendor's exception: some are not exported where the others are.
_LOAD_CODES = {
    "HailoRTInvalidHEFException": "corrupt",
    "HailoRTHEFNotCompatibleWithDevice": "incompatible",
    "HailoRTNotFoundException": "device_unavailable",
    "HailoRTDriverOperationFailedException": "device_unavailable",
    "HailoRTTimeout": "device_unavailable",
    "HailoCommunicationClosedException": "device_unavailable",
}
_CALL_CODES = {
    "HailoRTTimeout": "device_lost",  # the chip did not answer the driver: only a new process helps
    "HailoRTStreamAborted": "device_lost",
    "HailoRTDriverOperationFailedException": "device_lost",
    "HailoCommunicationClosedException": "device_lost",
    "HailoRTInvalidFrameException": "invalid_input",
}


class HailoModel:
    """A network on the chip. `opened`: what has to be given back, the last first."""

    def __init__(
        self, pipeline: Any, info: ModelInfo, opened: ExitStack, failures: tuple[type[Exception], ...]
    ) -> None:
        self._pipeline = pipeline
        self._opened = opened
        self._failures = failures
        self._check = BatchCheck(info)
        self.info = info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """One call for all frames. The deadline is kept by edged: this runs in a process that it can end."""
        if self._pipeline is None:
            raise InferenceError("closed", f"Cannot infer with {self.info.model}: the model is closed")
        self._check(batch)
        if not len(next(iter(batch.values()))):
            return {spec.name: np.empty((0, *spec.shape[1:]), np.float32) for spec in self.info.outputs}
        try:
            answers = self._pipeline.infer({name: np.ascontiguousarray(array) for name, array in batch.items()})
        except self._failures as error:
            code = _CALL_CODES.get(type(error).__name__, "infer_failed")
            raise InferenceError(code, f"{self.info.model}: {type(error).__name__}: {error}") from error
        return {spec.name: np.array(answers[spec.name], np.float32) for spec in self.info.outputs}

    def close(self) -> None:
        self._pipeline = None
        try:
            self._opened.close()
        except self._failures:
            pass  # the device may have gone; there is nothing left to give back


class HailoRuntime:
    """The vendor's package is imported when a device is used: edged asks every runtime what it can without one."""

    name = "hailo"

    def abilities(self, device: str) -> Abilities:
        return Abilities(("hef",), isolation="process", exclusive=True)

    def probe(self, device: str) -> Probe:
        try:
            vendor = _vendor()
            found = tuple(Device(each, "npu", "Hailo", "Hailo", serial=each) for each in _scan(vendor, device))
        except ModelError as error:
            return Probe(False, code=error.code, reason=str(error))
        return Probe(True, found, {"hailort": str(getattr(vendor, "__version__", ""))})

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make: a .hef is compiled on a workbench."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> HailoModel:
        if model.format != "hef":
            raise ModelError("incompatible", f"a Hailo reads hef, {model.path.name} is {model.format}")
        data = model.read()  # exactly the bytes that were checked
        vendor = _vendor()
        failures = (vendor.HailoRTException, ValueError)
        ids = _scan(vendor, device)
        with ExitStack() as opening:
            try:
                hef = vendor.HEF(data)
                target = opening.enter_context(vendor.VDevice(device_ids=ids[:1]))
                kinds = vendor.HailoStreamInterface
                interface = kinds.PCIe if device == "pcie" else kinds.INTEGRATED
                group = target.configure(hef, vendor.ConfigureParams.create_from_hef(hef, interface=interface))[0]
                kind = vendor.FormatType.FLOAT32  # quantised inside; edged deals in real numbers
                inputs = vendor.InputVStreamParams.make(group, format_type=kind)
                outputs = vendor.OutputVStreamParams.make(group, format_type=kind)
                pipeline = opening.enter_context(vendor.InferVStreams(group, inputs, outputs))
                opening.enter_context(group.activate(group.create_params()))
            except failures as error:
                code = _LOAD_CODES.get(type(error).__name__, "load_failed")
                raise ModelError(code, f"Cannot load {model.path}: {type(error).__name__}: {error}") from error
            info = ModelInfo(
                model=model.model_id,
                version=model.version,
                sha256=model.sha256,
                runtime=f"hailo:{device}",
                inputs=tuple(_spec(each) for each in hef.get_input_vstream_infos()),
                outputs=tuple(_spec(each) for each in hef.get_output_vstream_infos()),
            )
            return HailoModel(pipeline, info, opening.pop_all(), failures)

    def health(self, device: str) -> DeviceHealth:
        probe = self.probe(device)
        return DeviceHealth() if probe.usable else DeviceHealth("failed", (f"{probe.code}: {probe.reason}",))


def _vendor() -> Any:
    """The package `hailo_platform`. Its import fails with many errors when driver and library do not fit."""
    try:
        return import_module("hailo_platform")
    except Exception as error:
        raise ModelError(
            "runtime_unavailable",
            f"Cannot import hailo_platform: {error}",
            hint="install HailoRT and its Python package, in the version of the driver, from the vendor",
        ) from error


def _scan(vendor: Any, device: str) -> list[str]:
    """The ids of the chips that are here."""
    try:
        found = list(vendor.Device.scan()) if device in _KINDS else []
    except (vendor.HailoRTException, OSError) as error:
        raise ModelError("device_unavailable", f"Cannot look for hailo:{device}: {error}") from error
    if not found:
        raise ModelError("device_unavailable", f"There is no hailo:{device} here", hint="lsmod | grep hailo; dmesg")
    return found


def _spec(stream: Any) -> TensorSpec:
    """A stream is one frame (height, width, channels); the batch axis is ours."""
    return TensorSpec(stream.name, "float32", (-1, *(int(axis) for axis in stream.shape)))


RUNTIME = HailoRuntime()
