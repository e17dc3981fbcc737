"""What `edged doctor` looks at: the box, the runtimes in children of their own, the disk, the clock, the brokers."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from edged.cli.doctor_findings import (
    Disk,
    Finding,
    of_box,
    of_class,
    of_clock,
    of_disk,
    of_memory,
    of_runtimes,
    of_sensors,
)
from edged.config.classes import known_classes
from edged.config.hardware import HardwareClass
from edged.config.settings import Config
from edged.config.validate import validate
from edged.errors import ExitCode
from edged.infer.runtime import Probe
from edged.ops.clock import SystemClock, read_kernel_clock
from edged.ops.host import disk_free_bytes
from edged.ops.sensors.box import Accelerator, BoxParts, read_box
from edged.ops.sensors.nvml import Nvml
from edged.ops.sensors.report import DeviceReport, read_devices, readings
from edged.ops.sensors.watch import DeviceWatch
from edged.policy.fitting import Choice, choose

CONNECT_S = 3.0
PROBE_S = 20.0
PROBES_AT_ONCE = 2
FSYNCS = 8
_ON_PROCESSORS = ("onnxruntime:cpu", "openvino:cpu", "litert:cpu")
_NOT_ASKED = ("rules", "split")
_WITHOUT_DEVICE: Mapping[str, tuple[str, ...]] = {
    "nvidia_gpu": ("tensorrt:gpu", "onnxruntime:gpu"),
    "jetson": ("tensorrt:gpu",),
    "intel_gpu": ("openvino:gpu",),
    "intel_npu": ("openvino:npu",),
    "coral_usb": ("coral:usb",),
    "coral_pci": ("coral:pci",),
}


def _connect(host: str, port: int) -> None:
    with closing(socket.create_connection((host, port), CONNECT_S)):
        pass


class Eyes(NamedTuple):
    """How the world is looked at; tests put their own here.

    probe: asks a `runtime:device` in a child, in the thread that calls. connect: raises OSError when nobody answers.
    """

    probe: Callable[[str], Probe]
    root: Path = Path("/")
    nvml: Nvml | None = None
    connect: Callable[[str, int], None] = _connect
    class_files: Mapping[str, Path] | None = None
    patience_s: float = 5.0


class Examined(NamedTuple):
    """Everything that was found. device: the numbers that the box says."""

    choice: Choice
    findings: tuple[Finding, ...]
    runtimes: Mapping[str, Probe]
    device: Mapping[str, float]

    @property
    def exit_code(self) -> ExitCode:
        """That of the first problem; 0 without one."""
        return next((each.exit_code for each in self.findings if each.verdict == "problem"), ExitCode.OK)


def examine(config: Config | None, eyes: Eyes) -> Examined:
    """Look at everything once. Blocks, as long as the slowest probes take."""
    state_dir = Path(config.gateway.state_dir) if config is not None else None
    read = partial(read_devices, eyes.root, nvml=eyes.nvml, state_dir=state_dir)
    report = asyncio.run(DeviceWatch(read, eyes.patience_s).look())
    box = _with_gpus(read_box(eyes.root), report)
    choice = choose({each.kind for each in box.accelerators})
    known = _class(choice.name, eyes.class_files)
    chains = {pipeline.name: pipeline.model.chain for pipeline in config.pipelines} if config is not None else {}
    probes = _probed(_rungs(box, chains.values(), known), eyes.probe)
    findings = [
        *of_class(choice, box, config.gateway.hardware_class if config is not None else None, known),
        *of_box(box),
        *of_runtimes(probes, chains),
        *of_sensors(report),
        *of_memory(report),
        *(of_disk(look_at_disk(state_dir), config.store.budget_bytes) if config is not None and state_dir else ()),
        *of_clock(_clock()),
        *(_brokers(config, eyes.connect) if config is not None else ()),
    ]
    return Examined(choice, tuple(findings), probes, _numbers(report))


def _with_gpus(box: BoxParts, report: DeviceReport | None) -> BoxParts:
    """A container may hide the PCI bus and still have the GPUs that NVML tells."""
    told = report.nvidia.gpus if report is not None and report.nvidia is not None else ()
    if not told or box.found("nvidia_gpu", "jetson"):
        return box
    gpus = tuple(Accelerator("nvidia_gpu", gpu.name or "NVIDIA GPU", f"nvml {gpu.number}", "nvidia") for gpu in told)
    return box._replace(accelerators=(*box.accelerators, *gpus))


def _numbers(report: DeviceReport | None) -> Mapping[str, float]:
    return {} if report is None else readings(report)


def _class(name: str, files: Mapping[str, Path] | None) -> HardwareClass | None:
    """The class file, where it is installed and right."""
    file = (known_classes() if files is None else files).get(name)
    if file is None:
        return None
    try:
        found = validate(HardwareClass, tomllib.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError):  # `edged check` says what is wrong with it
        return None
    return found if isinstance(found, HardwareClass) else None


def _rungs(box: BoxParts, chains: Iterable[Iterable[str]], known: HardwareClass | None) -> list[str]:
    """Whom to ask: what is configured, what the class wants, what the devices found could use, and every processor."""
    wanted = [rung for chain in chains for rung in chain]
    wanted += known.chain if known is not None else ()
    wanted += [rung for each in box.accelerators for rung in _WITHOUT_DEVICE.get(each.kind, ())]
    return [rung for rung in dict.fromkeys((*wanted, *_ON_PROCESSORS)) if rung.partition(":")[0] not in _NOT_ASKED]


def _probed(rungs: Iterable[str], probe: Callable[[str], Probe]) -> dict[str, Probe]:
    names = list(rungs)
    with ThreadPoolExecutor(PROBES_AT_ONCE) as pool:
        return dict(zip(names, pool.map(probe, names), strict=True))


def _clock() -> str:
    kernel = read_kernel_clock()
    return "unknown" if kernel == "unknown" else SystemClock().quality()


def look_at_disk(folder: Path) -> Disk:
    """The state folder, with some small writes where they are allowed; nothing is left behind."""
    try:
        mode = folder.stat().st_mode
    except PermissionError:
        return Disk(str(folder), True, False, False, disk_free_bytes(folder), None)
    except OSError:
        return Disk(str(folder), False, False, False, disk_free_bytes(folder.parent), None)
    writable = os.access(folder, os.W_OK | os.X_OK)
    open_to_all = bool(mode & stat.S_IWOTH) and not mode & stat.S_ISVTX
    fsync_ms = _fsyncs(folder) if writable else None
    return Disk(str(folder), True, writable, open_to_all, disk_free_bytes(folder), fsync_ms)


def _fsyncs(folder: Path) -> tuple[float, ...] | None:
    clock = SystemClock()
    took = []
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            for _ in range(FSYNCS):
                began_ns = clock.mono_ns()
                file.write(bytes(4096))
                file.flush()
                os.fsync(file.fileno())
                took.append((clock.mono_ns() - began_ns) / 1e6)
    except OSError:
        return None
    return tuple(took)


def _brokers(config: Config, connect: Callable[[str, int], None]) -> Iterator[Finding]:
    """Whether somebody listens. User, password and rights are told by `edged status` of the running daemon."""
    yield from _listens("broker", config.broker.url, config.broker.host, config.broker.port, connect)
    if config.upstream is not None and config.upstream.url:
        yield from _listens("upstream", config.upstream.url, config.upstream.host, config.upstream.port, connect)


def _listens(area: str, url: str, host: str, port: int, connect: Callable[[str, int], None]) -> Iterator[Finding]:
    shown = f"{urlsplit(url).scheme}://{host}:{port}"
    try:
        connect(host, port)
    except OSError as error:
        text = f"nobody answers at {shown}: {error.strerror or error}"
        cure = "start it, or look at address, name resolution and firewall; the daemon starts and stores without it"
        yield Finding(area, "problem", text, cure, ExitCode.UNAVAILABLE)
    else:
        yield Finding(area, "ok", f"{shown} accepts connections; whether user and rights are right `edged status` says")
