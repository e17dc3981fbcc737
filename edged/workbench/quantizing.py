"""Graphs become smaller: clean-up, INT8 with QDQ nodes, FP16. The only place that knows the vendor's tools.

All of it works on files in a scratch folder, because the tools do.
"""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edged.workbench.onnx_model import STANDARD_DOMAINS, first_line, onnx_library
from edged.workbench.refusal import Unfit

Form = Literal["portable", "cpu"]
"""portable: int8 activations around zero, for every runtime, TensorRT included. cpu: uint8 activations with a zero
point, which lets processors fold ReLU into the convolution; TensorRT refuses it."""

# The arithmetic and what lies between it. Not Softmax and Sigmoid: 256 steps would be all that is left of a score.
QUANTIZED_OPERATORS = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "ConvTranspose", "Flatten", "Gemm", "GlobalAveragePool",
    "LeakyRelu", "MatMul", "MaxPool", "Mul", "Pad", "Relu", "Reshape", "Resize", "Slice", "Split", "Squeeze",
    "Transpose", "Unsqueeze",
)  # fmt: skip
_TARGET_OPSET = 17  # per-channel scales need 13; TensorRT 10, OpenVINO and onnxruntime all read 17
_MIN_OPSET = 13
_MIN_IR = 8
_DEQUANTIZED = "_DequantizeLinear_Output"  # what the quantiser appends to the name of the tensor it replaces


def clean(proto: Any, scratch: Path) -> Path:
    """A copy with a current opset, constants folded, normalisation folded into convolutions, and every shape inferred.

    Raises:
        Unfit: `old_opset` when it cannot be converted.
    """
    onnx = onnx_library()
    opset = max(entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS)
    weights = {tensor.name for tensor in proto.graph.initializer}
    inputs = [value for value in proto.graph.input if value.name not in weights]
    del proto.graph.input[:]  # before IR 4 weights stood among the inputs; as constants they can be folded
    proto.graph.input.extend(inputs)
    proto.ir_version = max(proto.ir_version, _MIN_IR)
    if opset < _MIN_OPSET:
        try:
            proto = onnx.version_converter.convert_version(proto, _TARGET_OPSET)
        # the converter raises whatever its operators raise; the file is fine and stays as it is
        except Exception as error:
            raise Unfit(
                "old_opset",
                f"opset {opset} cannot be converted to {_TARGET_OPSET}: {first_line(error)}",
                hint="export the model again with opset 13 or newer",
            ) from error
    source, cleaned = scratch / "source.onnx", scratch / "clean.onnx"
    onnx.save(proto, str(source))
    with _tools("cannot_clean") as tools:
        try:
            tools.quant_pre_process(str(source), str(cleaned))
        except Exception:  # noqa: BLE001 - symbolic inference gives up in many ways; plain inference finds enough
            tools.quant_pre_process(str(source), str(cleaned), skip_symbolic_shape=True)
    _flatten_biases(onnx, cleaned)
    return cleaned


def _flatten_biases(onnx: Any, path: Path) -> None:
    """A bias of (1, n) becomes (n): the same to Gemm, and what the quantiser takes it for without looking."""
    proto = onnx.load(str(path))
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    uses = [name for node in proto.graph.node for name in node.input]
    for node in proto.graph.node:
        bias = weights.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) == 3 else None
        if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1 and uses.count(bias.name) == 1:
            del bias.dims[0]
    onnx.save(proto, str(path))


def to_int8(cleaned: Path, inputs: Mapping[str, np.ndarray], to: Path, *, form: Form, batch: int) -> None:
    """QDQ with ranges from `inputs`: symmetric int8 weights per channel, activations as `form` says.

    batch: samples per call, the model's own where it is fixed. Raises `Unfit`: `cannot_quantize`.
    """
    with _tools("cannot_quantize") as tools:
        portable = form == "portable"
        tools.quantize_static(
            str(cleaned),
            str(to),
            _reader(tools, inputs, batch),
            quant_format=tools.QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTIZED_OPERATORS),
            per_channel=True,
            activation_type=tools.QuantType.QInt8 if portable else tools.QuantType.QUInt8,
            weight_type=tools.QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": portable,
                "WeightSymmetric": True,
                "QuantizeBias": not portable,  # TensorRT has no int32 to dequantise
            },
        )
    operators = {node.op_type for node in onnx_library().load(str(to)).graph.node}
    if "QuantizeLinear" not in operators:
        raise Unfit("nothing_to_quantize", f"no operator of the model can be quantised: {sorted(operators)}")


def to_fp16(cleaned: Path, to: Path) -> None:
    """Weights and arithmetic in float16; inputs and outputs stay float32. Raises `Unfit`: `cannot_convert`."""
    onnx = onnx_library()
    with _tools("cannot_convert"):
        from onnxruntime.quantization.onnx_model import ONNXModel
        from onnxruntime.transformers.float16 import convert_float_to_float16

        converted = ONNXModel(convert_float_to_float16(onnx.load(str(cleaned)), keep_io_types=True))
        converted.topological_sort()  # the casts of the inputs are appended at the end
        onnx.save(converted.model, str(to))


