"""A gateway, a stick and a hub on one table, without a command line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

from edged.hub.stick import Importer, Outcome
from edged.hub.stick_cli import take_one
from edged.ops.stick_folder import find_exports
from edged.sync import keys
from edged.sync.keys import GatewayKey, StickRefused
from edged.sync.protocol import Stream
from edged.sync.ranges import Ranges
from edged.uplink import export as filling
from edged.uplink import export_records
from edged.uplink.export import Exported, Gateway, Room
from tests.doubles.clock import FakeClock
from tests.doubles.hub_database import MemoryDatabase
from tests.doubles.outward import ListedOutward

STREAMS: tuple[Stream, ...] = ("alarm", "result", "health")


class StickRig:
    """One gateway `lyon/gw-03` and one hub that know each other; the stick is a folder."""

    def __init__(self, folder: Path) -> None:
        self.medium = folder / "stick"
        self.state_dir = folder / "state"
        self.medium.mkdir()
        self.state_dir.mkdir()
        self.secret = keys.new_gateway_secret()
        self.hub = keys.new_hub_secret()
        self.clock = FakeClock()
        self.database = MemoryDatabase()
        self.gateway_keys: dict[tuple[str, str], GatewayKey] = {("lyon", "gw-03"): self.secret.public}
        self._exports = 0

    @property
    def folder(self) -> Path:
        return self.medium / "edged-export" / "lyon" / "gw-03"

    def export(
        self,
        outward: ListedOutward,
        *,
        home: dict[Stream, Ranges] | None = None,
        again: bool = False,
        room: Room = Room(),  # noqa: B008 - a frozen value
        on_file: Callable[[int], None] = lambda _size_bytes: None,
        streams: Sequence[Stream] = STREAMS,
    ) -> Exported:
        """What `edged store export` does."""
        self._exports += 1
        gateway = Gateway("lyon", "gw-03", "1.0", self.secret, self.hub.public, self.clock)
        with export_records.held(self.state_dir) as records:
            elsewhere = {} if again else export_records.exported(records.all())
            plan = filling.plan(outward.extents(), home or {}, elsewhere, streams)
            salt = self._exports.to_bytes(4, "big")
            return filling.export(outward, records, self.medium, gateway, plan, salt=salt, room=room, on_file=on_file)

    def import_all(self, receipt_to: Path | None = None) -> list[Outcome]:
        """What `edged-hub import` does. Raises `DatabaseAway`."""

        found = list(find_exports(self.medium))

        async def work() -> list[Outcome]:
            return [await take_one(self.medium, one, importer, receipt_to) for one in found]

        importer = Importer(self.database, self.hub, self._key_of, self.clock)
        return asyncio.run(work())

    def _key_of(self, site: str, gateway: str) -> GatewayKey:
        if (site, gateway) not in self.gateway_keys:
            raise StickRefused("foreign_gateway", f"no key of {site}/{gateway} is known")
        return self.gateway_keys[site, gateway]
