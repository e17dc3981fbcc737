"""An Edge TPU that is none: a compiled libedgetpu whose state and answers lie in files beside it."""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

SOURCE = Path(__file__).with_name("libedgetpu.c")


class TpuDouble:
    """library: path for `Coral(library=…)` or the environment variable EDGED_LIBEDGETPU."""

    def __init__(self, folder: Path) -> None:
        self.library = folder / "libedgetpu.so.1"
        self._state = folder / "state"
        self._table = folder / "table"

    def become(self, state: str) -> None:
        """One of the words that libedgetpu.c explains; seen by the next open or call, whole."""
        fresh = self._state.with_suffix(".new")
        fresh.write_text(state)
        fresh.rename(self._state)

    def knows(self, answers: Iterable[tuple[Sequence[np.ndarray], Sequence[np.ndarray]]]) -> None:
        """What it answers: (all inputs, all outputs) of the operator, as the model stores them. Else: nonsense."""
        with self._table.open("wb") as table:
            for inputs, outputs in answers:
                said = b"".join(array.tobytes() for array in outputs)
                table.write(
                    struct.pack("=QQ", _digest(b"".join(array.tobytes() for array in inputs)), len(said)) + said
                )


def make_tpu(folder: Path) -> TpuDouble | None:
    """Compile the double into `folder`; None where there is no gcc."""
    if shutil.which("gcc") is None:
        return None
    made = TpuDouble(folder)
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", made.library, SOURCE, "-ldl"],
        check=True,
        capture_output=True,
    )
    made.become("ok")
    return made


def _digest(data: bytes) -> int:
    """FNV-1a, as the library computes it."""
    sum_ = 1469598103934665603
    for byte in data:
        sum_ = ((sum_ ^ byte) * 1099511628211) & 0xFFFFFFFFFFFFFFFF
    return sum_
