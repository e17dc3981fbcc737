"""What the uplink needs of a way to the hub; over a broker (`mqtt_carrier`) or over HTTP (`http_carrier`)."""

from __future__ import annotations

from typing import Protocol

from edged.sync.protocol import Stream


class CarrierListener(Protocol):
    """What the session hears. All calls are made on the loop."""

    def on_up(self, payload_max_bytes: int) -> None:
        """Something can be sent; the largest payload that is taken."""

    def on_down(self, detail: str) -> None:
        """Nothing can be sent; what was on its way is unknown."""

    def on_carried(self, key: int) -> None:
        """The other end has the bytes sent under `key`: a measurement, not an answer."""

    def on_refused(self, key: int, reason: str) -> None:
        """These bytes were refused on the way; `packet_too_large` among others."""

    def on_hello_answer(self, payload: bytes) -> None: ...

    def on_answer(self, payload: bytes) -> None: ...

    def on_trouble(self, code: str, active: bool, detail: str) -> None:
        """Something that a person must repair began or ended."""


class Carrier(Protocol):
    """A way to the hub. Sending never blocks and never raises; what cannot leave now waits, or is told as down."""

    async def run(self) -> None:
        """Connect, again and again, until cancelled or closed."""

    def hello(self, key: int, payload: bytes) -> None: ...

    def batch(self, key: int, stream: Stream, payload: bytes) -> None: ...

    async def close(self) -> None: ...
