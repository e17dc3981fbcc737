"""Physics of the simulated pumps: a pure step function over arrays, one entry per pump.

Each pump is a centrifugal pump with an induction motor, a control valve behind it and a tank before it. Three
things go wrong with time: the bearing wears (Archard), the valve's packing sticks, the tank runs low (cavitation).
Wear and deposits are accelerated, so that years fit into minutes; everything else has the size of a real 18 kW pump.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEP_S = 3.0
"""Plant seconds between two samples of a pump: the pumps' own clock, whatever the rate of the events."""

FIELDS = ("accel_rms", "current_a", "temp_c", "flow_m3h", "pressure_bar", "valve_cmd", "valve_pos")
"""Order of the measured values, in `measure` and in the models. Units: m/s², A, °C, m³/h, bar, 1, 1."""

SYNC_SPEED_HZ = 50.0
RATED_SLIP = 0.017
RATED_TORQUE_NM = 58.0
SHUTOFF_CURVE = 12e-4  # m per (m³/h)²: how the pump's head falls with flow
STATIC_HEAD_M = 15.0
PIPE_LOSS = 20e-4  # m per (m³/h)²
VALVE_LOSS = 8.3e-4  # the same, wide open; grows with 1 / opening²
BEST_FLOW_M3H = 100.0
BEST_EFFICIENCY = 0.78
RHO_G = 9810.0  # N/m³, water
MOTOR_EFFICIENCY = 0.92
LINE_VOLTAGE_V = 400.0
MAGNETISING_CURRENT_A = 12.0
ATMOSPHERE_HEAD_M = 10.1  # atmospheric less vapour pressure, as metres of water
SUCTION_HEAD_M = 1.0
BEARING_LOSS_W = 150.0
BEARING_K_PER_W = 25.0 / BEARING_LOSS_W
BEARING_TIME_CONSTANT_S = 240.0
STICTION_NEW = 0.01
STICTION_SEIZED = 0.6
WEAR_NEW = 0.02
DEMAND_PERIOD_S = 90.0


@dataclass(frozen=True)
class Pumps:
    """What distinguishes the pumps; every array has shape (pumps,).

    shutoff_head_m: head at no flow. unbalance: m/s² of a new pump. wear_rate, stiction_rate: per plant second at
    rated load. tank_drop_m, tank_period_s: how far and how often the suction tank falls. phase: of demand and
    tank, rad.
    """

    shutoff_head_m: Array
    unbalance: Array
    roughness: Array
    wear_rate: Array
    stiction_rate: Array
    tank_drop_m: Array
    tank_period_s: Array
    ambient_c: Array
    phase: Array


@dataclass(frozen=True)
class State:
    """What a pump remembers; every array has shape (pumps,).

    wear: 0 new, 1 destroyed; never falls by itself. stiction: the error between command and position that
    the valve's packing holds back. position: opening of the valve, 0 to 1. temp_c: of the bearing.
    """

    t_s: float
    wear: Array
    stiction: Array
    position: Array
    temp_c: Array


@dataclass(frozen=True)
class Operation:
    """Where the pumps run at one instant, without memory; every array has shape (pumps,)."""

    command: Array
    speed_hz: Array
    flow_m3h: Array
    head_m: Array
    suction_head_m: Array
    cavitation: Array
    shaft_power_w: Array
    current_a: Array
    bearing_loss_w: Array
    accel_rms: Array


def demand(pumps: Pumps, t_s: float) -> Array:
    """Valve opening that the process asks for: a batch process that toggles between two slowly drifting levels."""
    toggle = np.where(np.sin(2 * np.pi * t_s / DEMAND_PERIOD_S + pumps.phase) >= 0, 1.0, -1.0)
    drift = 0.85 + 0.15 * np.sin(2 * np.pi * t_s / 700.0 + 3 * pumps.phase)
    return 0.7 + 0.22 * toggle * drift


