"""The processor's clock and whether something holds it back: cpufreq, Intel's throttle counters, Raspberry Pi."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.files import count, entries

_MOST_POLICIES = 16
_MOST_PROCESSORS = 64
_CPU = "sys/devices/system/cpu"
_PI_FILE = "sys/devices/platform/soc/soc:firmware/get_throttled"
_PI_UNDER_VOLTAGE, _PI_CAPPED, _PI_THROTTLES, _PI_SOFT_LIMIT = 1, 2, 4, 8


class PiThrottled(NamedTuple):
    """What a Raspberry Pi's firmware says of this moment. `since_boot`: whether any of it was ever so."""

    under_voltage: bool
    slowed: bool
    since_boot: bool


class Processor(NamedTuple):
    """The slowest cluster decides each frequency (Hz). The counters run since boot; only their growth means something.

    `limit_hz` below `full_hz` alone is no throttling: an administrator or a power mode may want it so.
    """

    current_hz: int | None
    limit_hz: int | None
    full_hz: int | None
    core_throttle_events: int | None
    package_throttle_events: int | None
    pi: PiThrottled | None


def read_processor(root: Path) -> Processor:
    """One look at every frequency policy (at most 16) and processor (at most 64)."""
    policies = entries(root / _CPU / "cpufreq", "policy[0-9]*", _MOST_POLICIES)
    processors = entries(root / _CPU, "cpu[0-9]*", _MOST_PROCESSORS)
    cores = _known(count(cpu / "thermal_throttle/core_throttle_count") for cpu in processors)
    packages = _known(count(cpu / "thermal_throttle/package_throttle_count") for cpu in processors)
    return Processor(
        current_hz=_lowest_hz(policies, "scaling_cur_freq"),
        limit_hz=_lowest_hz(policies, "scaling_max_freq"),
        full_hz=_lowest_hz(policies, "cpuinfo_max_freq"),
        core_throttle_events=sum(cores) if cores else None,
        package_throttle_events=max(packages, default=None),  # every processor of a package tells the same number
        pi=_pi(root),
    )


def _lowest_hz(policies: list[Path], name: str) -> int | None:
    lowest_khz = min(_known(count(policy / name) for policy in policies), default=0)
    return lowest_khz * 1000 if lowest_khz > 0 else None


def _known(numbers: Iterable[int | None]) -> list[int]:
    return [number for number in numbers if number is not None]


def _pi(root: Path) -> PiThrottled | None:
    """Hexadecimal bits; the driver writes no 0x, copies of the firmware's tool do."""
    bits = count(root / _PI_FILE, 16)
    if bits is None:
        return None
    return PiThrottled(
        under_voltage=bool(bits & _PI_UNDER_VOLTAGE),
        slowed=bool(bits & (_PI_CAPPED | _PI_THROTTLES | _PI_SOFT_LIMIT)),
        since_boot=bits >> 16 != 0,
    )
