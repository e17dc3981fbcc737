"""A model in two halves on disk: `split.json`, `head.onnx`, `tail.onnx` in the folder `NAME.split` beside `NAME.onnx`.

The tail belongs to the hub, the head and `split.json` to the gateway. Digests bind all of them to the whole model; in a
bundle the manifest must list `split.json`, so that whoever vouches for the bundle vouches for the halves.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from edged.errors import ModelError
from edged.infer.loading import MANIFEST_NAME, MAX_MANIFEST_BYTES, ModelFile, open_model, read_bounded
from edged.messages import TensorSpec
from edged.sync.inference import FLOATS
from edged.sync.tensors import Range

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION = "edged.split/1"
PLAN_NAME, HEAD_NAME, TAIL_NAME = "split.json", "head.onnx", "tail.onnx"
FOLDER_SUFFIX = ".split"
MAX_PLAN_BYTES = 1_000_000


class HalfFile(msgspec.Struct, frozen=True):
    """One file by its digest."""

    file: str
    sha256: str
    bytes: int


class Cut(msgspec.Struct, frozen=True):
    """The tensor between the halves, and how it travels. scale, zero_point: of the samples, for coding `u8`."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    coding: Literal["u8", "plain"]
    scale: float = 1.0
    zero_point: int = 0

    @property
    def range(self) -> Range | None:
        """None where nothing is quantised."""
        return Range(self.scale, self.zero_point) if self.coding == "u8" and self.dtype in FLOATS else None


class Tensor(msgspec.Struct, frozen=True):
    """An input or output, as in `TensorSpec`."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Plan(msgspec.Struct, frozen=True):
    """`split.json`. inputs, outputs: of the whole model. verified: what was compared, and how it came out."""

    v: str
    whole: HalfFile
    head: HalfFile
    tail: HalfFile
    cut: Cut
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    verified: dict[str, Any] = {}

    @property
    def input_specs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in self.inputs)

    @property
    def output_specs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(each.name, each.dtype, each.shape) for each in self.outputs)


class _Listed(msgspec.Struct, frozen=True):
    path: str
    sha256: str
    size: int


class _Manifest(msgspec.Struct, frozen=True):
    files: list[_Listed]


def folder_of(model: Path) -> Path:
    """Where the halves of a model file lie."""
    return model.with_name(model.stem + FOLDER_SUFFIX)


def read_plan(model: ModelFile) -> Plan:
    """The plan beside a checked model, itself checked.

    Raises:
        ModelError: `incompatible` there is none, or it is not about this model; `unsigned` a bundle that does not list
            it; `digest_mismatch`; `corrupt`.
    """
    path = folder_of(model.path) / PLAN_NAME
    data = _read(model, path)
    try:
        plan = msgspec.json.decode(data, type=Plan)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError("corrupt", f"Refusing {path}: {error}", hint="make it again: edged model split") from None
    if plan.v != VERSION:
        raise ModelError("incompatible", f"Refusing {path}: expected v = {VERSION!r}, got {plan.v[:40]!r}")
    cut = plan.cut
    if not (math.isfinite(cut.scale) and cut.scale > 0 and 0 <= cut.zero_point <= 255):
        raise ModelError("corrupt", f"Refusing {path}: scale {cut.scale}, zero point {cut.zero_point}")
    if plan.whole.sha256 != model.sha256:
        raise ModelError(
            "incompatible",
            f"Refusing {path}: it splits a model with sha256 {plan.whole.sha256[:64]}, this one has {model.sha256}",
            hint=f"split it again: edged model split {model.path.name} --at {plan.cut.name} --out {path.parent.name}",
        )
    return plan


def open_head(model: ModelFile, plan: Plan) -> ModelFile:
    """The head as a checked model file. Raises `ModelError`: as loading, `digest_mismatch`."""
    path = folder_of(model.path) / HEAD_NAME
    head = open_model(path, allow_unsigned=True, max_bytes=max(plan.head.bytes, 1), version=model.version)
    if head.sha256 != plan.head.sha256:
        raise ModelError(
            "digest_mismatch",
            f"Refusing {path}: {PLAN_NAME} says sha256 {plan.head.sha256[:64]}, got {head.sha256}",
            hint="copy the folder again",
        )
    return head._replace(model_id=f"{model.model_id}-head")


def _read(model: ModelFile, path: Path) -> bytes:
    """The bytes of the plan; in a bundle only those that its manifest lists."""
    manifest = model.path.with_name(MANIFEST_NAME)
    try:
        if not manifest.is_file():
            with path.open("rb") as file:
                data = file.read(MAX_PLAN_BYTES + 1)
            if len(data) > MAX_PLAN_BYTES:
                raise ModelError("corrupt", f"Refusing {path}: more than {MAX_PLAN_BYTES} bytes")
            return data
        listed = _listed(manifest).get(f"{path.parent.name}/{path.name}")
    except OSError as error:
        raise ModelError(
            "incompatible",
            f"Cannot split {model.path.name}: reading {path}: {error.strerror}",
            hint=f"edged model split {model.path.name} --at TENSOR --out {path.parent.name}",
        ) from error
    if listed is None:
        raise ModelError("unsigned", f"Refusing {path}: {manifest} does not list it", hint="add it to the bundle")
    return read_bounded(path, listed.sha256, MAX_PLAN_BYTES)


def _listed(manifest: Path) -> Mapping[str, _Listed]:
    with manifest.open("rb") as file:
        data = file.read(MAX_MANIFEST_BYTES)
    try:
        return {entry.path: entry for entry in msgspec.json.decode(data, type=_Manifest).files}
    except (msgspec.DecodeError, RecursionError) as error:
        raise ModelError("bad_manifest", f"Refusing {manifest}: {error}") from None
