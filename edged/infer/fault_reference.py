"""Writes docs/reference/runtime-errors.md from the tables: `python -m edged.infer.fault_reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from edged.policy.chain import MEANINGS, Limits
from edged.policy.faults import FAULTS, UNKNOWN, Fault

_HEAD = """# Errors of runtimes

<!-- Written by `make docs` (edged/infer/fault_reference.py); change the tables, not this page. -->

What every error code of a runtime means for the [chain](../how-to/when-an-accelerator-dies.md). Codes are never
renamed. A code that a plug-in made up counts as the last row.

| what is done | meaning |
|---|---|
| `refuse` | the input is answered with the error, nothing else changes |
| `retry` | once on the same rung, then the next one answers; only when that can, the rung counts as failed |
| `next` | the next rung answers, this one is tried again after a pause |
| `restart` | the same, after its process was ended |
| `rebuild` | its engine is made again, once; the next rung answers meanwhile |
| `disable` | the rung is out until the model, the runtime or the configuration changes |

| code | reaches | what is done | operator needed | meaning |
|---|---|---|---|---|
"""

_STATES = """
## The states of a rung

`edged status` shows them.

| state | meaning |
|---|---|
"""


def reference() -> str:
    """The whole page."""
    rows = "".join(_row(f"`{code}`", fault) for code, fault in FAULTS.items())
    states = "".join(f"| `{state}` | {meaning} |\n" for state, meaning in MEANINGS.items())
    return _HEAD + rows + _row("any other", UNKNOWN) + _STATES + states + _times(Limits())


def _times(limits: Limits) -> str:
    return f"""
## Times

A failed rung rests {limits.retry_first_s:g} s, then twice as long after each failure in a row, at most
{limits.retry_most_s:g} s. More than {limits.restarts_count} restarts within {limits.restarts_within_s:g} s: the
device needs a power cycle and is tried every {limits.power_cycle_retry_s:g} s. A better rung serves again after
{limits.return_probes} good probes, {limits.probe_every_s:g} s apart, over at least {limits.return_after_s:g} s; that
doubles up to {limits.return_most_s:g} s when it falls again within {limits.relapse_within_s:g} s of a return.
`[hardware.fallback]` changes these times.
"""


def _row(code: str, fault: Fault) -> str:
    return f"| {code} | {fault.scope} | `{fault.action}` | {'yes' if fault.alarm else 'no'} | {fault.meaning} |\n"


def main(arguments: list[str]) -> None:
    """Write the page to the file given, or print it."""
    if arguments:
        Path(arguments[0]).write_text(reference(), encoding="utf-8")
    else:
        sys.stdout.write(reference())


if __name__ == "__main__":
    main(sys.argv[1:])
