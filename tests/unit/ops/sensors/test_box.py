"""What a box is made of, read from its files; nothing is opened, nothing raises."""

from __future__ import annotations

from pathlib import Path

from edged.ops.sensors.box import INT8, Accelerator, read_box
from tests.doubles.sysfs import Box


def test_a_box_that_says_nothing_has_nothing(tmp_path: Path) -> None:
    box = read_box(tmp_path)
    assert (box.cpu, box.cores, box.instructions, box.memory_bytes, box.accelerators) == (None, None, (), None, ())
    assert box.machine


def test_an_intel_processor_says_its_name_cores_and_the_instructions_that_matter(tmp_path: Path) -> None:
    Box(tmp_path).processor("Intel N100", "sse2", "avx2", "avx_vnni", cores=4).memory(1, 8_000_000)
    box = read_box(tmp_path)
    assert (box.cpu, box.cores, box.instructions) == ("Intel N100", 4, ("avx2", "avx_vnni"))
    assert box.memory_bytes == 8_192_000_000
    assert INT8 & set(box.instructions)


def test_an_arm_board_says_the_same_in_other_words(tmp_path: Path) -> None:
    Box(tmp_path).processor("Raspberry Pi 5 Model B", "asimd", "asimddp", cores=4, arm=True)
    box = read_box(tmp_path)
    assert (box.cpu, box.cores, box.instructions) == ("Raspberry Pi 5 Model B", 4, ("asimd", "asimddp"))


def test_every_kind_of_accelerator_is_told_with_its_place_and_its_driver(tmp_path: Path) -> None:
    files = Box(tmp_path).pci("0000:00:02.0", 0x8086, 0x46D1, 0x03, "i915").pci("0000:00:0b.0", 0x8086, 0x7D1D, 0x12)
    files.pci("0000:01:00.0", 0x10DE, 0x2684, 0x03, "nvidia").pci("0000:01:00.1", 0x10DE, 0x22BA, 0x04, "snd_hda_intel")
    files.pci("0000:02:00.0", 0x1AC1, 0x089A, 0x08, "apex").pci("0000:03:00.0", 0x1E60, 0x2864, 0x12)
    files.pci("0000:04:00.0", 0x1234, 0x1111, 0x03).usb("1-2", "1a6e", "089a")
    box = read_box(tmp_path)
    assert box.accelerators == (
        Accelerator("intel_gpu", "GPU 8086:46d1", "pci 0000:00:02.0", "i915"),
        Accelerator("intel_npu", "Intel NPU 8086:7d1d", "pci 0000:00:0b.0"),
        Accelerator("nvidia_gpu", "NVIDIA GPU 10de:2684", "pci 0000:01:00.0", "nvidia"),
        Accelerator("coral_pci", "Coral PCIe 1ac1:089a", "pci 0000:02:00.0", "apex"),
        Accelerator("hailo", "Hailo 1e60:2864", "pci 0000:03:00.0"),
        Accelerator("other_gpu", "GPU 1234:1111", "pci 0000:04:00.0"),
        Accelerator("coral_usb", "Coral USB accelerator", "usb 1-2"),
    )
    assert [each.kind for each in box.found("hailo", "coral_usb")] == ["hailo", "coral_usb"]


def test_a_jetson_is_one_by_its_device_tree(tmp_path: Path) -> None:
    Box(tmp_path).jetson()
    (found,) = read_box(tmp_path).accelerators
    assert found.kind == "jetson"
    assert "Orin Nano" in found.name


def test_a_driver_is_found_without_links_and_garbage_is_no_device(tmp_path: Path) -> None:
    files = Box(tmp_path).pci("0000:00:02.0", 0x10DE, 0x1, 0x03).pci("0000:00:03.0", 0x10DE, 0x1, 0x03)
    files.write("sys/bus/pci/devices/0000:00:02.0/uevent", "PCI_CLASS=30000\nDRIVER=nouveau\n")
    files.write("sys/bus/pci/devices/0000:00:03.0/class", "none")
    (found,) = read_box(tmp_path).accelerators
    assert found.driver == "nouveau"


def test_a_folder_in_the_place_of_cpuinfo_says_nothing(tmp_path: Path) -> None:
    (tmp_path / "proc/cpuinfo").mkdir(parents=True)
    assert read_box(tmp_path).cpu is None
