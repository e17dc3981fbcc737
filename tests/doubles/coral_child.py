"""A process that drives one Edge TPU, as the daemon's worker does: told by lines, it says a line after each step.

coral_child.py MODEL: loads, says `loaded` or the code of the refusal; then `infer` is answered with `answered` or a
code. A thread notes the longest time in which it did not get the interpreter: `stall` is answered with milliseconds.
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.loading import open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.ports import Model

longest_s = 0.0


def watch() -> None:
    global longest_s
    last = time.perf_counter()
    while True:
        time.sleep(0.002)
        now = time.perf_counter()
        longest_s, last = max(longest_s, now - last), now


def ask(model: Model) -> str:
    inputs = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.info.inputs}
    try:
        model.infer(inputs, deadline_s=1)
    except InferenceError as error:
        return error.code
    return "answered"


def main() -> None:
    runtime, file = find_runtime("coral"), open_model(Path(sys.argv[1]), allow_unsigned=True)
    threading.Thread(target=watch, daemon=True).start()
    try:
        model = runtime.load(file, "usb", LoadOptions())
    except ModelError as error:
        print(error.code, flush=True)
        return
    print("loaded", flush=True)
    for line in sys.stdin:
        print(round(longest_s * 1000) if line.strip() == "stall" else ask(model), flush=True)


if __name__ == "__main__":
    main()