def operate(pumps: Pumps, state: State) -> Operation:
    """Solve pump curve against system curve, then what follows from it: cavitation, torque, current, vibration."""
    fall_m = pumps.tank_drop_m * np.maximum(0.0, np.sin(2 * np.pi * state.t_s / pumps.tank_period_s + pumps.phase))
    suction_head_m = SUCTION_HEAD_M - fall_m
    resistance = SHUTOFF_CURVE + PIPE_LOSS + VALVE_LOSS / np.maximum(state.position, 0.05) ** 2
    flow_free = np.sqrt((pumps.shutoff_head_m + suction_head_m - STATIC_HEAD_M) / resistance)
    needed_m = 2.0 + 3.5 * (flow_free / BEST_FLOW_M3H) ** 2  # NPSH required grows with the flow
    margin_m = ATMOSPHERE_HEAD_M + suction_head_m - needed_m
    cavitation = np.clip((1.5 - margin_m) / 2.5, 0.0, 1.0)

    shutoff_m = pumps.shutoff_head_m * (1.0 - 0.12 * cavitation)  # vapour in the impeller costs head
    flow = np.sqrt((shutoff_m + suction_head_m - STATIC_HEAD_M) / resistance)
    head_m = shutoff_m - SHUTOFF_CURVE * flow**2
    off_best = (flow - BEST_FLOW_M3H) / BEST_FLOW_M3H
    efficiency = BEST_EFFICIENCY * np.clip(1.0 - off_best**2, 0.3, 1.0) * (1.0 - 0.2 * cavitation)
    bearing_loss_w = BEARING_LOSS_W * (1.0 + 2.0 * state.wear)
    shaft_power_w = RHO_G * flow / 3600.0 * head_m / efficiency + bearing_loss_w

    torque_nm = shaft_power_w / (2 * np.pi * SYNC_SPEED_HZ)
    speed_hz = SYNC_SPEED_HZ * (1.0 - RATED_SLIP * torque_nm / RATED_TORQUE_NM)
    active_a = shaft_power_w / MOTOR_EFFICIENCY / (np.sqrt(3.0) * LINE_VOLTAGE_V)
    accel_rms = np.sqrt(
        (pumps.unbalance * (speed_hz / SYNC_SPEED_HZ) ** 2) ** 2
        + (pumps.roughness * state.wear) ** 2
        + (4.0 * cavitation) ** 2
        + (0.8 * off_best) ** 2
    )
    return Operation(
        command=demand(pumps, state.t_s),
        speed_hz=speed_hz,
        flow_m3h=flow,
        head_m=head_m,
        suction_head_m=suction_head_m,
        cavitation=cavitation,
        shaft_power_w=shaft_power_w,
        current_a=np.hypot(active_a, MAGNETISING_CURRENT_A),
        bearing_loss_w=bearing_loss_w,
        accel_rms=accel_rms,
    )


def step(pumps: Pumps, state: State, dt_s: float = STEP_S) -> State:
    """The plant `dt_s` plant seconds later. Wear and stiction only grow; the temperature is integrated exactly."""
    now = operate(pumps, state)
    load = now.shaft_power_w / (2 * np.pi * SYNC_SPEED_HZ) / RATED_TORQUE_NM
    # Archard: worn volume ~ load x sliding distance; a worn bearing knocks, which adds to its own load.
    worn = pumps.wear_rate * load * (now.speed_hz / SYNC_SPEED_HZ) * (1.0 + 2.0 * state.wear) * dt_s
    stiction = np.minimum(state.stiction + pumps.stiction_rate * dt_s, STICTION_SEIZED)

    # Static friction holds the stem until the error exceeds it; then it slips and stops a little short.
    command = demand(pumps, state.t_s + dt_s)
    error = command - state.position
    slipped = command - np.sign(error) * 0.3 * stiction
    settled_c = pumps.ambient_c + BEARING_K_PER_W * now.bearing_loss_w
    return State(
        t_s=state.t_s + dt_s,
        wear=np.minimum(state.wear + worn, 1.0),
        stiction=stiction,
        position=np.clip(np.where(np.abs(error) > stiction, slipped, state.position), 0.05, 1.0),
        temp_c=settled_c + (state.temp_c - settled_c) * np.exp(-dt_s / BEARING_TIME_CONSTANT_S),
    )


def maintain(state: State) -> State:
    """What the fitter does over night: destroyed bearings are replaced, seized valves are cleaned."""
    return replace(
        state,
        wear=np.where(state.wear >= 1.0, WEAR_NEW, state.wear),
        stiction=np.where(state.stiction >= STICTION_SEIZED, STICTION_NEW, state.stiction),
    )


def measure(now: Operation, state: State, noise: Array) -> Array:
    """What the sensors say: shape (pumps, fields), in the order of `FIELDS`.

    noise: standard normal, shape (pumps, fields). Cavitation is violent: it multiplies the scatter.
    """
    rough = now.cavitation
    return np.column_stack(
        (
            now.accel_rms * np.exp((0.04 + 0.20 * rough) * noise[:, 0]),
            now.current_a * (1.0 + (0.004 + 0.02 * rough) * noise[:, 1]),
            state.temp_c + 0.3 * noise[:, 2],
            now.flow_m3h * (1.0 + (0.004 + 0.03 * rough) * noise[:, 3]),
            (now.suction_head_m + now.head_m) * RHO_G / 1e5 * (1.0 + (0.003 + 0.03 * rough) * noise[:, 4]),
            now.command,
            np.clip(state.position + 0.003 * noise[:, 6], 0.0, 1.0),
        )
    )
