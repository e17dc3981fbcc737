"""The daemon's side of one process: started, asked, watched and ended. Knows nothing of devices and chains.

A thread of its own starts the process, keeps its last words, ends it and reaps it: no caller ever waits for a grace
time. The process asks the kernel to die with that thread, which lives as long as the process.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from edged.errors import EdgedError
from edged.infer.hosting import wire
from edged.infer.hosting.limits import WorkerLimits
from edged.infer.hosting.slots import Slot, new_slot_memory

if TYPE_CHECKING:
    from edged.ports import Clock

COMMAND = (sys.executable, "-P", "-m", "edged.infer.hosting.worker")
STDERR_BYTES = 4096
# How long to wait for the exit status and the last words when the socket has ended.
_TOLD_S = 1.0
_CALL_TOLD_S = 0.003  # a crash in a call must be noticed within 20 ms; most have told by then
_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    # Libraries that start a thread per processor just because they are imported; sessions get theirs by LoadOptions.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
}

ProcessState = Literal["starting", "up", "ending", "stuck", "ended"]


class Ended(EdgedError):
    """Raised when the process cannot answer any more. `code`: `worker_crashed`, `worker_gone`, `timeout`, ..."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class System(NamedTuple):
    """What a test may replace: how a process is started, and how a signal is sent to it."""

    command: Sequence[str] = COMMAND
    send_signal: Callable[[subprocess.Popen[bytes], int], None] = subprocess.Popen.send_signal


LINUX = System()


