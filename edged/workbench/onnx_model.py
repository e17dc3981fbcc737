"""What an ONNX file says about itself, before anything runs it, and what in it keeps it from running elsewhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from edged.workbench.refusal import Unfit

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile

STANDARD_DOMAINS = frozenset({"", "ai.onnx"})
PREPROCESSING_DOMAINS = frozenset({"ai.onnx.ml"})
MIN_OPSET = 7  # the oldest that onnxruntime promises to run
NUMBERS = frozenset(
    {"float32", "float64", "float16", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool"}
)
_QUANTIZED = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


class Tensor(NamedTuple):
    """An input or output as declared. `shape`: None where the rank is unknown, -1 for a free axis."""

    name: str
    dtype: str
    shape: tuple[int, ...] | None


class Facts(NamedTuple):
    """`operators`: how many nodes of each kind, foreign ones with their domain. `metadata`: what tools left in it."""

    format: str
    size_bytes: int
    ir_version: int
    opset: int
    producer: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    operators: Mapping[str, int]
    parameters: int
    quantized: bool
    metadata: Mapping[str, str]


class Finding(NamedTuple):
    """Something about a model. fatal: it will not run, or not where it is meant to."""

    code: str
    detail: str
    fatal: bool


def onnx_library() -> Any:
    """The package `onnx`, of the extra `optimize`. Raises `Unfit` (`toolchain_missing`)."""
    try:
        import onnx
    except ImportError as error:
        raise Unfit(
            "toolchain_missing", f"Cannot look into models: {error}", hint="pip install 'edged[optimize]'"
        ) from error
    return onnx


def parse(file: ModelFile) -> Any:
    """The `onnx.ModelProto` of a checked file, itself checked. Raises `Unfit`: `corrupt`, `invalid_graph`."""
    onnx = onnx_library()
    data = file.read()
    try:
        proto = onnx.load_model_from_string(data)
    # protobuf's errors have no common base that its versions share, and the bytes may be anybody's
    except Exception as error:
        raise Unfit("corrupt", f"{file.path} is no ONNX model: {first_line(error)}", hint="copy it again") from error
    if not proto.graph.node or not proto.opset_import:
        raise Unfit("corrupt", f"{file.path} holds no graph: {len(data)} bytes", hint="copy the model again")
    try:
        onnx.checker.check_model(proto)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise Unfit(
            "invalid_graph",
            f"{file.path} breaks the rules of ONNX: {first_line(error)}",
            hint="export it again with a current exporter; operators of training or of old opsets are not supported",
        ) from error
    return proto


def read_facts(file: ModelFile, proto: Any = None) -> Facts:
    """What the file declares. Only its size and format for formats other than ONNX."""
    if file.format != "onnx":
        return Facts(file.format, file.size_bytes, 0, 0, "", (), (), {}, 0, False, {})
    onnx = onnx_library()
    proto = parse(file) if proto is None else proto
    graph = proto.graph
    weights = {tensor.name for tensor in graph.initializer}
    operators = Counter(_operator(node) for node in nodes(graph))
    return Facts(
        format="onnx",
        size_bytes=file.size_bytes,
        ir_version=proto.ir_version,
        opset=max((entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS), default=0),
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        inputs=tuple(_tensor(onnx, value) for value in graph.input if value.name not in weights),
        outputs=tuple(_tensor(onnx, value) for value in graph.output),
        operators=dict(operators.most_common()),
        parameters=sum(_size(tensor.dims) for tensor in graph.initializer),
        quantized=any(name in _QUANTIZED or "QLinear" in name or "Integer" in name for name in operators),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
    )


def find_problems(facts: Facts, *, max_bytes: int) -> list[Finding]:
    """What is wrong with a model, or unusual, by its declarations and its size. Pure."""
    found = []
    if facts.size_bytes > max_bytes:
        found.append(Finding("too_large", f"{facts.size_bytes} bytes, the class allows {max_bytes}", fatal=True))
    if facts.format != "onnx":
        return found
    if facts.opset < MIN_OPSET:
        found.append(Finding("old_opset", f"opset {facts.opset}, expected {MIN_OPSET} or newer", fatal=True))
    foreign = sorted({name.split("::")[0] for name in facts.operators if "::" in name} - PREPROCESSING_DOMAINS)
    if foreign:
        kinds = sorted(name for name in facts.operators if name.split("::")[0] in foreign)
        found.append(Finding("custom_operators", f"only their own library runs {', '.join(kinds)}", fatal=True))
    for tensor in (*facts.inputs, *facts.outputs):
        found += _tensor_problems(tensor)
    return found


def _tensor_problems(tensor: Tensor) -> Iterator[Finding]:
    if tensor.dtype not in NUMBERS:
        yield Finding("unsupported_dtype", f"{tensor.name} is {tensor.dtype}, expected a tensor of numbers", fatal=True)
    if tensor.shape is None:
        yield Finding("unknown_shape", f"{tensor.name} declares no shape", fatal=False)
    elif not tensor.shape:
        yield Finding("no_batch_axis", f"{tensor.name} is a scalar, expected a batch axis first", fatal=True)
    elif -1 in tensor.shape[1:]:
        yield Finding("free_axes", f"{tensor.name} is {tensor.shape}: engines need each of them fixed", fatal=False)


def first_line(error: object) -> str:
    """What a library said, short enough to read and without its build paths."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r"/\S*/(?=\S)", "", text.splitlines()[0])[:300]


def nodes(graph: Any) -> Iterator[Any]:
    """Every node, those of loops and branches included."""
    pending = [graph]
    while pending:
        current = pending.pop()
        for node in current.node:
            yield node
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    pending.append(attribute.g)
                pending.extend(attribute.graphs)


def _operator(node: Any) -> str:
    return node.op_type if node.domain in STANDARD_DOMAINS else f"{node.domain}::{node.op_type}"


def _tensor(onnx: Any, value: Any) -> Tensor:
    if not value.type.HasField("tensor_type"):
        return Tensor(value.name, value.type.WhichOneof("value") or "nothing", None)
    kind = value.type.tensor_type
    try:
        dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    except (KeyError, ValueError, TypeError):
        dtype = f"type {kind.elem_type}"
    if not kind.HasField("shape"):
        return Tensor(value.name, dtype, None)
    axes = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim)
    return Tensor(value.name, dtype, axes)


def _size(dims: Sequence[int]) -> int:
    size = 1
    for axis in dims:
        size *= axis
    return size
