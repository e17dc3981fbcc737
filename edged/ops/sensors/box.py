"""What the box is made of, as far as models care: processor with its instructions, memory, GPUs, NPUs, Edge TPUs."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from edged.ops.sensors.coral import read_usb_tpus
from edged.ops.sensors.files import entries, text, whole
from edged.ops.sensors.jetson import read_jetson
from edged.ops.sensors.memory import read_memory

Kind = Literal["nvidia_gpu", "jetson", "coral_usb", "coral_pci", "intel_npu", "intel_gpu", "other_gpu", "hailo"]

_MOST_PCI = 1024
_CPUINFO_BYTES = 65_536
_INTEL, _NVIDIA, _GOOGLE_APEX, _HAILO = 0x8086, 0x10DE, 0x1AC1, 0x1E60
_DISPLAY, _ACCELERATOR = 0x03, 0x12  # base classes of PCI
_INSTRUCTIONS = (
    "avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8",
    "asimd", "asimddp", "i8mm",
)  # fmt: skip
INT8 = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})
"""Instructions with which INT8 models run about twice as fast as float ones."""


class Accelerator(NamedTuple):
    """A device that was found, whether its driver works or not. driver: of the kernel, "" when none holds it."""

    kind: Kind
    name: str
    where: str
    driver: str = ""


class BoxParts(NamedTuple):
    """cpu, cores, memory_bytes: None where the box does not say. instructions: those that matter to models."""

    machine: str
    cpu: str | None
    cores: int | None
    instructions: tuple[str, ...]
    memory_bytes: int | None
    accelerators: tuple[Accelerator, ...]

    def found(self, *kinds: Kind) -> tuple[Accelerator, ...]:
        return tuple(each for each in self.accelerators if each.kind in kinds)


def read_box(root: Path = Path("/")) -> BoxParts:
    """Read everything once; like the other readers it never raises for what the box lacks, and never opens a device."""
    cpuinfo = _cpuinfo(root)
    words = set((_field(cpuinfo, "flags", "Features") or "").split())
    cores = len(re.findall(r"^processor\s*:", cpuinfo, re.MULTILINE)) or None
    return BoxParts(
        machine=platform.machine(),
        cpu=_field(cpuinfo, "model name", "Model"),
        cores=cores,
        instructions=tuple(word for word in _INSTRUCTIONS if word in words),
        memory_bytes=read_memory(root).total_bytes,
        accelerators=tuple(_accelerators(root)),
    )


def _cpuinfo(root: Path) -> str:
    try:
        descriptor = os.open(root / "proc/cpuinfo", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(descriptor, _CPUINFO_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    finally:
        os.close(descriptor)


def _field(cpuinfo: str, *names: str) -> str | None:
    """The first line that has one of these names."""
    for name in names:
        found = re.search(rf"^{name}\s*:\s*(.+)$", cpuinfo, re.MULTILINE)
        if found:
            return found[1].strip()
    return None


def _accelerators(root: Path) -> Iterator[Accelerator]:
    jetson = read_jetson(root)
    if jetson is not None:
        yield Accelerator("jetson", jetson.model or "NVIDIA Tegra", "proc/device-tree")
    for device in sorted(entries(root / "sys/bus/pci/devices", "*", _MOST_PCI)):  # in their order: hexadecimal
        found = _of_pci(device)
        if found is not None:
            yield found
    for tpu in read_usb_tpus(root):
        yield Accelerator("coral_usb", "Coral USB accelerator", f"usb {tpu.port}")


def _of_pci(device: Path) -> Accelerator | None:
    vendor, code = whole(device / "vendor", 16), whole(device / "class", 16)
    if vendor is None or code is None:
        return None
    base = code >> 16
    driver = _driver(device)
    number = f"{vendor:04x}:{whole(device / 'device', 16) or 0:04x}"
    where = f"pci {device.name}"
    if vendor == _GOOGLE_APEX:
        return Accelerator("coral_pci", f"Coral PCIe {number}", where, driver)
    if vendor == _HAILO:
        return Accelerator("hailo", f"Hailo {number}", where, driver)
    if vendor == _NVIDIA and base == _DISPLAY:
        return Accelerator("nvidia_gpu", f"NVIDIA GPU {number}", where, driver)
    if vendor == _INTEL and base == _ACCELERATOR:
        return Accelerator("intel_npu", f"Intel NPU {number}", where, driver)
    if base == _DISPLAY:
        return Accelerator("intel_gpu" if vendor == _INTEL else "other_gpu", f"GPU {number}", where, driver)
    return None


def _driver(device: Path) -> str:
    """The kernel driver that holds a device: where its link points, or what its uevent says."""
    link = device / "driver"
    try:
        return link.readlink().name
    except OSError:  # none, or a file system without links
        found = re.search(r"^DRIVER=(\S+)$", text(device / "uevent") or "", re.MULTILINE)
        return found[1] if found else ""
