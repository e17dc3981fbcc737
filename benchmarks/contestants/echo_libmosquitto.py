"""The same echo by the usual C library, one callback per message."""

from __future__ import annotations

from pathlib import Path

from benchmarks.contestants.contestant import Contestant
from benchmarks.native import ECHO_LIBMOSQUITTO, NotMeasured, build


class EchoLibmosquitto(Contestant):
    name = "libmosquitto"
    title = "C echo, libmosquitto"

    def prepare(self) -> None:
        try:
            build(ECHO_LIBMOSQUITTO)
        except NotMeasured as failed:
            raise NotMeasured(f"{failed} (apt-get install libmosquitto-dev)") from failed

    def command(self, port: int, workdir: Path) -> list[str]:
        return [str(ECHO_LIBMOSQUITTO.path), str(port)]
