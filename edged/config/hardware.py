"""Hardware classes: what a kind of box can do, one file per class in configs/classes/."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from edged.config.keys import STRICT_TABLE, Key


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareLimits:
    """What a model may need on such a box; a bigger one is refused before it is loaded."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    model_bytes: Annotated[int, Key("Largest model file.", why="it is read into memory whole", gt=0)] = 500_000_000
    memory_bytes: Annotated[
        int,
        Key(
            "Memory for the windows of all devices; `edged check` notes when they could need more.",
            why="windows take memory",
            gt=0,
        ),
    ] = 1_000_000_000
    p99_ms: Annotated[
        float,
        Key(
            "Slowest acceptable call of a model. One whose warm call takes longer at the start serves all the same, "
            "and the reason `model_slow` says so.",
            why="no call takes no time",
            gt=0,
        ),
    ] = 1000.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lanes:
    """When a model leaves the event loop, and when its results are committed after their events."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    inline_max_us: Annotated[
        int,
        Key(
            "A model whose warm calls take longer runs on a lane (a thread) of its own.",
            why="the loop stands still during an inline call: beyond 10 ms acknowledgements suffer",
            ge=0,
            le=10_000,
        ),
    ] = 1000
    together_max_ms: Annotated[
        int,
        Key(
            "With commit = auto, a model whose warm calls take longer has its results committed after the events.",
            why="events wait that long for their acknowledgement; well below the keep-alive",
            ge=0,
            le=1000,
        ),
    ] = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What the box is expected to carry. Planning figures: `edged doctor` compares them with the box, nothing else."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    events_per_s: Annotated[float, Key("Sustained events per second.", why="a rate of 0 is no envelope", gt=0)] = 1000.0
    resident_bytes: Annotated[int, Key("Resident memory of the daemon.", why="no process has none", gt=0)] = 500_000_000
    temperature_max_c: Annotated[
        float, Key("Hottest point before the box throttles.", why="silicon dies above", gt=0, le=150)
    ] = 95.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fallback:
    """When a runtime that failed is tried again, and when it serves again."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    retry_first_s: Annotated[
        float,
        Key(
            "Pause before a failed runtime is loaded again; doubles with each failure in a row, up to 5 min.",
            why="at once would be a loop, an hour no attempt",
            gt=0,
            le=3600,
        ),
    ] = 2.0
    restarts: Annotated[
        int,
        Key(
            "Restarts within 10 min before the device is said to need a power cycle; then it is tried every half hour.",
            why="an accelerator that crashes for ever only disturbs",
            unit="restarts",
            ge=1,
            le=1000,
        ),
    ] = 5
    return_probes: Annotated[
        int,
        Key(
            "Good answers in a row before a better runtime serves again.",
            why="1 trusts at once",
            unit="probes",
            ge=1,
            le=1000,
        ),
    ] = 3
    probe_every_s: Annotated[
        float, Key("Distance of those probes.", why="a probe is a call that computes nothing useful", gt=0, le=3600)
    ] = 2.0
    return_after_s: Annotated[
        float,
        Key(
            "Least time a better runtime must have been well before it serves again; doubles, up to return_most_s, "
            "when it fell within 10 min of its last return.",
            why="0 would drag the results along with a loose plug",
            ge=0,
            le=86_400,
        ),
    ] = 10.0
    return_most_s: Annotated[
        float, Key("Longest such time.", why="0 would take what comes and goes at once", ge=0, le=86_400)
    ] = 600.0
    warm: Annotated[
        int,
        Key(
            "Runtimes below the serving one that are kept loaded, so that a fall costs one call and not one load.",
            why="each takes the memory of one model",
            unit="runtimes",
            ge=0,
            le=8,
        ),
    ] = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recycle:
    """When the process of an accelerator is replaced by a fresh one, without a missed input; 0: never."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    calls: Annotated[
        int, Key("After so many calls.", why="a library that leaks does so by the call", unit="calls", ge=0)
    ] = 0
    resident_bytes: Annotated[
        int, Key("When it takes so much memory.", why="below that of a fresh one it would never end", ge=0)
    ] = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rollout:
    """How a new model reaches gateways of this class. Declared and checked here; this version rolls nothing out."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    soak_s: Annotated[
        int,
        Key(
            "How long a stage is watched before the next one begins.",
            why="a model that heats or leaks shows it after minutes; a month is no rollout any more",
            ge=60,
            le=2_592_000,
        ),
    ] = 3600
    max_error_rate: Annotated[
        float,
        Key(
            "Share of bad answers during a trial above which the former model returns.",
            why="none is bad: 0, all are: 1",
            unit="of the answers",
            ge=0,
            le=1,
        ),
    ] = 0.01
    stages: Annotated[
        tuple[float, ...],
        Key(
            "Shares of the gateways of this class that have the model at the end of each stage, rising to 1.",
            why="shares; each stage costs one soak_s",
            gt=0,
            le=1,
            min_items=1,
            max_items=16,
        ),
    ] = (0.05, 0.25, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareClass:
    """One kind of box. `[hardware]` in the configuration overrides single keys of the class file."""

    __pydantic_config__: ClassVar = STRICT_TABLE

    description: Annotated[str, Key("What kind of box this is.")] = ""
    chain: Annotated[
        tuple[str, ...],
        Key(
            "Runtimes of pipelines that name none, in the order they are tried.",
            min_items=1,
            max_items=8,
            why="without one no model runs; each is one more start-up attempt",
        ),
    ] = ("onnxruntime:cpu",)
    cpu_threads: Annotated[
        int,
        Key(
            "Processor threads of one call of a model.",
            why="0 would compute nothing; more threads than cores slow each other down",
            unit="threads",
            ge=1,
            le=256,
        ),
    ] = 1
    limits: Annotated[HardwareLimits, Key("What a model may need.")] = HardwareLimits()
    lanes: Annotated[Lanes, Key("When models leave the event loop.")] = Lanes()
    fallback: Annotated[Fallback, Key("From one runtime to the next, and back.")] = Fallback()
    recycle: Annotated[Recycle, Key("Planned replacement of the processes of accelerators.")] = Recycle()
    rollout: Annotated[Rollout, Key("How a new model reaches gateways of this class.")] = Rollout()
    envelope: Annotated[Envelope, Key("What the box is expected to carry.")] = Envelope()
