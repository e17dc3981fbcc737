"""What `edged doctor` concludes from what it saw: one function per part of the box, all without waiting or looking."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from edged.config.hardware import HardwareClass
from edged.errors import ExitCode
from edged.infer.registry import EXTRAS
from edged.infer.runtime import Probe
from edged.ops.sensors.box import INT8, BoxParts
from edged.ops.sensors.facts import facts
from edged.ops.sensors.report import DeviceReport
from edged.policy.fitting import Choice
from edged.policy.governor import LADDER

Verdict = Literal["ok", "note", "problem", "unknown"]

SLOW_FSYNC_MS = 50.0
"""Beyond it every commit is felt: an event is acknowledged only after one."""

_BY_CORAL = "install libedgetpu.so.1 for this version of LiteRT; let the user edged open the device (group plugdev)"
_DEVICE_CURES: Mapping[str, str] = {
    "onnxruntime": "install the vendor's driver and libraries: docs/how-to/runtimes-onnxruntime.md",
    "openvino": "install the driver of the GPU or NPU, and: usermod -aG render edged",
    "coral": f"plug it in (USB 3); {_BY_CORAL}",
    "tensorrt": "install the NVIDIA driver and TensorRT: docs/how-to/runtimes-tensorrt.md",
}


class Finding(NamedTuple):
    """One line of the report. unknown: it could not be seen, which is neither good nor bad.

    exit_code: of `edged doctor`, for problems.
    """

    area: str
    verdict: Verdict
    text: str
    cure: str = ""
    exit_code: ExitCode = ExitCode.OK


class Disk(NamedTuple):
    """What was seen of the state folder. fsync_ms: of several writes, None: not allowed or not possible here."""

    folder: str
    exists: bool
    writable: bool
    others_may_write: bool
    free_bytes: int | None
    fsync_ms: tuple[float, ...] | None


def of_class(choice: Choice, box: BoxParts, configured: str | None, known: HardwareClass | None) -> Iterator[Finding]:
    """The class that fits, and whether it is the configured one. known: its file."""
    others = f"; it could also be {', '.join(choice.others)}" if choice.others else ""
    yield Finding("class", "ok", f"{choice.name} fits: {choice.why}{others}")
    if configured is not None and configured != choice.name:
        text = f"the configuration says {configured}"
        yield Finding("class", "note", text, f'set gateway.hardware_class = "{choice.name}", unless that is meant')
    if known is not None and box.memory_bytes is not None:
        planned = known.envelope.resident_bytes + known.limits.memory_bytes
        if planned > box.memory_bytes:
            text = f"the class plans with {_mb(planned)} MB, the box has {_mb(box.memory_bytes)} MB"
            yield Finding("class", "note", text, "lower hardware.limits.memory_bytes, or take a larger box")


def of_box(box: BoxParts) -> Iterator[Finding]:
    """The processor, and every device that could compute."""
    cores = f"{box.cores} cores" if box.cores is not None else "cores unknown"
    yield Finding("processor", "ok" if box.cpu else "unknown", f"{box.cpu or 'not told'}, {box.machine}, {cores}")
    fast = sorted(INT8 & set(box.instructions))
    if fast:
        yield Finding("processor", "ok", f"INT8 models run about twice as fast as float ones ({', '.join(fast)})")
    elif box.instructions:
        text = f"INT8 models gain little here: none of {', '.join(sorted(INT8))}"
        yield Finding("processor", "note", text, "compare with `edged model benchmark` before quantising")
    else:
        yield Finding("processor", "unknown", "its instructions are not told")
    for each in box.accelerators:
        if each.driver or each.kind in {"jetson", "coral_usb"}:
            yield Finding("accelerator", "ok", f"{each.name} ({each.where}{_by(each.driver)})")
        elif each.kind != "other_gpu":
            text = f"{each.name} ({each.where}) has no driver"
            yield Finding("accelerator", "note", text, "install its driver; until then nothing can use it")
    if box.found("hailo"):
        text = "a Hailo device needs a plug-in runtime"
        yield Finding("accelerator", "note", text, "docs/how-to/write-a-runtime.md")


def of_runtimes(probes: Mapping[str, Probe], chains: Mapping[str, Sequence[str]]) -> Iterator[Finding]:
    """Each runtime that was asked, and whether every configured chain has one that answers.

    chains: by pipeline. `rules` always answer; `split` is the centre's matter and not asked.
    """
    wanted = {rung for chain in chains.values() for rung in chain}
    for rung, probe in probes.items():
        yield _of_rung(rung, probe, wanted=rung in wanted)
    for pipeline, chain in chains.items():
        asked = [rung for rung in chain if rung in probes]
        usable = [rung for rung in asked if probes[rung].usable]
        if asked and not usable and "rules" not in chain:
            text = f"pipeline {pipeline}: no runtime of its chain is usable ({', '.join(chain)})"
            yield Finding("runtime", "problem", text, "install one of them, or change the chain", ExitCode.UNAVAILABLE)
        elif usable and usable[0] != asked[0]:
            text = f"pipeline {pipeline}: {usable[0]} will serve, {asked[0]} is not usable"
            yield Finding("runtime", "note", text, "see above")


def _of_rung(rung: str, probe: Probe, *, wanted: bool) -> Finding:
    """wanted: a configured chain names it."""
    if probe.usable:
        devices = ", ".join(dict.fromkeys(device.name for device in probe.devices if device.name))
        versions = ", ".join(f"{name} {version}" for name, version in probe.versions.items())
        told = "; ".join(filter(None, (versions, devices)))
        return Finding("runtime", "ok", f"{rung} is usable" + (f" ({told})" if told else ""))
    cure = cure_of(rung, probe.code)
    if not wanted and probe.code == "runtime_unavailable":  # a package that nobody asked for need not be installed
        cure = f"only if wanted: {cure}"
    return Finding("runtime", "note", f"{rung} is not usable: {probe.reason or probe.code}", cure)


def cure_of(rung: str, code: str) -> str:
    """What makes a runtime usable."""
    name = rung.partition(":")[0]
    install = f"pip install 'edged[{EXTRAS.get(name, name)}]'"
    if code in {"runtime_unavailable", "runtime_unknown"}:
        return f"{install}; {_BY_CORAL}" if name == "coral" else install
    return _DEVICE_CURES.get(name, "see docs/reference/runtime-errors.md")


def of_sensors(report: DeviceReport | None) -> Iterator[Finding]:
    """What the governor will be able to see here. Unknown is neither good nor bad."""
    if report is None:
        yield Finding("sensors", "unknown", "a sensor has not answered in time", "look for a sick driver in dmesg")
        return
    hot = [(zone.celsius, zone.name) for zone in report.zones if zone.celsius is not None]
    hot += [(each.celsius, f"{each.chip} {each.label}") for each in report.hwmon if each.celsius is not None]
    if hot:
        celsius, name = max(hot)
        yield Finding("sensors", "ok", f"{len(hot)} temperatures, the highest {celsius:.0f} °C ({name})")
    else:
        yield Finding("sensors", "unknown", "no temperature is told: heat cannot be seen before something slows")
    if report.nvidia is not None and report.nvidia.problem not in {None, "library_not_found"}:
        yield Finding("sensors", "unknown", f"NVML says {report.nvidia.problem}", "repair the NVIDIA driver")
    known = facts(report, report)._asdict()
    missing = [
        name for name in dict.fromkeys(cause.fact for cause in LADDER) if name in _BOX_FACTS and known[name] is None
    ]
    if missing:
        text = f"not known on this box: {', '.join(missing)}"
        yield Finding("sensors", "unknown", text, "nothing: what is unknown raises no reason and hides none")
    if any(zone for zone in report.flash if zone.reserve in {"warning", "urgent"}):
        yield Finding(
            "sensors", "note", "the eMMC has used up most of its spare blocks", "replace it: docs/how-to/flash-wear.md"
        )


_BOX_FACTS = frozenset(
    {
        "throttle_margin_c", "critical_margin_c", "throttled", "memory_available_share", "memory_some_avg10_percent",
    }
)  # fmt: skip


def of_memory(report: DeviceReport | None) -> Iterator[Finding]:
    if report is None or report.memory.available_share is None:
        yield Finding("memory", "unknown", "the box does not tell its memory")
        return
    memory, share = report.memory, report.memory.available_share
    text = f"{share:.0%} of the memory is free"
    if memory.group is not None:
        text += f", our control group may use {_mb(memory.group.limit_bytes)} MB"
    low = share <= 0.10
    yield Finding("memory", "note" if low else "ok", text, "close something, or take a larger box" if low else "")


def of_disk(disk: Disk, budget_bytes: int | None) -> Iterator[Finding]:
    """The state folder: there, ours, roomy, and as quick as commits need it."""
    if not disk.exists:
        text = f"{disk.folder} does not exist; the first start makes it, where it may"
        yield Finding("disk", "note", text, "as a service systemd makes it (StateDirectory=)")
    elif not disk.writable:
        text = f"{disk.folder} must not be written by this user"
        yield Finding("disk", "unknown", text, "run as the user edged: runuser -u edged -- edged doctor")
    if disk.exists and disk.others_may_write:
        text = f"{disk.folder} may be written by every user"
        yield Finding("disk", "problem", text, f"chmod o-w {disk.folder}", ExitCode.REFUSED)
    if disk.free_bytes is None:
        yield Finding("disk", "unknown", "the room on the disk is not told")
    elif budget_bytes is not None and disk.free_bytes < budget_bytes:
        text = f"{_mb(disk.free_bytes)} MB are free, store.budget_bytes is {_mb(budget_bytes)} MB"
        yield Finding("disk", "note", text, "fine when the store has grown already; else lower it, or make room")
    else:
        yield Finding("disk", "ok", f"{_mb(disk.free_bytes)} MB are free")
    if disk.fsync_ms is None:
        if disk.writable:
            yield Finding("disk", "problem", "a file could not be written", "dmesg; replace the medium", ExitCode.IO)
        else:
            yield Finding("disk", "unknown", "how long a commit takes cannot be measured without writing")
        return
    worst = max(disk.fsync_ms)
    slow = worst > SLOW_FSYNC_MS
    cure = "a better medium, or store.commit_linger_ms: docs/how-to/flash-wear.md" if slow else ""
    yield Finding("disk", "note" if slow else "ok", f"fsync takes {worst:.1f} ms at most of {len(disk.fsync_ms)}", cure)


def of_clock(quality: str) -> Iterator[Finding]:
    if quality == "synced":
        yield Finding("clock", "ok", "synchronised")
    elif quality == "unknown":
        yield Finding("clock", "unknown", "the kernel does not tell (a container?)")
    else:
        text = "not synchronised: times in results may be wrong, their order is not"
        yield Finding("clock", "note", text, "set up a time source: timedatectl, chrony")


def _by(driver: str) -> str:
    return f", driver {driver}" if driver else ""


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:,.0f}"
