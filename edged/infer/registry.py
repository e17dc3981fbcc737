"""Runtime names become runtimes, imported only when a chain names them."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from edged.errors import ModelError
from edged.infer.runtime import PlainRuntime, Runtime

ENTRY_POINT_GROUP = "edged.runtimes"

BUILT_IN: Mapping[str, str] = {
    "coral": "edged.infer.runtimes.coral:RUNTIME",
    "litert": "edged.infer.runtimes.litert_cpu:RUNTIME",
    "onnxruntime": "edged.infer.runtimes.onnxruntime_runtime:RUNTIME",
    "openvino": "edged.infer.runtimes.openvino_runtime:RUNTIME",
    "tensorrt": "edged.infer.runtimes.tensorrt_native:RUNTIME",
    "split": "edged.infer.split:RUNTIME",
}
EXTRAS: Mapping[str, str] = {"onnxruntime": "cpu"}
"""Names of extras that differ from the runtime's."""


def find_runtime(name: str) -> Runtime:
    """The runtime `name`: built in, or from the entry points `edged.runtimes`; never one of two that share the name.

    Raises:
        ModelError: `runtime_unknown`; `runtime_unavailable` when its package is not installed or does not import, or
            when several claim the name.
    """
    built_in = BUILT_IN.get(name)
    plugins = {_described(entry): entry for entry in entry_points(group=ENTRY_POINT_GROUP, name=name)}
    claims = [*([f"edged itself ({built_in})"] if built_in is not None else []), *sorted(plugins)]
    if len(claims) > 1:
        raise ModelError(
            "runtime_unavailable",
            f"Cannot use the runtime {name!r}: {len(claims)} claim this name: {', '.join(claims)}",
            hint="uninstall all but one, or give a plug-in's entry point another name",
        )
    try:
        if built_in is not None:
            module, _, attribute = built_in.partition(":")
            return _as_runtime(name, getattr(import_module(module), attribute))
        for entry in plugins.values():
            return _as_runtime(name, entry.load())
    # Importing is the vendor's or a plug-in's own code, which may raise anything; the chain goes on with its next rung.
    except Exception as error:
        extra = f"pip install 'edged[{EXTRAS.get(name, name)}]'"
        raise ModelError(
            "runtime_unavailable",
            f"Cannot use the runtime {name!r}: {error}",
            hint=f"install its package: {extra}" if built_in is not None else "install its package again",
        ) from error
    raise ModelError("runtime_unknown", f"There is no runtime {name!r}; built in: {', '.join(sorted(BUILT_IN))}, rules")


def _described(entry: EntryPoint) -> str:
    """Who claims a name: the package and what it points to."""
    return f"{entry.dist.name if entry.dist is not None else 'a package'} ({entry.value})"


def _as_runtime(name: str, found: Any) -> Runtime:
    """A runtime as it is; a function is the loader of the smallest one."""
    runtime: Runtime = found if hasattr(found, "abilities") else PlainRuntime(name, found)
    return runtime
