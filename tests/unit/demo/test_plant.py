"""The pumps obey physics: energy, temperature, friction and wear stay where nature keeps them."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from edged.demo.fleet import HISTORIES, demo_plant, random_plant
from edged.demo.plant import (
    BEARING_K_PER_W,
    BEARING_LOSS_W,
    FIELDS,
    MAGNETISING_CURRENT_A,
    RHO_G,
    STICTION_NEW,
    STICTION_SEIZED,
    SYNC_SPEED_HZ,
    WEAR_NEW,
    Pumps,
    State,
    demand,
    maintain,
    measure,
    operate,
    step,
)


def pumps(count: int = 1, **changes: float) -> Pumps:
    values = {
        "shutoff_head_m": 60.0,
        "unbalance": 1.5,
        "roughness": 6.0,
        "wear_rate": 0.0,
        "stiction_rate": 0.0,
        "tank_drop_m": 0.0,
        "tank_period_s": 600.0,
        "ambient_c": 20.0,
        "phase": 0.0,
    } | changes
    return Pumps(**{name: np.full(count, value) for name, value in values.items()})


def state(count: int = 1, t_s: float = 0.0, **changes: float) -> State:
    values = {"wear": 0.1, "stiction": STICTION_NEW, "position": 0.8, "temp_c": 45.0} | changes
    return State(t_s=t_s, **{name: np.full(count, value) for name, value in values.items()})


@pytest.fixture(scope="module")
def lived() -> tuple[list[State], list[np.ndarray]]:
    """Forty random pumps for 600 samples."""
    plant = random_plant(40, seed=5)
    states, values = [], []
    for _ in range(600):
        values.append(plant.advance()[0])
        states.append(plant.state)
    return states, values


def test_a_shaft_never_gets_less_power_than_water_and_bearing_take() -> None:
    for position in np.linspace(0.05, 1.0, 20):
        now = operate(pumps(), state(position=position))
        water_w = RHO_G * now.flow_m3h / 3600 * now.head_m

        assert now.shaft_power_w > water_w + now.bearing_loss_w


def test_closing_the_valve_lowers_flow_and_raises_head() -> None:
    openings = np.linspace(0.05, 1.0, 20)
    runs = [operate(pumps(), state(position=opening)) for opening in openings]

    assert np.all(np.diff([run.flow_m3h[0] for run in runs]) > 0)
    assert np.all(np.diff([run.head_m[0] for run in runs]) < 0)


def test_the_motor_slips_below_synchronous_speed_and_draws_more_than_its_magnetising_current() -> None:
    now = operate(pumps(), state())

    assert 0.95 * SYNC_SPEED_HZ < now.speed_hz[0] < SYNC_SPEED_HZ
    assert MAGNETISING_CURRENT_A < now.current_a[0] < 40


def test_a_bearing_settles_at_ambient_plus_its_losses_and_never_passes_that() -> None:
    pump, now = pumps(ambient_c=20.0), state(wear=0.5, temp_c=20.0)
    settled_c = 20.0 + BEARING_K_PER_W * BEARING_LOSS_W * 2.0
    temperatures = []
    for _ in range(600):
        now = step(pump, now)
        temperatures.append(now.temp_c[0])

    assert np.all(np.diff(temperatures) >= 0)
    assert temperatures[-1] == pytest.approx(settled_c, abs=0.1)
    assert max(temperatures) <= settled_c


def test_the_temperature_does_not_depend_on_how_finely_time_is_cut() -> None:
    coarse = step(pumps(), state(temp_c=90.0), 60.0)
    fine = state(temp_c=90.0)
    for _ in range(60):
        fine = step(pumps(), fine, 1.0)

    assert fine.temp_c == pytest.approx(coarse.temp_c)


def test_wear_and_stiction_only_grow_until_the_fitter_comes(lived: tuple[list[State], list[np.ndarray]]) -> None:
    states, _ = lived
    for before, after in pairwise(states):
        serviced = maintain(before)

        assert np.all(after.wear >= serviced.wear)
        assert np.all(after.stiction >= serviced.stiction)
        assert np.all(after.wear <= 1.0)
        assert np.all(after.stiction <= STICTION_SEIZED)


def test_a_worn_bearing_wears_faster_runs_hotter_and_shakes_more() -> None:
    pump = pumps(wear_rate=2e-4)
    new, worn = state(wear=0.1), state(wear=0.6)

    assert step(pump, worn).wear - worn.wear > step(pump, new).wear - new.wear
    assert operate(pump, worn).bearing_loss_w > operate(pump, new).bearing_loss_w
    assert operate(pump, worn).accel_rms > 2 * operate(pump, new).accel_rms


def test_a_sound_valve_follows_its_command_and_a_sticking_one_stays_until_the_error_is_too_large() -> None:
    sound, sticking = state(stiction=0.01, position=0.3), state(stiction=0.7, position=0.5)

    assert step(pumps(), sound).position == pytest.approx(demand(pumps(), 3.0), abs=0.01)
    assert step(pumps(), sticking).position == sticking.position


def test_a_slipping_valve_stops_short_of_its_command() -> None:
    command = demand(pumps(), 3.0)
    after = step(pumps(), state(stiction=0.2, position=0.4))

    assert 0 < command - after.position < 0.2


def test_pumps_cavitate_only_while_their_tank_is_low() -> None:
    full, low = state(t_s=0.0), state(t_s=150.0)
    with_drop = pumps(tank_drop_m=7.0)

    assert operate(with_drop, full).cavitation == 0
    assert operate(with_drop, low).cavitation > 0.5
    assert operate(with_drop, low).head_m < operate(with_drop, full).head_m
    assert operate(with_drop, low).accel_rms > 1.5 * operate(with_drop, full).accel_rms


def test_what_sensors_say_stays_within_what_such_a_pump_can_show(lived: tuple[list[State], list[np.ndarray]]) -> None:
    values = np.array(lived[1])
    low = dict(zip(FIELDS, values.min(axis=(0, 1)), strict=True))
    high = dict(zip(FIELDS, values.max(axis=(0, 1)), strict=True))

    assert np.isfinite(values).all()
    assert low["accel_rms"] > 0.5
    assert high["accel_rms"] < 15
    assert low["temp_c"] > 19
    assert high["temp_c"] < 110
    assert low["flow_m3h"] > 20
    assert high["flow_m3h"] < 130
    assert low["pressure_bar"] > 3
    assert high["pressure_bar"] < 7
    assert low["valve_pos"] >= 0
    assert high["valve_pos"] <= 1


def test_noise_is_the_only_difference_between_a_measurement_and_the_truth() -> None:
    now = operate(pumps(), state())
    exact = measure(now, state(), np.zeros((1, len(FIELDS))))[0]

    assert exact[FIELDS.index("flow_m3h")] == now.flow_m3h[0]
    assert exact[FIELDS.index("temp_c")] == 45.0
    assert exact[FIELDS.index("valve_cmd")] == now.command[0]


def test_the_fitter_replaces_only_what_is_broken() -> None:
    broken = replace(state(2), wear=np.array([1.0, 0.7]), stiction=np.array([0.3, STICTION_SEIZED]))
    after = maintain(broken)

    assert after.wear.tolist() == [WEAR_NEW, 0.7]
    assert after.stiction.tolist() == [0.3, STICTION_NEW]


def test_the_same_seed_gives_the_same_plant_and_another_seed_another() -> None:
    first, same, other = demo_plant(4, 7), demo_plant(4, 7), demo_plant(4, 8)

    assert np.array_equal(first.advance()[0], same.advance()[0])
    assert not np.array_equal(first.advance()[0], other.advance()[0])


def test_the_demo_repeats_its_histories_when_there_are_more_pumps_than_histories() -> None:
    plant = demo_plant(len(HISTORIES) + 1, 7)

    assert plant.count == len(HISTORIES) + 1
    assert plant.pumps.wear_rate[-1] == plant.pumps.wear_rate[0]
