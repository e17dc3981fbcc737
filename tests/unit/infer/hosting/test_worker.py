"""The other side of the socket, without a process: each request gets one answer, whatever a runtime does."""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edged.errors import ModelError
from edged.infer.hosting import wire
from edged.infer.hosting.slots import Slot, new_slot_memory
from edged.infer.hosting.worker import Worker, guard
from edged.infer.loading import ModelFile
from edged.infer.runtime import LoadOptions, Runtime
from tests.doubles import worker_runtimes as scripted
from tests.doubles.worker_runtimes import SCRIPTED, batch_of

MOST = 1 << 20


def find(name: str) -> Runtime:
    if name != "scripted":
        raise ModelError("runtime_unknown", f"no {name}")
    return SCRIPTED


class Rig:
    """A worker in a thread, and the parent's end of its socket."""

    def __init__(self) -> None:
        self.ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.settimeout(10)
        self._descriptors = [new_slot_memory("test", MOST) for _ in range(2)]
        self.inputs, self.outputs = (Slot(descriptor, MOST) for descriptor in self._descriptors)
        inputs, outputs = (Slot(descriptor, MOST) for descriptor in self._descriptors)
        self.worker = Worker(theirs, inputs, outputs, find)
        self._theirs = theirs
        self._number = 0
        self.thread = threading.Thread(target=self.worker.serve)
        self.thread.start()
        assert self._reply() == wire.Hello(wire.PROTOCOL)

    def ask(self, request: wire.Request) -> wire.Reply:
        self._number += 1
        self.ours.send(wire.pack(self._number, request))
        return self._reply()

    def call(self, what: float) -> wire.Reply:
        return self.ask(wire.Infer(1, 1.0, self.inputs.put(batch_of(what))))

    def _reply(self) -> wire.Reply:
        return wire.reply_of(memoryview(self.ours.recv(wire.MAX_PACKET_BYTES)), self._number)

    def close(self) -> None:
        self.ours.close()
        self.thread.join(10)
        assert not self.thread.is_alive()
        self._theirs.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    yield rig
    rig.close()


def load(file: ModelFile, device: str = "plain", model: int = 1) -> wire.Load:
    return wire.Load(model, "scripted", device, file, LoadOptions())


def code_of(reply: wire.Reply) -> str:
    assert isinstance(reply, wire.Failed)
    return reply.code


def test_a_model_is_loaded_answers_and_is_unloaded(rig: Rig, file: ModelFile) -> None:
    loaded = rig.ask(load(file, "exclusive"))
    assert isinstance(loaded, wire.Loaded)
    assert (loaded.info.runtime, loaded.exclusive) == ("scripted:exclusive", True)
    answer = rig.call(2)
    assert isinstance(answer, wire.Answer)
    assert rig.outputs.copies(answer.outputs)["y"].tolist() == [8]
    assert rig.ask(wire.Ping()) == wire.Done()
    assert rig.ask(wire.Unload(1)) == rig.ask(wire.Unload(1)) == wire.Done()
    assert code_of(rig.call(2)) == "closed"


@pytest.mark.parametrize(
    ("what", "code"),
    [
        (scripted.FAIL, "infer_failed"),
        (scripted.REFUSE, "invalid_input"),
        (scripted.NO_MEMORY, "out_of_memory"),
        (scripted.RAISE, "infer_failed"),
        (scripted.BIG, "infer_failed"),
        (scripted.TEXTS, "infer_failed"),
    ],
)
def test_a_call_that_fails_is_answered_with_its_code(rig: Rig, file: ModelFile, what: float, code: str) -> None:
    rig.ask(load(file))
    assert code_of(rig.call(what)) == code
    assert isinstance(rig.call(1), wire.Answer)


def test_a_scalar_becomes_an_array(rig: Rig, file: ModelFile) -> None:
    rig.ask(load(file))
    answer = rig.call(scripted.SCALAR)
    assert isinstance(answer, wire.Answer)
    assert answer.outputs[0].shape == ()


