"""`split:upstream`: the head of a model here, its tail at the hub. What is between them travels with one byte a number.

The rung never computes the tail itself: without an answer in time it fails, and the next rung of the chain, the whole
model as a rule, answers. It keeps back a part of the deadline for that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from edged.errors import InferenceError, ModelError
from edged.infer.registry import find_runtime
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.infer.split_file import Plan, open_head, read_plan
from edged.messages import ModelInfo
from edged.sync.tensors import to_packed

if TYPE_CHECKING:
    import numpy as np

    from edged.infer.loading import ModelFile
    from edged.infer.runtime import Runtime
    from edged.infer.upstream import PackedUpstream, UpstreamAddress
    from edged.ports import Model

RUNTIME_NAME, DEVICE = "split", "upstream"
HEAD_RUNTIME, HEAD_DEVICE = "onnxruntime", "cpu"
SHARE = 0.6  # of the deadline that waiting may take: the rest is for the rung below
WAIT_MAX_S = 30.0  # at the first questions of a load; a call has less

Connect = Callable[["UpstreamAddress"], "PackedUpstream"]


class SplitModel:
    """A head that was loaded, and somebody who has the tail. Implements `edged.ports.Model`."""

    def __init__(
        self,
        info: ModelInfo,
        plan: Plan,
        head: Model,
        upstream: PackedUpstream,
        now_ns: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self._info = info
        self._plan = plan
        self._head = head
        self._upstream = upstream
        self._now_ns = now_ns

    @property
    def info(self) -> ModelInfo:
        return self._info

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        """The head here, the tail there.

        Raises:
            InferenceError: those of the head's runtime; `upstream_timeout`, `upstream_away`, `upstream_refused`,
                `upstream_busy`; `infer_failed` for a cut tensor that is no number.
        """
        end_ns = self._now_ns() + int(min(deadline_s * SHARE, WAIT_MAX_S) * 1e9)
        cut = self._plan.cut
        tensor = self._head.infer(batch, deadline_s=deadline_s)[cut.name]
        try:
            packed = to_packed(cut.name, tensor, u8=cut.coding == "u8", known=cut.range)
        except ValueError as error:
            raise InferenceError("infer_failed", f"{self._info.model}: the cut tensor {cut.name}: {error}") from None
        left_s = (end_ns - self._now_ns()) / 1e9
        if left_s <= 0:
            raise InferenceError("upstream_timeout", f"{self._info.model}: the head took all of the deadline")
        outputs = self._upstream.ask_packed(self._plan.tail.sha256, (packed,), left_s)
        self._check(outputs, len(tensor))
        return {spec.name: outputs[spec.name] for spec in self._info.outputs}

    def _check(self, outputs: Mapping[str, np.ndarray], rows: int) -> None:
        for spec in self._info.outputs:
            got = outputs.get(spec.name)
            if got is None or str(got.dtype) != spec.dtype or not _fits(got.shape, spec.shape, rows):
                found = "nothing" if got is None else f"{got.dtype} {got.shape}"
                raise InferenceError(
                    "upstream_refused", f"The upstream's answer cannot be used: {spec.name} is {found}, not {spec[1:]}"
                )

    def close(self) -> None:
        self._upstream.close()
        self._head.close()


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...], rows: int) -> bool:
    """Axis by axis; a free first axis has as many rows as were asked about."""
    if len(shape) != len(wanted):
        return False
    first = not wanted or shape[0] == (rows if wanted[0] < 0 else wanted[0])
    return first and all(axis in (-1, got) for got, axis in zip(shape[1:], wanted[1:], strict=True))


def _connect(address: UpstreamAddress) -> PackedUpstream:
    try:
        from edged.infer.upstream_mqtt import connect  # with the MQTT client, which only this rung needs
    except ImportError as error:
        raise ModelError(
            "runtime_unavailable", f"Cannot ask the upstream: {error}", hint="pip install 'edged[split]'"
        ) from error
    return connect(address)


class SplitRuntime:
    """Implements `edged.infer.runtime.Runtime`.

    In a process of its own: whoever waits for another machine has no place on the loop, nor has the client's thread.
    """

    name = RUNTIME_NAME

    def __init__(self, connect: Connect = _connect, find: Callable[[str], Runtime] = find_runtime) -> None:
        self._connect = connect
        self._find = find

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), isolation="process")

    def probe(self, device: str) -> Probe:
        """Whether anybody answers only a load can tell: it asks."""
        try:
            import paho.mqtt
        except ImportError as error:
            return Probe(False, code="runtime_unavailable", reason=f"{error}; pip install 'edged[split]'")
        version = str(paho.mqtt.__version__)
        return Probe(True, (Device(DEVICE, DEVICE, "the centre, by [upstream]"),), {"paho-mqtt": version})

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make: splitting is for the workbench."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> SplitModel:
        """The head on the processor and a line to the upstream; whether that answers, the warm-up finds out.

        Raises:
            ModelError: `device_unavailable` no [upstream] with a broker; those of `split_file` and of the head's
                runtime.
        """
        if device != DEVICE:
            raise ModelError("device_unavailable", f"split runs on {DEVICE}, not on {device!r}")
        if options.upstream is None:
            raise ModelError(
                "device_unavailable",
                "Cannot use split:upstream: there is nobody to ask",
                hint="name a broker in [upstream] url (mqtt:// or mqtts://)",
            )
        if model.format != "onnx":
            raise ModelError("incompatible", f"split reads onnx, {model.path.name} is {model.format}")
        plan = read_plan(model)
        head = self._find(HEAD_RUNTIME).load(open_head(model, plan), HEAD_DEVICE, options)
        try:
            _require_interface(head.info, plan)
            upstream = self._connect(options.upstream)
        except ModelError:
            head.close()
            raise
        info = ModelInfo(
            model.model_id, model.version, model.sha256, f"{RUNTIME_NAME}:{DEVICE}", head.info.inputs, plan.output_specs
        )
        return SplitModel(info, plan, head, upstream)

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth()


def _require_interface(head: ModelInfo, plan: Plan) -> None:
    outputs = {spec.name: spec.dtype for spec in head.outputs}
    if head.inputs != plan.input_specs or outputs != {plan.cut.name: plan.cut.dtype}:
        raise ModelError(
            "incompatible",
            f"{head.model}: expected {plan.input_specs} and {plan.cut.name}, got {head.inputs} and {outputs}",
            hint="split the model again",
        )


RUNTIME = SplitRuntime()
