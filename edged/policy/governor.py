"""The pressure governor: how far the gateway steps back from its full work, and why. Pure; the table is the document.

Heat, memory, disk, link, lateness and a missing accelerator all press on one ladder of levels. A reason whose value
stays at or past its threshold for the stated number of samples is entered, and takes the gateway to its level at once.
A reason leaves when its value has stayed at or past the other, easier threshold for the holding time without a break;
then the level falls one step at a time, `STEP_HOLD_S` each. What is unknown is no evidence in either direction: it
counts neither as a sample nor as a part of a holding time, and stands in `unknown`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from edged.policy.causes import Mode

Level = Literal["full", "lower_rate", "smaller_model", "summaries", "essential"]

LEVELS: tuple[Level, ...] = ("full", "lower_rate", "smaller_model", "summaries", "essential")
"""From all of the work to the least; each level includes what the ones before it give up."""

SAMPLE_INTERVAL_S = 2
"""How often the caller hands in facts. More often, and reasons are entered sooner than the table says."""

STEP_HOLD_S = 30
"""The level falls by one step after nothing has asked for it this long."""

EASING = "pressure_easing"
"""The code while every reason has left and the level is still on its way back."""

LINGERING = "shedding_lingers"
"""The code while no present reason asks for declared losses and the level, on its way back, still makes them."""


class Measures(NamedTuple):
    """What a level asks for. `rate_factor`: of the configured rate, where a pipeline declares that it may be slowed.

    `use_smaller_model`: where the pipeline has one. `summaries_only`: new results that have not left within a minute go
    home as summaries by minute, alarms whole; not where only room presses: then the store itself gives up by class.
    `alarms_only`: only pipelines that raise alarms are inferred.
    """

    rate_factor: float
    use_smaller_model: bool
    summaries_only: bool
    alarms_only: bool


class Rung(NamedTuple):
    """One level for people: what it means, the mode it shows as, and its measures."""

    meaning: str
    mode: Mode
    measures: Measures


RUNGS: Mapping[Level, Rung] = {
    "full": Rung("all of the configured work", "normal", Measures(1.0, False, False, False)),
    "lower_rate": Rung(
        "pipelines that may be slowed run at half their rate", "degraded", Measures(0.5, False, False, False)
    ),
    "smaller_model": Rung(
        "and pipelines that have a smaller model use it", "degraded", Measures(0.5, True, False, False)
    ),
    "summaries": Rung(
        "and at a quarter of the rate; under heat or lack of memory new results go home as summaries, alarms whole",
        "shedding",
        Measures(0.25, True, True, False),
    ),
    "essential": Rung(
        "and only pipelines that raise alarms are inferred", "shedding", Measures(0.25, True, True, True)
    ),
}

AcceleratorState = Literal["ok", "fallback", "failed"]
ACCELERATOR_STATES: tuple[AcceleratorState, ...] = ("ok", "fallback", "failed")
"""As configured; the next of the chain serves meanwhile; it will not come back without hands."""


class Facts(NamedTuple):
    """One sample. None, or NaN: unknown.

    Margins are °C left before the hottest part reaches the limit at which it slows itself (throttle) or is switched
    off (critical); negative: past it. `queue_deadline_ratio`: age of the oldest waiting input over its deadline.
    """

    throttle_margin_c: float | None = None
    critical_margin_c: float | None = None
    throttled: bool | None = None
    memory_available_share: float | None = None
    memory_some_avg10_percent: float | None = None
    disk_free_share: float | None = None
    disk_free_bytes: float | None = None
    store_room_days: float | None = None
    backlog_age_s: float | None = None
    queue_deadline_ratio: float | None = None
    accelerator: AcceleratorState | None = None


class Cause(NamedTuple):
    """One row of the ladder. `worse`: the direction in which the fact presses. `samples`: needed in a row."""

    code: str
    fact: str
    worse: Literal["falls", "rises"]
    enter: float
    leave: float
    samples: int
    hold_s: int
    level: Level
    text: str


LADDER: tuple[Cause, ...] = (
    Cause("heat_near_throttling", "throttle_margin_c", "falls", 5, 10, 3, 60, "lower_rate",
          "close to the temperature at which a part slows itself"),
    Cause("throttled", "throttled", "rises", 1, 0, 5, 120, "smaller_model",
          "the system slows a processor or an accelerator because of heat or its supply"),
    Cause("heat_near_critical", "critical_margin_c", "falls", 8, 13, 2, 120, "summaries",
          "close to the temperature at which a part is switched off"),
    Cause("heat_critical", "critical_margin_c", "falls", 3, 10, 1, 300, "essential",
          "about to be switched off by heat"),
    Cause("memory_low", "memory_available_share", "falls", 0.10, 0.15, 3, 60, "smaller_model",
          "little memory is left, of the box or of our control group"),
    Cause("memory_very_low", "memory_available_share", "falls", 0.05, 0.10, 2, 120, "summaries",
          "very little memory is left"),
    Cause("memory_exhausted", "memory_available_share", "falls", 0.02, 0.08, 1, 300, "essential",
          "the kernel is about to end a process"),
    Cause("memory_stalls", "memory_some_avg10_percent", "rises", 20, 5, 3, 60, "smaller_model",
          "tasks wait for memory"),
    Cause("memory_thrashing", "memory_some_avg10_percent", "rises", 60, 20, 3, 120, "summaries",
          "tasks wait for memory most of the time"),
    Cause("disk_low", "disk_free_share", "falls", 0.05, 0.08, 3, 300, "lower_rate",
          "the disk is almost full"),
    Cause("disk_very_low", "disk_free_bytes", "falls", 256_000_000, 512_000_000, 3, 300, "summaries",
          "the disk has little room left"),
    Cause("disk_full", "disk_free_bytes", "falls", 64_000_000, 256_000_000, 1, 300, "essential",
          "the disk is full"),
    Cause("store_room_short", "store_room_days", "falls", 3, 5, 3, 600, "lower_rate",
          "the store can take few more days of results that have not left"),
    Cause("store_room_very_short", "store_room_days", "falls", 1, 2, 3, 600, "summaries",
          "the store can take less than a day of results that have not left"),
    Cause("backlog_old", "backlog_age_s", "rises", 259_200, 86_400, 3, 600, "lower_rate",
          "the oldest result that has not left is days old"),
    Cause("queue_late", "queue_deadline_ratio", "rises", 0.8, 0.5, 3, 10, "lower_rate",
          "inputs wait for most of their deadline"),
    Cause("queue_very_late", "queue_deadline_ratio", "rises", 1.5, 0.8, 3, 30, "smaller_model",
          "inputs wait beyond their deadline"),
    Cause("accelerator_fallback", "accelerator", "rises", 1, 0, 1, 30, "lower_rate",
          "the accelerator is away and the next of the chain serves"),
    Cause("accelerator_failed", "accelerator", "rises", 2, 1, 1, 60, "smaller_model",
          "the accelerator will not come back without hands"),
)  # fmt: skip
"""The published ladder. Thresholds are planning figures; codes are never renamed."""


class Watch(NamedTuple):
    """What is remembered of one row: bad samples in a row, and since when its value has been easy."""

    active: bool = False
    samples: int = 0
    easy_since_ms: int | None = None


class GovernorState(NamedTuple):
    """Begin with `GovernorState()`. `codes`: the present reasons, worst first. `unknown`: facts that are missing."""

    level: Level = "full"
    codes: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    watches: tuple[Watch, ...] = ()
    unneeded_since_ms: int | None = None


class ReasonEntered(NamedTuple):
    """`detail`: the value that did it, for people; empty for `pressure_easing`."""

    code: str
    detail: str


class ReasonLeft(NamedTuple):
    code: str


class LevelChanged(NamedTuple):
    before: Level
    after: Level


Effect = ReasonEntered | ReasonLeft | LevelChanged


def declares(level: Level) -> Measures:
    """What the rest of the gateway has to do at this level."""
    return RUNGS[level].measures


def step(
    state: GovernorState, facts: Facts, *, mono_ms: int, ladder: Sequence[Cause] = LADDER
) -> tuple[GovernorState, tuple[Effect, ...]]:
    """One sample in, the next state and what to tell the world out. No effects: nothing visible changed.

    Every holding time counts on `mono_ms`. Another `ladder` than that of the former step is a `ValueError`: our bug.
    """
    watches = state.watches or (Watch(),) * len(ladder)
    values = {name: _value(facts, name) for name in dict.fromkeys(cause.fact for cause in ladder)}
    after = tuple(
        _watched(cause, watch, values[cause.fact], mono_ms) for cause, watch in zip(ladder, watches, strict=True)
    )
    active = sorted(
        (cause for cause, watch in zip(ladder, after, strict=True) if watch.active),
        key=lambda cause: -LEVELS.index(cause.level),
    )
    wanted: Level = active[0].level if active else "full"
    level, unneeded_since_ms = _levelled(state.level, wanted, state.unneeded_since_ms, mono_ms)
    codes = tuple(cause.code for cause in active) or (() if level == "full" else (EASING,))
    details = {cause.code: f"{cause.text} ({cause.fact}: {getattr(facts, cause.fact)})" for cause in active}
    effects: list[Effect] = [ReasonEntered(code, details.get(code, "")) for code in codes if code not in state.codes]
    effects += [ReasonLeft(code) for code in state.codes if code not in codes]
    if level != state.level:
        effects.append(LevelChanged(state.level, level))
    unknown = tuple(name for name, value in values.items() if value is None)
    return GovernorState(level, codes, unknown, after, unneeded_since_ms), tuple(effects)


def _value(facts: Facts, name: str) -> float | None:
    """A fact as a number: true is 1, an accelerator's state its place in the row of states, NaN unknown."""
    value = getattr(facts, name)
    if value is None:
        return None
    number = float(ACCELERATOR_STATES.index(value) if isinstance(value, str) else value)
    return None if number != number else number  # noqa: PLR0124  NaN is what differs from itself


def _watched(cause: Cause, watch: Watch, value: float | None, mono_ms: int) -> Watch:
    if value is None:
        return watch._replace(easy_since_ms=None)
    sign = 1 if cause.worse == "rises" else -1
    if sign * value >= sign * cause.enter:
        samples = min(watch.samples + 1, cause.samples)
        return Watch(watch.active or samples == cause.samples, samples)
    if not watch.active:
        return Watch()
    if sign * value > sign * cause.leave:
        return Watch(active=True)
    since_ms = mono_ms if watch.easy_since_ms is None else watch.easy_since_ms
    return Watch(active=True, easy_since_ms=since_ms) if mono_ms - since_ms < cause.hold_s * 1000 else Watch()


def _levelled(level: Level, wanted: Level, since_ms: int | None, mono_ms: int) -> tuple[Level, int | None]:
    """The level after this sample, and since when less would do: up at once, down one step per holding time."""
    if LEVELS.index(wanted) >= LEVELS.index(level):
        return wanted, None
    if since_ms is None:
        return level, mono_ms
    if mono_ms - since_ms < STEP_HOLD_S * 1000:
        return level, since_ms
    return LEVELS[LEVELS.index(level) - 1], mono_ms
