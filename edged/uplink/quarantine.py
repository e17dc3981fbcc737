"""Copies of the batches that the hub refused, for the person who will ask why. Blocking; the oldest go first."""

from __future__ import annotations

import os
from pathlib import Path

from edged.sync.protocol import Stream

FILES_MAX = 20
BYTES_MAX = 20_000_000
SUFFIX = ".batch"


class Quarantine:
    """The folder. Names sort by time: a running number, then stream, numbers and reason."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def keep(self, stream: Stream, first: int, last: int, reason: str, payload: bytes) -> Path:
        """Write a copy, durable when this returns. Raises `OSError`."""
        self._folder.mkdir(mode=0o750, exist_ok=True)
        plain = "".join(char if char.isalnum() or char in "-_" else "_" for char in reason)[:60]
        file = self._folder / f"{self._next_number():08d}-{stream}-{first}-{last}-{plain}{SUFFIX}"
        part = file.with_suffix(".part")
        with part.open("wb") as out:
            out.write(payload)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
        self._make_room()
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        return file

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    def _next_number(self) -> int:
        numbers = [name[0] for file in self._files() if (name := file.name.split("-", 1))[0].isdigit()]
        return int(numbers[-1]) + 1 if numbers else 1

    def _make_room(self) -> None:
        for part in self._folder.glob("*.part"):  # of a run that was killed
            part.unlink(missing_ok=True)
        files = self._files()
        sizes = [file.stat().st_size for file in files]
        while len(files) > 1 and (len(files) > FILES_MAX or sum(sizes) > BYTES_MAX):
            files.pop(0).unlink(missing_ok=True)
            sizes.pop(0)
