"""All processes of one daemon: which device has one, loading into them, replacing them, ending them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from edged.errors import ModelError
from edged.infer.hosting import probing, wire
from edged.infer.hosting.limits import DEFAULTS, WorkerLimits
from edged.infer.hosting.model import HostedModel, unload_abandoned
from edged.infer.hosting.process import LINUX, Ended, System, WorkerProcess
from edged.infer.hosting.seats import DeviceStats, Seat, Turn, stats_of
from edged.infer.runtime import Device, Probe
from edged.policy.faults import fault_of

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.infer.runtime import LoadOptions
    from edged.ports import Clock, Model

__all__ = ["DeviceStats", "Devices", "Log"]

_MARGIN_S = 1.0  # beyond the times that ending a process takes


class Log(Protocol):
    """Where it is said that a process began or ended."""

    def info(self, event: str, **fields: object) -> None: ...

    def warning(self, event: str, **fields: object) -> None: ...


class Devices:
    """The processes of one daemon, one per device; thread-safe. A device is named by its rung, `runtime:device`.

    Everything but `statistics` and `due` may block: call it from a thread.

    Args:
        available_bytes: how much memory is free; None: unknown, nothing is refused.
        command: of the child, for tests. system: that and more, for tests.
    """

    def __init__(
        self,
        clock: Clock,
        limits: WorkerLimits = DEFAULTS,
        *,
        log: Log | None = None,
        command: Sequence[str] | None = None,
        available_bytes: Callable[[], int | None] = lambda: None,
        system: System = LINUX,
    ) -> None:
        self._clock = clock
        self._limits = limits
        self._log = log
        self._system = system if command is None else system._replace(command=command)
        self._available_bytes = available_bytes
        self._seats: dict[str, Seat] = {}
        self._processes: set[WorkerProcess] = set()  # all that may live, those of probes and preparations included
        self._lock = threading.Lock()  # of the two above
        self._numbers = iter(range(1, 2**62))
        self._closed = False

    def load(self, rung: str, file: ModelFile, options: LoadOptions) -> Model:
        """Load in the process of the device, which is started when there is none.

        Raises:
            ModelError: what the runtime raised; `worker_crashed`, `load_timeout`; `needs_power_cycle`: the last process
                could not be ended; `no_memory`; `device_unavailable`: too many starts, or others load too long;
                `load_failed`: the process does not start; `closed`.
        """
        seat = self._seat(rung)
        with self._turn(seat):
            process = self._process_of(seat, file)
            model = self._load_into(process, rung, file, options)
            seat.models = [other for other in seat.models if not other.closed and other.process is process]
            seat.models.append(model)
            return model

    def probe(self, rung: str, timeout_s: float = 20.0) -> Probe:
        """Ask the runtime in a child of its own whether the device can be used. Raises nothing."""
        seat = self._seats.get(rung)
        process = None if seat is None else seat.process
        if process is not None and process.state == "up" and seat and any(model.exclusive for model in seat.models):
            device = rung.partition(":")[2]
            return Probe(True, (Device(device, device, rung),), reason=f"in use by our process {process.pid}")
        try:
            guest = self._begin(rung)
        except ModelError as error:
            return Probe(False, code="runtime_unavailable", reason=error.message)
        try:
            return probing.look(guest, rung, self._clock.mono_ns() + int(timeout_s * 1e9))
        finally:
            self._dismiss(guest)

    def prepare(self, rung: str, file: ModelFile, options: LoadOptions, timeout_s: float) -> None:
        """Let the runtime make what `load` needs, in a child of its own at low priority.

        Raises:
            ModelError: what the runtime raised, else `prepare_failed`.
        """
        guest = self._begin(rung, probing.NICENESS)
        try:
            probing.prepare(guest, rung, file, options, self._clock.mono_ns() + int(timeout_s * 1e9))
        finally:
            self._dismiss(guest)

    def check(self) -> tuple[str, ...]:
        """Call regularly: rungs whose process has ended since the last check, idle ones that were wedged included.

        Also unloads what could not be unloaded, ends processes that have been without a model for long, and looks how
        much memory the others take.
        """
        ended = []
        for seat in tuple(self._seats.values()):
            process = seat.process
            if process is None:
                continue
            self._end_if_unused(seat, process)
            self._look_after(process)
            seat.rss_bytes = process.rss_bytes()
            if process.state != "up" and seat.told_end is not process:
                seat.told_end = process
                if process.end_code != "idle":
                    ended.append(seat.rung)
                    self._say_ended(process)
        return tuple(ended)

    def due(self) -> tuple[str, ...]:
        """Rungs whose process has served, or grown, more than the limits say: `recycle` them at a quiet moment.

        One that could not be replaced is due again after `starts_within_s`: its successors use up starts.
        """
        limits = self._limits
        now_ns = self._clock.mono_ns()
        return tuple(
            seat.rung
            for seat in tuple(self._seats.values())
            if (process := seat.process) is not None
            and process.state == "up"
            and now_ns >= seat.recycle_from_ns
            and (
                0 < limits.recycle_calls <= process.calls
                or 0 < limits.recycle_rss_bytes <= seat.rss_bytes
            )
        )  # fmt: skip

    def recycle(self, rung: str, prove: Callable[[Model, Model], None] | None = None) -> bool:
        """Start a successor, load the same models there, and let it answer from the next call on.

        False: it cannot be done while the old one holds the device (let the chain fall back first), or there is nothing
        to replace. prove: called with each serving model and its successor; what it raises keeps the old process.

        Raises:
            ModelError: as `load`; the old process goes on.
        """
        seat = self._seat(rung)
        with self._turn(seat):
            old = seat.process
            seat.recycle_from_ns = self._clock.mono_ns() + int(self._limits.starts_within_s * 1e9)
            models = [model for model in seat.models if not model.closed and model.process is old]
            if old is None or old.state != "up" or not models or any(model.exclusive for model in models):
                return False
            successor = self._start(seat, sum(model.origin[0].size_bytes for model in models))
            try:
                pairs = [(model, self._load_into(successor, rung, *model.origin)) for model in models]
                for model, after in pairs:
                    if after.info != model.info:
                        raise ModelError("load_failed", f"{rung}: {model.info.model} loads otherwise than before")
                    if prove is not None:
                        prove(model, after)
            except BaseException:
                successor.end("worker_gone", f"{rung}: the successor was not taken")
                raise
            self._exchange_processes(seat, old, successor, pairs)
            seat.recycle_from_ns = 0
            return True

    def statistics(self) -> tuple[DeviceStats, ...]:
        """Every device that ever had a process. Does not block."""
        return tuple(stats_of(seat) for seat in tuple(self._seats.values()))

    def close(self, timeout_s: float) -> None:
        """End every process and wait for it. Calls in progress, and later ones, get `closed`."""
        with self._lock:
            self._closed = True
            processes = tuple(self._processes)
        deadline_ns = self._clock.mono_ns() + int(timeout_s * 1e9)
        for process in processes:
            process.end("closed", f"{process.name}: the daemon is stopping")
        for process in processes:
            process.wait_ended((deadline_ns - self._clock.mono_ns()) / 1e9)

    # --- processes ---

    def _seat(self, rung: str) -> Seat:
        with self._lock:
            return self._seats.setdefault(rung, Seat(rung))

    def _turn(self, seat: Seat) -> Turn:
        return Turn(seat, self._limits.load_s)

    def _process_of(self, seat: Seat, file: ModelFile) -> WorkerProcess:
        """The process of a device, started if need be, after the last one has let go of the device."""
        process = seat.process
        if process is not None and process.state == "up":
            self._check_memory(seat.rung, file.size_bytes, new=False)
            return process
        if process is not None:
            limits = self._limits
            process.wait_settled(limits.grace_s + limits.kill_wait_s + _MARGIN_S)
            if process.state != "ended":
                raise ModelError(
                    "needs_power_cycle",
                    f"{seat.rung}: the process {process.pid} does not end, not even by SIGKILL: {process.end_message}",
                    hint="switch the device, or the box, off and on again",
                )
        started = self._start(seat, file.size_bytes)
        seat.take(started)
        return started

    def _start(self, seat: Seat, model_bytes: int) -> WorkerProcess:
        """A new process in this seat; a successor is not seated yet. Raises ModelError."""
        limits = self._limits
        now_ns = self._clock.mono_ns()
        while seat.started_ns and now_ns - seat.started_ns[0] > limits.starts_within_s * 1e9:
            seat.started_ns.popleft()
        if len(seat.started_ns) >= limits.starts_count:
            raise ModelError(
                "device_unavailable",
                f"{seat.rung}: {limits.starts_count} processes started within {limits.starts_within_s} s",
                hint="look at why they end: the log says it",
                retryable=True,
            )
        self._check_memory(seat.rung, model_bytes, new=True)
        seat.started_ns.append(now_ns)
        process = self._begin(seat.rung)
        seat.starts += 1
        if self._log is not None:
            self._log.info("device_process_started", code=seat.rung, pid=process.pid)
        return process

    def _begin(self, rung: str, niceness: int = 0) -> WorkerProcess:
        """A process that said hello. Raises ModelError (`load_failed`, `closed`)."""
        try:
            process = WorkerProcess(rung, self._clock, self._limits, system=self._system, niceness=niceness)
        except OSError as error:
            raise ModelError("load_failed", f"{rung}: cannot start a process: {error}", retryable=True) from error
        with self._lock:
            self._processes = {other for other in self._processes if other.state != "ended"} | {process}
            if self._closed:
                process.end("closed", f"{rung}: the daemon is stopping")
        try:
            process.start()
        except Ended as ended:
            process.end("load_failed", ended.message)
            code = "closed" if ended.code == "closed" else "load_failed"
            raise ModelError(code, f"{rung}: the process did not start: {ended.message}", retryable=True) from ended
        return process

    def _load_into(self, process: WorkerProcess, rung: str, file: ModelFile, options: LoadOptions) -> HostedModel:
        runtime, _, device = rung.partition(":")
        number = next(self._numbers)
        deadline_ns = self._clock.mono_ns() + int(self._limits.load_s * 1e9)
        request = wire.Load(number, runtime, device or "cpu", file, options)
        if not process.lock.acquire(timeout=self._limits.load_s):
            raise ModelError("device_unavailable", f"{rung}: busy for {self._limits.load_s} s", retryable=True)
        try:
            unload_abandoned(process, deadline_ns)
            reply = process.exchange(request, deadline_ns)
            if isinstance(reply, wire.Failed):
                raise self._refused(process, reply)
            if not isinstance(reply, wire.Loaded):
                raise process.broken(f"expected a loaded model, got {type(reply).__name__}")
            process.models.add(number)
        except Ended as ended:
            code = "load_timeout" if ended.code == "timeout" else ended.code
            raise ModelError(code, f"Cannot load {file.path}: {ended.message}", retryable=True) from ended
        finally:
            process.touched_ns = self._clock.mono_ns()
            process.lock.release()
        return HostedModel(process, number, reply, (file, options), self._clock, self._limits.unload_s)

    def _refused(self, process: WorkerProcess, failure: wire.Failed) -> ModelError:
        """What the runtime raised while loading. Other models of the process live on, unless the device is lost."""
        code = wire.code_of(failure, "load_failed")
        fault = fault_of(code)
        if fault.action == "restart" and (fault.scope == "device" or not process.models):
            process.end("worker_gone", f"{process.name}: ended after {code}: {failure.message}")
        return ModelError(code, failure.message, hint=failure.hint, retryable=failure.retryable)

    def _exchange_processes(
        self, seat: Seat, old: WorkerProcess, successor: WorkerProcess, pairs: list[tuple[HostedModel, HostedModel]]
    ) -> None:
        """Between two calls: who waits for a turn on the old process gets it on the new one."""
        with old.lock:
            for model, after in pairs:
                model.move(after)
                if model.closed:  # while we were busy
                    successor.abandoned.append(after.number)
            seat.take(successor)
            seat.models = [model for model, _ in pairs]
        old.end("worker_gone", f"{seat.rung}: replaced after {old.calls} calls")
        if self._log is not None:
            self._log.info("device_process_replaced", code=seat.rung, before=old.pid, after=successor.pid)

    def _end_if_unused(self, seat: Seat, process: WorkerProcess) -> None:
        """End a process that has been without a model for long, unless somebody is just about to load one."""
        if process.models or not seat.lock.acquire(blocking=False):
            return
        try:
            unused_ns = self._clock.mono_ns() - process.touched_ns
            if not process.models and unused_ns > self._limits.idle_end_s * 1e9:
                process.end("idle", f"{process.name}: no model for {self._limits.idle_end_s} s")
        finally:
            seat.lock.release()

    def _dismiss(self, guest: WorkerProcess) -> None:
        """End the process of a probe or a preparation, and let it let go of the device before anybody loads."""
        guest.end("worker_gone", f"{guest.name}: its question is answered")
        guest.wait_settled(self._limits.grace_s + self._limits.kill_wait_s + _MARGIN_S)

    def _look_after(self, process: WorkerProcess) -> None:
        """Unload from, and ping, a process that is idle; one that is busy has a deadline of its own."""
        if process.state != "up" or not process.lock.acquire(blocking=False):
            return
        try:
            deadline_ns = self._clock.mono_ns() + int(self._limits.ping_s * 1e9)
            unload_abandoned(process, deadline_ns)
            if process.state == "up":
                process.exchange(wire.Ping(), deadline_ns)
        except Ended:  # told by the state
            pass
        finally:
            process.lock.release()

    def _check_memory(self, rung: str, model_bytes: int, *, new: bool) -> None:
        """Refuse before the kernel has to choose a victim."""
        available = self._available_bytes()
        limits = self._limits
        needed = int(model_bytes * limits.memory_factor) + (limits.process_bytes if new else 0)
        if available is not None and available - needed < limits.reserve_bytes:
            raise ModelError(
                "no_memory",
                f"{rung}: loading takes about {needed >> 20} MiB and must leave {limits.reserve_bytes >> 20} MiB, "
                f"{available >> 20} MiB are free",
                hint="a smaller (INT8) model, fewer pipelines, or more memory",
                retryable=True,
            )

    def _say_ended(self, process: WorkerProcess) -> None:
        if self._log is not None:
            self._log.warning(
                "device_process_ended", code=process.name, pid=process.pid, reason=process.end_code,
                detail=process.end_message,
            )  # fmt: skip
