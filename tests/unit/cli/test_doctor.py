"""`edged doctor`: the class that fits, what is usable, what is in the way and its cure; never a guess, never root."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from edged.cli.doctor import configuration, document, lines
from edged.cli.doctor_findings import (
    Disk,
    Finding,
    cure_of,
    of_box,
    of_clock,
    of_disk,
    of_memory,
    of_runtimes,
    of_sensors,
)
from edged.cli.doctor_looking import Examined, Eyes, examine, look_at_disk
from edged.config import Config, load
from edged.config.loading import examine as examine_config
from edged.demo.train import MODELS
from edged.errors import ExitCode
from edged.infer.runtime import Device, Probe
from edged.ops.sensors.box import read_box
from edged.ops.sensors.nvml import Nvml
from edged.ops.sensors.report import read_devices
from tests.doubles.nvml import NvmlLibrary
from tests.doubles.sysfs import Box
from tests.unit.cli.conftest import Edged

USABLE = Probe(True, (Device("0", "cpu", "processor"),), {"onnxruntime": "1.0"})
MISSING = Probe(False, code="runtime_unavailable", reason="No module named 'x'")
_CONFIG = """\
[gateway]
site = "lyon"
id = "gw"
hardware_class = "{hardware_class}"
state_dir = "{state}"
[broker]
url = "mqtt://127.0.0.1:{port}"
[store]
budget_bytes = 16_000_000
[security]
allow_unsigned = true
[[pipeline]]
name = "pump"
topics = ["in/+"]
device = "{{topic[1]}}"
input = {{ fields = ["a"] }}
model = {{ path = "{models}/condition.onnx", chain = {chain} }}
output = {{ kind = "classification", labels = ["a"] }}
"""


def configured(
    folder: Path, *, port: int = 1, chain: tuple[str, ...] = ("onnxruntime:cpu",), hardware_class: str = "cpu"
) -> Config:
    state = folder / "state"
    state.mkdir(exist_ok=True)
    path = folder / "edged.toml"
    text = _CONFIG.format(state=state, port=port, models=MODELS, chain=json.dumps(chain), hardware_class=hardware_class)
    path.write_text(text)
    return load([path])


@contextmanager
def listening() -> Iterator[int]:
    with closing(socket.create_server(("127.0.0.1", 0))) as server:
        yield server.getsockname()[1]


def eyes(root: Path, **probes: Probe) -> Eyes:
    """Looks at the box in `root`; runtimes answer as told (`openvino_gpu=...`), all others are usable."""
    return Eyes(lambda rung: probes.get(rung.replace(":", "_"), USABLE), root=root, nvml=Nvml("nowhere.so.1"))


def texts(findings: object, verdict: str) -> list[str]:
    assert isinstance(findings, tuple)
    return [f"{each.area}: {each.text}" for each in findings if each.verdict == verdict]


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("cpu", lambda box: box.processor("AMD", "avx2")),
        ("intel-lowpower", lambda box: box.pci("0000:00:02.0", 0x8086, 0x46D1, 0x03, "i915")),
        ("coral-usb", lambda box: box.usb("1-1", "18d1", "9302")),
        ("factory-gateway-gpu", lambda box: box.pci("0000:01:00.0", 0x10DE, 0x2684, 0x03, "nvidia")),
        ("jetson-vision", lambda box: box.jetson()),
    ],
)
def test_each_class_is_recognised_and_its_runtimes_are_asked(
    tmp_path: Path, name: str, make: Callable[[Box], Box]
) -> None:
    make(Box(tmp_path / "root").memory(1_000_000))
    found = examine(None, eyes(tmp_path / "root"))
    assert found.choice.name == name
    assert set(examined_chain(name)) <= set(found.runtimes)
    assert {"onnxruntime:cpu", "openvino:cpu", "litert:cpu"} <= set(found.runtimes)
    assert found.exit_code == ExitCode.OK
    assert any(f"{name} fits" in text for text in texts(found.findings, "ok"))


def examined_chain(name: str) -> tuple[str, ...]:
    import tomllib

    from edged.config.classes import known_classes

    return tuple(tomllib.loads(known_classes()[name].read_text())["chain"])


def test_a_gpu_that_only_nvml_tells_is_found_as_in_a_container(tmp_path: Path) -> None:
    nvml = Nvml("any", lambda _: NvmlLibrary(gpus=2))
    found = examine(None, eyes(tmp_path)._replace(nvml=nvml))
    assert found.choice.name == "factory-gateway-gpu"
    assert sum("nvml" in text for text in texts(found.findings, "ok")) == 2
    Box(tmp_path).jetson()
    assert examine(None, eyes(tmp_path)._replace(nvml=nvml)).choice.name == "jetson-vision"


def test_a_configuration_is_held_against_the_box(tmp_path: Path) -> None:
    Box(tmp_path / "root").usb("1-1", "18d1", "9302").memory(500_000, 600_000)
    with listening() as port:
        found = examine(configured(tmp_path, port=port), eyes(tmp_path / "root"))
    notes = texts(found.findings, "note")
    assert "class: the configuration says cpu" in notes
    assert any("the class plans with 800 MB, the box has 614 MB" in text for text in notes)
    assert any("accepts connections" in text for text in texts(found.findings, "ok"))
    assert any(text.startswith("disk: fsync takes") for text in (*notes, *texts(found.findings, "ok")))
    assert found.exit_code == ExitCode.OK
    assert list((tmp_path / "state").iterdir()) == []  # nothing is left behind


def test_a_broker_where_nobody_answers_is_a_problem_with_its_code(tmp_path: Path) -> None:
    with listening() as port:
        pass
    found = examine(configured(tmp_path, port=port), eyes(tmp_path / "root"))
    assert any(f"nobody answers at mqtt://127.0.0.1:{port}" in text for text in texts(found.findings, "problem"))
    assert found.exit_code == ExitCode.UNAVAILABLE


def test_the_way_home_is_looked_at_where_there_is_one(tmp_path: Path) -> None:
    configured(tmp_path)
    path = tmp_path / "edged.toml"
    path.write_text(path.read_text() + '[upstream]\nurl = "mqtt://127.0.0.1:2"\n')
    asked: list[tuple[str, int]] = []
    found = examine(
        load([path]), eyes(tmp_path / "root")._replace(connect=lambda host, port: asked.append((host, port)))
    )
    assert asked == [("127.0.0.1", 1), ("127.0.0.1", 2)]
    assert any(text.startswith("upstream: mqtt://127.0.0.1:2") for text in texts(found.findings, "ok"))


def test_no_usable_runtime_of_a_configured_chain_is_a_problem_and_the_cure_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path, chain=("openvino:gpu", "litert:cpu"))
    with_none = eyes(tmp_path / "root", openvino_gpu=MISSING, litert_cpu=MISSING)._replace(connect=lambda *_: None)
    found = examine(config, with_none)
    assert any("pump: no runtime of its chain is usable" in text for text in texts(found.findings, "problem"))
    assert found.exit_code == ExitCode.UNAVAILABLE
    cures = [each.cure for each in found.findings if "openvino:gpu is not usable" in each.text]
    assert cures == ["pip install 'edged[openvino]'"]


def test_a_fallback_that_will_serve_is_a_note(tmp_path: Path) -> None:
    chains = {"pump": ("openvino:gpu", "onnxruntime:cpu"), "none": ("split:upstream", "rules")}
    absent = Probe(False, code="device_unavailable", reason="no GPU")
    found = tuple(of_runtimes({"openvino:gpu": absent, "onnxruntime:cpu": USABLE}, chains))
    assert "runtime: pipeline pump: onnxruntime:cpu will serve, openvino:gpu is not usable" in texts(found, "note")
    assert texts(found, "problem") == []
    assert any("usermod -aG render edged" in each.cure for each in found)


def test_what_is_not_asked_is_not_called_unusable() -> None:
    (usable,) = of_runtimes({"onnxruntime:cpu": Probe(True)}, {"pump": ("split:upstream", "onnxruntime:cpu")})
    assert usable.text == "onnxruntime:cpu is usable"


def test_what_is_not_wanted_needs_no_cure(tmp_path: Path) -> None:
    (found,) = of_runtimes({"litert:cpu": MISSING}, {})
    assert found.cure == "only if wanted: pip install 'edged[litert]'"


def test_the_cure_depends_on_what_is_missing() -> None:
    assert cure_of("onnxruntime:cpu", "runtime_unavailable") == "pip install 'edged[cpu]'"
    assert "libedgetpu" in cure_of("coral:usb", "runtime_unavailable")
    assert "USB 3" in cure_of("coral:usb", "device_unavailable")
    assert cure_of("own:npu", "device_unavailable") == "see docs/reference/runtime-errors.md"


def test_an_accelerator_without_a_driver_and_a_hailo_are_told(tmp_path: Path) -> None:
    box = Box(tmp_path).pci("0000:01:00.0", 0x10DE, 0x2684, 0x03).pci("0000:03:00.0", 0x1E60, 0x2864, 0x12, "hailo")
    box.pci("0000:04:00.0", 0x1234, 0x1111, 0x03).processor("AMD", "avx2", cores=2)
    found = tuple(of_box(read_box(tmp_path)))
    notes = texts(found, "note")
    assert any("NVIDIA GPU 10de:2684 (pci 0000:01:00.0) has no driver" in text for text in notes)
    assert any("needs a plug-in" in text for text in notes)
    assert any("INT8 models gain little" in text for text in notes)
    assert not any("1234" in each.text for each in found)


def test_what_the_box_does_not_say_is_unknown_not_well(tmp_path: Path) -> None:
    report = read_devices(tmp_path)
    assert all(each.verdict == "unknown" for each in of_box(read_box(tmp_path)))
    unknown = texts(tuple(of_sensors(report)), "unknown")
    assert any("no temperature is told" in text for text in unknown)
    assert any("memory_some_avg10_percent" in text for text in unknown)
    assert [each.verdict for each in of_memory(report)] == ["unknown"]
    assert [each.verdict for each in of_clock("unknown")] == ["unknown"]
    assert [each.verdict for each in (*of_sensors(None), *of_memory(None))] == ["unknown", "unknown"]


def test_sensors_memory_and_clock_that_say_something_are_told(tmp_path: Path) -> None:
    box = Box(tmp_path).zone(0, "cpu", 55, ("passive", 85), ("critical", 100)).memory(200_000).stalls("memory", 0)
    box.chip(0, "nvme", temp1_input=41_000).cooling(0, "Processor", 0).emmc(0, "0x0b 0x0b", "0x03")
    box.in_group("edged").group("edged", 1_000_000, 100_000_000)
    report = read_devices(tmp_path, nvml=Nvml("any", lambda _: NvmlLibrary({"nvmlInit_v2": 9})))
    found = tuple(of_sensors(report))
    assert "sensors: 2 temperatures, the highest 55 °C (cpu)" in texts(found, "ok")
    assert any("NVML says" in text for text in texts(found, "unknown"))
    assert any("eMMC" in text for text in texts(found, "note"))
    (memory,) = of_memory(report)
    assert (memory.verdict, "control group may use 100 MB" in memory.text) == ("note", True)
    assert [each.verdict for each in (*of_clock("synced"), *of_clock("holdover"))] == ["ok", "note"]


def test_a_sensor_that_hangs_is_unknown_and_the_doctor_goes_on(tmp_path: Path) -> None:
    going_on = threading.Event()

    class Hanging(Nvml):
        def read(self) -> object:  # type: ignore[override]
            going_on.wait(30)
            return None

    found = examine(None, Eyes(lambda _rung: USABLE, root=tmp_path, nvml=Hanging(), patience_s=0.1))
    going_on.set()
    assert "sensors: a sensor has not answered in time" in texts(found.findings, "unknown")
    assert found.device == {}


def disk(**changes: object) -> tuple[Finding, ...]:
    seen = Disk("/state", True, True, False, 10**9, (1.0, 2.0))
    return tuple(of_disk(seen._replace(**changes), 10**8))  # type: ignore[arg-type]


def test_a_good_disk_has_room_and_is_quick() -> None:
    assert texts(disk(), "ok") == ["disk: 1,000 MB are free", "disk: fsync takes 2.0 ms at most of 2"]


def test_what_is_wrong_with_a_disk_is_told_with_its_code() -> None:
    assert any("51.0 ms" in text for text in texts(disk(fsync_ms=(51.0,)), "note"))
    assert any("store.budget_bytes is 100 MB" in text for text in texts(disk(free_bytes=10**7), "note"))
    assert texts(disk(free_bytes=None), "unknown") == ["disk: the room on the disk is not told"]
    (open_to_all,) = [each for each in disk(others_may_write=True) if each.verdict == "problem"]
    assert (open_to_all.exit_code, open_to_all.cure) == (ExitCode.REFUSED, "chmod o-w /state")
    (broken,) = [each for each in disk(fsync_ms=None) if each.verdict == "problem"]
    assert broken.exit_code == ExitCode.IO


def test_what_may_not_be_written_is_unknown_and_says_as_whom_to_look() -> None:
    found = disk(writable=False, fsync_ms=None)
    assert len(texts(found, "unknown")) == 2
    assert any("runuser -u edged" in each.cure for each in found)


def test_a_state_folder_that_is_not_there_yet_is_a_note(tmp_path: Path) -> None:
    seen = look_at_disk(tmp_path / "state")
    assert (seen.exists, seen.writable) == (False, False)
    assert seen.free_bytes
    assert any("does not exist" in text for text in texts(tuple(of_disk(seen, None)), "note"))


def test_a_folder_that_every_user_may_write_is_seen(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert look_at_disk(tmp_path).others_may_write
    tmp_path.chmod(0o755)
    assert not look_at_disk(tmp_path).others_may_write


@pytest.mark.skipif(os.geteuid() == 0, reason="root may enter everything")
def test_a_folder_that_cannot_be_entered_is_not_writable(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0)
    assert not look_at_disk(tmp_path / "locked" / "state").writable


def test_a_state_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert look_at_disk(tmp_path / "file").fsync_ms is None


def test_what_is_said_of_the_configuration(tmp_path: Path) -> None:
    (absent,) = configuration(None, asked=False)
    assert (absent.verdict, absent.cure) == ("unknown", "name one with --config")
    (tmp_path / "edged.toml").write_text("[gateway]\n")
    (wrong,) = configuration(examine_config([tmp_path / "edged.toml"]), asked=True)
    assert (wrong.verdict, wrong.exit_code) == ("problem", ExitCode.CONFIG)
    configured(tmp_path)
    (right,) = configuration(examine_config([tmp_path / "edged.toml"]), asked=True)
    assert right.verdict == "ok"


def test_people_read_lines_with_cures_and_machines_the_same_as_json(tmp_path: Path) -> None:
    found = examine(None, eyes(tmp_path, litert_cpu=MISSING))
    problem = Finding("broker", "problem", "nobody answers", "start it", ExitCode.UNAVAILABLE)
    told = Examined(found.choice, (*found.findings, problem), found.runtimes, {"zone_cpu_c": 50.0})
    shown = "\n".join(lines(told.findings))
    assert "PROBLEM  broker" in shown
    assert "cure: start it" in shown
    assert shown.endswith("1 problem")
    said = json.loads(json.dumps(document(told)))
    assert (said["ok"], said["exit_code"]) == (False, 69)
    assert said["hardware_class"]["name"] == "cpu"
    assert said["runtimes"]["litert:cpu"]["usable"] is False
    assert said["device"] == {"zone_cpu_c": 50.0}
    assert said["findings"][-1] == {
        "area": "broker", "verdict": "problem", "text": "nobody answers", "cure": "start it",
    }  # fmt: skip
    assert list(lines(found.findings))[-1] == "no problems"


def test_a_class_file_that_is_missing_or_wrong_does_not_stop_the_doctor(tmp_path: Path) -> None:
    (tmp_path / "cpu.toml").write_text("=")
    for files in ({}, {"cpu": tmp_path / "cpu.toml"}):
        found = examine(None, eyes(tmp_path)._replace(class_files=files))
        assert found.choice.name == "cpu"
    (tmp_path / "cpu.toml").write_text("chain = 3")
    assert examine(None, eyes(tmp_path)._replace(class_files={"cpu": tmp_path / "cpu.toml"})).exit_code == 0


def test_the_command_looks_at_this_very_box_and_asks_the_runtimes_in_children(edged: Edged, tmp_path: Path) -> None:
    with listening() as port:
        configured(tmp_path, port=port)
        ran = edged("doctor", "--config", tmp_path / "edged.toml", "--json")
    said = json.loads(ran.out)
    assert ran.code == said["exit_code"] == 0, said["findings"]
    assert said["runtimes"]["onnxruntime:cpu"]["usable"] is True
    assert said["runtimes"]["onnxruntime:cpu"]["versions"]


def test_a_wrong_configuration_is_the_first_problem(edged: Edged, tmp_path: Path) -> None:
    (tmp_path / "edged.toml").write_text("[gateway]\n")
    ran = edged("doctor", "--config", tmp_path / "edged.toml")
    assert ran.code == ExitCode.CONFIG
    assert ran.out.startswith("PROBLEM  configuration")
