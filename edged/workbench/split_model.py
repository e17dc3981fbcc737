"""A model that can be cut: its cut points, the halves as files, and what the cut tensors look like on samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edged.errors import ModelError
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.infer.warmup import probe_inputs
from edged.sync.inference import ITEM_BYTES
from edged.workbench import rungs
from edged.workbench.arrays import Dataset, model_inputs
from edged.workbench.onnx_model import first_line, onnx_library, parse
from edged.workbench.refusal import Unfit, unfit
from edged.workbench.split_graph import CutPoint, cut_points, nodes_of

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model

_WEIGHTS_APART = 4  # version from which on weights need not be inputs, which those of a half are not
Arrays = Mapping[str, np.ndarray]


class Cuttable:
    """An ONNX model, parsed, with shapes inferred. `scratch`: a folder for halves. `points`: where it can be cut.

    Raises:
        Unfit: as `rungs.open_file` and `parse`; `not_onnx`.
    """

    def __init__(self, path: Path, scratch: Path) -> None:
        self.file: ModelFile = rungs.open_file(path)
        if self.file.format != "onnx":
            raise Unfit("not_onnx", f"{path} is {self.file.format}, expected ONNX", hint="split before compiling")
        onnx = onnx_library()
        proto = parse(self.file)
        try:
            proto = onnx.shape_inference.infer_shapes(proto)
        except (onnx.shape_inference.InferenceError, RuntimeError) as error:
            raise Unfit("invalid_graph", f"{path}: shapes cannot be inferred: {first_line(error)}") from error
        proto.ir_version = max(proto.ir_version, _WEIGHTS_APART)
        weights = {tensor.name for tensor in proto.graph.initializer}
        self.inputs = [value.name for value in proto.graph.input if value.name not in weights]
        self.outputs = [value.name for value in proto.graph.output]
        self._onnx = onnx
        self._proto = proto
        self._scratch = scratch
        kinds = {value.name: value.type.tensor_type.elem_type for value in proto.graph.value_info}
        self.points = tuple(
            point
            for point in cut_points(nodes_of(proto.graph), self.inputs, self.outputs)
            if self._travels(kinds.get(point.tensor, onnx.TensorProto.FLOAT))
        )

    def _travels(self, kind: int) -> bool:
        return str(self._onnx.helper.tensor_dtype_to_np_dtype(kind)) in ITEM_BYTES

    def whole(self, threads: int = 1) -> Model:
        return load(self.file, threads)

    def tensors(self, points: Sequence[CutPoint], samples: Sequence[Arrays]) -> list[dict[str, np.ndarray]]:
        """The cut tensors for each sample; what this runtime gives no tensor for is left out."""
        proto = self._onnx.ModelProto()
        proto.CopyFrom(self._proto)
        known = set(self.outputs)
        proto.graph.output.extend(
            self._onnx.ValueInfoProto(name=point.tensor) for point in points if point.tensor not in known
        )
        with closing(load(self._save(proto, "tensors.onnx"))) as model:
            found = [rungs.call(model, sample) for sample in samples]
        return [
            {point.tensor: np.asarray(each[point.tensor]) for point in points if point.tensor in each} for each in found
        ]

    def declare(self, tensors: Arrays) -> None:
        """Tell shapes that inference could not find: an extracted half must declare its ends."""
        graph = self._proto.graph
        known = {value.name for value in (*graph.value_info, *graph.output)}
        for name, array in tensors.items():
            if name not in known:
                kind = self._onnx.helper.np_dtype_to_tensor_dtype(array.dtype)
                graph.value_info.append(self._onnx.helper.make_tensor_value_info(name, kind, [None, *array.shape[1:]]))

    def half(self, name: str, inputs: Sequence[str], outputs: Sequence[str]) -> ModelFile:
        """One half as a checked file in the scratch folder. Raises `Unfit` (`cut_through`)."""
        try:
            extractor = self._onnx.utils.Extractor(self._proto)
            proto = extractor.extract_model(list(inputs), list(outputs))
            self._onnx.checker.check_model(proto)
        except (ValueError, KeyError, self._onnx.checker.ValidationError) as error:
            raise Unfit(
                "cut_through",
                f"{self.file.path.name} cannot be cut between {', '.join(inputs)} and {', '.join(outputs)}:"
                f" {first_line(error)}",
                hint="a loop or a branch reads across the cut; choose another tensor",
            ) from error
        return self._save(proto, name)

    def _save(self, proto: Any, name: str) -> ModelFile:
        path = self._scratch / name
        path.write_bytes(proto.SerializeToString())
        return rungs.open_file(path)


def load(file: ModelFile, threads: int = 1) -> Model:
    """On the processor, its batch axis as it is: inner tensors may have other first axes. Raises `Unfit`."""
    runtime, _, device = rungs.DEFAULT_RUNG.partition(":")
    try:
        return find_runtime(runtime).load(file, device, LoadOptions(threads=threads))
    except ModelError as error:
        raise unfit(error) from error


def samples_of(model: Model, data: Dataset | None, most: int) -> list[dict[str, np.ndarray]]:
    """Up to `most` calls' worth of inputs from the data set; one of a ramp where there is none.

    Raises:
        Unfit: as `model_inputs`; `too_few_samples` for one call of a model with a fixed batch.
    """
    specs = model.info.inputs
    batch = max([*(spec.shape[0] for spec in specs if spec.shape), 1])
    if data is None:
        return [probe_inputs(specs, batch)]
    arrays = model_inputs(data, [spec._replace(shape=(-1, *spec.shape[1:])) for spec in specs], besides=("labels",))
    count = min(len(array) for array in arrays.values()) // batch
    if not count:
        raise Unfit("too_few_samples", f"{data.path}: a call takes {batch} samples, there are fewer")
    return [
        {name: np.ascontiguousarray(array[at * batch : (at + 1) * batch]) for name, array in arrays.items()}
        for at in range(min(count, most))
    ]
