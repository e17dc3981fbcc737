"""`edged model optimize`: a checked calibration set in, a smaller model out, and what it cost."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from edged import __version__
from edged.ops import durable_files
from edged.workbench import quantizing, rungs
from edged.workbench.arrays import Dataset, model_inputs, read_npz
from edged.workbench.calibration import Calibration, check_calibration
from edged.workbench.documents import describe_file
from edged.workbench.hardware import Target, refuse_without_onnx
from edged.workbench.onnx_model import Facts, find_problems, parse, read_facts
from edged.workbench.parity import Parity, compare, sqnr_db
from edged.workbench.refusal import Unfit

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile

VERSION = "edged.optimization/1"
Precision = Literal["int8", "fp16"]
LEAST_SQNR_DB = 10.0  # on the very samples it was calibrated with: below this something is broken, not coarse
_LARGEST_FP16 = 65504.0
_COMPARED_SAMPLES = 64
_LAYER_SAMPLES = 4
_LAYER_COUNT = 60
_SPEED_BUDGET_NS = 300_000_000


class Layer(NamedTuple):
    """An inner tensor of both models over some samples."""

    name: str
    sqnr_db: float


class Speed(NamedTuple):
    """Least processor time of one call with one sample, both models in turns on one thread of this machine."""

    rung: str
    before_ms: float
    after_ms: float

    @property
    def ratio(self) -> float:
        return self.before_ms / self.after_ms if self.after_ms else 0.0


class Optimized(NamedTuple):
    """What was made of what. `pairs`: (before, after) values of the outputs, for the picture."""

    source: ModelFile
    result: ModelFile
    data: Dataset
    precision: Precision
    target: Target
    calibration: Calibration
    before: Facts
    after: Facts
    parity: tuple[Parity, ...]
    layers: tuple[Layer, ...]
    speed: Speed
    notes: tuple[str, ...]
    pairs: tuple[np.ndarray, np.ndarray]

    @property
    def form(self) -> str:
        if self.precision == "fp16":
            return "float16, inputs and outputs float32"
        portable = "int8 activations around zero: onnxruntime, OpenVINO, TensorRT"
        return portable if self.target.form == "portable" else "uint8 activations: onnxruntime, OpenVINO"


def optimize(
    model: Path,
    calibration: Path,
    to: Path,
    *,
    precision: Precision,
    target: Target,
    cpu_ns: Callable[[], int] = time.process_time_ns,
) -> Optimized:
    """Make `to` from `model`. Nothing is written unless everything before it went well.

    Raises:
        Unfit: every reason there is to write nothing.
        OSError: the disk.
    """
    refuse_without_onnx(target)
    _check_destination(model, calibration, to)
    source = rungs.open_file(model)
    if source.format != "onnx":
        raise Unfit("not_onnx", f"{model} is {source.format}, expected ONNX", hint="the vendor's tools quantise it")
    proto = parse(source)
    before = read_facts(source, proto)
    _refuse_fatal(before)
    with closing(rungs.load(rungs.DEFAULT_RUNG, source)) as reference, TemporaryDirectory(prefix="edged-") as folder:
        data = read_npz(calibration)
        inputs = model_inputs(data, reference.info.inputs)
        checked = check_calibration(inputs)
        wanted = rungs.answers(reference, _first(inputs, _COMPARED_SAMPLES))
        _refuse_not_finite(compare(wanted, wanted), "the original answers NaN or infinity on the samples")
        made = Path(folder) / "result.onnx"
        cleaned = quantizing.clean(proto, Path(folder))
        if precision == "int8":
            batch = max(before.inputs[0].shape[0] if before.inputs[0].shape else 1, 1)
            quantizing.to_int8(cleaned, inputs, made, form=target.form, batch=batch)
        else:
            _refuse_overflow(quantizing.with_tensors(cleaned, Path(folder)), inputs)
            quantizing.to_fp16(cleaned, made)
        quantizing.stamp(made, _origin(source, data, checked, precision, target))
        result = rungs.open_file(made)
        with closing(rungs.load(rungs.DEFAULT_RUNG, result)) as smaller:
            got = rungs.answers(smaller, _first(inputs, _COMPARED_SAMPLES))
            parity = compare(wanted, got)
            _refuse_not_finite(parity, "the result answers NaN or infinity; nothing was written")
            _refuse_apart(parity)
            times = rungs.cpu_ms(reference, smaller, _first(inputs, 1), _SPEED_BUDGET_NS, cpu_ns)
        layers = _layers(cleaned, made, inputs) if precision == "int8" else ()
        after = read_facts(result)
        durable_files.replace(to, result.read(), 0o644)
    speed = Speed(rungs.DEFAULT_RUNG, *times)
    return Optimized(
        source=source,
        result=result._replace(path=to),
        data=data,
        precision=precision,
        target=target,
        calibration=checked,
        before=before,
        after=after,
        parity=parity,
        layers=layers,
        speed=speed,
        notes=(*checked.notes, *_notes(after, speed, precision, target)),
        pairs=(_flat(wanted), _flat(got)),
    )


def _check_destination(model: Path, calibration: Path, to: Path) -> None:
    if to.suffix.lower() != ".onnx":
        raise Unfit("wrong_format", f"the result is ONNX: expected a name ending in .onnx, got {to.name!r}")
    if not to.parent.is_dir():
        raise Unfit("no_folder", f"Cannot write {to}: there is no folder {to.parent}", hint=f"mkdir -p {to.parent}")
    for source in (model, calibration):
        if to.exists() and source.exists() and to.samefile(source):
            raise Unfit("over_input", f"Refusing to write over {source}", hint="name another file with --to")
    if to.is_dir():
        raise Unfit("over_input", f"Refusing to write {to}: it is a folder")


def _refuse_fatal(facts: Facts) -> None:
    if facts.quantized:
        raise Unfit("already_quantized", "the model has quantised operators already", hint="start from the float model")
    for finding in find_problems(facts, max_bytes=rungs.MAX_MODEL_BYTES):
        if finding.fatal:
            raise Unfit(finding.code, finding.detail)


def _refuse_not_finite(parity: Sequence[Parity], words: str) -> None:
    bad = [found.output for found in parity if not found.finite]
    if bad:
        raise Unfit(
            "not_finite",
            f"outputs {bad}: {words}",
            hint="for the original, look at the samples",
        )


def _refuse_overflow(tensors: Path, inputs: Mapping[str, np.ndarray]) -> None:
    """Values that float16 cannot hold: onnxruntime computes such models in float32, so its answers do not show it."""
    model = rungs.load(rungs.DEFAULT_RUNG, rungs.open_file(tensors))
    for at in range(min(_COMPARED_SAMPLES, len(next(iter(inputs.values()))))):
        one = {name: np.ascontiguousarray(array[at : at + 1]) for name, array in inputs.items()}
        for name, array in rungs.call(model, one).items():
            if array.dtype.kind == "f" and np.abs(array).max(initial=0.0) > _LARGEST_FP16:
                raise Unfit(
                    "fp16_overflow",
                    f"tensor {name} reaches {np.abs(array).max():.4g}, float16 ends at {_LARGEST_FP16:g}",
                    hint="keep float32, use int8, or scale the weights of that layer",
                )


def _refuse_apart(parity: Sequence[Parity]) -> None:
    worst = min(parity, key=lambda found: found.sqnr_db)
    if worst.sqnr_db < LEAST_SQNR_DB:
        raise Unfit(
            "far_apart",
            f"output {worst.output}: {worst.sqnr_db:.1f} dB from the original on the calibration samples,"
            f" expected {LEAST_SQNR_DB:g} or more; nothing was written",
            hint="look for outliers in the samples; --precision fp16 keeps more; or train with quantisation",
        )


def _first(inputs: Mapping[str, np.ndarray], samples: int) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(array[:samples]) for name, array in inputs.items()}


def _layers(cleaned: Path, made: Path, inputs: Mapping[str, np.ndarray]) -> tuple[Layer, ...]:
    """How far each inner tensor of the quantised model is from the original; nothing where they cannot be matched."""
    wide, narrow, names = quantizing.with_layers(cleaned, made, made.parent, _LAYER_COUNT)
    if not names:
        return ()
    signal, noise = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    first = rungs.load(rungs.DEFAULT_RUNG, rungs.open_file(wide))
    second = rungs.load(rungs.DEFAULT_RUNG, rungs.open_file(narrow))
    for at in range(min(_LAYER_SAMPLES, len(next(iter(inputs.values()))))):
        one = {name: np.ascontiguousarray(array[at : at + 1]) for name, array in inputs.items()}
        wanted, got = rungs.call(first, one), rungs.call(second, one)
        for name, quantized in names.items():
            reference = wanted[name].astype(np.float64)
            signal[name] += float((reference**2).sum())
            noise[name] += float(((got[quantized] - reference) ** 2).sum())
    return tuple(Layer(name, sqnr_db(signal[name], noise[name])) for name in names)


def _origin(
    source: ModelFile, data: Dataset, checked: Calibration, precision: Precision, target: Target
) -> dict[str, str]:
    """What the result says about itself; `verify` reads it."""
    ranges = {f"edged.input_range.{found.name}": f"{found.low:.9g} {found.high:.9g}" for found in checked.ranges}
    return {
        "edged.version": __version__,
        "edged.source_sha256": source.sha256,
        "edged.calibration_sha256": data.sha256,
        "edged.precision": precision,
        "edged.form": target.form if precision == "int8" else "fp16",
        **ranges,
    }


def _notes(after: Facts, speed: Speed, precision: Precision, target: Target) -> list[str]:
    notes = [f"{finding.code}: {finding.detail}" for finding in find_problems(after, max_bytes=target.model_bytes)]
    if speed.ratio < 1.0 and precision == "int8" and not target.name:
        notes.append(
            f"slower than the original on {speed.rung} here ({speed.ratio:.2f} times as fast): the portable form keeps"
            " every ReLU; for boxes without TensorRT, --class cpu makes one that folds them in"
        )
    elif speed.ratio < 1.0:
        notes.append(f"slower than the original on {speed.rung} here: {speed.ratio:.2f} times as fast")
    return notes


def _flat(outputs: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([array.reshape(-1).astype(np.float64) for array in outputs.values()])


def document(made: Optimized) -> dict[str, Any]:
    """`edged.optimization/1`: everything but the pictures."""
    return {
        "v": VERSION,
        "edged": __version__,
        "precision": made.precision,
        "form": made.form,
        "hardware_class": made.target.name or None,
        "source": describe_file(made.source),
        "result": describe_file(made.result),
        "calibration": {
            "file": made.data.path.name,
            "sha256": made.data.sha256,
            "samples": made.calibration.samples,
            "distinct": made.calibration.distinct,
            "inputs": [
                {"name": found.name, "shape": found.shape, "dtype": found.dtype, "low": found.low, "high": found.high,
                 "mean": found.mean, "std": found.std, "never_changing": found.dead}
                for found in made.calibration.ranges
            ],
        },
        "parity": [
            {"output": found.output, "sqnr_db": found.sqnr_db, "cosine": found.cosine, "max_abs": found.max_abs}
            for found in made.parity
        ],
        "layers": [layer._asdict() for layer in made.layers],
        "cpu_ms": {"rung": made.speed.rung, "before": made.speed.before_ms, "after": made.speed.after_ms,
                   "ratio": made.speed.ratio, "machine": platform.machine()},
        "operators": {"before": dict(made.before.operators), "after": dict(made.after.operators)},
        "notes": list(made.notes),
        "verified": False,
    }  # fmt: skip