@pytest.mark.parametrize(
    ("device", "code"),
    [
        ("refuse", "unsupported"),
        ("raise", "load_failed"),
        ("scalar", "incompatible"),
        ("full", "out_of_memory"),
        ("wide", "incompatible"),
    ],
)
def test_a_load_that_fails_is_answered_with_its_code(rig: Rig, file: ModelFile, device: str, code: str) -> None:
    assert code_of(rig.ask(load(file, device))) == code
    assert isinstance(rig.ask(load(file, model=2)), wire.Loaded)


def test_a_runtime_that_is_not_there_is_an_answer_to_every_question(rig: Rig, file: ModelFile) -> None:
    assert code_of(rig.ask(wire.Load(1, "abacus", "cpu", file, LoadOptions()))) == "runtime_unknown"
    assert code_of(rig.ask(wire.Prepare("abacus", "cpu", file, LoadOptions()))) == "runtime_unknown"
    seen = rig.ask(wire.Look("abacus", "cpu"))
    assert isinstance(seen, wire.Seen)
    assert (seen.probe.usable, seen.probe.code) == (False, "runtime_unknown")


def test_a_probe_is_an_answer_even_when_it_raises(rig: Rig) -> None:
    seen, broken = rig.ask(wire.Look("scripted", "plain")), rig.ask(wire.Look("scripted", "raise"))
    assert isinstance(seen, wire.Seen)
    assert seen.probe.usable
    assert isinstance(broken, wire.Seen)
    assert (broken.probe.code, broken.probe.usable) == ("runtime_unavailable", False)


def test_a_preparation_is_done(rig: Rig, file: ModelFile, tmp_path: Path) -> None:
    assert rig.ask(wire.Prepare("scripted", "plain", file, LoadOptions(cache=tmp_path))) == wire.Done()
    assert (tmp_path / "engine").exists()


def test_after_a_lost_device_it_answers_no_more(rig: Rig, file: ModelFile) -> None:
    rig.ask(load(file))
    assert code_of(rig.call(scripted.LOST)) == "device_lost"
    rig.thread.join(10)
    assert not rig.thread.is_alive()


def test_told_to_stop_it_ends_at_once_when_idle_and_after_the_call_otherwise(rig: Rig, file: ModelFile) -> None:
    rig.ask(load(file))
    rig.ours.send(wire.pack(9, wire.Infer(1, 1.0, rig.inputs.put(batch_of(scripted.WAIT)))))
    while not file.path.with_suffix(".called").exists():
        pass
    rig.worker.stop()
    reply = wire.reply_of(memoryview(rig.ours.recv(wire.MAX_PACKET_BYTES)), 9)
    assert isinstance(reply, wire.Answer)
    rig.thread.join(10)
    assert not rig.thread.is_alive()
    rig.worker._idle = True  # as while it waits for a packet
    with pytest.raises(SystemExit):
        rig.worker.stop()


def test_a_parent_that_does_not_wait_for_the_answer_is_no_error(rig: Rig, file: ModelFile) -> None:
    rig.ask(load(file))
    rig.ours.send(wire.pack(9, wire.Infer(1, 1.0, rig.inputs.put(batch_of(scripted.WAIT)))))
    rig.ours.close()
    rig.thread.join(10)
    assert not rig.thread.is_alive()


def test_a_process_whose_parent_has_gone_before_ends() -> None:
    child = os.posix_spawn(
        sys.executable,
        [sys.executable, "-c", "from edged.infer.hosting.worker import guard; guard(1 << 30)"],
        dict(os.environ),
    )
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert callable(guard)


def test_views_of_inputs_are_what_the_parent_put(rig: Rig, file: ModelFile) -> None:
    rig.ask(load(file))
    for rows in (1, 0, 3):
        reply = rig.ask(wire.Infer(1, 1.0, rig.inputs.put(batch_of(1, rows))))
        assert isinstance(reply, wire.Answer)
        assert np.array_equal(rig.outputs.copies(reply.outputs)["y"], np.full(rows, 4))
