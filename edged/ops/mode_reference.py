"""Writes docs/reference/modes.md from the tables: `python -m edged.ops.mode_reference FILE`."""

from __future__ import annotations

import sys
from pathlib import Path

from edged.policy.mode import CAUSES, MEANINGS, MODES, Cause

_HEAD = """# Modes

<!-- Written by `python -m edged.ops.mode_reference docs/reference/modes.md`; change the tables, not this page. -->

The gateway is always in exactly one mode. It stands in every result (`mode`), on `R/mode` (retained, with the reasons),
in `R/state`, in `edged status` and in the metrics (`edged_mode`).

The mode is derived: each active reason asks for one, and the worst wins. A reason is entered at once; when its cause
has gone it stays for its holding time, so that a cause that comes and goes does not make the mode flap. Then it leaves
by itself. A reason carries its code, whose it is (a pipeline, a filter), since when, and a detail for people. Codes are
never renamed.

## The modes, from best to worst

| mode | meaning |
|---|---|
"""

_CAUSES = """
## The reasons

| reason | mode | detected | what the daemon does | what SCADA sees | how it ends | held for |
|---|---|---|---|---|---|---|
"""


def reference() -> str:
    """The whole page."""
    modes = "".join(f"| `{mode}` | {MEANINGS[mode]} |\n" for mode in MODES)
    ordered = sorted(CAUSES.items(), key=lambda item: (MODES.index(item[1].mode), item[0]))
    causes = "".join(_row(code, cause) for code, cause in ordered)
    return _HEAD + modes + _CAUSES + causes


def _row(code: str, cause: Cause) -> str:
    cells = (
        f"`{code}`", f"`{cause.mode}`", cause.detected, cause.action, cause.scada, cause.end, f"{cause.hold_s} s",
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