def stamp(path: Path, facts: Mapping[str, str]) -> None:
    """Write where a model comes from into the model itself; the tools' own marks go. Checks the whole graph.

    Raises:
        Unfit: `invalid_result` when the tools made something that breaks the rules.
    """
    onnx = onnx_library()
    proto = onnx.load(str(path))
    del proto.metadata_props[:]
    onnx.helper.set_model_props(proto, dict(facts))
    proto.producer_name, proto.producer_version = "edged", facts.get("edged.version", "")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        raise Unfit("invalid_result", f"the result breaks the rules of ONNX: {first_line(error)}") from error
    onnx.save(proto, str(path))


def with_layers(cleaned: Path, quantized: Path, scratch: Path, limit: int) -> tuple[Path, Path, dict[str, str]]:
    """Both models with inner tensors as further outputs: (float model, quantised model, float name → quantised name).

    limit: at most so many tensors, evenly spread over the graph.
    """
    onnx = onnx_library()
    wide, narrow = onnx.load(str(cleaned)), onnx.load(str(quantized))
    there = {name for node in narrow.graph.node for name in node.output}
    pairs = [(name, name + _DEQUANTIZED) for name in _inner(onnx, wide.graph) if name + _DEQUANTIZED in there]
    chosen = dict(pairs[:: max(1, -(-len(pairs) // limit))])
    first = _expose(onnx, wide, list(chosen), scratch / "layers-float.onnx")
    return first, _expose(onnx, narrow, list(chosen.values()), scratch / "layers-quantized.onnx"), chosen


def with_tensors(cleaned: Path, scratch: Path) -> Path:
    """The float model with every inner tensor as a further output."""
    onnx = onnx_library()
    proto = onnx.load(str(cleaned))
    return _expose(onnx, proto, _inner(onnx, proto.graph), scratch / "tensors.onnx")


def _inner(onnx: Any, graph: Any) -> list[str]:
    """Float tensors between input and output whose first axis is the batch."""
    shapes = {value.name: value.type.tensor_type for value in graph.value_info}
    batch = graph.input[0].type.tensor_type.shape.dim[0].dim_value  # 0: free
    found = []
    for name in (name for node in graph.node for name in node.output if name in shapes):
        axes = shapes[name].shape.dim
        if shapes[name].elem_type == onnx.TensorProto.FLOAT and axes and axes[0].dim_value == batch:
            found.append(name)
    return found


def _expose(onnx: Any, proto: Any, names: Sequence[str], to: Path) -> Path:
    """Make tensors of the graph outputs of the model."""
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    onnx.save(onnx.shape_inference.infer_shapes(proto), str(to))
    return to


def _reader(tools: Any, inputs: Mapping[str, np.ndarray], batch: int) -> Any:
    """The samples, `batch` at a time; a last incomplete batch is filled up with its own samples."""

    class Reader(tools.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._batches = iter(range(0, len(next(iter(inputs.values()))), batch))

        def get_next(self) -> dict[str, np.ndarray] | None:
            first = next(self._batches, None)
            return None if first is None else {name: _take(array, first, batch) for name, array in inputs.items()}

    return Reader()


def _take(array: np.ndarray, first: int, batch: int) -> np.ndarray:
    piece = array[first : first + batch]
    return np.ascontiguousarray(np.resize(piece, (batch, *array.shape[1:])) if len(piece) < batch else piece)


@contextmanager
def _tools(code: str) -> Iterator[Any]:
    """The vendor's package while it works: silent, and leaving no trace in this process. Failures become `code`."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded, so before the import
    search_path, handlers, disabled = list(sys.path), list(logging.root.handlers), logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # it advises on the root logger, and prints a traceback of what it tolerates
    try:
        try:
            import onnxruntime
            import onnxruntime.quantization as tools
            from onnxruntime.quantization import shape_inference
        except ImportError as error:
            raise Unfit(
                "toolchain_missing", f"Cannot quantise: {error}", hint="pip install 'edged[optimize]'"
            ) from error
        onnxruntime.set_default_logger_severity(4)
        tools.quant_pre_process = shape_inference.quant_pre_process
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield tools
    except Unfit:
        raise
    # The tools know neither an error family nor every graph: KeyError, AssertionError, AttributeError and their own.
    except Exception as error:
        raise Unfit(
            code,
            f"the tools gave up: {type(error).__name__}: {first_line(error)}",
            hint="the file is unharmed; export it with a current exporter, without control flow",
        ) from error
    finally:
        sys.path[:] = search_path
        _restore(logging.root, handlers)
        logging.disable(disabled)


def _restore(root: logging.Logger, handlers: Sequence[logging.Handler]) -> None:
    for handler in list(root.handlers):
        if handler not in handlers:
            root.removeHandler(handler)
