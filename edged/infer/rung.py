"""One `runtime:device` of a chain: loaded, directly or in a process of its own, its batch axis free."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edged.errors import ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.registry import find_runtime
from edged.infer.runtime import Abilities, LoadOptions, Runtime

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model

PREPARE_S = 3600.0  # an engine for a large model takes tens of minutes on a small accelerator

Find = Callable[[str], Runtime]


class Hosting(Protocol):
    """Who runs models in processes of their own (`edged.infer.hosting`)."""

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> Model: ...

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None: ...


class Loading(NamedTuple):
    """What loading a rung needs besides its name and its file. hosting None: everything runs in this process."""

    options: LoadOptions = LoadOptions()
    find: Find = find_runtime
    hosting: Hosting | None = None


def device_of(rung: str) -> str:
    """`cpu` for `onnxruntime:cpu` and for a runtime without a device."""
    return rung.partition(":")[2] or "cpu"


def is_processor(rung: str) -> bool:
    """Whether the rung computes on the processor, by whatever provider (`openvino-cpu`): no accelerator."""
    return device_of(rung) == "cpu" or device_of(rung).endswith("-cpu")


def abilities_of(rung: str, find: Find) -> Abilities | None:
    """What the runtime declares; None when it cannot be asked."""
    try:
        return find(rung.partition(":")[0]).abilities(device_of(rung))
    except ModelError:
        return None


def load_rung(rung: str, file: ModelFile, options: LoadOptions, find: Find, hosting: Hosting | None = None) -> Model:
    """Load `file` on one `runtime:device`, its batch axis freed. Raises `ModelError`."""
    try:
        model = _loaded(rung, file, options, find(rung.partition(":")[0]), hosting)
    except ModelError:
        raise
    # A plug-in may raise what its contract forbids; one bad rung must not keep the next from serving.
    except Exception as error:
        raise ModelError("load_failed", f"{rung}: unexpected {type(error).__name__}: {error}") from error
    try:
        return free_batch(model)
    except ModelError:
        model.close()
        raise


def _loaded(rung: str, file: ModelFile, options: LoadOptions, runtime: Runtime, hosting: Hosting | None) -> Model:
    device = device_of(rung)
    abilities = runtime.abilities(device)
    form = file.form_for(abilities.formats)
    hosted = hosting if abilities.isolation == "process" else None

    def attempt() -> Model:
        if abilities.prepares and hosted is not None:
            hosted.prepare(rung, form, options, PREPARE_S)
        elif abilities.prepares:
            runtime.prepare(form, device, options)
        return hosted.load(rung, form, options) if hosted is not None else runtime.load(form, device, options)

    try:
        return attempt()
    except ModelError as error:
        if error.code != "engine_stale":
            raise
    return attempt()
