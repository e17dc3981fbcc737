"""Writes docs/reference/device-health.md from the tables: `python -m edged.ops.sensors.reference FILE`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edged.policy.governor import EASING, LADDER, LEVELS, RUNGS, SAMPLE_INTERVAL_S, STEP_HOLD_S, Cause, Level


class Source(NamedTuple):
    """One row: what, where it is read, what it gives, and when it is not known."""

    what: str
    where: str
    gives: str
    unknown: str
    verified: bool = False


SOURCES: tuple[Source, ...] = (
    Source(
        "thermal zones",
        "`/sys/class/thermal/thermal_zone*/{type,temp,trip_point_*}`",
        "temperature; the lowest passive, hot and critical trip point",
        "zone off or asleep; `PMIC…` zones, which tell a constant; limits below 40 °C, which stand for none",
    ),
    Source(
        "cooling devices",
        "`/sys/class/thermal/cooling_device*/{type,cur_state,max_state}`",
        "whether the kernel slows the box: processor, cpufreq, devfreq, powerclamp, Jetson's `*-throttle-alert`, "
        "`hot-surface-alert` and `*-balanced`; not fans",
        "state below zero",
    ),
    Source(
        "processor clock",
        "`/sys/devices/system/cpu/cpufreq/policy*/{scaling_cur_freq,scaling_max_freq,cpuinfo_max_freq}`",
        "the slowest cluster's present, allowed and full frequency",
        "virtual machines; a frequency of 0",
    ),
    Source(
        "throttle counters (Intel)",
        "`/sys/devices/system/cpu/cpu*/thermal_throttle/{core,package}_throttle_count`",
        "events since boot; growth between two samples is throttling",
        "other processors; a first sample",
    ),
    Source(
        "Raspberry Pi",
        "`/sys/devices/platform/soc/soc:firmware/get_throttled`, hwmon chip `rpi_volt`",
        "under-voltage, slowed now, ever since boot",
        "other boards, and kernels that have neither",
    ),
    Source(
        "chips and drives",
        "`/sys/class/hwmon/hwmon*/{name,temp*_input,temp*_label,temp*_max,temp*_crit}`",
        "temperature, high and critical limit; Intel's `coretemp` slows itself at its critical limit",
        "sensors that are not connected",
    ),
    Source(
        "Coral Edge TPU, PCIe",
        "`/sys/class/apex/apex_*/{temp,trip_point0..2_temp,hw_temp_warn1,hw_temp_warn2,…_en,status}`",
        "temperature, the three points at which its clock is stepped down, its own alarms where on, the driver's state",
        "the chip sleeps; the driver is not loaded",
    ),
    Source(
        "Coral Edge TPU, USB",
        "`/sys/bus/usb/devices/*/{idVendor,idProduct,speed}`: 1a6e:089a unopened, 18d1:9302 opened",
        "presence and the speed of its port",
        "its temperature, always: it tells none",
    ),
    Source(
        "NVIDIA GPU",
        "`libnvidia-ml.so.1` (NVML)",
        "temperature, slowdown and shutdown threshold, reasons for a lower clock, power, load, memory, uncorrected "
        "memory errors, repair pending or failed; a lost GPU is told as `gpu_is_lost`",
        "what a card does not support; no driver; the last Xid error, for which NVML must be waited on",
    ),
    Source(
        "NVIDIA Jetson",
        "`/sys/class/devfreq/*` of the GPU, `device/load`, `/sys/devices/gpu.0/load`, hwmon chip `soctherm_oc`",
        "load, present and allowed frequency of the GPU, over-current events; zones and alerts as above",
        "every box whose device tree does not name a Tegra",
    ),
    Source(
        "pressure (PSI)",
        "`/proc/pressure/{cpu,memory,io}`",
        "share of the last 10 s in which some or all tasks waited, and all waiting since boot",
        "kernels before 4.20, or started with `psi=0`",
        verified=True,
    ),
    Source(
        "memory",
        "`/proc/meminfo`",
        "what is available, of how much",
        "never, on Linux",
        verified=True,
    ),
    Source(
        "control group",
        "`/sys/fs/cgroup/…/{memory.current,memory.max,memory.high,memory.stat}`, ours and those above it",
        "room in the tightest one; files that the kernel may drop do not count as used",
        "no limit; control groups of version 1",
    ),
    Source("disk", "`statvfs` of the state folder", "free and total bytes", "the folder is gone", verified=True),
    Source(
        "eMMC",
        "`/sys/block/mmcblk*/device/{life_time,pre_eol_info}`",
        "used tenths of the rated life (1.1: exceeded), state of the spare blocks",
        "SD cards, NVMe and SATA drives",
    ),
)

FACTS: Mapping[str, tuple[str, str]] = {
    "throttle_margin_c": ("°C", "left before the hottest part slows itself"),
    "critical_margin_c": ("°C", "left before the hottest part is switched off"),
    "throttled": ("yes/no", "something is slowed by heat or its supply"),
    "memory_available_share": ("0–1", "memory that is left, of the box or of our control group"),
    "memory_some_avg10_percent": ("%", "of the last 10 s in which tasks waited for memory"),
    "disk_free_share": ("0–1", "free part of the disk"),
    "disk_free_bytes": (
        "bytes",
        "free on the disk; without limit on a file system below 4 GB, where the share says it",
    ),
    "store_room_days": (
        "days",
        "of results that the store can still take at today's rate; no limit while nothing has waited for 10 minutes",
    ),
    "backlog_age_s": (
        "s",
        "age of the oldest result that has not left: for the centre, else for the broker; since the start at most",
    ),
    "queue_deadline_ratio": (
        "×",
        "age of the oldest input that waits for a model over its deadline; of pipelines that keep up",
    ),
    "accelerator": (
        "state",
        "0 ok, 1 the next of the chain serves, 2 needs hands; unknown where no chain begins with one",
    ),
}


class Measure(NamedTuple):
    """One row: what a level takes, from whom, and where it is counted."""

    what: str
    reaches: str
    seen: str


MEASURES: tuple[Measure, ...] = (
    Measure(
        "rate",
        'pipelines with `input.may_slow = true`, or `policy = "latest"`: of each device this share of the windows is '
        "answered, evenly, the first one after a change always",
        "ledger `left_out`, reason `slowed`; `edged_left_out`; `share` of the pipeline in `edged status`; `degraded` "
        "in its results",
    ),
    Measure(
        "smaller model",
        "pipelines with `[pipeline.model.smaller]`: it answers once nothing of the other one is on its way",
        "`model`, `model_version` and `degraded` in its results",
    ),
    Measure(
        "summaries only",
        "`[upstream]` with the stream `result`, under heat or lack of memory: what is made from then on and has not "
        "left within a minute goes home as a summary by minute; what was made before, alarms and the plant's broker "
        "are not touched. Where only room presses, the store gives up by class, the oldest first (`store.md`)",
        "`tombstones` and `summaries` of the hub, reason `pressure`",
    ),
    Measure(
        "alarms only",
        "pipelines without `alarm`: no window is answered",
        "ledger `left_out`, reason `not_essential`; `edged_left_out`",
    ),
)

_HEAD = """# Device health

