"""`edged model split MODEL`: every cut point with its bytes and milliseconds, and whether any of them pays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from edged import __version__
from edged.sync.inference import FLOATS
from edged.sync.tensors import to_packed
from edged.workbench import rungs
from edged.workbench.arrays import read_npz
from edged.workbench.benchmarking import describe_machine
from edged.workbench.documents import describe_file
from edged.workbench.refusal import Unfit
from edged.workbench.split_model import Cuttable, load, samples_of

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.ports import Model
    from edged.workbench.split_graph import CutPoint

VERSION = "edged.split-report/1"
MESSAGE_BYTES = 600  # a question's first line, MQTT, TCP/IP and TLS around it, and the same for the answer
MOST_POINTS = 64
_SAMPLES = 16
_LIGHT = 0.5
_LEAST_CALLS = 5
_CALLS_NS = 60_000_000

Verdict = Literal["pays", "pays_if_whole_does_not_fit", "never"]


class Line(NamedTuple):
    """What is assumed about the way to the upstream, and how many times faster it computes."""

    kbit_s: float = 256.0
    rtt_ms: float = 40.0
    times_faster: float = 4.0

    def carry_ms(self, size_bytes: float) -> float:
        return self.rtt_ms + (size_bytes + MESSAGE_BYTES) * 8 / self.kbit_s


class Size(NamedTuple):
    """Bytes of a tensor for one call: as it is, one byte a number, and that as it travels (deflated where it helps)."""

    plain_bytes: int
    u8_bytes: int
    sent_bytes: float


class Measured(NamedTuple):
    """A cut point on this machine. total_ms: head here, line, tail there, as `Line` assumes."""

    point: CutPoint
    dtype: str
    shape: tuple[int, ...]
    size: Size
    head_bytes: int
    head_ms: float
    total_ms: float


class Survey(NamedTuple):
    """samples: how many real ones the bytes are from; 0: a ramp, of which nothing is deflated, for real inputs differ.

    local_ms: the whole model here. remote_ms: the input sent, the whole model there.
    """

    file: ModelFile
    line: Line
    samples: int
    input_size: Size
    local_ms: float
    remote_ms: float
    points: tuple[Measured, ...]
    left_out: int
    notes: tuple[str, ...]

    @property
    def best(self) -> Measured | None:
        """The fastest cut; where the whole is faster here anyway, the fastest with a head of half of it at most."""
        fastest = _fastest(self.points)
        if fastest is None or fastest.total_ms < min(self.local_ms, self.remote_ms):
            return fastest
        light = _fastest([each for each in self.points if self._is_light(each)])
        return light if light is not None and light.total_ms < self.remote_ms else fastest

    @property
    def verdict(self) -> Verdict:
        best = self.best
        if best is None or best.total_ms >= self.remote_ms:
            return "never"
        if best.total_ms < self.local_ms:
            return "pays"
        return "pays_if_whole_does_not_fit" if self._is_light(best) else "never"

    def _is_light(self, each: Measured) -> bool:
        """Whether its head would fit where the whole does not."""
        return each.head_ms <= self.local_ms * _LIGHT and each.head_bytes <= self.file.size_bytes * _LIGHT

    @property
    def words(self) -> str:
        """The verdict in one sentence, with its figures."""
        best = self.best
        if best is None:
            return "It cannot be split: no single tensor has everything pass through it."
        split = f"cut at {best.point.tensor} it takes {best.total_ms:.3g} ms"
        whole, sent = f"{self.local_ms:.3g} ms whole on this machine", f"{self.remote_ms:.3g} ms with the input sent"
        if self.verdict == "pays":
            return f"It pays: {split}, {whole}, {sent}."
        if self.verdict == "never" and best.total_ms < self.remote_ms:
            return f"It never pays on this line: {split}, but its head is nearly the whole model; {whole}, {sent}."
        if self.verdict == "never":
            cheaper = "run it whole here" if self.local_ms <= self.remote_ms else "send the input"
            return f"It never pays on this line: {split}, {whole}, {sent}; {cheaper}."
        return f"It pays only where the whole model does not fit: {split}, {sent}, but {whole}."


def _fastest(points: Sequence[Measured]) -> Measured | None:
    return min(points, key=lambda each: each.total_ms, default=None)


def survey(model: Path, data: Path | None, line: Line, *, cpu_ns: Callable[[], int] = time.process_time_ns) -> Survey:
    """Measure every cut point. Raises `Unfit`."""
    with TemporaryDirectory(prefix="edged-") as folder:
        cuttable = Cuttable(model, Path(folder))
        points, left_out = _chosen(cuttable.points)
        with closing(cuttable.whole()) as whole:
            samples = samples_of(whole, None if data is None else read_npz(data), _SAMPLES)
            local_ms = call_ms(whole, samples[0], cpu_ns)
        found = cuttable.tensors(points, samples) if points else []
        real = data is not None
        sizes = {point.tensor: _size([each[point.tensor] for each in found], real) for point in points}
        cuttable.declare(found[0] if found else {})
        input_size = _sum([_size([sample[name] for sample in samples], real) for name in cuttable.inputs])
        measured, notes = [], []
        for at, point in enumerate(points):
            size = sizes[point.tensor]
            try:
                head_bytes, head_ms = _head(cuttable, at, point, samples[0], cpu_ns)
            except Unfit as error:
                notes.append(str(error))
                continue
            array = found[0][point.tensor]
            tail_ms = max(local_ms - head_ms, 0.0) / line.times_faster
            total_ms = head_ms + line.carry_ms(size.sent_bytes) + tail_ms
            measured.append(Measured(point, str(array.dtype), array.shape, size, head_bytes, head_ms, total_ms))
        return Survey(
            file=cuttable.file,
            line=line,
            samples=len(samples) if data is not None else 0,
            input_size=input_size,
            local_ms=local_ms,
            remote_ms=line.carry_ms(input_size.sent_bytes) + local_ms / line.times_faster,
            points=tuple(measured),
            left_out=left_out,
            notes=tuple(notes),
        )


def _chosen(points: Sequence[CutPoint]) -> tuple[list[CutPoint], int]:
    """All of them, or as many as are measured in a minute or two, evenly."""
    if len(points) <= MOST_POINTS:
        return list(points), 0
    places = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
    return [points[place] for place in places], len(points) - MOST_POINTS


def _size(arrays: Sequence[np.ndarray], real: bool) -> Size:
    """Of one tensor over the samples. What is not finite travels as it is."""
    first = arrays[0]
    finite = all(np.isfinite(array).all() for array in arrays)
    u8_bytes = first.size if str(first.dtype) in FLOATS and finite else first.nbytes
    sent = [to_packed("x", array, u8=finite).header.bytes for array in arrays] if real else [u8_bytes]
    return Size(first.nbytes, u8_bytes, float(np.mean(sent)))


def _sum(sizes: Sequence[Size]) -> Size:
    return Size(*(sum(column) for column in zip(*sizes, strict=True)))


def _head(
    cuttable: Cuttable, at: int, point: CutPoint, sample: Mapping[str, np.ndarray], cpu_ns: Callable[[], int]
) -> tuple[int, float]:
    """(bytes, milliseconds) of a head."""
    file = cuttable.half(f"head-{at}.onnx", cuttable.inputs, [point.tensor])
    with closing(load(file)) as head:
        inputs = {spec.name: sample[spec.name] for spec in head.info.inputs}
        return file.size_bytes, call_ms(head, inputs, cpu_ns)


def call_ms(model: Model, batch: Mapping[str, np.ndarray], cpu_ns: Callable[[], int]) -> float:
    """Least processor time of a call on one thread: what else the machine does hardly changes it."""
    rungs.call(model, batch)
    best_ns, begun_ns, calls = 1 << 62, cpu_ns(), 0
    while calls < _LEAST_CALLS or (cpu_ns() - begun_ns < _CALLS_NS and calls < 10_000):
        before_ns = cpu_ns()
        rungs.call(model, batch)
        best_ns = min(best_ns, cpu_ns() - before_ns)
        calls += 1
    return best_ns / 1e6


def document(found: Survey) -> dict[str, Any]:
    """`edged.split-report/1`."""
    best = found.best
    return {
        "v": VERSION,
        "edged": __version__,
        "machine": describe_machine(),
        "model": describe_file(found.file),
        "line": found.line._asdict(),
        "samples": found.samples,
        "input": found.input_size._asdict(),
        "local_ms": found.local_ms,
        "remote_ms": found.remote_ms,
        "verdict": found.verdict,
        "words": found.words,
        "best": None if best is None else best.point.tensor,
        "points": [
            {
                "tensor": each.point.tensor,
                "after": each.point.after,
                "operators": each.point.operators,
                "dtype": each.dtype,
                "shape": list(each.shape),
                **each.size._asdict(),
                "head_bytes": each.head_bytes,
                "head_ms": each.head_ms,
                "total_ms": each.total_ms,
            }
            for each in found.points
        ],
        "points_left_out": found.left_out,
        "notes": list(found.notes),
    }
