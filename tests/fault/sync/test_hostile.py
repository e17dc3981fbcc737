"""Hostile batches are refused with a reason, and nobody else's rows wait for them."""

from __future__ import annotations

import gzip
import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from edged.sync.protocol import BODY_MAX_BYTES, DECODED_MAX_BYTES, Ack
from tests.doubles.broker import Mosquitto
from tests.doubles.hub_books import HubBooks
from tests.doubles.light_gateway import LightGateway, batch, relabelled
from tests.doubles.upstream_site import Hub
from tests.doubles.waiting import until

ROWS = 10


class Centre:
    """A hub on SQLite with its broker, an honest gateway and one that is not."""

    def __init__(self, hub: Hub, books: HubBooks, honest: LightGateway, hostile: LightGateway) -> None:
        self.hub = hub
        self.books = books
        self.honest = honest
        self.hostile = hostile

    def memory_bytes(self) -> int:
        """Resident memory of the worker."""
        (pid,) = self.hub.workers()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Centre]:
    tmp_path = tmp_path_factory.mktemp("centre")
    database = f"sqlite:///{tmp_path / 'hub.db'}"
    with (
        Mosquitto(tmp_path, "max_queued_messages 1000") as broker,
        Hub(tmp_path, database, broker_port=broker.port) as hub,
        LightGateway(broker.port, "honest", total=20_000) as honest,
        LightGateway(broker.port, "hostile") as hostile,
    ):
        hub.start()
        yield Centre(hub, HubBooks(database, gateway="honest"), honest, hostile.connect())


@pytest.fixture
def centre(running: Centre) -> Centre:
    """One for all tests: what is refused leaves nothing behind. Nothing is in the hostile gateway's mail."""
    running.hostile.answers.clear()
    return running


def body_of(payload: bytes) -> bytes:
    return payload.partition(b"\n")[2]


def with_body(body: bytes, **header: object) -> bytes:
    """A batch whose header fits this body."""
    line = relabelled(good(), sha256=hashlib.sha256(body).hexdigest(), **header).partition(b"\n")[0]
    return line + b"\n" + body


def good() -> bytes:
    return batch(1, ROWS, gateway="hostile")


def silent_bomb() -> bytes:
    """A gigabyte of nothing in 33 kB, that does not say how large it becomes."""
    compressor = zstandard.ZstdCompressor(level=3).compressobj()
    piece = bytes(1 << 20)
    body = b"".join([*(compressor.compress(piece) for _ in range(1024)), compressor.flush()])
    assert len(body) < 100_000
    return with_body(body)


def honest_bomb() -> bytes:
    """One that says it."""
    return with_body(zstandard.ZstdCompressor().compress(bytes(DECODED_MAX_BYTES + 1)))


def gzip_bomb() -> bytes:
    """The kind that cannot say it."""
    return with_body(gzip.compress(bytes(DECODED_MAX_BYTES * 4), 9), encoding="gzip")


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "zip bomb": (silent_bomb, "bad_body"),
    "zip bomb that says so": (honest_bomb, "too_large"),
    "zip bomb of the other kind": (gzip_bomb, "too_large"),
    "foreign gateway": (lambda: relabelled(good(), gateway="honest"), "foreign_gateway"),
    "foreign site": (lambda: relabelled(good(), site="other"), "foreign_gateway"),
    "another stream than the topic says": (lambda: relabelled(good(), stream="alarm"), "bad_header"),
    "sequence going backwards": (lambda: relabelled(good(), first=ROWS, last=1), "bad_header"),
    "fewer rows than numbers": (lambda: relabelled(good(), last=ROWS + 1, n=ROWS + 1), "bad_body"),
    "before the first number": (lambda: relabelled(good(), base=5), "before_base"),
    "unknown version": (lambda: relabelled(good(), v="edged-sync/99"), "bad_header"),
    "no header": (lambda: b"\x00" * 500, "bad_header"),
    "nothing": (lambda: b"", "bad_header"),
    "a header of 200 kB": (lambda: b"{" + b" " * 200_000 + b"}\n", "bad_header"),
    "a header of 10 MB": (lambda: b"{" + b" " * 10_000_000 + b"}\n", "bad_header"),
    "a body of 1 MiB and a byte": (lambda: with_body(bytes(BODY_MAX_BYTES + 1), encoding="identity"), "too_large"),
    "a body that is no zstd": (lambda: with_body(b"x" * 1000), "bad_body"),
    "deep JSON": (lambda: with_body(b"[" * 100_000, encoding="identity"), "bad_body"),
    "a million rows": (lambda: relabelled(good(), last=1_000_000, n=1_000_000), "too_large"),
    "numbers beyond 64 bits": (lambda: relabelled(good(), first=2**70, last=2**70 + 9), "bad_header"),
}


def refused(answer: Ack) -> bool:
    return answer.status == "reject"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_batch_is_refused_with_its_reason_and_the_neighbour_is_not_delayed(centre: Centre, name: str) -> None:
    make, reason = HOSTILE[name]
    centre.hostile.say(make())
    answer = centre.hostile.answer_to(lambda answer: True)
    assert (answer.status, answer.reason) == ("reject", reason)
    assert centre.books.ask("SELECT count(*) FROM results WHERE gateway = 'hostile'") == [(0,)]


def test_wrong_checksums_are_asked_for_once_more_and_then_refused(centre: Centre) -> None:
    for _ in range(2):
        centre.hostile.say(relabelled(good(), sha256="0" * 64))
    until(lambda: len(centre.hostile.answers) == 2, "both are answered")
    assert [(answer.status, answer.reason) for answer in centre.hostile.answers] == [
        ("retry", "bad_checksum"),
        ("reject", "bad_checksum"),
    ]


@pytest.mark.slow
def test_under_a_stream_of_hostile_batches_a_neighbour_comes_home_and_memory_is_flat(centre: Centre) -> None:
    payloads = [make() for make, _ in HOSTILE.values()]
    stopping = threading.Event()

    def flood() -> None:
        while not stopping.is_set():
            for payload in payloads:
                centre.hostile.say(payload)
            stopping.wait(0.2)

    flooding = threading.Thread(target=flood, daemon=True)
    before = centre.memory_bytes()
    flooding.start()
    begun = time.monotonic()
    centre.honest.start()
    assert centre.honest.home.wait(30), centre.hub.log[-3000:]
    took_s = time.monotonic() - begun
    stopping.set()
    flooding.join(10)
    assert centre.books.count() == 20_000
    assert centre.books.ledger()["epoch-1", "result"]["missing"] == 0
    assert all(answer.status == "ok" for answer in centre.honest.answers), centre.honest.answers
    assert took_s < 15, "the neighbour waited for the hostile one"
    assert len(centre.hostile.answers) > len(payloads), "there was no flood to speak of"
    assert {answer.status for answer in centre.hostile.answers} <= {"reject", "retry"}
    assert centre.memory_bytes() - before < 120_000_000
