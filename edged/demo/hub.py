"""The centre of the demo: `edged-hub` with SQLite, and the line to it, which is cut for a while."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edged.demo.chaos import Cable
from edged.demo.settings import GATEWAY, SITE

_ASK_S = 20.0
_ROUND_S = 60.0  # an endless demo cuts the line once in this time
_CUT_FROM, _CUT_UNTIL = 0.25, 0.60  # of the run, so that the rest shows how the store empties

_TEMPLATE = """\
[hub]
state_dir = "{folder}/hub"

[database]
url = "sqlite:///{folder}/hub/rows.db"

[broker]
url = "mqtt://127.0.0.1:{port}"
"""


class HubBooks(NamedTuple):
    """Results in the hub's database. rows + tombstoned = numbers that are home."""

    rows: int
    tombstoned: int
    missing: int


class Line:
    """Cuts the line to the centre and mends it. `tick` is called often, with nanoseconds of the monotonic clock."""

    def __init__(self, cable: Cable, *, start_ns: int, seconds: float | None) -> None:
        self._cable = cable
        self._start_ns = start_ns
        self._round_s = seconds or _ROUND_S
        self._endless = seconds is None
        self.cut = False
        self.cut_s = 0.0
        self._since_ns = 0

    def tick(self, now_ns: int) -> None:
        passed_s = (now_ns - self._start_ns) / 1e9
        share = (passed_s % self._round_s if self._endless else passed_s) / self._round_s
        self._switch(_CUT_FROM <= share < _CUT_UNTIL, now_ns)

    def end(self, now_ns: int) -> None:
        """The demo ends: the line is whole, so that everything can come home."""
        self._switch(False, now_ns)

    def _switch(self, cut: bool, now_ns: int) -> None:
        if cut == self.cut:
            return
        self.cut = cut
        self._cable.switch("cut" if cut else "open")
        if cut:
            self._since_ns = now_ns
        else:
            self.cut_s += (now_ns - self._since_ns) / 1e9


def hub_toml(*, port: int, folder: Path) -> str:
    """hub.toml for a broker at `port` of this machine."""
    return _TEMPLATE.format(port=port, folder=folder)


def ask_hub(command: Sequence[str], config: Path) -> HubBooks | None:
    """Count what the hub's database holds; None when it cannot be asked. `command`: that of edged-hub."""
    asked = [*command, "ledger", "--json", "--gateway", f"{SITE}/{GATEWAY}", "--config", str(config)]
    try:
        answer = subprocess.run(asked, capture_output=True, timeout=_ASK_S, check=True)
        streams = [books for books in json.loads(answer.stdout) if books["stream"] == "result"]
        return HubBooks(*(sum(int(books[name]) for books in streams) for name in HubBooks._fields))
    except (subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
