"""What a runtime is: the plug-in point between `edged` and whatever computes. One file per vendor implements it.

Everything here is synchronous and may block: the caller decides in which thread or process it runs. A runtime never
falls back to anything: it computes on the device it was asked for, or it raises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from edged.infer.upstream import UpstreamAddress

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model

Isolation = Literal["thread", "process"]
HealthState = Literal["ok", "degraded", "failed", "unknown"]


class LoadOptions(NamedTuple):
    """What the hardware class decides about a session.

    threads: of one call on the processor. cache: folder for what `prepare` makes (engines), None: nothing is kept.
    upstream: who can be asked to compute, None: nobody.
    """

    threads: int = 1
    cache: Path | None = None
    upstream: UpstreamAddress | None = None


class Abilities(NamedTuple):
    """What a runtime declares about itself on one device, so that nobody has to guess.

    formats: of the model files it reads (`onnx`, `tflite`, `tflite-edgetpu`), the preferred one first.
    isolation: `process` where a call may hang, or the library may end the process (every accelerator).
    exclusive: only one process may hold the device, so that a successor starts after the old one has ended.
    prepares: `prepare` makes something that takes long (an engine); others get the model file back.
    concurrent: calls that may run at the same time on one loaded model.
    """

    formats: tuple[str, ...]
    isolation: Isolation = "thread"
    exclusive: bool = False
    prepares: bool = False
    concurrent: int = 1


class Device(NamedTuple):
    """A device that was found. Empty: unknown."""

    id: str
    kind: str
    name: str
    vendor: str = ""
    driver: str = ""
    serial: str = ""


class Probe(NamedTuple):
    """Can this runtime use this device here and now? `code`, `reason`: why not, as in `ModelError`."""

    usable: bool
    devices: tuple[Device, ...] = ()
    versions: Mapping[str, str] = MappingProxyType({})
    code: str = ""
    reason: str = ""


class DeviceHealth(NamedTuple):
    """`unknown` is neither ok nor failed: nobody looked, or nothing answers."""

    state: HealthState = "unknown"
    reasons: tuple[str, ...] = ()


class Runtime(Protocol):
    """One vendor's library. Entry points of the group `edged.runtimes` name an object like this, or just a `Loader`."""

    @property
    def name(self) -> str: ...

    def abilities(self, device: str) -> Abilities: ...

    def probe(self, device: str) -> Probe:
        """Look, without loading a model. May hang or end the process: the host asks in a child. Raises nothing."""

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Make ready what `load` needs and keep it in `options.cache`; nothing to do when it is there already.

        May take minutes. Raises ModelError (`prepare_failed`).
        """

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        """A loaded model, wholly on `device`. Raises ModelError; never computes elsewhere."""

    def health(self, device: str) -> DeviceHealth: ...


Loader = Callable[["ModelFile", str, LoadOptions], "Model"]
"""(model, device, options) -> a loaded model, or `ModelError`: the smallest runtime there is."""


class PlainRuntime(NamedTuple):
    """A runtime that is a loader and nothing more: it runs in a thread, needs no preparation and knows no health."""

    name: str
    loader: Loader
    declared: Abilities = Abilities(("onnx", "tflite"))

    def abilities(self, device: str) -> Abilities:
        return self.declared

    def probe(self, device: str) -> Probe:
        """It was imported; whether a device is there only a load can tell."""
        return Probe(True, (Device(device, device, f"{self.name}:{device}"),))

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        return self.loader(model, device, options)

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth()
