"""An ONNX model becomes a TensorRT engine, with what TensorRT 10 and 11 have in common.

Networks are strongly typed: the types are those that the model declares. INT8 is a model with QuantizeLinear and
DequantizeLinear, FP16 a model of float16; nothing here changes precision.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Iterator

LEAST, TYPICAL, MOST = 1, 8, 32
"""Items in one call of an engine with a free batch axis; what is more is answered in several calls."""
WORKSPACE_BYTES = 1 << 30
FLAGS = f"strongly typed, no TF32, no fallback, workspace {WORKSPACE_BYTES}"
PROFILE = f"{LEAST}/{TYPICAL}/{MOST}"

_MESSAGES_KEPT = 20
_ERRORS = ("INTERNAL_ERROR", "ERROR")
_SHOWN = 300


class Errors:
    """What TensorRT has complained about since the last question; it has one logger for a whole process."""

    def __init__(self) -> None:
        self._texts: deque[str] = deque(maxlen=_MESSAGES_KEPT)

    def note(self, severity: Any, text: str) -> None:
        """Called by the library, in any of its threads."""
        if severity.name in _ERRORS:
            self._texts.append(" ".join(text.split()))

    def take(self) -> str:
        """All of them in one line, and forgotten; empty when there were none."""
        texts = [self._texts.popleft() for _ in range(len(self._texts))]
        return "; ".join(texts)[:_SHOWN]


class Built(NamedTuple):
    """An engine, and what the build has learned about the speed of the device."""

    plan: bytes
    timing: bytes


def make_logger(trt: Any, errors: Errors) -> Any:
    """A logger that keeps errors and drops the rest; it has to outlive everything that was made with it."""

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, msg: str) -> None:
            errors.note(severity, msg)

    return Logger()


def build(
    trt: Any, logger: Any, errors: Errors, data: bytes, path: Path, *, dla: int | None = None, timing: bytes = b""
) -> Built:
    """Build the engine of an ONNX model; takes minutes.

    Raises:
        ModelError: `unsupported`, `corrupt`, `incompatible`, `placement_rejected`, `prepare_failed`.
    """
    errors.take()
    try:
        builder = trt.Builder(logger)
    except TypeError as error:  # how the binding says that the library has made none
        raise _not_built(errors.take() or str(error), path, dla) from error
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(data):
        raise _refused([parser.get_error(index) for index in range(parser.num_errors)], path)
    config = builder.create_builder_config()
    _configure(trt, config, dla)
    _add_profile(builder, config, network, path)
    cache = config.create_timing_cache(timing)
    if not config.set_timing_cache(cache, ignore_mismatch=False):  # of another version: start anew
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise _not_built(errors.take(), path, dla)
    return Built(bytes(plan), bytes(config.get_timing_cache().serialize()))


def _network_flags(trt: Any) -> int:
    """Strongly typed where it has to be said (10); later it is always so, and the flag may be gone."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return 0 if flag is None else 1 << int(flag)


def _configure(trt: Any, config: Any, dla: int | None) -> None:
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, WORKSPACE_BYTES)
    if (tf32 := getattr(trt.BuilderFlag, "TF32", None)) is not None:
        config.clear_flag(tf32)  # it rounds float32 to 10 bits: other answers on other gateways
    if dla is not None:  # GPU_FALLBACK stays off: what the DLA cannot compute is refused
        config.default_device_type = trt.DeviceType.DLA
        config.DLA_core = dla


def _add_profile(builder: Any, config: Any, network: Any, path: Path) -> None:
    """Say how large the free batch axis may be; another free axis has no sizes that we could know."""
    profile, free = builder.create_optimization_profile(), False
    for tensor in _inputs(network):
        shape = tuple(tensor.shape)
        if -1 in shape[1:]:
            raise ModelError(
                "incompatible",
                f"{path.name}: input {tensor.name} has the shape {shape}; TensorRT here takes a free axis only first",
                hint="export the model with fixed shapes, the batch excepted",
            )
        if shape and shape[0] == -1:
            profile.set_shape(tensor.name, *((items, *shape[1:]) for items in (LEAST, TYPICAL, MOST)))
            free = True
    if free:
        config.add_optimization_profile(profile)


def _inputs(network: Any) -> Iterator[Any]:
    return (network.get_input(index) for index in range(network.num_inputs))


def _refused(faults: Sequence[Any], path: Path) -> ModelError:
    """What the parser says about the first thing that it cannot read, with the node that it is about."""
    if not faults:
        return ModelError("unsupported", f"TensorRT cannot read {path} and does not say why")
    first = faults[0]
    if first.code().name == "MODEL_DESERIALIZE_FAILED":
        return ModelError(
            "corrupt", f"TensorRT cannot read {path}: {first.desc()[:_SHOWN]}", hint="copy the model again"
        )
    operator, name = getattr(first, "node_operator", str)(), getattr(first, "node_name", str)()
    return ModelError(
        "unsupported",
        f"TensorRT cannot run {path}: node {first.node()} {name or 'without a name'} "
        f"({operator or 'unknown operator'}): {first.desc()[:_SHOWN]}",
        hint="export the model again with other operators, or leave it to onnxruntime",
    )


def _not_built(said: str, path: Path, dla: int | None) -> ModelError:
    if dla is not None and "DLA" in said:
        return ModelError(
            "placement_rejected",
            f"DLA {dla} cannot compute all of {path.name}: {said}",
            hint="run it on the GPU, or export it in INT8 with operators that the DLA has",
        )
    return ModelError(
        "prepare_failed", f"TensorRT has not built an engine of {path.name}: {said or 'it does not say why'}"
    )
