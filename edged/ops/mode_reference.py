"""Writes docs/modes.md from the tables: `python -m edged.ops.mode_reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from edged.policy import chain
from edged.policy.causes import CAUSES, MACHINES, MEANINGS, MODES, OF_THE_GOVERNOR, Cause, Machine
from edged.policy.governor import LEVELS, RUNGS

MACHINE_MEANINGS: dict[Machine, str] = {
    "plant link": "connection, subscriptions and rights at the plant's broker, and what it lost",
    "upstream link": "the way home: receiver, line, and how long rows wait for it",
    "compute": "runtimes, lanes, queues, memory, and the governor on its way back",
    "model": "whether a model that can be trusted answers",
    "storage": "the store and the disk below it",
    "clock": "whether the wall clock is synchronised",
    "thermal": "heat, and what the system slows because of it",
}

_HEAD = """# Modes

<!-- Written by `python -m edged.ops.mode_reference docs/modes.md`; change the tables, not this page. -->

The gateway is always in exactly one mode. It stands in every result (`mode`), on `R/mode` (retained, with the reasons),
in `R/state`, in `edged status` and in the metrics (`edged_mode`). With `[upstream]` each change is a row of the stream
`health` as well: after weeks without a link the receiver gets every one of them, with its time
(view `modes` of the [hub](reference/hub-schema.md)).

The mode is derived: several small machines each have causes, each present cause is a reason that asks for a mode, and
the worst wins. A reason is entered at once; when its cause has gone it stays for its holding time, so that a cause that
comes and goes does not make the mode flap. Then it leaves by itself. A reason carries its code, whose it is (a
pipeline, a filter), since when, and a detail for people. Codes are never renamed.
What to do about each: [when the mode is not normal](how-to/mode-not-normal.md).

## The modes, from best to worst

| mode | meaning |
|---|---|
"""

_MACHINES = """
## The machines

| machine | watches | its causes |
|---|---|---|
"""

_CAUSES = """
## The reasons

| reason | machine | mode | detected within | what happens | what SCADA sees | how it ends | held for |
|---|---|---|---|---|---|---|---|
"""

_LADDER = """
## The levels of the governor

Heat, memory, disk, store, lateness and a missing accelerator press on one ladder; each level includes those above it.
Its reasons are in the table. They are entered and left by the governor ([thresholds, samples and holding
times](reference/device-health.md#the-ladder)), so that nothing holds them here once more.
The results of a pipeline that the level takes nothing from have `degraded` false.

| level | mode | means |
|---|---|---|
"""

_RUNGS = """
## The rungs of a chain

Each `runtime:device` of a pipeline's chain is a rung. The best that is ready serves; one that fails is left at once,
and returns only after good probes over a holding time
([how](adr/0020-an-accelerator-is-a-model-whose-process-may-die.md)).

| state of a rung | means |
|---|---|
"""


def reference() -> str:
    """The whole page."""
    modes = "".join(f"| `{mode}` | {MEANINGS[mode]} |\n" for mode in MODES)
    machines = "".join(_machine(machine) for machine in MACHINE_MEANINGS)
    ordered = sorted(CAUSES.items(), key=lambda item: (MODES.index(item[1].mode), item[0]))
    causes = "".join(_row(code, cause) for code, cause in ordered)
    levels = "".join(f"| `{level}` | `{RUNGS[level].mode}` | {RUNGS[level].meaning} |\n" for level in LEVELS)
    rungs = "".join(f"| `{state}` | {meaning} |\n" for state, meaning in chain.MEANINGS.items())
    return _HEAD + modes + _MACHINES + machines + _CAUSES + causes + _LADDER + levels + _RUNGS + rungs


def _machine(machine: Machine) -> str:
    codes = ", ".join(f"`{code}`" for code in CAUSES if MACHINES[code] == machine)
    return f"| {machine} | {MACHINE_MEANINGS[machine]} | {codes} |\n"


def _row(code: str, cause: Cause) -> str:
    held = "by the governor" if code in OF_THE_GOVERNOR else f"{cause.hold_s} s"
    cells = (
        f"`{code}`", MACHINES[code], f"`{cause.mode}`", cause.detected, cause.action, cause.scada, cause.end, held,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |\n"


def main(arguments: list[str]) -> None:
    """Write the page to the file given, or print it."""
    if arguments:
        Path(arguments[0]).write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
