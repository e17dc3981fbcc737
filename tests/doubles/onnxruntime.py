"""An onnxruntime with hardware that is not here: which providers it has, where it puts nodes, how its runs fail."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from onnxruntime.capi.onnxruntime_pybind11_state import Fail

CPU = "CPUExecutionProvider"
REFUSED = "nodes on the default CPU EP, but fallback to CPU EP has been explicitly disabled by the user."


class Kind(NamedTuple):
    name: str


class Hardware(NamedTuple):
    type: Kind
    vendor: str
    metadata: Mapping[str, str]


class EpDevice(NamedTuple):
    ep_name: str
    device: Hardware
    ep_metadata: Mapping[str, str]


class Node(NamedTuple):
    op_type: str
    name: str


class Part(NamedTuple):
    ep_name: str
    nodes: Sequence[Node]

    def get_nodes(self) -> Sequence[Node]:
        return self.nodes


class Port(NamedTuple):
    name: str
    type: str
    shape: Sequence[int | str]


def listed(provider: str, hardware: str, *, virtual: bool = False) -> EpDevice:
    """A device as a plug-in provider lists it."""
    metadata = {"is_virtual": "1"} if virtual else {}
    return EpDevice(provider, Hardware(Kind(hardware), "ACME", metadata), {"version": "9.9"})


class ForgedOptions:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.entries: dict[str, str] = {}
        self.devices: list[tuple[EpDevice, Mapping[str, str]]] = []
        self.intra_op_num_threads = self.inter_op_num_threads = self.log_severity_level = 0

    def add_session_config_entry(self, key: str, value: str) -> None:
        self.entries[key] = value

    def add_provider_for_devices(self, devices: Sequence[EpDevice], options: Mapping[str, str]) -> None:
        self.devices += [(device, options) for device in devices]


class ForgedRunOptions:
    def __init__(self) -> None:
        self.terminate = False


class ForgedLibrary:
    """Stands for the module `onnxruntime`.

    providers: compiled in. starts: whether they start when a session asks for them. devices: what plug-ins list.
    nodes: where the nodes of any model go. failures: what making a session raises, one after the other. runs: what a
    run raises or does, one after the other; then the sum of each row of x.
    """

    __version__ = "1.31.9"
    SessionOptions = ForgedOptions
    RunOptions = ForgedRunOptions

    def __init__(
        self,
        *,
        providers: Sequence[str] = (CPU,),
        starts: bool = True,
        devices: Sequence[EpDevice] = (),
        nodes: Sequence[Part] = (),
        failures: Sequence[Exception] = (),
        runs: Sequence[Exception | Callable[[], object]] = (),
        folder: Path | None = None,
    ) -> None:
        self.providers, self.starts, self.devices, self.nodes = list(providers), starts, list(devices), list(nodes)
        self.failures, self.runs = list(failures), list(runs)
        self.registered: list[tuple[str, str]] = []
        self.sessions: list[Session] = []
        self.preloaded = 0
        self.__file__ = os.fspath((folder or Path("/nowhere")) / "__init__.py")

    def get_available_providers(self) -> list[str]:
        return self.providers

    def get_ep_devices(self) -> list[EpDevice]:
        return [EpDevice(CPU, Hardware(Kind("CPU"), "ACME", {}), {}), *self.devices]

    def register_execution_provider_library(self, name: str, path: str) -> None:
        if path.endswith("broken.so"):
            raise Fail(f"Failed to load library {path}")
        if name in [known for known, _ in self.registered]:
            raise Fail(f"EP library is already registered under {name}")
        self.registered.append((name, path))

    def preload_dlls(self) -> None:
        print("Failed to load libcublasLt.so.13")
        self.preloaded += 1

    def InferenceSession(self, data: bytes, options: ForgedOptions, **more: Any) -> Session:  # noqa: N802
        if self.failures:
            raise self.failures.pop(0)
        asked = [name for name, _ in more.get("providers", ())] or [device.ep_name for device, _ in options.devices]
        on_cpu = not self.starts or any(part.ep_name == CPU for part in self.nodes)
        if on_cpu and asked != [CPU] and options.entries.get("session.disable_cpu_ep_fallback") == "1":
            raise Fail(REFUSED)
        session = Session(self, [*(asked if self.starts else []), CPU], options, more)
        self.sessions.append(session)
        return session


class Session:
    """y = sum of x's four columns, wherever that is said to be computed."""

    def __init__(
        self, library: ForgedLibrary, providers: list[str], options: ForgedOptions, more: Mapping[str, Any]
    ) -> None:
        self.library, self.options, self.more = library, options, more
        self._providers = providers
        self.fallback = True

    def disable_fallback(self) -> None:
        self.fallback = False

    def get_providers(self) -> list[str]:
        return self._providers

    def get_provider_graph_assignment_info(self) -> list[Part]:
        return self.library.nodes

    def get_inputs(self) -> list[Port]:
        return [Port("x", "tensor(float)", ["n", 4])]

    def get_outputs(self) -> list[Port]:
        return [Port("y", "tensor(float)", ["n"])]

    def run(self, names: object, batch: Mapping[str, np.ndarray], options: object = None) -> list[np.ndarray]:
        assert not self.fallback, "a run of this session would be repeated on the processor"
        if self.library.runs:
            step = self.library.runs.pop(0)
            if isinstance(step, Exception):
                raise step
            step()
        return [batch["x"].sum(axis=1)]
