"""Questions to the hub over MQTT 5: request and response, each with a deadline, none more than the line can spare.

A connection of its own, apart from the way home: what is asked can be left unanswered, what goes home cannot. It sends
QoS 0 with an expiry, a few at a time and within a rate: what alarms and results need of the line is left to them.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, NamedTuple

import paho.mqtt.client as paho

from edged.errors import InferenceError, ModelError
from edged.infer.upstream_line import Line
from edged.sync import inference
from edged.sync.envelope import Refusal
from edged.sync.tensors import to_arrays, to_packed

if TYPE_CHECKING:
    import numpy as np

    from edged.infer.upstream import UpstreamAddress
    from edged.sync.inference import Packed

IN_FLIGHT_MAX = 4
UNSENT_MAX = 2  # handed over and not yet written: the line is slower than the rate, or hangs
_STUCK_S = 0.02

# A plug-in gets no clock; this one is the kernel's monotonic clock, as everywhere else.
Now = Callable[[], int]


class UpstreamStatistics(NamedTuple):
    """late: answers after their deadline, dropped. foreign: answers to nothing that was asked, dropped."""

    asked: int
    answered: int
    refused: int
    timed_out: int
    late: int
    foreign: int
    sent_bytes: int


class Pace:
    """A bucket without a burst: when the next message may go, so that the average stays below the rate. Pure."""

    def __init__(self, kbit_s: int) -> None:
        self._ns_per_byte = 8e6 / kbit_s
        self._free_ns = 0

    def wait_ns(self, now_ns: int) -> int:
        return max(0, self._free_ns - now_ns)

    def sent(self, now_ns: int, size_bytes: int) -> None:
        self._free_ns = max(now_ns, self._free_ns) + int(size_bytes * self._ns_per_byte)


class MqttUpstream:
    """Implements `edged.infer.upstream.PackedUpstream`. Connects in the background and keeps trying until `close`."""

    def __init__(self, address: UpstreamAddress, *, now_ns: Now = time.perf_counter_ns) -> None:
        self._address = address
        self._now_ns = now_ns
        self._answers = f"{address.root}/answer/{secrets.token_hex(8)}"
        self._changed = threading.Condition()
        self._pace = Pace(address.kbit_s)
        self._waiting: dict[bytes, SimpleQueue[bytes | None]] = {}
        self._expired: dict[bytes, None] = {}  # ids whose deadline has passed, oldest first: to tell late from foreign
        self._unsent: list[paho.MQTTMessageInfo] = []
        self._up = False
        self._fault = ""
        self._closed = False
        self._counts = dict.fromkeys(UpstreamStatistics._fields, 0)
        self._line = Line(address, self._answers, self)

    # --- asking: any thread ---

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        try:
            packed = [to_packed(name, array) for name, array in tensors.items()]
        except ValueError as error:
            raise InferenceError("invalid_input", f"Cannot ask the upstream: {error}") from None
        return self.ask_packed(digest, packed, deadline_s)

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        end_ns = self._now_ns() + int(deadline_s * 1e9)
        body = inference.body_of(tensors)
        headers = tuple(tensor.header for tensor in tensors)
        correlation = secrets.token_bytes(16)
        answers: SimpleQueue[bytes | None] = SimpleQueue()
        try:
            self._send(digest, headers, body, correlation, answers, end_ns)
            message = answers.get(timeout=max(0.0, (end_ns - self._now_ns()) / 1e9))
        except Empty:
            self._count("timed_out")
            raise InferenceError("upstream_timeout", f"No answer of the upstream within {deadline_s:.3g} s") from None
        finally:
            self._forget(correlation)
        if message is None:
            raise InferenceError("upstream_away", f"The line to the upstream broke: {self._fault}", retryable=True)
        return self._read(message, correlation.hex(), digest)

    def _send(
        self,
        digest: str,
        headers: tuple[inference.TensorHeader, ...],
        body: bytes,
        correlation: bytes,
        answers: SimpleQueue[bytes | None],
        end_ns: int,
    ) -> None:
        """Hand the question over when its turn comes. Raises `InferenceError`, `Empty` when that was too late."""
        sha256 = inference.digest_of(body)
        with self._changed:
            self._admit(end_ns)
            left_ms = (end_ns - self._now_ns()) // 1_000_000
            if left_ms < 1:
                raise Empty
            question = inference.Question(
                v=inference.VERSION,
                site=self._address.site,
                gateway=self._address.gateway,
                id=correlation.hex(),
                model=digest,
                answer_to=self._answers,
                within_ms=min(left_ms, inference.WITHIN_MAX_MS),
                sha256=sha256,
                tensors=headers,
            )
            try:
                message = inference.encode(question, body)
            except Refusal as refused:
                raise InferenceError("upstream_refused", f"Not asked: {refused}") from None
            self._waiting[correlation] = answers
            topic, expiry_s = f"{self._address.root}/ask", math.ceil(left_ms / 1000)
            info = self._line.send(topic, message, correlation=correlation, expiry_s=expiry_s)
            self._pace.sent(self._now_ns(), len(message))
            self._unsent.append(info)
            self._counts["asked"] += 1
            self._counts["sent_bytes"] += len(message)

    def _admit(self, end_ns: int) -> None:
        """Wait until this question may leave: connected, few enough on their way, the rate kept."""
        while True:
            if self._closed:
                raise InferenceError("closed", "Cannot ask the upstream: the connection is closed")
            if not self._line.alive:
                self._revive()
            if self._fault:
                raise InferenceError("upstream_away", f"The upstream is away: {self._fault}", retryable=True)
            self._unsent = [
                info for info in self._unsent if info.rc == paho.MQTT_ERR_SUCCESS and not info.is_published()
            ]
            now_ns = self._now_ns()
            pause_ns = self._pace.wait_ns(now_ns)
            full = len(self._waiting) >= IN_FLIGHT_MAX or len(self._unsent) >= UNSENT_MAX
            if self._up and not full and not pause_ns:
                return
            if now_ns >= end_ns or now_ns + pause_ns >= end_ns:
                raise self._not_admitted(full)
            until_ns = now_ns + pause_ns if pause_ns else end_ns
            # paho tells nobody that a packet of QoS 0 was written: look again soon
            self._changed.wait(min((until_ns - now_ns) / 1e9, _STUCK_S if full else math.inf))

    def _not_admitted(self, full: bool) -> InferenceError:
        if not self._up:
            return InferenceError("upstream_away", "The upstream is away: not connected yet", retryable=True)
        what = "as many questions are on their way as may" if full else f"{self._address.kbit_s} kbit/s are in use"
        return InferenceError("upstream_busy", f"Not asked in time: {what}", retryable=True)

    def _revive(self) -> None:
        """Something that paho does not expect has ended its thread without a word: go on with a new line."""
        self.on_down("the connection's thread has died")
        try:
            line = Line(self._address, self._answers, self)
        except ModelError as error:  # certificates that have gone meanwhile
            raise InferenceError("upstream_away", error.message, retryable=True) from error
        self._line.close()
        self._line = line

    def _read(self, message: bytes, question_id: str, digest: str) -> Mapping[str, np.ndarray]:
        try:
            answer, tensors = inference.decode_answer(message)
            if (answer.id, answer.model) != (question_id, digest):
                raise Refusal("bad_message", "it is about something else than was asked")
            outputs = to_arrays(tensors)
        except Refusal as error:
            self._count("refused")
            raise InferenceError("upstream_refused", f"The upstream's answer cannot be used: {error.detail}") from None
        if answer.status != "ok":
            self._count("refused")
            code = "upstream_timeout" if answer.reason == "expired" else "upstream_refused"
            raise InferenceError(code, f"The upstream refuses: {answer.reason}: {answer.detail}")
        self._count("answered")
        return outputs

    def _forget(self, correlation: bytes) -> None:
        with self._changed:
            if self._waiting.pop(correlation, None) is not None:
                self._expired[correlation] = None
                while len(self._expired) > 64:
                    del self._expired[next(iter(self._expired))]
            self._changed.notify_all()

    def _count(self, what: str) -> None:
        with self._changed:
            self._counts[what] += 1

    def statistics(self) -> UpstreamStatistics:
        with self._changed:
            return UpstreamStatistics(**self._counts)

    def close(self) -> None:
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._line.close()
        self.on_down("closed")

    # --- what the line says: its thread ---

    def on_up(self) -> None:
        with self._changed:
            self._up, self._fault = True, ""
            self._changed.notify_all()

    def on_down(self, fault: str) -> None:
        with self._changed:
            self._up, self._fault = False, fault
            self._unsent.clear()
            for answers in self._waiting.values():
                answers.put(None)  # whatever comes after a new connection is not for this one
            self._changed.notify_all()

    def on_answer(self, correlation: bytes | None, payload: bytes) -> None:
        with self._changed:
            answers = self._waiting.get(correlation) if correlation is not None else None
            if answers is not None and answers.empty():
                answers.put(payload)
            else:
                self._counts["late" if correlation in self._expired else "foreign"] += 1


# --- one connection for all who ask ---

_shared: dict[UpstreamAddress, tuple[MqttUpstream, int]] = {}
_sharing = threading.Lock()


class Lease:
    """A share of the connection to an address; the last one that closes ends it. Implements `PackedUpstream`."""

    def __init__(self, address: UpstreamAddress) -> None:
        self._address = address
        self._held = True
        with _sharing:
            upstream, users = _shared.get(address) or (MqttUpstream(address), 0)
            _shared[address] = upstream, users + 1
        self._upstream = upstream

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._upstream.ask(digest, tensors, deadline_s)

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._upstream.ask_packed(digest, tensors, deadline_s)

    def statistics(self) -> UpstreamStatistics:
        return self._upstream.statistics()

    def close(self) -> None:
        with _sharing:
            if not self._held:
                return
            self._held = False
            upstream, users = _shared.pop(self._address)
            if users > 1:
                _shared[self._address] = upstream, users - 1
                return
        upstream.close()


def connect(address: UpstreamAddress) -> Lease:
    """Ask at this address. Does not wait for the connection. Raises `ModelError` (`device_unavailable`)."""
    return Lease(address)
