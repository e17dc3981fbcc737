"""Weeks of a gateway's life in a random order: every number ever made is there, lost for a known reason, or home."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from edged.sync.protocol import STREAMS, Stream
from tests.fault.store.world import World

# EDGED_STORE_STEPS=3000 EDGED_STORE_SEEDS=20 pytest tests/fault/store/test_schedules.py: more, in about an hour
STEPS = int(os.environ.get("EDGED_STORE_STEPS", "120"))
SEEDS = int(os.environ.get("EDGED_STORE_SEEDS", "3"))

USUAL: frozenset[Stream] = frozenset(("alarm", "result", "health"))
WEIGHTS = {
    "make": 20,
    "make_many": 14,
    "deliver": 5,
    "answer": 5,
    "snapshot": 5,
    "everything_delivered": 1,
    "send": 14,
    "arrive": 10,
    "live": 5,
    "drain": 0.4,
    "give_up": 2,
    "trim": 4,
    "squeeze": 1,
    "disk": 1.5,
    "alarms": 4,
    "restart": 1,
    "kill": 1,
    "reboot": 0.5,
    "keep_image": 1,
    "restore": 0.7,
}


@pytest.mark.slow
@pytest.mark.allow_blocking(reason="the reader, which is a process of its own, reads here between two steps")
@pytest.mark.timeout(60 + STEPS)
@pytest.mark.parametrize("seed", range(SEEDS))
async def test_whatever_happens_every_number_is_there_or_lost_for_a_known_reason_or_home(
    tmp_path: Path, seed: int
) -> None:
    world = World(tmp_path, seed, USUAL if seed % 3 == 1 else frozenset(STREAMS))
    await world.open()
    for step in range(STEPS):
        (name,) = world.rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
        try:
            await getattr(world, name)()
            world.check()
        except BaseException as error:
            error.add_note(f"seed {seed}, step {step}: {name}")
            raise
    await world.drain()
    world.check()
    await world.close()
    print(world.counts, {stream: world.ledger.next(stream) - 1 for stream in world.streams})  # seen with -s
