"""Runtimes for the process of a device that do what accelerators do: hang, crash, vanish, answer nonsense.

The child finds them by an entry point, as it would find anybody's plug-in: `scripted_command` makes one. What a load
does is said by the device (`scripted:slow`), what a call does by the first number of its batch (`HANG`, ...).
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.hosting.process import COMMAND
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.messages import ModelInfo, TensorSpec

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model

REPOSITORY = Path(__file__).resolve().parents[2]

HANG, HANG_WITH_GIL, ABORT, EXIT, LOST, NO_MEMORY, FAIL, RAISE = (float(-number) for number in range(1001, 1009))
BIG, SCALAR, TEXTS, OTHER_NAMES, EAT_MEMORY, REFUSE, WEDGE, WORDS, WAIT = (
    float(-number) for number in range(1009, 1018)
)
BIG_BYTES = 8_000_000


def scripted_command(folder: Path) -> tuple[str, ...]:
    """The child's command, with an installed package in `folder` that names these runtimes."""
    info = folder / "scripted-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: scripted\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[edged.runtimes]\n"
        "scripted = tests.doubles.worker_runtimes:SCRIPTED\n"
        "nothing = tests.doubles.worker_runtimes:load_nothing\n"
        "broken = tests.doubles.no_such_module:load\n"
    )
    return ("env", f"PYTHONPATH={folder}{os.pathsep}{REPOSITORY}", *COMMAND)


def batch_of(what: float, rows: int = 1) -> dict[str, np.ndarray]:
    """Inputs that make a scripted model do `what`; a plain number makes it answer the sum of each row."""
    return {"x": np.full((rows, 4), what, np.float32)}


def _raising(code: str) -> Callable[[], None]:
    def raise_it() -> None:
        raise InferenceError(code, f"scripted {code}", hint="a scripted hint", retryable=True)

    return raise_it


def _raise() -> None:
    raise ZeroDivisionError("a bug of the plug-in")


def _abort() -> None:
    sys.stderr.write("the driver gave up\n")
    sys.stderr.flush()
    os.abort()


def _hang_with_gil() -> None:
    ctypes.PyDLL(None).sleep(1000)


def _eat_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 31, 1 << 31))
    np.ones((1 << 20, 1 << 12))


def _wedge() -> None:
    """Answers this call; then something in the background never lets go of the interpreter."""
    threading.Timer(0.05, _hang_with_gil).start()


def _words() -> None:
    os.write(2, b"noise " * 20_000 + b"and a last word\n")
    os._exit(7)


ACTS: Mapping[float, Callable[[], object]] = {
    HANG: threading.Event().wait,
    HANG_WITH_GIL: _hang_with_gil,
    ABORT: _abort,
    EXIT: lambda: sys.exit(3),
    LOST: _raising("device_lost"),
    NO_MEMORY: _raising("out_of_memory"),
    FAIL: _raising("infer_failed"),
    REFUSE: _raising("invalid_input"),
    RAISE: _raise,
    EAT_MEMORY: _eat_memory,
    WEDGE: _wedge,
    WORDS: _words,
    WAIT: lambda: threading.Event().wait(0.3),
}


class ScriptedModel:
    """Sums the rows of x, unless its first number asks for something else."""

    def __init__(self, file: ModelFile, runtime: str, *batch: int) -> None:
        specs = (TensorSpec("x", "float32", (*batch, -1)),), (TensorSpec("y", "float32", batch),)
        self._called = file.path.with_suffix(".called")
        self.info = ModelInfo(file.model_id, file.version, file.sha256, runtime, *specs)

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        x = batch["x"]
        what = float(x.flat[0]) if x.size else 0.0
        if what == WAIT:
            self._called.touch()
        ACTS.get(what, lambda: None)()
        if what == BIG:
            return {"y": np.arange(BIG_BYTES, dtype=np.uint8)}
        if what == SCALAR:
            return {"y": np.float32(5)}  # type: ignore[dict-item]
        if what == TEXTS:
            return {"y": np.array(["a", "b"])}
        if what == OTHER_NAMES:
            return {"z": x}
        return {"y": x.sum(axis=1)}

    def close(self) -> None:
        pass


class ScriptedRuntime:
    """What a device does is its name: see `_act` and `load`; any other name is a device that works."""

    name = "scripted"

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), isolation="process", exclusive=device == "exclusive", prepares=True)

    def probe(self, device: str) -> Probe:
        self._act(device)
        niceness = os.nice(0)
        return Probe(True, (Device(device, "scripted", "a scripted device"),), {"niceness": str(niceness)})

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        self._act(device)
        assert options.cache is not None
        (options.cache / "engine").write_text(str(os.nice(0)))

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        self._act(device)
        if device == "wide":
            return ScriptedModel(model._replace(model_id="x" * 70_000), f"scripted:{device}", -1)
        batch = {"fixed": (2,), "scalar": ()}.get(device, (-1,))
        return ScriptedModel(model, f"scripted:{device}", *batch)

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth()

    def _act(self, device: str) -> None:
        match device:
            case "slow":
                threading.Event().wait(0.5)
            case "hang":
                threading.Event().wait()
            case "crash":
                _abort()
            case "refuse":
                raise ModelError("unsupported", "scripted refusal", hint="a scripted hint")
            case "lost" | "no_memory":
                raise ModelError("device_lost" if device == "lost" else "out_of_memory", "scripted", retryable=True)
            case "raise":
                _raise()
            case "oom":
                _eat_memory()
            case "full":
                raise MemoryError


SCRIPTED = ScriptedRuntime()


class NothingModel:
    """Answers at once, without looking: what is left is the hand-over."""

    def __init__(self) -> None:
        inputs, outputs = (TensorSpec("x", "uint8", (-1, 224, 224, 3)),), (TensorSpec("y", "float32", (-1, 1000)),)
        self.info = ModelInfo("nothing", "1", "0" * 64, "nothing:here", inputs, outputs)
        self._answer = {"y": np.zeros((1, 1000), np.float32)}

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        return self._answer

    def close(self) -> None:
        pass


def load_nothing(model: ModelFile, device: str, options: LoadOptions) -> NothingModel:
    return NothingModel()
