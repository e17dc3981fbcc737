"""The process that measures one model on one rung: `python -m edged.workbench.bench_child DESCRIPTOR`.

The order comes on standard input. The answer goes to the descriptor, because runtimes print what they like on standard
output. Nothing else lives in here, so that memory is the model's and a crash is nobody else's.
"""

from __future__ import annotations

import os
import sys
import time

import msgspec

from edged.ops.clock import SystemClock
from edged.workbench.measuring import Order, RungFigures, measure
from edged.workbench.refusal import Unfit


class Answer(msgspec.Struct, frozen=True):
    """Figures, or the code and the words of a refusal."""

    figures: RungFigures | None = None
    code: str = ""
    detail: str = ""
    hint: str = ""


def main() -> None:
    order = msgspec.json.decode(sys.stdin.buffer.read(), type=Order)
    try:
        answer = Answer(measure(order, SystemClock(), time.process_time_ns))
    except Unfit as refusal:
        answer = Answer(code=refusal.code, detail=refusal.detail, hint=refusal.hint)
    with os.fdopen(int(sys.argv[1]), "wb") as out:
        out.write(msgspec.json.encode(answer))


if __name__ == "__main__":
    main()
