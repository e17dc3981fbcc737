"""What the box says about itself; what it does not say is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.ops.host import HostHealth, disk_free_bytes, folder_bytes, read_host


def write(root: Path, **files: str) -> Path:
    """Files below root; `__` in a name is a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_this_very_machine_says_how_much_memory_we_use(tmp_path: Path) -> None:
    found = read_host(tmp_path)
    assert found.rss_bytes is not None
    assert 10_000_000 < found.rss_bytes < 10**11
    assert found.disk_free_bytes is not None


def test_everything_is_read_below_the_given_root(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__self__statm="100 50 1 1 0 1 0\n",
        proc__meminfo="MemTotal: 8 kB\nMemAvailable:    2048 kB\n",
        proc__loadavg="0.25 0.1 0.0 1/2 3\n",
        sys__class__thermal__thermal_zone0__temp="41000\n",
        sys__class__thermal__thermal_zone1__temp="55500\n",
    )
    found = read_host(tmp_path, root=root)
    assert found.rss_bytes is not None
    assert found.rss_bytes % 50 == 0
    assert found._replace(rss_bytes=0, disk_free_bytes=0) == HostHealth(0, 2048 * 1024, 0, 55.5, 0.25)


def test_a_box_that_says_nothing_is_unknown_not_zero(tmp_path: Path) -> None:
    assert read_host(tmp_path / "gone", root=tmp_path) == HostHealth(None, None, None, None, None)


def test_garbage_is_unknown_as_well(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        proc__self__statm="x",
        proc__meminfo="MemAvailable: many\n",
        proc__loadavg="",
        sys__class__thermal__thermal_zone0__temp="\n",
    )
    assert read_host(tmp_path / "gone", root=root) == HostHealth(None, None, None, None, None)


@pytest.mark.parametrize("implausible", ["-127000", "999000"])
def test_a_sleeping_sensor_does_not_hide_the_others(tmp_path: Path, implausible: str) -> None:
    root = write(
        tmp_path,
        sys__class__thermal__thermal_zone0__temp=implausible,
        sys__class__thermal__thermal_zone1__temp="asleep",
        sys__class__thermal__thermal_zone2__temp="40000",
    )
    assert read_host(tmp_path, root=root).temperature_c == 40.0


def test_a_kernel_without_that_line_does_not_say_how_much_memory_is_left(tmp_path: Path) -> None:
    assert read_host(tmp_path, root=write(tmp_path, proc__meminfo="MemTotal: 8 kB\n")).available_bytes is None


def test_free_bytes_of_a_folder_that_is_gone_are_unknown(tmp_path: Path) -> None:
    assert disk_free_bytes(tmp_path / "gone") is None


def test_the_bytes_of_a_folder_are_those_of_all_files_below_it(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "x").write_bytes(b"12345")
    (tmp_path / "a" / "b" / "y").write_bytes(b"123")
    assert folder_bytes(tmp_path / "a") == 8
    assert folder_bytes(tmp_path / "missing") == 0
