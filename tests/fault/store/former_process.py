"""Uses a store as a program does that is one schema older; run with that program's tree in PYTHONPATH.

Run as: python -P former_process.py FOLDER BUDGET_BYTES UNITS; answers with one line of JSON.

Everything of it is delivered to the plant's broker: what that program gives up it gives up without a word.
"""

import asyncio
import json
import sys
from pathlib import Path

from tests.unit.store.plant import commit, opened, read_all_results
from tests.unit.store.samples import unit

PER_UNIT = 10


async def run(folder: Path, budget_bytes: int, units: int) -> dict[str, object]:
    from edged.store import schema

    store = await opened(folder, budget_bytes=budget_bytes)
    recovered, journal = store.recovered, store.journal
    journal.delivered_upto = recovered.next_result - 1
    journal.answered_upto = recovered.next_event - 1
    journal.noticed_upto = recovered.next_batch - 1
    before = await read_all_results(journal)
    notices = [notice for group in await journal.read_notices(0, 100_000) for notice in group.notices]
    event, result, evicted = recovered.next_event, recovered.next_result, 0
    for _ in range(units):
        committed = await commit(journal, unit(event, PER_UNIT, result, PER_UNIT, n_notices=1, noise=200))
        evicted += committed.evicted_results
        event, result = event + PER_UNIT, result + PER_UNIT
        journal.delivered_upto, journal.answered_upto = result - 1, event - 1
    await journal.save_snapshot(event - 1, b"folded")
    after = await read_all_results(journal)
    await journal.close()
    return {
        "schema": schema.MIGRATIONS[-1].version,
        "module": schema.__file__,
        "epoch": recovered.epoch,
        "salvage": str(recovered.salvage) if recovered.salvage else "",
        "warnings": list(recovered.warnings),
        "next_event": recovered.next_event,
        "next_result": recovered.next_result,
        "before": before,
        "after": after,
        "notices": len(notices),
        "evicted": evicted,
        "end_event": event,
        "end_result": result,
    }


if __name__ == "__main__":
    print(json.dumps(asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))))
