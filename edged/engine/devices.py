"""Which devices there are and whether they still speak. Pure: times come in."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

DeviceState = Literal["online", "stale", "offline"]


class DeviceChange(NamedTuple):
    device: str
    state: DeviceState
    new: bool


class Devices:
    """Last sign of life per device.

    Args:
        stale_ms, offline_ms: silence after which a device counts as stale, as offline.
        limit: devices remembered; the sources refuse further ones before they come here, this is the last wall.
    """

    def __init__(self, *, stale_ms: int, offline_ms: int, limit: int) -> None:
        self._stale_ms = stale_ms
        self._offline_ms = offline_ms
        self._limit = limit
        self._seen_ms: dict[str, int] = {}
        self._first: dict[str, int] = {}
        self._state: dict[str, DeviceState] = {}

    def __len__(self) -> int:
        return len(self._state)

    @property
    def states(self) -> dict[str, DeviceState]:
        return self._state

    @property
    def first_seen(self) -> dict[str, int]:
        """Unix ms of the first event of each device."""
        return self._first

    def restore(self, first_seen: Mapping[str, int], now_ms: int) -> None:
        """Devices known from before a restart; they count as heard just now."""
        for device, wall_ms in first_seen.items():
            self.seen([device], now_ms, wall_ms)

    def counts(self) -> dict[str, int]:
        found: dict[str, int] = {"online": 0, "stale": 0, "offline": 0}
        for state in self._state.values():
            found[state] += 1
        return found

    def seen(self, devices: Iterable[str], now_ms: int, wall_ms: int) -> list[DeviceChange]:
        """Events of these devices arrived. Returns who is new or back."""
        distinct = dict.fromkeys(devices, now_ms)
        self._seen_ms.update(distinct)
        changes = []
        for device in distinct:
            if self._state.get(device) == "online":
                continue
            new = device not in self._state
            if new and len(self._state) >= self._limit:
                self._seen_ms.pop(device)
                continue
            if new:
                self._first[device] = wall_ms
            self._state[device] = "online"
            changes.append(DeviceChange(device, "online", new))
        return changes

    def tick(self, now_ms: int) -> list[DeviceChange]:
        """Who has fallen silent."""
        changes = []
        for device, state in self._state.items():
            silent_ms = now_ms - self._seen_ms[device]
            now: DeviceState = (
                "offline" if silent_ms >= self._offline_ms else "stale" if silent_ms >= self._stale_ms else "online"
            )
            if now not in (state, "online"):
                changes.append(DeviceChange(device, now, new=False))
        for change in changes:
            self._state[change.device] = change.state
        return changes