class WorkerProcess:
    """One child. Whoever talks to it holds `lock`; everything else may be called from any thread.

    Args:
        name: for messages and the names of threads. niceness: 0, or how much others come first.
    """

    def __init__(
        self, name: str, clock: Clock, limits: WorkerLimits, *, system: System = LINUX, niceness: int = 0
    ) -> None:
        self.name = name
        self.lock = threading.Lock()
        self.state: ProcessState = "starting"
        self.pid = 0
        self.calls = 0
        self.models: set[int] = set()
        self.abandoned: list[int] = []  # models that were closed while it was busy
        self.mono_ns = clock.mono_ns
        self.touched_ns = clock.mono_ns()  # when a model was last loaded or closed
        self.end_code = ""
        self.end_message = ""
        self._limits = limits
        self._system = system
        self._niceness = niceness
        self._number = 0
        self._buffer = bytearray(wire.MAX_PACKET_BYTES)
        self._whole = memoryview(self._buffer)
        self._tail = b""
        self._ending = threading.Lock()
        self._spawned = threading.Event()
        self._settled = threading.Event()  # ended, or stuck
        self._over = threading.Event()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._descriptors = [
            new_slot_memory(f"{name[:100]} {what}", limits.slot_bytes) for what in ("inputs", "outputs")
        ]
        self.inputs, self.outputs = (Slot(descriptor, limits.slot_bytes) for descriptor in self._descriptors)
        self._events = select.poll()
        self._events.register(self._ours, select.POLLIN)
        # A daemon that leaves without `close` must not wait here: the kernel ends the child with this thread.
        thread = threading.Thread(target=self._live, name=f"process {name}", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # no more threads
            self._theirs.close()
            self._give_back()
            raise OSError(str(error)) from error

    def start(self) -> None:
        """Wait until the process says hello. Raises Ended; the process is ended then."""
        deadline_ns = self.mono_ns() + int(self._limits.start_s * 1e9)
        self._spawned.wait(self._limits.start_s)
        with self.lock:
            if self.state != "starting":
                raise self.ended()
            reply = self._receive(0, deadline_ns, _TOLD_S)
            if not isinstance(reply, wire.Hello) or reply.protocol != wire.PROTOCOL:
                raise self.broken(f"expected hello of protocol {wire.PROTOCOL}, got {reply}")
            with self._ending:
                if self.state == "starting":
                    self.state = "up"

    def exchange(self, request: wire.Request, deadline_ns: int) -> wire.Reply:
        """Ask and wait for the answer. The caller holds `lock`.

        Raises:
            Ended: no answer until the deadline (`timeout`), or none at all; the process is being ended then.
            BadPacket: the request is too long; nothing was sent.
        """
        if self.state != "up":
            raise self.ended()
        self._number = (self._number + 1) & 0xFFFFFFFF
        packet = wire.pack(self._number, request)
        told_s = _CALL_TOLD_S if type(request) is wire.Infer else _TOLD_S
        try:
            self._ours.send(packet, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            raise self._crashed(f"it does not read: {error.strerror}", told_s) from error
        return self._receive(self._number, deadline_ns, told_s)

    def ended(self) -> Ended:
        """Why nobody answers here any more."""
        return Ended(self.end_code or "worker_gone", self.end_message or f"{self.name}: the process is {self.state}")

    def end(self, code: str, message: str) -> None:
        """Begin to end the process; the first reason counts. Returns at once."""
        with self._ending:
            if self.end_code:
                return
            self.end_code, self.end_message = code, message
            if self.state in ("starting", "up"):
                self.state = "ending"
            os.eventfd_write(self._wake, 1)

    def wait_settled(self, timeout_s: float) -> bool:
        """Wait until the process has ended or is known to be stuck."""
        return self._settled.wait(max(0.0, timeout_s))

    def wait_ended(self, timeout_s: float) -> bool:
        """Wait until the process has ended and everything it held is given back."""
        return self._over.wait(max(0.0, timeout_s))

    def rss_bytes(self) -> int:
        """Resident memory; 0 when it has gone. Reads a file."""
        try:
            pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        except (OSError, ValueError, IndexError):
            return 0
        return pages * os.sysconf("SC_PAGESIZE")

    def _receive(self, number: int, deadline_ns: int, told_s: float) -> wire.Reply:
        left_ms = (deadline_ns - self.mono_ns()) / 1e6
        if not self._events.poll(max(0.0, left_ms)):
            message = f"{self.name}: no answer in time; the process {self.pid} is being ended"
            self.end("worker_gone", message)
            raise Ended("timeout", message)
        try:
            size = self._ours.recv_into(self._buffer, 0, socket.MSG_DONTWAIT)
        except OSError as error:
            raise self._crashed(str(error.strerror), told_s) from error
        if not size:
            raise self._crashed("it closed its socket", told_s)
        try:
            return wire.reply_of(self._whole[:size], number)
        except wire.BadPacket as error:
            raise self.broken(str(error)) from error

    def broken(self, what: str) -> Ended:
        """It answers nonsense: not to be trusted with anything."""
        message = f"{self.name}: the process {self.pid} broke the protocol: {what}"
        self.end("worker_crashed", message)
        return Ended("worker_crashed", message)

    def _crashed(self, what: str, told_s: float) -> Ended:
        self.end("worker_crashed", f"{self.name}: the process {self.pid} is lost: {what}")
        self._settled.wait(told_s)  # then `_bury` has put the exit status and the last words in its place
        return self.ended()

    # --- the thread of the process ---

    def _live(self) -> None:
        try:
            child = self._spawn()
        except OSError as error:
            self.end("load_failed", f"{self.name}: cannot start {self._system.command[0]}: {error}")
            self._give_back()
            return
        finally:
            self._theirs.close()
            self._spawned.set()
        assert child.stderr is not None
        with child.stderr:
            try:
                self._watch(child, child.stderr.fileno())
            except OSError as error:  # no descriptor for it, or a kernel or sandbox that knows no pidfd_open
                self.end("load_failed", f"{self.name}: cannot watch the process {self.pid}: {error}")
                child.kill()
                child.wait()
        self._give_back()

    def _spawn(self) -> subprocess.Popen[bytes]:
        passed = (self._theirs.fileno(), *self._descriptors)
        arguments = [*passed, os.getpid(), self._niceness, self._limits.slot_bytes]
        package = str(Path(__file__).parents[3])
        search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
        child = subprocess.Popen(
            [*self._system.command, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=passed,
            env=os.environ | {"PYTHONPATH": search} | _ENVIRONMENT,
        )
        # What a library prints goes the way of its errors: both are last words.
        child.stderr, child.stdout = child.stdout, None
        self.pid = child.pid
        return child

    def _watch(self, child: subprocess.Popen[bytes], last_words: int) -> None:
        """Until the process is dead: keep its last words; end it when told to, step by step."""
        os.set_blocking(last_words, False)
        process = os.pidfd_open(child.pid)
        events = select.poll()
        for descriptor in (last_words, process, self._wake):
            events.register(descriptor, select.POLLIN)
        steps = [(signal.SIGTERM, self._limits.grace_s), (signal.SIGKILL, self._limits.kill_wait_s)]
        next_ns: int | None = None
        try:
            while True:
                left_ms = None if next_ns is None else max(0.0, (next_ns - self.mono_ns()) / 1e6)
                ready = {descriptor for descriptor, _ in events.poll(left_ms)}
                if last_words in ready and not self._read(last_words):
                    events.unregister(last_words)
                if process in ready:
                    break
                if self._wake in ready:
                    events.unregister(self._wake)
                elif next_ns is None or (ready and self.mono_ns() < next_ns):
                    continue
                next_ns = self._next_step(child, steps)
            self._bury(child, last_words)
        finally:
            os.close(process)

    def _next_step(self, child: subprocess.Popen[bytes], steps: list[tuple[signal.Signals, float]]) -> int | None:
        """Send the next signal; when none is left, the process is stuck. When to look again, in monotonic ns."""
        if not steps:
            self.state = "stuck"
            self._settled.set()
            return None
        number, wait_s = steps.pop(0)
        self._system.send_signal(child, number)
        return self.mono_ns() + int(wait_s * 1e9)

    def _read(self, last_words: int) -> bool:
        """Keep the newest of what it prints. False at the end."""
        try:
            data = os.read(last_words, 65_536)
        except BlockingIOError:
            return True
        self._tail = (self._tail + data)[-STDERR_BYTES:]
        return bool(data)

    def _bury(self, child: subprocess.Popen[bytes], last_words: int) -> None:
        """Reap it and say how it ended, unless somebody ended it for a reason."""
        child.wait()
        self._read(last_words)
        with self._ending:
            if self.end_code in ("", "worker_crashed"):
                said = self._tail.decode(errors="replace").strip()
                how = _ended_by(child.returncode)
                self.end_message = f"{self.end_message or f'{self.name}: the process {self.pid} has ended'}; {how}"
                self.end_message += f"; its last words: {said}" if said else ""
                self.end_code = "worker_crashed"
        try:
            self._ours.shutdown(socket.SHUT_RDWR)  # wakes who waits for an answer, even when a grandchild holds the end
        except OSError:  # it was not connected any more
            pass

    def _give_back(self) -> None:
        self.state = "ended"
        self._settled.set()
        with self.lock:  # nobody may be in the middle of a call when its descriptors go
            self._ours.close()
            for slot in (self.inputs, self.outputs):
                slot.close()
            for descriptor in (*self._descriptors, self._wake):
                os.close(descriptor)
            self._over.set()


def _ended_by(code: int) -> str:
    """What became of a process, for people."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"ended by {signal.Signals(-code).name}"
    except ValueError:  # real-time signals have no name
        return f"ended by signal {-code}"