<!-- Written by `python -m edged.ops.sensors.reference docs/reference/device-health.md`; change the tables instead. -->

What the box says about itself, and how far the gateway steps back when it says that it is too much.

## What is read

Everything is read every %INTERVAL% s by small readers of our own from `/sys`, `/proc` and NVML, in a thread of its own
that nobody waits for: a sick driver may keep a read waiting, and then everything is unknown after 5 s until it returns.
Each reads a bounded number of devices. Nothing needs to be installed or configured. `edged status --json` and
`R/health` have the numbers under `device`, level, reasons, facts and what is unknown under `pressure`; the metrics are
`edged_device` and `edged_governor_level`. [`edged doctor`](doctor.md) says beforehand what will not be seen.

**Unknown is not ok and not zero.** A value that the box does not say is absent wherever it would be told. A temperature
below −60 °C or above 200 °C, a negative count, a share beyond the whole is unknown as well: sensors say such things
while they sleep. *Not verified on hardware* means that the reader follows what is known of the kernel's or the vendor's
interface and passes its tests on files, or a library, made for them, and no more.

| what | where | gives | unknown | verified |
|---|---|---|---|---|
"""

_LEVELS = f"""
## The ladder

One governor looks at everything that presses: heat, memory, disk, store, link, lateness, accelerator. It knows five
levels, and each includes what the ones above it give up:

