"""Calls that fail, devices that are found, and the contract of all runtimes."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest

from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.coral import Coral, code_of, judge_pair
from tests.doubles.libedgetpu import TpuDouble
from tests.unit.infer.coral.rig import ask, compiled, refusal


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("USB transfer error 2 [LibUsbDataOut:19]Node number 1 (EdgeTpuDelegateForCustomOp) failed", "device_lost"),
        ("transfer on tag 2 failed. Abort. Deadline exceeded: USB transfer error 2", "device_lost"),
        ("HIB Error. hib_error_status = 0000000000000001", "device_lost"),
        ("Node number 3 (SOFTMAX) failed to invoke", "infer_failed"),
    ],
)
def test_what_the_library_says_while_it_computes_becomes_a_code(text: str, code: str) -> None:
    assert code_of(text) == code


def test_a_device_that_was_lost_stays_lost_until_it_is_opened_again(
    coral: Coral, tpu: TpuDouble, file: ModelFile
) -> None:
    model = coral.load(file, "usb", LoadOptions())
    tpu.become("usb")
    assert ask(model) == "device_lost"
    tpu.become("ok")
    assert ask(model) == "device_lost"
    model.close()
    coral.load(file, "usb", LoadOptions()).infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)


def test_another_failure_of_a_call_is_one_of_that_call(coral: Coral, tpu: TpuDouble, file: ModelFile) -> None:
    model = coral.load(file, "usb", LoadOptions())
    tpu.become("other")
    assert ask(model) == "infer_failed"
    tpu.become("ok")
    model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)


# looking


def usb(sysfs: Path, name: str, vendor: str, product: str) -> None:
    folder = sysfs / "bus" / "usb" / "devices" / name
    folder.mkdir(parents=True)
    (folder / "idVendor").write_text(f"{vendor}\n")
    (folder / "idProduct").write_text(f"{product}\n")


def test_sticks_are_found_before_and_after_their_firmware_is_loaded(tpu: TpuDouble, tmp_path: Path) -> None:
    (tmp_path / "bus" / "usb" / "devices" / "1-0:1.0").mkdir(parents=True)
    usb(tmp_path, "1-1", "1d6b", "0002")
    usb(tmp_path, "1-2", "1a6e", "089a")
    usb(tmp_path, "2-1", "18d1", "9302")
    coral = Coral(str(tpu.library), sysfs=tmp_path, dev=tmp_path)
    found = coral.probe("usb")
    assert (found.usable, [each.id for each in found.devices]) == (True, ["usb:0", "usb:1"])
    assert [each.name for each in found.devices] == [
        "Coral USB Accelerator before its firmware is loaded at 1-2",
        "Coral USB Accelerator at 2-1",
    ]
    assert coral.probe("usb:1").devices == found.devices[1:]
    assert coral.probe("usb:2").code == coral.probe("pci").code == "device_unavailable"
    assert coral.health("usb:0").state == "ok"
    assert coral.health("pci").state == "unknown"
    tpu.become("absent")
    file = open_model(compiled(tmp_path / "m_edgetpu.tflite"), allow_unsigned=True)
    assert "seen: Coral USB Accelerator at 2-1;" not in refusal(coral, file, "usb:0").message
    assert "at 1-2" in refusal(coral, file, "usb:0").message


def test_cards_are_found_by_the_nodes_of_their_driver(tpu: TpuDouble, tmp_path: Path) -> None:
    coral = Coral(str(tpu.library), sysfs=tmp_path, dev=tmp_path)
    assert "gasket" in coral.probe("pci:0").reason
    for number in (0, 1):
        (tmp_path / f"apex_{number}").touch()
    assert [each.name for each in coral.probe("pci").devices] == [str(tmp_path / f"apex_{n}") for n in (0, 1)]
    assert coral.probe("pci:1").usable


def test_the_versions_are_told_and_whether_anybody_has_seen_them_work_together(coral: Coral) -> None:
    versions = coral.probe("usb").versions
    assert versions["libedgetpu"] == "RuntimeVersion(14)"
    assert versions["ai-edge-litert"].startswith("2.")
    assert versions["pair"].startswith("untested")
    assert judge_pair("1", "2").startswith("untested")


def test_a_library_without_a_version_is_of_an_unknown_one(tmp_path: Path, tpu: TpuDouble) -> None:
    source = tmp_path / "mute.c"
    source.write_text("void tflite_plugin_create_delegate(void) {}\nvoid tflite_plugin_destroy_delegate(void) {}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "mute.so", source], check=True)
    assert Coral(str(tmp_path / "mute.so")).probe("usb").versions["libedgetpu"] == "unknown"


# what all runtimes keep


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract_of_all_runtimes(tpu: TpuDouble, check: Check, tmp_path: Path) -> None:
    usb(tmp_path, "2-1", "18d1", "9302")
    check(Subject(Coral(str(tpu.library), sysfs=tmp_path), "usb", compiled(tmp_path / "m_edgetpu.tflite"), tmp_path))
