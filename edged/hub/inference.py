"""Answers questions of gateways: a bounded queue between the broker's thread and those that compute.

Every question is answered once, with tensors or with a reason; what nobody could be told is counted.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from edged.hub.decisions import Sender, allowed, parse_sender
from edged.sync import inference
from edged.sync.envelope import Refusal
from edged.sync.tensors import to_arrays, to_packed

if TYPE_CHECKING:
    from edged.hub.inference_models import ModelFolder
    from edged.hub.metering import HubMetrics
    from edged.hub.settings import GatewaysTable
    from edged.ports import Clock
    from edged.sync.inference import Answer, Question

STOP_S = 5.0  # for a call in progress; the threads are daemons, a stuck one ends with the process
_MS = 1_000_000

Reply = Callable[[str, bytes, bytes, int], str]
"""(topic, payload, correlation data, expiry in s) -> "" or why it did not leave. Any thread, never blocks."""


class Asked(NamedTuple):
    """A message as the broker handed it over. answer_to, correlation: its MQTT 5 properties, or empty."""

    topic: str
    payload: bytes
    answer_to: str
    correlation: bytes
    reply: Reply


class _Job(NamedTuple):
    asked: Asked
    question: Question
    arrived_ns: int


def asking(root: str, topic: str) -> Sender | None:
    """Who asks on `{root}/{site}/{gateway}/infer/ask`; None for what is no such topic."""
    levels = topic.removeprefix(f"{root}/").split("/")
    if len(levels) != 4 or levels[2:] != ["infer", "ask"] or not topic.startswith(f"{root}/"):
        return None
    return parse_sender(f"{levels[0]}/{levels[1]}")


def subscriptions(root: str, sites: tuple[str, ...], share: str) -> list[str]:
    """The filters of one worker. share: `$share/GROUP/` or ""."""
    return [f"{share}{root}/{site}/+/infer/ask" for site in sites or ("+",)]


def answerable(root: str, sender: Sender, asked: Asked, question: Question) -> bool:
    """Whether the answer would go below the topics of the gateway that asked, as header and properties say. Pure.

    Nobody can have the hub speak to others, or in another's name.
    """
    below = f"{root}/{sender}/infer/answer/"
    level = question.answer_to.removeprefix(below)
    sound = question.answer_to.startswith(below) and level and not any(char in level for char in "/+#\0")
    agree = asked.answer_to in {"", question.answer_to} and asked.correlation.hex() in {"", question.id}
    return bool(sound) and agree


def served(sender: Sender, question: Question, gateways: GatewaysTable, sites: tuple[str, ...]) -> bool:
    """Whether the gateway is who it says, and one of ours. Pure."""
    return (question.site, question.gateway) == sender and allowed(sender, gateways.allow, sites)


class InferenceService:
    """One per worker. `offer` is called in the broker's thread and never waits."""

    def __init__(
        self,
        root: str,
        gateways: GatewaysTable,
        sites: tuple[str, ...],
        models: ModelFolder,
        clock: Clock,
        metrics: HubMetrics,
        *,
        threads: int,
        max_waiting: int,
    ) -> None:
        self._root = root
        self._gateways = gateways
        self._sites = sites
        self._models = models
        self._clock = clock
        self._metrics = metrics
        self._counting = threading.Lock()
        self._max_waiting = max_waiting
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()  # `offer`, its only writer, keeps it short
        self._threads = [threading.Thread(target=self._work, name="infer", daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def offer(self, asked: Asked) -> None:
        """Queue a question, or refuse it at once."""
        arrived_ns = self._clock.mono_ns()
        sender = asking(self._root, asked.topic)
        try:
            question = inference.question_line(asked.payload)
        except Refusal:
            question = None
        if sender is None or question is None:
            self._count("unreadable")  # nobody can be told: there is no address that can be trusted
            return
        if not answerable(self._root, sender, asked, question):
            self._count("bad_message")
            return
        job = _Job(asked, question, arrived_ns)
        if not served(sender, question, self._gateways, self._sites):
            self._refuse(job, Refusal("foreign_gateway", f"this hub computes nothing for {sender}"))
        elif self._jobs.qsize() >= self._max_waiting:
            self._refuse(job, Refusal("busy", f"{self._max_waiting} questions wait already"))
        else:
            self._jobs.put(job)

    def close(self) -> None:
        """Answer nothing more. Waits a little for calls in progress. Blocks."""
        while True:
            try:
                self._jobs.get_nowait()
            except queue.Empty:
                break
        for _ in self._threads:
            self._jobs.put(None)
        for thread in self._threads:
            thread.join(STOP_S / len(self._threads))

    # --- a computing thread ---

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                self._answer(job)
            except Refusal as refused:
                self._refuse(job, refused)
            # Tensors are anybody's; whatever they trigger in a library, this thread answers the next question.
            except Exception as error:  # noqa: BLE001
                self._refuse(job, Refusal("infer_failed", f"unexpected {type(error).__name__}"))

    def _answer(self, job: _Job) -> None:
        question = job.question
        self._in_time(job)
        model = self._models.find(question.model)
        _, tensors = inference.decode_question(job.asked.payload)
        arrays = to_arrays(tensors)
        model.check(arrays)
        self._in_time(job)  # loading a model may have taken long
        begun_ns = self._clock.mono_ns()
        outputs = model.run(arrays, self._left_ms(job) / 1000)
        infer_ns = self._clock.mono_ns() - begun_ns
        try:
            packed = [to_packed(name, array) for name, array in outputs.items()]
        except (ValueError, AttributeError) as error:  # AttributeError: an output that is no array
            raise Refusal("model_unusable", str(error)) from None
        body = inference.body_of(packed)
        answer = inference.Answer(
            v=inference.VERSION,
            id=question.id,
            model=question.model,
            status="ok",
            sha256=inference.digest_of(body),
            tensors=tuple(tensor.header for tensor in packed),
            queue_ms=round((begun_ns - job.arrived_ns) / _MS, 3),
            infer_ms=round(infer_ns / _MS, 3),
        )
        self._send(job, answer, body)
        self._count("ok", infer_ns)

    def _in_time(self, job: _Job) -> None:
        if self._left_ms(job) <= 0:
            raise Refusal("expired", f"it had {job.question.within_ms} ms")

    def _left_ms(self, job: _Job) -> float:
        return job.question.within_ms - (self._clock.mono_ns() - job.arrived_ns) / _MS

    def _refuse(self, job: _Job, refused: Refusal) -> None:
        self._count(refused.code)
        self._send(job, inference.refusal(job.question.id, job.question.model, refused.code, refused.detail), b"")

    def _send(self, job: _Job, answer: Answer, body: bytes) -> None:
        """Raises `Refusal` (`too_large`) for an answer that is."""
        message = inference.encode(answer, body)
        expiry_s = max(1, math.ceil(self._left_ms(job) / 1000))
        if job.asked.reply(job.question.answer_to, message, bytes.fromhex(job.question.id), expiry_s):
            self._count("unsent")

    def _count(self, outcome: str, infer_ns: int = 0) -> None:
        with self._counting:
            self._metrics.inferred(outcome, infer_ns)
