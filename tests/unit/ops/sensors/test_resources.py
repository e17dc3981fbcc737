"""Memory, pressure, disk and flash."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from edged.ops.sensors.disk import Disk, FlashWear, read_disk, read_flash
from edged.ops.sensors.memory import Group, Memory, read_memory
from edged.ops.sensors.pressure import Resource, Stalls, read_stalls
from tests.doubles.sysfs import Box

MIB = 1024 * 1024


def test_this_very_kernel_tells_pressure_memory_and_disk(tmp_path: Path) -> None:
    if not Path("/proc/pressure/memory").exists():
        pytest.skip("this kernel does not count pressure")
    for resource in get_args(Resource):
        found = read_stalls(Path("/"), resource)
        assert found is not None
        assert found.some_avg10_percent is not None
        assert found.some_total_us is not None
    memory, disk = read_memory(Path("/")), read_disk(tmp_path)
    assert memory.available_share is not None
    assert 0 < memory.available_share <= 1
    assert disk is not None
    assert disk.free_share is not None
    assert 0 < disk.free_share <= 1


def test_stalls_of_some_and_of_all_tasks(tmp_path: Path) -> None:
    Box(tmp_path).stalls("memory", "12.50", "3.25")
    assert read_stalls(tmp_path, "memory") == Stalls(12.5, 3.25, 1234, 567)


def test_an_older_kernel_has_no_line_for_all_tasks_of_the_processor(tmp_path: Path) -> None:
    Box(tmp_path).stalls("cpu", "0.00")
    assert read_stalls(tmp_path, "cpu") == Stalls(0.0, None, 1234, None)


def test_a_kernel_that_does_not_count_is_unknown(tmp_path: Path) -> None:
    assert read_stalls(tmp_path, "io") is None


@pytest.mark.parametrize("some", ["nan", "inf", "-1.00", "100.01", "", "x"])
def test_a_percentage_that_is_none_is_unknown(tmp_path: Path, some: str) -> None:
    Box(tmp_path).stalls("io", some)
    found = read_stalls(tmp_path, "io")
    assert found is not None
    assert found.some_avg10_percent is None


@pytest.mark.parametrize("total", ["-1", "1.5", "²"])
def test_a_total_that_is_no_count_is_unknown(tmp_path: Path, total: str) -> None:
    Box(tmp_path).write("proc/pressure/io", f"some avg10=1.00 total={total}\nfull garbage\n\n")
    assert read_stalls(tmp_path, "io") == Stalls(1.0, None, None, None)


def test_memory_of_the_box(tmp_path: Path) -> None:
    Box(tmp_path).memory(1_000_000, 4_000_000)
    found = read_memory(tmp_path)
    assert found == Memory(1_024_000_000, 4_096_000_000, None)
    assert found.available_share == 0.25


def test_memory_that_is_not_told_is_not_zero(tmp_path: Path) -> None:
    assert read_memory(tmp_path) == Memory(None, None, None)
    assert read_memory(tmp_path).available_share is None
    Box(tmp_path).memory("plenty", 0)
    assert read_memory(tmp_path).available_share is None


def test_a_control_group_counts_when_it_is_tighter_and_its_caches_do_not(tmp_path: Path) -> None:
    Box(tmp_path).memory(3_000_000).in_group("system.slice/edged.service").group(
        "system.slice/edged.service", current=300 * MIB, most=400 * MIB, droppable=100 * MIB
    )
    found = read_memory(tmp_path)
    assert found.group == Group(200 * MIB, 400 * MIB)
    assert found.available_share == 0.5


def test_the_tightest_of_all_groups_above_us_counts(tmp_path: Path) -> None:
    box = Box(tmp_path).in_group("a/b").group("a/b", 10 * MIB, "max").group("a", 90 * MIB, 500 * MIB, high=100 * MIB)
    box.group("", 90 * MIB, 1000 * MIB)
    assert read_memory(tmp_path).group == Group(90 * MIB, 100 * MIB)


def test_inside_a_container_our_group_is_the_root(tmp_path: Path) -> None:
    Box(tmp_path).in_group("../../elsewhere").group("", 64 * MIB, 128 * MIB)
    assert read_memory(tmp_path).group == Group(64 * MIB, 128 * MIB)


def test_a_group_of_no_limit_or_of_the_older_kind_is_none(tmp_path: Path) -> None:
    box = Box(tmp_path).write("proc/self/cgroup", "4:memory:/edged\n1:name=systemd:/")
    assert read_memory(tmp_path).group is None
    box.in_group("edged").group("edged", 5, "max")
    assert read_memory(tmp_path).group is None
    box.group("edged", "?", 100)
    assert read_memory(tmp_path).group is None


def test_a_group_beyond_its_limit_has_nothing_left_and_one_of_zero_is_not_divided_by(tmp_path: Path) -> None:
    assert Memory(None, None, Group(200, 100)).available_share == 0.0
    assert Memory(None, None, Group(0, 0)).available_share is None


def test_a_disk_that_is_gone_is_unknown(tmp_path: Path) -> None:
    assert read_disk(tmp_path / "gone") is None
    assert Disk(0, 0).free_share is None
    assert Disk(25, 100).free_share == 0.25


@pytest.mark.parametrize(
    ("life_time", "pre_eol", "expected"),
    [
        ("0x02 0x01", "0x01", FlashWear("mmcblk0", 0.2, "normal")),
        ("0x00 0x0a", "0x02", FlashWear("mmcblk0", 1.0, "warning")),
        ("0x0b 0x01", "0x03", FlashWear("mmcblk0", 1.1, "urgent")),
        ("0x00 0x00", "0x01", FlashWear("mmcblk0", None, "normal")),
        ("0xff", "0x01", FlashWear("mmcblk0", None, "normal")),
        ("worn", "0x01", FlashWear("mmcblk0", None, "normal")),
        ("0x03 0x00", "0x00", FlashWear("mmcblk0", 0.3, None)),
        ("0x03 0x00", "?", FlashWear("mmcblk0", 0.3, None)),
    ],
)
def test_an_emmc_tells_its_wear(tmp_path: Path, life_time: str, pre_eol: str, expected: FlashWear) -> None:
    Box(tmp_path).emmc(0, life_time, pre_eol)
    assert read_flash(tmp_path) == (expected,)


def test_a_card_that_tells_no_wear_is_left_out(tmp_path: Path) -> None:
    Box(tmp_path).write("sys/block/mmcblk1/size", 1000).write("sys/block/nvme0n1/size", 1000)
    assert read_flash(tmp_path) == ()
