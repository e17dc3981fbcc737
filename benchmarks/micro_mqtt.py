"""What the MQTT codec costs per message: `python -m benchmarks.micro_mqtt` prints µs, `--json` one object.

Thread CPU time, the best of several repetitions: what the code costs, not what else the machine was doing.
"""

from __future__ import annotations

import argparse
import json
import time
import timeit
from collections.abc import Callable

import mqtt5

from edged.messages import Outbound
from edged.mqtt.codec5 import Codec5
from edged.mqtt.codec311 import Codec311
from edged.mqtt.frames import Codec, Message
from edged.mqtt.outbound import OutboundWindow, pack_acks

BATCH = 512
PAYLOAD = b"x" * 184
RESULT = b"y" * 420  # about the size of an `edged.result/1`
LIMIT = 1_000_000
TOPICS = [f"plant/{number % 5}/pump/{number}" for number in range(50)]
REPEATS = 15
ROUNDS = 20


def inbound(version: str) -> bytes:
    """One read of `BATCH` messages at QoS 1."""
    packets = []
    for number in range(BATCH):
        topic = TOPICS[number % len(TOPICS)]
        if version == "5":
            packet = mqtt5.PublishPacket(topic, PAYLOAD, qos=mqtt5.QoS.AT_LEAST_ONCE, packet_id=number + 1)
            packets.append(packet.write())
        else:
            body = len(topic).to_bytes(2, "big") + topic.encode() + (number + 1).to_bytes(2, "big") + PAYLOAD
            packets.append(bytes((0x32, len(body) & 127 | 128, len(body) >> 7)) + body)
    return b"".join(packets)


def read_with_mqtt5(data: bytes) -> None:
    """What every alternative pays at least."""
    view, position, end, read = memoryview(data), 0, len(data), mqtt5.read
    while position < end:
        _, used = read(view[position:])
        position += used


def feeding(make: Callable[[int], Codec], data: bytes) -> Callable[[], None]:
    codec = make(LIMIT)

    def feed() -> None:
        messages: list[Message] = []
        acked: list[int] = []
        codec.feed(data, messages, acked)
        assert len(messages) + len(acked) == BATCH

    return feed


def packing(version: str) -> Callable[[], None]:
    publishes = [
        Outbound(b"edged/v1/lyon/gw-01/result/%d/pump" % (number % 50), RESULT, number + 1, False, 3600)
        for number in range(BATCH)
    ]
    window = OutboundWindow(limit=65_535, max_packet_bytes=LIMIT, with_properties=version == "5", retain_allowed=True)

    def pack() -> None:
        parts: list[bytes] = []
        window.inflight.clear()
        window.pack(publishes, parts, [])
        b"".join(parts)

    return pack


def settling() -> Callable[[], None]:
    window = OutboundWindow(limit=65_535, max_packet_bytes=LIMIT, with_properties=True, retain_allowed=True)
    ids = list(range(1, BATCH + 1))
    tokens = dict.fromkeys(ids, 1)

    def settle() -> None:
        window.inflight = tokens.copy()
        window.settle(ids)

    return settle


def measure() -> dict[str, float]:
    """Row name → µs per message."""
    data = inbound("5")
    acks = b"".join(b"\x40\x02" + number.to_bytes(2, "big") for number in range(1, BATCH + 1))
    rows: dict[str, Callable[[], object]] = {
        "mqtt5.read alone": lambda: read_with_mqtt5(data),
        "read a message, MQTT 5": feeding(Codec5, data),
        "read a message, MQTT 3.1.1": feeding(Codec311, inbound("3.1.1")),
        "read a PUBACK": feeding(Codec5, acks),
        "settle a PUBACK": settling(),
        "write a publish, MQTT 5": packing("5"),
        "write a publish, MQTT 3.1.1": packing("3.1.1"),
        "write a PUBACK": lambda: pack_acks(range(1, BATCH + 1)),
    }
    return {
        name: min(timeit.repeat(run, timer=time.thread_time, number=ROUNDS, repeat=REPEATS)) / ROUNDS / BATCH * 1e6
        for name, run in rows.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    figures = measure()
    if parser.parse_args().json:
        print(json.dumps({name: round(value, 3) for name, value in figures.items()}))
    else:
        for name, value in figures.items():
            print(f"{name:30} {value:7.3f} µs")


if __name__ == "__main__":
    main()