| level | means | mode | rate | smaller model | summaries only | alarms only |
|---|---|---|---|---|---|---|
%LEVELS%
A reason is **entered** when its value has been at or past its threshold for the stated number of samples in a row, one
every {SAMPLE_INTERVAL_S} s, and takes the gateway to its level at once; the worst level wins. It **leaves** when its
value has been at or past the easier threshold for the holding time without a break. Then the level falls one step at a
time, each after {STEP_HOLD_S} s in which nothing asked for it; on the way the reason is `{EASING}`. So the level never
falls within {STEP_HOLD_S} s of its last change, and more pressure never means a lighter level. Holding times count on
the monotonic clock.

What is **unknown** raises nothing and lowers nothing: it is no sample, it restarts a holding time, and it is told as
unknown. A reason whose value has become unknown therefore stays until the value comes back or the daemon restarts.

Thresholds are planning figures, not measurements. Codes are never renamed.

What a level takes is taken only from what declares it, and counted:

| measure | reaches | where it is seen |
|---|---|---|
%MEASURES%
What is stored at all is stored at every level. After a restart what was left out is neither answered nor counted again.
The level is forgotten: the pressure is measured anew.

| reason | level | entered | samples | leaves | held for | means |
|---|---|---|---|---|---|---|
"""

_FACTS = """
## The facts

| fact | unit | means |
|---|---|---|
"""


def reference() -> str:
    """The whole page."""
    levels = "".join(_level(level) for level in LEVELS)
    return (
        _HEAD.replace("%INTERVAL%", str(SAMPLE_INTERVAL_S))
        + "".join(_source(source) for source in SOURCES)
        + _LEVELS.replace("%LEVELS%\n", levels + "\n").replace(
            "%MEASURES%\n", "".join(_row(*measure) for measure in MEASURES) + "\n"
        )
        + "".join(_cause(cause) for cause in LADDER)
        + _FACTS
        + "".join(f"| `{name}` | {unit} | {text} |\n" for name, (unit, text) in FACTS.items())
    )


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _source(source: Source) -> str:
    verified = "read on a running system" if source.verified else "not verified on hardware"
    return _row(source.what, source.where, source.gives, source.unknown, verified)


def _level(level: Level) -> str:
    meaning, mode, measures = RUNGS[level]
    wanted = ("yes" if each else "no" for each in measures[1:])
    return _row(f"`{level}`", meaning, f"`{mode}`", f"× {measures.rate_factor:g}", *wanted)


def _cause(cause: Cause) -> str:
    enters, leaves = ("≤", "≥") if cause.worse == "falls" else ("≥", "≤")
    return _row(
        f"`{cause.code}`",
        f"`{cause.level}`",
        f"`{cause.fact}` {enters} {cause.enter:,.9g}",
        str(cause.samples),
        f"{leaves} {cause.leave:,.9g}",
        f"{cause.hold_s} s",
        cause.text,
    )


def main(arguments: list[str]) -> None:
    """Write the page to the file given, or print it."""
    if arguments:
        Path(arguments[0]).write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
