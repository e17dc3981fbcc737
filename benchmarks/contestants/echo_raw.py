"""The floor: a C echo that does nothing else, one read and one write per burst."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestants.contestant import Contestant
from benchmarks.native import ECHO_RAW, build


class EchoRaw(Contestant):
    name = "c_raw"
    title = "C echo, raw socket"

    def prepare(self) -> None:
        build(ECHO_RAW)

    def command(self, port: int, workdir: Path) -> list[str]:
        return [str(ECHO_RAW.path), str(port)]
