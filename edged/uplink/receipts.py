"""Receipts of the hub that `edged store import-receipt` laid down for the daemon. Blocking; nothing is trusted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edged.errors import EdgedError
from edged.ops.durable_files import read_at_most, sync_folder
from edged.sync import ranges

if TYPE_CHECKING:
    from edged.sync.protocol import Fork, Range, Stream, StreamExtent

FOLDER = "receipts"
KEYS_MAX_BYTES = 65_536
FILES_MAX = 100  # looked at once; the others come with the next look


class Taken(NamedTuple):
    """One file of the folder. refused: why nothing in it counts; then everything but `file` is empty."""

    file: Path
    receiver: str = ""
    home: tuple[tuple[Stream, tuple[Range, ...]], ...] = ()
    forks: tuple[Fork, ...] = ()
    refused: str = ""


class ReceiptFolder:
    """The folder of one gateway.

    keys_file: public keys of the hubs that are trusted. extents: what this store has ever made; asked when needed.
    """

    def __init__(
        self,
        state_dir: Path,
        keys_file: Path,
        site: str,
        gateway: str,
        extents: Callable[[], Sequence[StreamExtent]],
    ) -> None:
        self._folder = state_dir / FOLDER
        self._keys_file = keys_file
        self._site = site
        self._gateway = gateway
        self._extents = extents

    def look(self, receiver: str) -> list[Taken]:
        """Verify what lies there. `receiver`: whose receipts count, "" for any trusted hub's."""
        try:
            files = sorted(islice(self._folder.glob("*.json"), FILES_MAX))
        except OSError:
            return []
        extents = self._extents() if files else ()
        return [self._read(file, extents, receiver) for file in files]

    def remove(self, files: Sequence[Path]) -> None:
        """What is durable in the store is not needed any more; idempotent."""
        for file in files:
            file.unlink(missing_ok=True)
        if files:
            sync_folder(self._folder)

    def _read(self, file: Path, extents: Sequence[StreamExtent], receiver: str) -> Taken:
        from edged.sync import keys, stick  # only a gateway with a stick needs libsodium

        try:
            trusted = keys.read_hub_keys(_text(self._keys_file))
            data = read_at_most(file, stick.RECEIPT_MAX_BYTES)
            receipt = stick.read_receipt(data, trusted, self._site, self._gateway)
            home = stick.home_of(receipt)
            stick.check_made(home, extents)
            if receiver and receipt.receiver != receiver:
                raise keys.StickRefused("other_receiver", f"rows go to {receiver}, not to {receipt.receiver}")
        except (EdgedError, OSError) as error:
            return Taken(file, refused=str(error))
        found: dict[Stream, ranges.Ranges] = {}
        for streams in home.values():  # checked against the extent of its epoch: these are the store's own numbers
            for stream, numbers in streams.items():
                found[stream] = ranges.normalise((*found.get(stream, ()), *numbers))
        return Taken(file, receipt.receiver, tuple(found.items()), stick.live_forks(receipt, extents))


def _text(file: Path) -> str:
    return read_at_most(file, KEYS_MAX_BYTES).decode(errors="replace")
