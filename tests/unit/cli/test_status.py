"""`edged status` against a real status server, and against none."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from edged.cli.main import run
from edged.cli.status import NoDaemon, describe, fetch, find_socket
from edged.ops.status_server import Page, StatusServer, open_unix

DOCUMENT: dict[str, object] = {
    "v": "edged.status/1",
    "mode": "degraded",
    "clock": "synced",
    "identity": {"site": "lyon", "gateway": "gw-01", "version": "0.1.0"},
    "reasons": [
        {"code": "gap", "subject": "sequence", "since": "2026-03-01T12:00:00.000Z", "detail": "p1: 5 to 7"},
        {"code": "store_io", "subject": "", "since": "2026-03-01T12:00:00.000Z", "detail": ""},
    ],
    "link": {"up": True, "protocol": "5", "received": 100, "confirmed": 90},
    "ledger": {
        "inputs": {"pump": {"received": 100, "stored": 98, "refused": {"not_json": 2}}},
        "results": {"result": {"stored": 98, "delivered": 90}},
        "balanced": True,
    },
    "latency_ms": {
        "turn": {"count": 10, "p50": 1.25, "p95": 2.0, "p99": None},
        "commit": {"count": 0, "p50": None},
    },
    "pipelines": {"pump": {"runtime": "onnxruntime:cpu", "answered": 98, "failed": 0, "waiting": 1}},
    "store": {"file_bytes": 4_000_000, "budget_bytes": 2_000_000_000, "trouble": ""},
}


@contextmanager
def daemon(path: Path, answer: bytes) -> Iterator[None]:
    """A status server in a thread of its own, as the command runs without a loop."""
    ready, stop = threading.Event(), threading.Event()

    async def serve() -> None:
        server = StatusServer({"/status": Page("application/json", lambda: answer)})
        await server.start(await asyncio.to_thread(open_unix, path))
        ready.set()
        await asyncio.to_thread(stop.wait, 30)
        server.close()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert ready.wait(10)
        yield
    finally:
        stop.set()
        thread.join(10)


def test_people_see_the_state_in_a_few_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edged.sock"
    with daemon(path, json.dumps(DOCUMENT).encode()):
        assert run(["status", "--socket", str(path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "gateway   lyon/gw-01, edged 0.1.0",
        "mode      degraded, clock synced",
        "  reason  gap sequence since 2026-03-01T12:00:00.000Z: p1: 5 to 7",
        "  reason  store_io since 2026-03-01T12:00:00.000Z: -",
        "broker    connected, MQTT 5, 100 received, 90 delivered",
        "ledger    pump: 100 received, 98 stored, 2 refused (not_json)",
        "ledger    result: 98 stored, 90 delivered",
        "latency   turn: p50 1.25 ms, p95 2.00 ms, p99 -",
        "pipeline  pump: onnxruntime:cpu serves, 98 answered, 0 failed, 1 waiting",
        "store     4.0 of 2000.0 MB",
    ]


def test_the_way_home_says_how_much_waits_and_for_how_long_there_is_room() -> None:
    waiting = {"made": 1000, "home": 400, "waiting": 600}
    line = {
        "state": "open",
        "receiver": "hub-1",
        "rate_kbit_s": 256,
        "ack_delay_ms": 40,
        "streams": {"result": waiting},
    }
    store = {"file_bytes": 4_000_000, "budget_bytes": 2_000_000_000, "trouble": "", "days_of_room": 41.27}

    said = list(describe(DOCUMENT | {"sync": line, "store": store}))

    assert "upstream  open, receiver hub-1, 256 kbit/s, answers after 40 ms" in said
    assert "home      result: 1000 made, 400 home, 600 waiting" in said
    assert "store     4.0 of 2000.0 MB, room for 41.3 days at today's rate" in said


def test_pressure_says_level_reasons_and_what_cannot_be_seen() -> None:
    pressed = {"level": "lower_rate", "codes": ["throttled"], "facts": {}, "unknown": ["disk_free_share"]}
    assert list(describe({"pressure": pressed}))[1:] == [
        "pressure  lower_rate because of throttled; not known: disk_free_share"
    ]
    calm = {"level": "full", "codes": [], "facts": {}, "unknown": []}
    assert list(describe({"pressure": calm}))[1:] == ["pressure  full"]


def test_before_the_uplink_has_spoken_the_books_are_there_all_the_same() -> None:
    said = list(describe({"sync": {"receiver": "", "streams": {"alarm": {"made": 1, "home": 0, "waiting": 1}}}}))

    assert said[-2:] == ["upstream  starting, receiver not known yet", "home      alarm: 1 made, 0 home, 1 waiting"]


def test_machines_get_the_whole_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "edged.sock"
    with daemon(path, json.dumps(DOCUMENT).encode()):
        assert run(["status", "--json", "--socket", str(path)]) == 0
    assert json.loads(capsys.readouterr().out) == DOCUMENT


def test_without_a_daemon_the_exit_code_is_69_and_the_cure_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["status", "--socket", str(tmp_path / "nobody.sock")]) == 69
    said = capsys.readouterr().err
    assert "No daemon answers" in said
    assert "systemctl status edged" in said


def test_a_stale_socket_of_a_dead_daemon_is_no_daemon(tmp_path: Path) -> None:
    path = tmp_path / "edged.sock"
    open_unix(path).close()
    with pytest.raises(NoDaemon, match="refused"):
        fetch(path)


@pytest.mark.parametrize("answer", [b"not json", b"[1]", b""])
def test_an_answer_that_is_no_status_is_named(tmp_path: Path, answer: bytes) -> None:
    path = tmp_path / "edged.sock"
    with daemon(path, answer), pytest.raises(NoDaemon, match="not with a status"):
        fetch(path)


def test_somebody_who_closes_without_a_word_is_named(tmp_path: Path) -> None:
    path = tmp_path / "edged.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def close_at_once() -> None:
            connection, _ = listening.accept()
            connection.recv(100)
            connection.close()

        thread = threading.Thread(target=close_at_once)
        thread.start()
        with pytest.raises(NoDaemon, match="nothing"):
            fetch(path)
        thread.join(10)


def test_an_endless_answer_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "edged.sock"
    with daemon(path, b" " * 17_000_000), pytest.raises(NoDaemon, match="more than"):
        fetch(path)


def test_the_socket_is_the_one_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "edged.toml"
    config.write_text(
        '[gateway]\nsite = "s"\nid = "g"\nhardware_class = "cpu"\n'
        f'state_dir = "{tmp_path}"\n[broker]\nurl = "mqtt://127.0.0.1"\n'
        '[[pipeline]]\nname = "p"\ntopics = ["t"]\ndevice = "d"\n[pipeline.input]\nfields = ["x"]\n'
        '[pipeline.model]\npath = "gone.onnx"\n[pipeline.output]\nkind = "tensor"\n'
        "[security]\nallow_unsigned = true\n"
    )
    assert find_socket((config,)) == tmp_path / "edged.sock"


def test_a_document_with_nothing_in_it_is_described_all_the_same() -> None:
    assert list(describe({})) == ["mode      unknown, clock unknown"]
    odd = {"reasons": ["gap"], "link": {"up": False}, "ledger": {"inputs": {"p": 1}, "balanced": False}}
    assert list(describe({**odd, "pipelines": {"p": None}, "store": {"trouble": "disk full"}})) == [
        "mode      unknown, clock unknown",
        "broker    down, 0 received, 0 delivered",
        "ledger    does not add up: please report this",
        "store     ? of ? MB, trouble: disk full",
    ]


def test_every_rung_of_a_chain_is_shown_with_what_is_wrong_with_it() -> None:
    lost = {"rung": "coral:usb", "state": "resting", "code": "device_lost", "detail": "unplugged"}
    fine = {"rung": "litert:cpu", "state": "serving", "code": "", "detail": ""}
    shown = list(describe({"pipelines": {"p": {"runtime": "litert:cpu", "chain": [lost, fine]}}}))
    assert "  rung    coral:usb resting: device_lost: unplugged" in shown
    assert "  rung    litert:cpu serving" in shown
    alone = list(describe({"pipelines": {"p": {"runtime": "litert:cpu", "chain": [fine]}}}))
    assert not any("rung" in line for line in alone), "a chain of one that works needs no line"


def test_providers_that_share_a_graph_are_named_with_their_nodes() -> None:
    shared = {"runtime": "onnxruntime:gpu", "placement": {"CUDAExecutionProvider": 97, "CPUExecutionProvider": 4}}
    alone = {"runtime": "onnxruntime:cpu", "placement": {"CPUExecutionProvider": 101}}
    shown, plain = [line for line in describe({"pipelines": {"p": shared, "q": alone}}) if "serves" in line]
    assert "onnxruntime:gpu serves (97 nodes on CUDAExecutionProvider, 4 nodes on CPUExecutionProvider), " in shown
    assert "onnxruntime:cpu serves, " in plain
