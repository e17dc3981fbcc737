"""A process that commits units as fast as it can and writes each confirmed event number to stdout, until it is killed.

Run as: python -m tests.fault.store.committing_process FOLDER BUDGET_BYTES
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from tests.unit.store.plant import commit, opened
from tests.unit.store.samples import unit


async def run(folder: Path, budget_bytes: int) -> None:
    store = await opened(folder, budget_bytes=budget_bytes)
    event, result = store.recovered.next_event, store.recovered.next_result
    chance = random.Random(event)
    os.write(1, b"ready\n")
    while True:
        n = chance.randint(1, 40)
        await commit(store.journal, unit(event, n, result, n, n_notices=chance.randint(0, 1), noise=100))
        event, result = event + n, result + n
        os.write(1, b"%d\n" % (event - 1))
        if chance.random() < 0.05:
            await store.journal.save_snapshot(event - 1, b"%d" % (event - 1))


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
