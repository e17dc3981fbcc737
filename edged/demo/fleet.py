"""Which pumps stand in the plant: the handful of the demo, and random ones to learn from. Deterministic by seed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from edged.demo.plant import (
    FIELDS,
    STEP_S,
    STICTION_NEW,
    STICTION_SEIZED,
    WEAR_NEW,
    Array,
    Operation,
    Pumps,
    State,
    demand,
    maintain,
    measure,
    operate,
    step,
)

FAULT_KINDS = 4  # of random pumps: pump n is healthy, wears, sticks or cavitates as n % 4 says
_WEARS, _STICKS, _CAVITATES = 1, 2, 3
WARM_UP_STEPS = 100  # samples until bearings have the temperature of a running pump


class History(NamedTuple):
    """What a pump has been through and what awaits it.

    wear, stiction: at the start. wear_rate, stiction_rate: per plant second. tank_drop_m: depth of its tank's lows.
    """

    age: str
    wear: float
    wear_rate: float
    stiction: float
    stiction_rate: float
    tank_drop_m: float


HISTORIES = (
    History("new", WEAR_NEW, 4e-6, STICTION_NEW, 0.0, 0.0),
    History("worn, will need a bearing soon", 0.38, 2.9e-4, STICTION_NEW, 0.0, 0.0),
    History("valve packing hardens", 0.06, 4e-6, 0.04, 4.5e-4, 0.0),
    History("tank runs low now and then", 0.10, 4e-6, STICTION_NEW, 0.0, 7.0),
    History("middle-aged, wearing", 0.15, 2.9e-4, STICTION_NEW, 0.0, 0.0),
    History("old but well kept", 0.25, 2e-6, 0.03, 0.0, 1.0),
)


class Plant:
    """Running pumps: owns the state and the noise; `advance` is one sample of every pump."""

    def __init__(self, pumps: Pumps, state: State, rng: np.random.Generator) -> None:
        self.pumps = pumps
        self.state = state
        self._rng = rng

    @property
    def count(self) -> int:
        return len(self.state.wear)

    def advance(self) -> tuple[Array, Operation]:
        """Move on by one sample; returns the measured values, shape (pumps, fields), and the truth behind them."""
        self.state = step(self.pumps, maintain(self.state), STEP_S)
        now = operate(self.pumps, self.state)
        return measure(now, self.state, self._rng.standard_normal((self.count, len(FIELDS)))), now


def demo_plant(count: int, seed: int) -> Plant:
    """`count` pumps with the histories above, repeated with other tolerances when there are more."""
    rng = np.random.default_rng(seed)
    chosen = [HISTORIES[n % len(HISTORIES)] for n in range(count)]
    return _assemble(
        rng,
        wear=np.array([history.wear for history in chosen]),
        wear_rate=np.array([history.wear_rate for history in chosen]),
        stiction=np.array([history.stiction for history in chosen]),
        stiction_rate=np.array([history.stiction_rate for history in chosen]),
        tank_drop_m=np.array([history.tank_drop_m for history in chosen]),
    )


def random_plant(count: int, seed: int) -> Plant:
    """Pumps to learn from and to be tested on: a quarter each healthy, wearing, sticking and cavitating."""
    rng = np.random.default_rng(seed)
    fault = np.arange(count) % FAULT_KINDS
    return _assemble(
        rng,
        wear=np.where(fault == _WEARS, rng.uniform(0.05, 0.9, count), rng.uniform(0.0, 0.35, count)),
        wear_rate=np.where(fault == _WEARS, rng.uniform(1e-4, 4e-4, count), 4e-6),
        stiction=np.where(fault == _STICKS, rng.uniform(0.01, 0.5, count), rng.uniform(0.005, 0.05, count)),
        stiction_rate=np.where(fault == _STICKS, rng.uniform(1e-4, 6e-4, count), 0.0),
        tank_drop_m=np.where(fault == _CAVITATES, rng.uniform(4.5, 8.0, count), rng.uniform(0.0, 1.2, count)),
    )


def _assemble(
    rng: np.random.Generator,
    *,
    wear: Array,
    wear_rate: Array,
    stiction: Array,
    stiction_rate: Array,
    tank_drop_m: Array,
) -> Plant:
    """Add what differs between pumps of one type by tolerance and place, and let them run warm."""
    count = len(wear)
    pumps = Pumps(
        shutoff_head_m=rng.normal(60.0, 1.0, count),
        unbalance=rng.normal(1.5, 0.12, count),
        roughness=rng.normal(6.0, 0.2, count),
        wear_rate=np.zeros(count),
        stiction_rate=np.zeros(count),
        tank_drop_m=tank_drop_m,
        tank_period_s=rng.uniform(540.0, 700.0, count),
        ambient_c=rng.uniform(19.0, 25.0, count),
        phase=rng.uniform(0.0, 2 * np.pi, count),
    )
    state = State(
        t_s=0.0,
        wear=wear,
        stiction=np.minimum(stiction, STICTION_SEIZED),
        position=demand(pumps, 0.0),
        temp_c=pumps.ambient_c + 25.0 * (1.0 + 2.0 * wear),
    )
    plant = Plant(pumps, state, rng)
    for _ in range(WARM_UP_STEPS):
        plant.advance()
    plant.pumps = replace(pumps, wear_rate=wear_rate, stiction_rate=stiction_rate)
    return plant
