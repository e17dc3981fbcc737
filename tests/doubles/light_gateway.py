"""A gateway of few lines: made-up rows, plain batches, sent again until they are home. Fifty fit in one test."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import TracebackType

import msgspec
import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

from edged.messages import ResultColumns, ResultContext
from edged.sync.envelope import decode_ack, decode_hello_ack, encode_message, seal
from edged.sync.piece import Piece
from edged.sync.protocol import VERSION, Ack, Hello, HelloAck, StreamExtent

CONTEXT = ResultContext("pump", "bearing", "3", "ab" * 32, "onnxruntime:cpu", "normal", False, "synced", "boot-1")
EPOCH_MS = 1_760_000_000_000
RESEND_S = 3.0


def rows(first: int, last: int) -> ResultColumns:
    """Results whose every field follows from their number."""
    seqs = range(first, last + 1)
    n = len(seqs)
    return ResultColumns(
        contexts=[CONTEXT],
        context=[0] * n,
        device=[f"pump-{seq % 7}" for seq in seqs],
        topic=[f"plant/pump/{seq % 7}" for seq in seqs],
        event_seq=list(seqs),
        in_seq=list(seqs),
        ts=[EPOCH_MS + 10 * seq for seq in seqs],
        produced=[EPOCH_MS + 10 * seq + 3 for seq in seqs],
        mono_ns=[1_000_000 * seq for seq in seqs],
        label=["ok"] * n,
        score=[seq % 100 / 128 for seq in seqs],
        values=[{"wear": seq % 64 / 4} for seq in seqs],
        queue_us=[100] * n,
        infer_us=[40 + seq % 5 for seq in seqs],
        quality=[192] * n,
        reasons=[()] * n,
    )


def batch(first: int, last: int, *, gateway: str, site: str = "plant", epoch: str = "epoch-1", base: int = 1) -> bytes:
    """Results of these numbers, as they travel."""
    piece = Piece("result", epoch, base, first, last, "boot-1", "synced", rows(first, last), None)
    return seal(piece, site=site, gateway=gateway)[1]


class LightGateway:
    """Brings `total` results in batches of `size` through the broker at `port`.

    home: set when the hub has called everything home. answers: every `Ack`, in order. window: batches under way.
    """

    def __init__(
        self,
        port: int,
        name: str,
        *,
        total: int = 0,
        size: int = 500,
        window: int = 4,
        protocol: MQTTProtocolVersion = MQTTProtocolVersion.MQTTv5,
        username: str = "",
        password: str = "",
    ) -> None:
        self.name = name
        self.home = threading.Event()
        self.answers: list[Ack] = []
        self.welcomes: list[HelloAck] = []
        self.resent = 0
        self._root = f"edged/v1/plant/{name}/sync"
        self._batches = {
            first: batch(first, min(total, first + size - 1), gateway=name) for first in range(1, total + 1, size)
        }
        self._total = total
        self._window = window
        self._under_way: dict[int, float] = {}  # first number → when to send it again
        self._lock = threading.Lock()
        self._changed = threading.Event()
        self._subscribed = threading.Event()
        self._ending = False
        self._port = port
        self._client = paho.Client(CallbackAPIVersion.VERSION2, f"light-{name}", protocol=protocol)
        if username:
            self._client.username_pw_set(username, password)
        self._client.reconnect_delay_set(0.05, 0.5)  # type: ignore[arg-type]  # fractions work
        self._client.on_connect = lambda client, *_: client.subscribe(
            [(f"{self._root}/result/ack", 1), (f"{self._root}/hello/ack", 1)]
        )
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._thread = threading.Thread(target=self._run, name=f"light-{name}", daemon=True)

    # --- what a test does ---

    def connect(self) -> LightGateway:
        """Connect without sending anything."""
        self._client.connect("127.0.0.1", self._port, 60)
        self._client.loop_start()
        assert self._subscribed.wait(20), f"{self.name} did not get subscribed"
        return self

    def start(self) -> LightGateway:
        """Bring everything home, in the background."""
        self.connect()
        self._thread.start()
        return self

    def say(self, payload: bytes, *, stream: str = "result", to: str = "") -> None:
        """Publish any bytes as a batch. to: another topic."""
        self._client.publish(to or f"{self._root}/{stream}/batch", payload, 1)

    def hello(self) -> None:
        extent = StreamExtent("epoch-1", "result", 1, self._total + 1)
        said = Hello(
            v=VERSION, site="plant", gateway=self.name, instance=f"i-{self.name}", version="1",
            epoch="epoch-1", extents=(extent,) if self._total else (),
        )  # fmt: skip
        self._client.publish(f"{self._root}/hello", encode_message(said), 1)

    def answer_to(self, done: Callable[[Ack], bool], within_s: float = 20.0) -> Ack:
        """The first answer, past or to come, of which `done` is true."""
        deadline = time.monotonic() + within_s
        while True:
            found = next((answer for answer in list(self.answers) if done(answer)), None)
            if found is not None:
                return found
            assert time.monotonic() < deadline, f"{self.name}: no such answer among {self.answers[-5:]}"
            time.sleep(0.01)

    def __enter__(self) -> LightGateway:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._ending = True
        self._changed.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # else paho closes them when it is collected, in the middle of another test

    # --- its threads ---

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if message.topic.endswith("/hello/ack"):
            self.welcomes.append(decode_hello_ack(bytes(message.payload)))
        else:
            answer = decode_ack(bytes(message.payload))
            with self._lock:
                self._take(answer)
            self.answers.append(answer)
        self._changed.set()

    def _take(self, answer: Ack) -> None:
        """Forget what is home; a batch that is to come again later waits as long as it was told."""
        if answer.status == "retry" and answer.first in self._under_way:
            self._under_way[answer.first] = time.monotonic() + answer.retry_ms / 1000
        elif answer.status == "ok":
            self._under_way.pop(answer.first, None)
            self._batches.pop(answer.first, None)
            if not self._batches:  # not `upto`: answers of two workers may overtake each other
                self.home.set()

    def _run(self) -> None:
        while not self._ending and not self.welcomes:
            self.hello()
            self._changed.wait(2)
            self._changed.clear()
        spread_s = self.welcomes[0].spread_s if self.welcomes else 0
        assert spread_s >= 0
        while not self._ending and not self.home.is_set():
            self._send(time.monotonic())
            self._changed.wait(0.2)
            self._changed.clear()

    def _send(self, now: float) -> None:
        with self._lock:
            again = [first for first, due in self._under_way.items() if due <= now]
            free = self._window - len(self._under_way)
            fresh = [first for first in self._batches if first not in self._under_way][: max(0, free)]
            for first in (*again, *fresh):
                self._under_way[first] = now + RESEND_S
            leaving = [self._batches[first] for first in (*again, *fresh)]
            self.resent += len(again)
        for payload in leaving:
            self.say(payload)


def relabelled(payload: bytes, **header: object) -> bytes:
    """The same batch, with other words in its first line, as a liar would."""
    line, _, body = payload.partition(b"\n")
    return msgspec.json.encode(msgspec.json.decode(line) | header) + b"\n" + body
