"""What an Edge TPU does to the process that drives it: the reasons why it has one of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edged.infer.loading import ModelFile
from edged.infer.runtimes.coral import LIBRARY
from tests.doubles.libedgetpu import TpuDouble

CHILD = Path(__file__).resolve().parents[3] / "doubles" / "coral_child.py"
REPOSITORY = CHILD.parents[2]


@pytest.fixture
def child(tpu: TpuDouble, file: ModelFile) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = os.environ | {"EDGED_LIBEDGETPU": str(tpu.library), "PYTHONPATH": str(REPOSITORY)}
        command = (sys.executable, CHILD, file.path)
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line; empty when the process has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_library_of_the_wrong_version_ends_only_the_process_that_loads_it(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    tpu.become("segfault")
    process = child()
    assert (heard(process), process.wait(20)) == ("", -signal.SIGSEGV)


def test_a_call_that_ends_its_process_ends_only_that_one(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("abort")
    say(process, "infer")
    assert (heard(process), process.wait(20)) == ("", -signal.SIGABRT)


def test_a_call_that_hangs_ends_with_its_process_and_the_next_one_serves(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("hang")
    say(process, "infer")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    tpu.become("ok")
    again = child()
    say(again, "infer")
    assert [heard(again), heard(again)] == ["loaded", "answered"]


def test_unplugging_during_a_call_is_a_lost_device(child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("wait")
    say(process, "infer")
    tpu.become("usb")
    assert heard(process) == "device_lost"
    say(process, "infer")
    assert heard(process) == "device_lost"
    tpu.become("absent")
    assert heard(child()) == "device_unavailable"


def test_opening_stops_every_thread_of_its_process_which_is_why_it_has_one(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    """If this fails because nothing stalls, LiteRT has learned to release the lock, and the page may say so."""
    tpu.become("slow")
    process = child()
    say(process, "stall")
    assert heard(process) == "loaded"
    assert int(heard(process)) > 400


def test_nothing_of_a_missing_library_reaches_stderr(file: ModelFile, tmp_path: Path) -> None:
    environment = os.environ | {"EDGED_LIBEDGETPU": str(tmp_path / LIBRARY), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, CHILD, file.path], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("runtime_unavailable", "")


def test_the_vendor_s_name_on_the_package_index_is_never_needed() -> None:
    """`pycoral` there is a tool for coral reefs."""
    assert "pycoral" not in (REPOSITORY / "pyproject.toml").read_text()
