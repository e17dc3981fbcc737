"""What a hardware class asks of a model: its size, and the form of INT8 that its runtimes want."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import NamedTuple

from edged.config.classes import CLASS_FOLDERS, known_classes
from edged.config.hardware import HardwareLimits
from edged.workbench.quantizing import Form
from edged.workbench.refusal import Unfit

_READS_ONNX = frozenset({"onnxruntime", "openvino", "tensorrt"})
_ZERO_POINTS_REFUSED = frozenset({"tensorrt"})


class Target(NamedTuple):
    """`name` empty: no class, for every runtime, with the limits of the defaults."""

    name: str
    chain: tuple[str, ...]
    model_bytes: int
    p99_ms: float

    @property
    def form(self) -> Form:
        runtimes = {rung.partition(":")[0] for rung in self.chain}
        return "cpu" if self.name and not runtimes & _ZERO_POINTS_REFUSED else "portable"


def find_target(name: str | None, folders: tuple[Path, ...] = CLASS_FOLDERS) -> Target:
    """The class of that name; None: no class.

    Raises:
        Unfit: `class_unknown`.
    """
    limits = HardwareLimits()
    if name is None:
        return Target("", (), limits.model_bytes, limits.p99_ms)
    classes = known_classes(folders)
    if name not in classes:
        raise Unfit("class_unknown", f"there is no hardware class {name!r}; known: {', '.join(sorted(classes))}")
    try:
        table = tomllib.loads(classes[name].read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise Unfit(
            "class_unreadable", f"Cannot read {classes[name]}: {error}", hint="edged check says more"
        ) from error
    found = table.get("limits", {})
    return Target(
        name,
        tuple(table.get("chain", ("onnxruntime:cpu",))),
        int(found.get("model_bytes", limits.model_bytes)),
        float(found.get("p99_ms", limits.p99_ms)),
    )


def refuse_without_onnx(target: Target) -> None:
    """A class whose runtimes read no ONNX has no use for what the optimiser makes.

    Raises:
        Unfit: `class_reads_no_onnx`.
    """
    runtimes = {rung.partition(":")[0] for rung in target.chain}
    if target.name and not runtimes & _READS_ONNX:
        raise Unfit(
            "class_reads_no_onnx",
            f"the class {target.name} runs {', '.join(target.chain)}, none of which reads ONNX",
            hint="quantise with the vendor's compiler, then edged model verify",
        )
