"""A link without a broker: messages are put in, publishes and acknowledgements are looked at."""

from __future__ import annotations

from collections.abc import Sequence

from edged.messages import Inbound, Outbound
from edged.ports import LinkListener, SessionInfo


class LoopLink:
    """Implements `edged.ports.Link`.

    slots: the broker's window; `settle_all` acknowledges what is in flight and frees it again.
    """

    def __init__(self, listener: LinkListener, *, slots: int = 1000) -> None:
        self.listener = listener
        self.slots = slots
        self.generation = 0
        self.inbox: list[Inbound] = []
        self.published: list[Outbound] = []
        self.in_flight: list[int] = []
        self.acks: list[int] = []
        self.stale_acks: list[int] = []
        self.released = (0, 0)
        self._packet_id = 0
        self._connections = 0

    @property
    def free_slots(self) -> int:
        return max(0, self.slots - len(self.in_flight)) if self.generation else 0

    def take(self, limit: int) -> tuple[int, list[Inbound]]:
        taken, self.inbox = self.inbox[:limit], self.inbox[limit:]
        return self.generation, taken

    def waiting(self) -> int:
        return len(self.inbox)

    def send(
        self,
        publishes: Sequence[Outbound],
        acks: Sequence[int] = (),
        *,
        generation: int = 0,
        released_count: int = 0,
        released_bytes: int = 0,
    ) -> int:
        self.released = (self.released[0] + released_count, self.released[1] + released_bytes)
        (self.acks if generation == self.generation else self.stale_acks).extend(acks)
        used = 0
        for item in publishes:
            if not item.qos0 and not self.free_slots:
                break
            used += 1
            self.published.append(item)
            if not item.qos0:
                self.in_flight.append(item.token)
        return used

    # --- what the broker does ---

    def up(self, *, session_present: bool = False, refused: tuple[tuple[str, str], ...] = ()) -> None:
        self._connections += 1
        self.generation = self._connections
        self.in_flight.clear()
        self.listener.on_up(SessionInfo(self.generation, "5", session_present, 65_535, 1 << 28, refused))

    def down(self, code: str = "closed") -> None:
        self.generation = 0
        self.in_flight.clear()
        self.listener.on_down(code, "the double said so")

    def arrive(self, topic: str, payload: bytes, *, qos0: bool = False, retain: bool = False) -> int:
        self._packet_id = 0 if qos0 else self._packet_id + 1
        self.inbox.append(Inbound(self._packet_id, topic, payload, retain))
        self.listener.on_inbox()
        return self._packet_id

    def settle_all(self) -> None:
        tokens, self.in_flight = self.in_flight, []
        self.listener.on_settled(tokens, [])

    def refuse(self, token: int, reason: str) -> None:
        self.in_flight.remove(token)
        self.listener.on_settled([], [(token, reason)])
