"""A model file becomes OpenVINO's graph, read by the frontend of its format and none other."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edged.errors import ModelError
from edged.infer.runtimes.openvino_library import ov_frontend
from edged.infer.tflite_file import read_declared
from edged.messages import TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edged.infer.affine import Affine
    from edged.infer.loading import ModelFile

FRONTENDS = {"onnx": "onnx", "tflite": "tflite", "tflite-edgetpu": "tflite"}

_DTYPES = {
    "f32": "float32",
    "f16": "float16",
    "i8": "int8",
    "i16": "int16",
    "i32": "int32",
    "i64": "int64",
    "u8": "uint8",
    "u16": "uint16",
    "u32": "uint32",
    "u64": "uint64",
    "boolean": "bool",
}


def read(model: ModelFile, data: bytes) -> tuple[Any, list[str], list[str], dict[str, Affine]]:
    """(graph, names of inputs, names of outputs, how quantised ones store reals).

    The frontend is named: left to itself the library tries seven, and TensorFlow's takes what is broken ONNX.
    """
    frontend = ov_frontend.FrontEndManager().load_by_framework(FRONTENDS[model.format])
    if model.format == "onnx":
        source = frontend.load(io.BytesIO(data))
        inputs = [place.get_names()[0] for place in source.get_inputs()]
        outputs = [place.get_names()[0] for place in source.get_outputs()]
        if not outputs:
            raise ModelError("corrupt", f"{model.path} holds no graph with an output", hint="copy the model again")
        return frontend.convert(source), inputs, outputs, {}
    declared = read_declared(model.path, data)
    with _as_file(data, ".tflite") as path:
        graph = frontend.convert(frontend.load(str(path)))
    affine = {each.name: each.affine for each in (*declared.inputs, *declared.outputs) if each.affine is not None}
    return graph, [each.name for each in declared.inputs], [each.name for each in declared.outputs], affine


@contextmanager
def _as_file(data: bytes, suffix: str) -> Iterator[Path]:
    """A path to these very bytes, in memory: this frontend takes paths only, and the file may have been swapped."""
    descriptor = os.memfd_create("model", os.MFD_CLOEXEC)
    try:
        with os.fdopen(descriptor, "wb", closefd=False) as file:
            file.write(data)
        with TemporaryDirectory(prefix="edged-model-") as folder:
            path = Path(folder, f"model{suffix}")
            path.symlink_to(f"/proc/self/fd/{descriptor}")
            yield path
    finally:
        os.close(descriptor)


def refuse_double(model: ModelFile, graph: Any) -> None:
    """Doubles would be computed as float32: 2.4e198 becomes 3.4e38, silently."""
    for node in graph.get_ops():
        if any(output.get_element_type().get_type_name() == "f64" for output in node.outputs()):
            raise ModelError(
                "unsupported",
                f"OpenVINO computes float64 as float32, and {model.path} needs float64 at {node.get_friendly_name()}",
                hint="export the model in float32, or run it with onnxruntime:cpu",
            )


def specs(
    model: ModelFile, names: Sequence[str], ports: Sequence[Any], affine: Mapping[str, Affine]
) -> tuple[TensorSpec, ...]:
    if [name for name, port in zip(names, ports, strict=False) if name in port.get_names()] != list(names):
        raise ModelError(
            "incompatible",
            f"{model.path.name} declares {list(names)}, left of it are {[sorted(port.get_names()) for port in ports]}",
            hint="remove inputs that nothing reads",
        )
    return tuple(_spec(model, name, port, name in affine) for name, port in zip(names, ports, strict=True))


def _spec(model: ModelFile, name: str, port: Any, quantised: bool) -> TensorSpec:
    kind = port.get_element_type().get_type_name()
    dtype = "float32" if quantised else _DTYPES.get(kind)
    shape = port.get_partial_shape()
    if dtype is None or shape.rank.is_dynamic:
        raise ModelError(
            "incompatible",
            f"{model.path.name}: {name} is {kind} {shape}; expected one of {sorted(_DTYPES.values())} with known axes",
        )
    return TensorSpec(name, dtype, tuple(-1 if axis.is_dynamic else axis.get_length() for axis in shape))
