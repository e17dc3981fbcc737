"""Runtime names become runtimes, imported only when a chain names them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from edged.errors import ModelError
from edged.infer.runtime import PlainRuntime, Runtime

ENTRY_POINT_GROUP = "edged.runtimes"

BUILT_IN: Mapping[str, str] = {
    "litert": "edged.infer.runtimes.litert_cpu:load",
    "onnxruntime": "edged.infer.runtimes.onnxruntime_cpu:load",
    "openvino": "edged.infer.runtimes.openvino_runtime:load",
}
EXTRAS: Mapping[str, str] = {"onnxruntime": "cpu"}
"""Names of extras that differ from the runtime's."""


def find_runtime(name: str) -> Runtime:
    """The runtime `name`: built in, else from the entry points `edged.runtimes`.

    Raises:
        ModelError: `runtime_unknown`; `runtime_unavailable` when its package is not installed or does not import.
    """
    target = BUILT_IN.get(name)
    try:
        if target is not None:
            module, _, attribute = target.partition(":")
            return _as_runtime(name, getattr(import_module(module), attribute))
        for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
            return _as_runtime(name, entry.load())
    except (ImportError, AttributeError, OSError) as error:  # OSError: a shared library of the vendor is missing
        raise ModelError(
            "runtime_unavailable",
            f"Cannot use the runtime {name!r}: {error}",
            hint=f"install its package: pip install 'edged[{EXTRAS.get(name, name)}]'",
        ) from error
    raise ModelError("runtime_unknown", f"There is no runtime {name!r}; built in: {', '.join(sorted(BUILT_IN))}, rules")


def _as_runtime(name: str, found: Any) -> Runtime:
    """A runtime as it is; a function is the loader of the smallest one."""
    runtime: Runtime = found if hasattr(found, "abilities") else PlainRuntime(name, found)
    return runtime
