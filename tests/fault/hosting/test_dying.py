"""Whatever the process of a device does, the caller gets an error with a code, in time, and the next load serves."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from edged.errors import InferenceError, ModelError
from edged.infer.hosting.devices import Devices
from edged.infer.hosting.process import System
from edged.infer.loading import ModelFile
from edged.ports import Model
from tests.doubles import lying_worker
from tests.doubles import worker_runtimes as scripted
from tests.doubles.waiting import until
from tests.doubles.worker_runtimes import REPOSITORY, batch_of, scripted_command
from tests.unit.infer.hosting.conftest import MakeDevices
from tests.unit.infer.hosting.test_devices import OPTIONS, RUNG, Notes, answers, stats

DEATHS = 200 if os.environ.get("EDGED_THOROUGH") else 40
NOTICED_S = 0.5  # on a machine that runs other tests beside this one; benchmarks/handoff.py measures it


def failure(model: Model, what: float, deadline_s: float = 5.0) -> InferenceError:
    with pytest.raises(InferenceError) as caught:
        model.infer(batch_of(what), deadline_s=deadline_s)
    return caught.value


def serves_again(devices: Devices, file: ModelFile, rung: str = RUNG) -> bool:
    return answers(devices.load(rung, file, OPTIONS))


@pytest.mark.parametrize("what", [scripted.HANG, scripted.HANG_WITH_GIL], ids=["hang", "hang with the lock"])
def test_a_hang_is_noticed_at_its_deadline_and_its_process_is_killed(
    devices: Devices, file: ModelFile, what: float
) -> None:
    model, neighbour = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    pid = stats(devices).pid
    started = time.monotonic()
    assert failure(model, what, deadline_s=0.2).code == "infer_timeout"
    assert 0.2 <= time.monotonic() - started < 0.2 + NOTICED_S
    assert failure(model, 1).code == "worker_gone"
    assert failure(neighbour, 1).code == "worker_gone"
    assert serves_again(devices, file)
    assert not Path(f"/proc/{pid}").exists(), "the device is loaded again only when the old process has let go of it"
    assert stats(devices).restarts == 1


@pytest.mark.parametrize(
    ("what", "says"),
    [
        (scripted.ABORT, "ended by SIGABRT; its last words: "),
        (scripted.EXIT, "exit code 3"),
        (scripted.WORDS, "exit code 7; its last words: "),
    ],
    ids=["abort", "exit", "exit with words"],
)
def test_a_crash_is_noticed_at_once_and_says_how_it_ended(
    make_devices: MakeDevices, file: ModelFile, what: float, says: str
) -> None:
    devices = make_devices(grace_s=10.0)
    model, neighbour = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    started = time.monotonic()
    error = failure(model, what)
    assert time.monotonic() - started < NOTICED_S
    assert error.code == "worker_crashed"
    assert failure(neighbour, 1).code == "worker_crashed"
    until(lambda: says in failure(neighbour, 1).message, "the last words are there")
    assert len(failure(model, 1).message) < 5000, "last words are bounded"
    if what == scripted.ABORT:
        assert "the driver gave up" in failure(model, 1).message
    assert serves_again(devices, file)


@pytest.mark.parametrize(
    ("what", "code"), [(scripted.LOST, "device_lost"), (scripted.NO_MEMORY, "out_of_memory")], ids=["lost", "memory"]
)
def test_after_a_lost_device_and_without_memory_the_process_ends(
    devices: Devices, file: ModelFile, what: float, code: str
) -> None:
    model, neighbour = devices.load(RUNG, file, OPTIONS), devices.load(RUNG, file, OPTIONS)
    pid = stats(devices).pid
    assert failure(model, what).code == code
    gone = failure(neighbour, 1)
    assert gone.code == "worker_gone"
    assert code in gone.message
    assert serves_again(devices, file)
    assert stats(devices).pid != pid


def test_memory_that_runs_out_in_the_process_is_told_as_such(devices: Devices, file: ModelFile) -> None:
    assert failure(devices.load(RUNG, file, OPTIONS), scripted.EAT_MEMORY).code == "out_of_memory"
    with pytest.raises(ModelError) as caught:
        devices.load("scripted:oom", file, OPTIONS)
    assert caught.value.code == "out_of_memory"
    assert serves_again(devices, file)


@pytest.mark.parametrize(
    ("device", "code", "limits"),
    [
        ("crash", "worker_crashed", {}),
        ("hang", "load_timeout", {"load_s": 0.3}),
        ("lost", "device_lost", {}),
    ],
)
def test_a_load_that_takes_the_process_with_it_says_so_and_can_be_tried_again(
    make_devices: MakeDevices, file: ModelFile, device: str, code: str, limits: dict[str, float]
) -> None:
    devices = make_devices(**limits)
    rung = f"scripted:{device}"
    for _ in range(2):
        with pytest.raises(ModelError) as caught:
            devices.load(rung, file, OPTIONS)
        assert caught.value.code == code
    assert stats(devices, rung).restarts == 1


def test_a_slow_load_is_waited_for_and_calls_of_its_neighbour_are_busy_not_dead(
    devices: Devices, file: ModelFile
) -> None:
    rung = "scripted:slow"
    first = devices.load(rung, file, OPTIONS)
    pid = stats(devices, rung).pid
    loading = threading.Thread(target=devices.load, args=(rung, file, OPTIONS))
    loading.start()
    codes = set()

    def busy() -> bool:
        try:
            first.infer(batch_of(1), deadline_s=0.01)
        except InferenceError as error:
            codes.add(error.code)
        return bool(codes)

    until(busy, "a call meets the load", every_s=0.001)
    loading.join(10)
    assert codes == {"device_busy"}
    assert answers(first)
    assert (stats(devices, rung).pid, stats(devices, rung).models) == (pid, 2)


def test_two_who_load_at_once_share_one_process_and_who_waits_too_long_is_told(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(load_s=0.2)
    failures: list[str] = []

    def load() -> None:
        try:
            devices.load("scripted:slow", file, OPTIONS)
        except ModelError as error:
            failures.append(error.code)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert set(failures) <= {"load_timeout", "device_unavailable"}
    assert len(failures) == 2


def test_an_idle_process_that_is_killed_is_noticed_by_the_next_check_and_the_next_call(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    notes = Notes()
    devices = make_devices(log=notes)
    model = devices.load(RUNG, file, OPTIONS)
    assert devices.check() == ()
    os.kill(stats(devices).pid, signal.SIGKILL)
    until(lambda: devices.check() == (RUNG,), "the check sees it")
    assert devices.check() == (), "told once"
    error = failure(model, 1)
    assert error.code == "worker_crashed"
    assert "SIGKILL" in error.message
    event, fields = notes.lines[-1]
    assert (event, fields["reason"]) == ("device_process_ended", "worker_crashed")
    assert (stats(devices).state, stats(devices).code, stats(devices).rss_bytes) == ("down", "worker_crashed", 0)


def test_an_idle_process_that_is_wedged_is_ended_by_the_check(make_devices: MakeDevices, file: ModelFile) -> None:
    devices = make_devices(ping_s=0.3)
    model = devices.load(RUNG, file, OPTIONS)
    model.infer(batch_of(scripted.WEDGE), deadline_s=5)
    until(lambda: devices.check() == (RUNG,), "the check sees it")
    assert failure(model, 1).code == "worker_gone"
    assert serves_again(devices, file)


def test_a_stopped_process_is_ended_although_it_takes_no_signal(devices: Devices, file: ModelFile) -> None:
    model = devices.load(RUNG, file, OPTIONS)
    os.kill(stats(devices).pid, signal.SIGSTOP)
    assert failure(model, 1, deadline_s=0.1).code == "infer_timeout"
    assert serves_again(devices, file)


def test_a_process_that_survives_every_signal_needs_a_power_cycle_and_no_other_is_started(
    make_devices: MakeDevices, file: ModelFile, tmp_path: Path
) -> None:
    sent: list[int] = []
    system = System(scripted_command(tmp_path / "site"), lambda child, number: sent.append(number))
    devices = make_devices(command=None, system=system, grace_s=0.05, kill_wait_s=0.05)
    model = devices.load(RUNG, file, OPTIONS)
    pid = stats(devices).pid
    assert failure(model, scripted.HANG, deadline_s=0.1).code == "infer_timeout"
    for _ in range(2):
        with pytest.raises(ModelError, match=f"the process {pid} does not end, not even by SIGKILL") as caught:
            devices.load(RUNG, file, OPTIONS)
        assert caught.value.code == "needs_power_cycle"
        assert (stats(devices).state, stats(devices).pid, stats(devices).restarts) == ("needs_power_cycle", pid, 0)
    assert sent == [signal.SIGTERM, signal.SIGKILL]
    os.kill(pid, signal.SIGKILL)
    until(lambda: stats(devices).state == "down", "the kernel has let go of it")
    assert serves_again(devices, file)
    os.kill(stats(devices).pid, signal.SIGKILL)


def test_starts_are_limited_whatever_the_caller_decides(make_devices: MakeDevices, file: ModelFile) -> None:
    devices = make_devices(starts_count=2, starts_within_s=600.0)
    for _ in range(2):
        failure(devices.load(RUNG, file, OPTIONS), scripted.EXIT)
    with pytest.raises(ModelError, match="2 processes started within 600") as caught:
        devices.load(RUNG, file, OPTIONS)
    assert caught.value.code == "device_unavailable"
    forgiving = make_devices(starts_count=1, starts_within_s=0.0)
    for _ in range(2):
        failure(forgiving.load(RUNG, file, OPTIONS), scripted.EXIT)


def test_closing_ends_a_hanging_call_and_a_hanging_load(make_devices: MakeDevices, file: ModelFile) -> None:
    devices = make_devices()
    model = devices.load(RUNG, file, OPTIONS)
    codes: list[str] = []

    def call() -> None:
        codes.append(failure(model, scripted.HANG, deadline_s=30).code)

    def load() -> None:
        with pytest.raises(ModelError) as caught:
            devices.load("scripted:hang", file, OPTIONS)
        codes.append(caught.value.code)

    threads = [threading.Thread(target=call), threading.Thread(target=load)]
    for thread in threads:
        thread.start()
    until(lambda: len(devices.statistics()) == 2 and stats(devices, "scripted:hang").pid, "both hang")
    devices.close(10)
    for thread in threads:
        thread.join(10)
    assert codes == ["closed", "closed"]
    assert {each.state for each in devices.statistics()} == {"down"}


@pytest.mark.parametrize("make_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_loop_that_watches_children_of_its_own_neither_takes_our_exit_status_nor_loses_its_own(
    devices: Devices, file: ModelFile, make_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def others() -> list[int]:
        children = [await asyncio.create_subprocess_exec(sys.executable, "-c", "exit(5)") for _ in range(4)]
        return [await child.wait() for child in children]

    async def both() -> tuple[list[int], InferenceError]:
        model = await asyncio.to_thread(devices.load, RUNG, file, OPTIONS)
        codes, error = await asyncio.gather(others(), asyncio.to_thread(failure, model, scripted.ABORT))
        await asyncio.to_thread(until, lambda: "SIGABRT" in failure(model, 1).message, "the exit status is there")
        return codes, error

    with asyncio.Runner(loop_factory=make_loop) as runner:
        codes, error = runner.run(both())
    assert codes == [5] * 4
    assert error.code == "worker_crashed"


# --- the protocol ---


def lies(how: str) -> tuple[str, ...]:
    return ("env", f"PYTHONPATH={REPOSITORY}", *lying_worker.COMMAND, how)


@pytest.mark.parametrize("how", [*lying_worker.PLACES, "negative", "number", "done", "long", "short", "garbage"])
def test_a_process_that_answers_nonsense_is_not_believed_and_ended(
    make_devices: MakeDevices, file: ModelFile, how: str
) -> None:
    devices = make_devices(command=lies(how))
    model = devices.load("liar:here", file, OPTIONS)
    pid = stats(devices, "liar:here").pid
    error = failure(model, 1)
    assert error.code == "worker_crashed"
    assert "broke the protocol" in error.message
    until(lambda: not Path(f"/proc/{pid}").exists(), "it is ended")


def test_a_process_that_shrinks_the_memory_cannot_kill_us(make_devices: MakeDevices, file: ModelFile) -> None:
    model = make_devices(command=lies("shrinks")).load("liar:here", file, OPTIONS)
    assert model.infer(batch_of(1), deadline_s=5)["y"].tolist() == [1, 1, 1]


def test_a_process_that_closes_its_socket_and_lives_on_is_ended(make_devices: MakeDevices, file: ModelFile) -> None:
    devices = make_devices(command=lies("close"))
    model = devices.load("liar:here", file, OPTIONS)
    pid = stats(devices, "liar:here").pid
    assert failure(model, 1).code == "worker_crashed"
    until(lambda: not Path(f"/proc/{pid}").exists(), "it is ended")


def test_a_crash_is_noticed_although_a_grandchild_holds_the_socket(make_devices: MakeDevices, file: ModelFile) -> None:
    model = make_devices(command=lies("grandchild")).load("liar:here", file, OPTIONS)
    started = time.monotonic()
    assert failure(model, 1).code == "worker_crashed"
    assert time.monotonic() - started < 2, "the grandchild lives for 3 s"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (lies("dead"), "no such library"),
        (lies("newer"), "expected hello of protocol 1"),
        (lies("no_hello"), "no answer in time"),
        (("/no/such/python",), "cannot start /no/such/python"),
    ],
    ids=["dead", "newer", "silent", "no program"],
)
def test_a_process_that_does_not_start_is_told_with_its_last_words(
    make_devices: MakeDevices, file: ModelFile, command: tuple[str, ...], says: str
) -> None:
    devices = make_devices(command=command, start_s=1.0)
    with pytest.raises(ModelError, match=says) as caught:
        devices.load(RUNG, file, OPTIONS)
    assert caught.value.code == "load_failed"
    probe = devices.probe(RUNG)
    assert (probe.usable, probe.code) == (False, "runtime_unavailable")
    with pytest.raises(ModelError):
        devices.prepare(RUNG, file, OPTIONS, 1)


def test_nonsense_in_answer_to_other_questions_is_not_believed_either(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(command=lies("load"))
    with pytest.raises(ModelError, match="broke the protocol") as caught:
        devices.load(RUNG, file, OPTIONS)
    assert caught.value.code == "worker_crashed"
    assert devices.probe(RUNG).code == "runtime_unavailable"
    with pytest.raises(ModelError) as caught:
        devices.prepare(RUNG, file, OPTIONS, 1)
    assert caught.value.code == "prepare_failed"


# --- nothing is left behind ---

PARENT = """
import signal, sys
from pathlib import Path
from edged.infer.hosting.devices import Devices
from edged.infer.loading import open_model
from edged.infer.runtime import LoadOptions
from edged.ops.clock import SystemClock
from tests.doubles.worker_runtimes import batch_of
devices = Devices(SystemClock(), command=sys.argv[3:])
model = devices.load("scripted:plain", open_model(Path(sys.argv[1]), allow_unsigned=True), LoadOptions())
print(devices.statistics()[0].pid, flush=True)
model.infer(batch_of(float(sys.argv[2])), deadline_s=100)
signal.pause()
"""


@pytest.mark.parametrize("what", [1.0, scripted.HANG, scripted.HANG_WITH_GIL], ids=["idle", "hang", "hang with lock"])
def test_a_parent_that_is_killed_leaves_no_process_and_no_shared_memory(
    file: ModelFile, tmp_path: Path, what: float
) -> None:
    segments = set(Path("/dev/shm").iterdir())
    arguments = [str(file.path), str(what), *scripted_command(tmp_path / "site")]
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, *arguments], stdout=subprocess.PIPE, cwd=REPOSITORY, text=True
    ) as parent:
        assert parent.stdout is not None
        child = Path(f"/proc/{int(parent.stdout.readline())}")
        assert child.exists()
        parent.kill()
    until(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text(), "the child is gone")
    assert set(Path("/dev/shm").iterdir()) <= segments


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_many_deaths_and_hangs_are_each_told_and_leave_nothing_behind(
    make_devices: MakeDevices, file: ModelFile
) -> None:
    devices = make_devices(starts_count=1000, grace_s=0.05)
    fates = [
        (scripted.ABORT, "worker_crashed"),
        (scripted.HANG, "infer_timeout"),
        (scripted.EXIT, "worker_crashed"),
        (scripted.LOST, "device_lost"),
    ]
    serves_again(devices, file)
    failure(devices.load(RUNG, file, OPTIONS), scripted.EXIT)
    before = _open_files(), threading.active_count()
    asked = answered = 0
    for number in range(DEATHS):
        what, code = fates[number % len(fates)]
        model = devices.load(RUNG, file, OPTIONS)
        assert answers(model, float(number))
        assert failure(model, what, deadline_s=0.05).code == code
        asked, answered = asked + 2, answered + 2
    until(lambda: stats(devices).state == "down", "the last one has ended")
    until(lambda: (_open_files(), threading.active_count()) <= before, "descriptors and threads are given back")
    assert (asked, answered, stats(devices).restarts) == (2 * DEATHS, 2 * DEATHS, DEATHS)


def _open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
