"""The models that gateways may ask, by the digest of their file: found in a folder, loaded when asked for. Blocks.

Only ONNX, only on the processor. Whoever may write into the folder decides what runs here; who asks can only choose.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edged.sync.envelope import Refusal

if TYPE_CHECKING:
    from edged.hub.settings import InferenceTable

LOOK_AGAIN_NS = 2_000_000_000  # for files that came meanwhile: unknown digests must not cost a look each
_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip
_FATAL_ONLY = 4
_GUARDED = 4  # times the slowest that it ever was


class Input(NamedTuple):
    """`shape`: -1 for a free axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]


class Served:
    """A loaded model. options: makes the library's options of one call. now_ns: monotonic."""

    def __init__(self, session: Any, max_rows: int, options: Callable[[], Any], now_ns: Callable[[], int]) -> None:
        self._session = session
        self._max_rows = max_rows
        self._options = options
        self._now_ns = now_ns
        self._row_s: float | None = None  # the slowest row so far; None before the first call
        self.inputs = tuple(
            Input(node.name, _DTYPES.get(node.type, node.type), tuple(_axis(axis) for axis in node.shape))
            for node in session.get_inputs()
        )
        self.outputs = tuple(node.name for node in session.get_outputs())

    def check(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Raise `Refusal` (`wrong_tensors`) unless these are the model's inputs."""
        wanted = {spec.name: spec for spec in self.inputs}
        if tensors.keys() != wanted.keys():
            raise Refusal("wrong_tensors", f"expected {sorted(wanted)}, got {sorted(tensors)}")
        for name, array in tensors.items():
            spec = wanted[name]
            if str(array.dtype) != spec.dtype or not _fits(array.shape, spec.shape):
                raise Refusal(
                    "wrong_tensors", f"{name}: expected {spec.dtype} {spec.shape}, got {array.dtype} {array.shape}"
                )
            if array.ndim and len(array) > self._max_rows:
                raise Refusal("wrong_tensors", f"{name}: {len(array)} rows, at most {self._max_rows} are taken")

    def run(self, tensors: Mapping[str, np.ndarray], within_s: float) -> dict[str, np.ndarray]:
        """The outputs. Raises `Refusal`: `infer_failed` where the library fails, `expired` where it was stopped."""
        rows = max([1, *(len(array) for array in tensors.values() if array.ndim)])
        options, stopped = self._options(), threading.Event()
        # A timer is a thread: it is for calls that could come near their deadline.
        may_be_late = self._row_s is None or within_s < _GUARDED * rows * self._row_s
        timer = threading.Timer(within_s, _stop, (options, stopped)) if may_be_late else None
        begun_ns = self._now_ns()
        if timer is not None:
            timer.daemon = True
            timer.start()
        try:
            outputs = self._session.run(list(self.outputs), dict(tensors), options)
        # The library's exceptions have no common base; whatever it was, the next question must find this thread alive.
        except Exception as error:
            if stopped.is_set():
                raise Refusal("expired", f"the call was stopped after {within_s:.3g} s") from error
            raise Refusal("infer_failed", _first_line(error)) from error
        finally:
            self._row_s = max(self._row_s or 0.0, (self._now_ns() - begun_ns) / 1e9 / rows)
            if timer is not None:
                timer.cancel()
        return dict(zip(self.outputs, outputs, strict=True))


class ModelFolder:
    """Finds and loads models; several threads may ask. `now_ns`: monotonic."""

    def __init__(self, table: InferenceTable, now_ns: Callable[[], int]) -> None:
        self._table = table
        self._now_ns = now_ns
        self._lock = threading.Lock()
        self._digests: dict[tuple[str, int, int], str] = {}  # (name, mtime, size) → digest: hashed once
        self._files: dict[str, Path] = {}
        self._looked_ns: int | None = None
        self._loaded: dict[str, Served | Refusal] = {}  # the longest unused first

    def find(self, digest: str) -> Served:
        """The model whose file has this digest. Raises `Refusal`: `unknown_model`, `model_unusable`."""
        with self._lock:
            if digest not in self._files:
                self._look()
            path = self._files.get(digest)
            if path is None:
                raise Refusal("unknown_model", f"no file in models_dir has sha256 {digest}")
            served = self._loaded.pop(digest, None) or self._load(path, digest)
            self._loaded[digest] = served
            while len(self._loaded) > self._table.max_models:
                del self._loaded[next(iter(self._loaded))]
        if isinstance(served, Refusal):
            raise served
        return served

    def _look(self) -> None:
        now_ns = self._now_ns()
        if self._looked_ns is not None and now_ns - self._looked_ns < LOOK_AGAIN_NS:
            return
        self._looked_ns = now_ns
        found: dict[tuple[str, int, int], str] = {}
        files: dict[str, Path] = {}
        for path in sorted(Path(self._table.models_dir).glob("*.onnx")):
            try:
                facts = path.stat()
                key = (path.name, facts.st_mtime_ns, facts.st_size)
                if facts.st_size > self._table.max_model_bytes or not path.is_file():
                    continue
                found[key] = self._digests.get(key) or hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError:  # gone again, or not readable: it is not served
                continue
            files[found[key]] = path
        self._digests, self._files = found, files

    def _load(self, path: Path, digest: str) -> Served | Refusal:
        """A model, or why it is none: that, too, is remembered."""
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # read when the library is loaded
        try:
            import onnxruntime as ort

            data = path.read_bytes()
            if hashlib.sha256(data).hexdigest() != digest:
                del self._files[digest]
                self._looked_ns = None
                return Refusal("unknown_model", f"{path.name} has changed")
            options = ort.SessionOptions()
            options.intra_op_num_threads = options.inter_op_num_threads = 1
            options.log_severity_level = _FATAL_ONLY
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        # The library's exceptions have no common base; a file that is no model must not end the thread.
        except Exception as error:  # noqa: BLE001
            return Refusal("model_unusable", f"{path.name}: {_first_line(error)}")
        session.disable_fallback()
        return Served(session, self._table.max_rows, ort.RunOptions, self._now_ns)


def _stop(options: Any, stopped: threading.Event) -> None:
    """The library looks at this between two operators."""
    stopped.set()
    options.terminate = True


def _axis(axis: object) -> int:
    return axis if isinstance(axis, int) else -1


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(axis in (-1, got) for got, axis in zip(shape, wanted, strict=True))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
