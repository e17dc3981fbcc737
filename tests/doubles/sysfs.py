"""Small trees of /sys and /proc: a box with the devices that a test wants, in a folder of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Self

Number = int | str
"""A string goes into the file as it is: garbage, or a number in another notation."""


class Box:
    """A box without any device; each call adds one. Temperatures are °C and written as the kernel does (m°C)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, path: str, content: Number) -> Self:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{content}\n", encoding="utf-8")
        return self

    def zone(self, number: int, name: str, celsius: float | str, *trips: tuple[str, float]) -> Self:
        """`trips`: (kind, °C) pairs."""
        folder = f"sys/class/thermal/thermal_zone{number}"
        self.write(f"{folder}/type", name).write(f"{folder}/temp", _milli(celsius))
        for index, (kind, trip) in enumerate(trips):
            self.write(f"{folder}/trip_point_{index}_type", kind)
            self.write(f"{folder}/trip_point_{index}_temp", _milli(trip))
        return self

    def cooling(self, number: int, name: str, state: Number, most: Number = 10) -> Self:
        folder = f"sys/class/thermal/cooling_device{number}"
        return self.write(f"{folder}/type", name).write(f"{folder}/cur_state", state).write(f"{folder}/max_state", most)

    def cpufreq(self, number: int, current_khz: Number, limit_khz: Number, full_khz: Number) -> Self:
        folder = f"sys/devices/system/cpu/cpufreq/policy{number}"
        self.write(f"{folder}/scaling_cur_freq", current_khz).write(f"{folder}/scaling_max_freq", limit_khz)
        return self.write(f"{folder}/cpuinfo_max_freq", full_khz)

    def throttle_counts(self, cpu: int, core: Number, package: Number) -> Self:
        folder = f"sys/devices/system/cpu/cpu{cpu}/thermal_throttle"
        return self.write(f"{folder}/core_throttle_count", core).write(f"{folder}/package_throttle_count", package)

    def raspberry(self, bits: str) -> Self:
        return self.write("sys/devices/platform/soc/soc:firmware/get_throttled", bits)

    def chip(self, number: int, name: str, **files: Number) -> Self:
        """A hwmon chip with the files given: temp1_input=45000, …"""
        folder = f"sys/class/hwmon/hwmon{number}"
        self.write(f"{folder}/name", name)
        for file, content in files.items():
            self.write(f"{folder}/{file}", content)
        return self

    def apex(self, number: int, celsius: float | str, *, alarms: bool = False, status: str = "ALIVE") -> Self:
        """With the driver's own limits: 85, 90, 95 °C and alarms at 100 °C that are off."""
        folder = f"sys/class/apex/apex_{number}"
        self.write(f"{folder}/temp", _milli(celsius)).write(f"{folder}/status", status)
        for index, trip in enumerate((85, 90, 95)):
            self.write(f"{folder}/trip_point{index}_temp", _milli(trip))
        for alarm in ("hw_temp_warn1", "hw_temp_warn2"):
            self.write(f"{folder}/{alarm}", 100_000).write(f"{folder}/{alarm}_en", int(alarms))
        return self

    def usb(self, port: str, vendor: str, product: str, speed: Number = 5000) -> Self:
        folder = f"sys/bus/usb/devices/{port}"
        self.write(f"{folder}/idVendor", vendor).write(f"{folder}/idProduct", product)
        return self.write(f"{folder}/speed", speed)

    def jetson(self, load: Number = 503, hertz: Number = 918_000_000, most: Number = 1_020_000_000) -> Self:
        """An Orin: its GPU is the devfreq node 17000000.gpu."""
        self.write("proc/device-tree/compatible", "nvidia,p3768-0000+p3767-0000\0nvidia,p3767-0000\0nvidia,tegra234\0")
        self.write("proc/device-tree/model", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super\0")
        gpu = "sys/class/devfreq/17000000.gpu"
        self.write(f"{gpu}/cur_freq", hertz).write(f"{gpu}/max_freq", most)
        return self.write(f"{gpu}/device/load", load)

    def processor(self, name: str, *words: str, cores: int = 4, arm: bool = False) -> Self:
        """/proc/cpuinfo with the instructions given."""
        block = "processor\t: {}\n" + ("" if arm else f"model name\t: {name}\n")
        block += f"{'Features' if arm else 'flags'}\t\t: fpu {' '.join(words)}\n"
        tail = f"\nModel\t\t: {name}\n" if arm else ""
        return self.write("proc/cpuinfo", "\n".join(block.format(core) for core in range(cores)) + tail)

    def pci(self, slot: str, vendor: int, device: int, base_class: int, driver: str = "") -> Self:
        """A device of PCI; base_class 0x03 is a display, 0x12 an accelerator."""
        folder = f"sys/bus/pci/devices/{slot}"
        self.write(f"{folder}/vendor", f"0x{vendor:04x}").write(f"{folder}/device", f"0x{device:04x}")
        self.write(f"{folder}/class", f"0x{base_class:02x}0000")
        if driver:
            (self.root / folder / "driver").symlink_to(f"../../../bus/pci/drivers/{driver}")
        return self

    def stalls(self, resource: str, some: Number, full: Number | None = None) -> Self:
        """Percent of the last 10 s; `full` None: a kernel that has no such line."""
        lines = [f"some avg10={some} avg60=0.00 avg300=0.00 total=1234"]
        if full is not None:
            lines.append(f"full avg10={full} avg60=0.00 avg300=0.00 total=567")
        return self.write(f"proc/pressure/{resource}", "\n".join(lines))

    def memory(self, available_kib: Number, total_kib: Number = 4_000_000) -> Self:
        return self.write("proc/meminfo", f"MemTotal: {total_kib} kB\nMemFree: 1 kB\nMemAvailable: {available_kib} kB")

    def group(self, path: str, current: Number, most: Number, high: Number = "max", droppable: Number = 0) -> Self:
        """A control group (version 2) with its limits in bytes; `in_group` puts us inside."""
        folder = f"sys/fs/cgroup/{path}".rstrip("/")
        self.write(f"{folder}/memory.current", current).write(f"{folder}/memory.max", most)
        self.write(f"{folder}/memory.high", high)
        return self.write(f"{folder}/memory.stat", f"anon 4096\nfile 8192\ninactive_file {droppable}")

    def in_group(self, path: str) -> Self:
        return self.write("proc/self/cgroup", f"0::/{path}")

    def emmc(self, number: int, life_time: str, pre_eol: str) -> Self:
        folder = f"sys/block/mmcblk{number}/device"
        return self.write(f"{folder}/life_time", life_time).write(f"{folder}/pre_eol_info", pre_eol)


def _milli(celsius: float | str) -> Number:
    return celsius if isinstance(celsius, str) else round(celsius * 1000)
