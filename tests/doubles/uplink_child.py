"""The uplink's process over a store that a test writes down: `python -m tests.doubles.uplink_child`."""

from __future__ import annotations

import sys
from pathlib import Path

from edged.uplink.child import main
from tests.doubles.outward import FileOutward

if __name__ == "__main__":
    sys.exit(main(lambda start: FileOutward(Path(start.state_dir) / "store.json")))
