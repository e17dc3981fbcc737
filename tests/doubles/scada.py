"""What SCADA sees: a client with a persistent session that keeps everything the daemon publishes, in order."""

from __future__ import annotations

import json
import threading
from collections import defaultdict
from types import TracebackType
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

from tests.doubles.daemon import ROOT
from tests.doubles.waiting import until

Json = dict[str, Any]


class Scada:
    """Connects on entry; reconnects by itself to the same session.

    acknowledge: False leaves every message unacknowledged until `acknowledge_all`; it then takes 20 at once.
    """

    def __init__(self, port: int, *filters: str, client_id: str = "scada", acknowledge: bool = True) -> None:
        self.results: list[Json] = []
        self.gaps: list[Json] = []
        self.letters: list[Json] = []
        self.modes: list[Json] = []
        self.states: list[Json] = []
        self.health: list[Json] = []
        self.topics: dict[str, list[bytes]] = defaultdict(list)
        """Everything that is none of the above."""
        self._acknowledge = acknowledge
        self._by_hand = not acknowledge
        self._owing = threading.Lock()
        self._owed: list[tuple[int, int]] = []
        self._port = port
        self._filters = filters or (f"{ROOT}/#",)
        self._subscribed = threading.Event()
        self.session_present: list[bool] = []
        self._kinds = {
            "result": self.results,
            "gap": self.gaps,
            "dlq": self.letters,
            "mode": self.modes,
            "state": self.states,
            "health": self.health,
        }
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id, protocol=paho.MQTTv5, manual_ack=not acknowledge
        )
        self._client.reconnect_delay_set(0.05, 0.2)  # type: ignore[arg-type]  # fractions work
        self._client.on_connect = self._on_connect
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message

    def _on_connect(self, _client: object, _data: object, flags: paho.ConnectFlags, *_: object) -> None:
        self._subscribed.clear()
        self.session_present.append(flags.session_present)
        self._client.subscribe([(wanted, SubscribeOptions(qos=1)) for wanted in self._filters])

    def _on_message(self, _client: object, _data: object, message: paho.MQTTMessage) -> None:
        if self._by_hand:
            self._owe(message.mid, message.qos)
        kind = message.topic[len(ROOT) + 1 :].split("/", 1)[0]
        known = self._kinds.get(kind)
        if known is not None and message.payload:
            known.append(json.loads(message.payload))
        else:
            self.topics[message.topic].append(bytes(message.payload))

    def _owe(self, mid: int, qos: int) -> None:
        with self._owing:
            if not self._acknowledge:
                self._owed.append((mid, qos))
                return
        self._client.ack(mid, qos)

    def acknowledge_all(self) -> None:
        """Everything owed, and from now on as it comes."""
        with self._owing:
            self._acknowledge = True
            owed, self._owed = self._owed, []
        for mid, qos in owed:
            self._client.ack(mid, qos)

    def until_back(self, connections: int = 2) -> None:
        """Wait until it has connected so many times and is subscribed: what is said before goes to nobody."""
        until(lambda: len(self.session_present) >= connections and self._subscribed.is_set(), "the SCADA is back")

    def until_results(self, count: int, within_s: float = 30.0) -> list[Json]:
        """Wait for so many different results."""

        def enough() -> bool:
            return len(self.results) >= count and len({r["id"] for r in list(self.results)}) >= count

        try:
            until(enough, "", within_s, every_s=0.05)
        except AssertionError:
            different = len({r["id"] for r in list(self.results)})
            raise AssertionError(f"after {within_s} s only {different} of {count} results came") from None
        return list(self.results)

    def __enter__(self) -> Scada:
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        properties.ReceiveMaximum = 65_535 if self._acknowledge else 20
        self._client.connect("127.0.0.1", self._port, 60, clean_start=False, properties=properties)
        self._client.loop_start()
        assert self._subscribed.wait(20), "the SCADA stand-in did not get subscribed"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.disconnect()
        self._client.loop_stop()
        self._client._reset_sockets()  # else paho closes them when it is collected, in the middle of another test
