"""Shows on the running daemon that what costs time is switched on: constraints, dedup, letters, gaps, window, metrics.

A fast daemon with half of its duties switched off would be no comparison, so every round asks it to do them.
"""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

DEVICE = "probe"
VALUES = [0.5] * 16
PATIENCE_S = 10.0


def shown_features(port: int, root: str, status_socket: Path) -> Mapping[str, bool]:
    """Feature → whether the daemon behind `root` showed it; everything is False when it does not answer in time."""
    seen = _answers_to_probe(port, root)
    status = _status(_get(status_socket, "/status"))
    return {
        "constraints": f"{root}/dlq/wrong_length" in seen,
        "dead letters": f"{root}/dlq/not_json" in seen,
        "deduplication": seen.count(f"{root}/result/{DEVICE}/mlp") == 2,  # three good events, two of them equal
        "gap detection": f"{root}/gap" in seen,
        "outbound window": status.get("link", {}).get("receive_maximum", 0) > 0,
        "ledger": status.get("ledger", {}).get("balanced") is True,
        "metrics": "edged_events_total" in _get(status_socket, "/metrics"),
    }


def _answers_to_probe(port: int, root: str) -> list[str]:
    """Topics of what the daemon says to good, doubled, skipping and bad events, until the last good one is answered."""
    import paho.mqtt.client as mqtt
    from paho.mqtt.enums import CallbackAPIVersion

    arrived: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
    subscribed: SimpleQueue[None] = SimpleQueue()
    client = mqtt.Client(CallbackAPIVersion.VERSION2, client_id="bench-probe")
    client.on_message = lambda _client, _data, message: arrived.put((message.topic, bytes(message.payload)))
    client.on_subscribe = lambda *_: subscribed.put(None)
    client.connect("127.0.0.1", port)
    client.loop_start()
    try:
        client.subscribe([(f"{root}/result/{DEVICE}/+", 1), (f"{root}/dlq/+", 1), (f"{root}/gap", 1)])
        subscribed.get(timeout=PATIENCE_S)
        for payload in (_event(0), _event(0), _event(1, VALUES[:3]), b'{"seq":', _event(5)):
            client.publish(f"in/{DEVICE}", payload, qos=1).wait_for_publish(PATIENCE_S)
        return _collect(arrived, root)
    except Empty:
        return []
    finally:
        client.disconnect()
        client.loop_stop()


def _event(seq: int, values: list[float] = VALUES) -> bytes:
    event = {"device_id": DEVICE, "sensor": "vib", "ts": int(time.time() * 1000), "seq": seq, "values": values}
    return json.dumps(event).encode()


def _collect(arrived: SimpleQueue[tuple[str, bytes]], root: str) -> list[str]:
    """Until result, letters and gap are all there, or patience ends."""
    topics: list[str] = []
    wanted = {f"{root}/dlq/wrong_length", f"{root}/dlq/not_json", f"{root}/gap"}
    answered = False
    deadline = time.monotonic() + PATIENCE_S
    while not (answered and wanted <= set(topics)):
        try:
            topic, payload = arrived.get(timeout=max(0.0, deadline - time.monotonic()))
        except Empty:
            break
        topics.append(topic)
        answered = answered or (topic.startswith(f"{root}/result/") and _input_seq(payload) == 5)
    return topics


def _input_seq(payload: bytes) -> int:
    return int(json.loads(payload)["input"]["seq"])


def _get(path: Path, target: str) -> str:
    """GET over a Unix socket; empty when nobody answers."""
    chunks = []
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE_S)
            connection.connect(str(path))
            connection.sendall(f"GET {target} HTTP/1.0\r\nHost: edged\r\n\r\n".encode())
            while chunk := connection.recv(65536):
                chunks.append(chunk)
    except OSError:
        return ""
    return b"".join(chunks).partition(b"\r\n\r\n")[2].decode()


def _status(document: str) -> dict[str, Any]:
    """The status document; empty when nobody answered."""
    parsed: dict[str, Any] = json.loads(document or "{}")
    return parsed
