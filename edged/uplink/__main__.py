"""`python -m edged.uplink`: started by the daemon, never by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edged.uplink.child import main

if TYPE_CHECKING:
    from edged.ports import Outward
    from edged.uplink.lines import Start


def open_store(start: Start) -> Outward:
    from edged.store.outward import OutwardStore

    return OutwardStore(Path(start.state_dir))


if __name__ == "__main__":
    sys.exit(main(open_store))
