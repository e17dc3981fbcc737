"""Runtime names become loaders, imported only when a chain names them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import ModelError

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model

ENTRY_POINT_GROUP = "edged.runtimes"

BUILT_IN: Mapping[str, str] = {
    "litert": "edged.infer.runtimes.litert_cpu:load",
    "onnxruntime": "edged.infer.runtimes.onnxruntime_cpu:load",
    "openvino": "edged.infer.runtimes.openvino_runtime:load",
}


class LoadOptions(NamedTuple):
    """What the hardware class decides about a session."""

    threads: int = 1


Loader = Callable[["ModelFile", str, LoadOptions], "Model"]
"""(model, device, options) -> a loaded model, or `ModelError`."""


def find_loader(name: str) -> Loader:
    """The loader of the runtime `name`: built in, else from the entry points `edged.runtimes`.

    Raises:
        ModelError: `runtime_unknown`; `runtime_unavailable` when its package is not installed or does not import.
    """
    target = BUILT_IN.get(name)
    try:
        if target is not None:
            module, _, attribute = target.partition(":")
            loader: Loader = getattr(import_module(module), attribute)
            return loader
        for entry in entry_points(group=ENTRY_POINT_GROUP, name=name):
            plugin: Loader = entry.load()
            return plugin
    except (ImportError, AttributeError, OSError) as error:  # OSError: a shared library of the vendor is missing
        raise ModelError(
            "runtime_unavailable",
            f"Cannot use the runtime {name!r}: {error}",
            hint=f"install its package: pip install 'edged[{'cpu' if name == 'onnxruntime' else name}]'",
        ) from error
    raise ModelError("runtime_unknown", f"There is no runtime {name!r}; built in: {', '.join(sorted(BUILT_IN))}, rules")
