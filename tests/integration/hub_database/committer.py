"""A worker process: commits batches of results over and over and says which are home.

    python -m tests.integration.hub_database.committer URL SEED MADE

The batches are cut at random and come in any order; each answer is one line `first last`.
"""

from __future__ import annotations

import asyncio
import random
import sys

from edged.hub.database.opening import open_database
from edged.hub.ports import DatabaseAway
from tests.integration.hub_database.samples import results


async def _work(url: str, seed: int, made: int) -> None:
    chance = random.Random(seed)
    database = await open_database(url)
    firsts = list(range(1, made + 1, 50))
    chance.shuffle(firsts)
    for at in firsts:
        first, last = max(1, at - chance.randrange(30)), min(made, at + 49 + chance.randrange(30))
        while True:
            try:
                await database.commit(results(first, last))
                break
            except DatabaseAway:
                continue
        print(first, last, flush=True)
    await database.close()


if __name__ == "__main__":
    asyncio.run(_work(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
