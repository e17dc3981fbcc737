"""`edged model split MODEL --at TENSOR`: head, tail and split.json, after they have shown that they are the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec
import numpy as np

from edged.infer.split_file import HEAD_NAME, PLAN_NAME, TAIL_NAME, VERSION, Cut, HalfFile, Plan, Tensor
from edged.ops import durable_files
from edged.sync.inference import FLOATS
from edged.sync.tensors import Range, range_of, to_array, to_packed
from edged.workbench import rungs
from edged.workbench.arrays import Dataset, read_npz
from edged.workbench.documents import to_bytes
from edged.workbench.metrics import classes
from edged.workbench.parity import Parity, compare
from edged.workbench.refusal import Unfit
from edged.workbench.split_model import Cuttable, load, samples_of

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.messages import TensorSpec
    from edged.ports import Model

Coding = Literal["u8", "plain"]
Arrays = Mapping[str, np.ndarray]
EXACT_SQNR_DB = 60.0  # of halves without quantising: the same operators, computed in two goes
MOST_SAMPLES = 2000
LEAST_SAMPLES = 10  # for ranges and agreement to say anything


class Wanted(NamedTuple):
    """What the halves must reach on the samples. min_agreement: share of samples with the same class."""

    min_sqnr_db: float = 20.0
    min_agreement: float = 0.99


class Split(NamedTuple):
    """What was written. exact, coded: parity of the halves with the whole, without and with the coding."""

    folder: Path
    plan: Plan
    samples: int
    exact: tuple[Parity, ...]
    coded: tuple[Parity, ...]
    agreement: float
    cut_bytes: float


def cut(model: Path, tensor: str, folder: Path, data: Path | None, *, coding: Coding, wanted: Wanted) -> Split:
    """Cut `model` at `tensor` into `folder`. Nothing is written unless the halves answer as the whole.

    Raises:
        Unfit: `no_cut_point`, `samples_needed`, `too_few_samples`, `not_finite`, `split_differs`, `sqnr_low`,
            `labels_differ`, and those of `Cuttable`.
        OSError: the disk.
    """
    with TemporaryDirectory(prefix="edged-") as scratch:
        cuttable = Cuttable(model, Path(scratch))
        points = {point.tensor: point for point in cuttable.points}
        if tensor not in points:
            shown = ", ".join(list(points)[:8]) or "none: no single tensor has everything pass through it"
            raise Unfit("no_cut_point", f"{model.name} cannot be cut at {tensor!r}; cut points: {shown}")
        dataset = _dataset(data, coding)
        with closing(cuttable.whole()) as whole:
            info = whole.info
            samples = samples_of(whole, dataset, MOST_SAMPLES)
            if dataset is not None and len(samples) < LEAST_SAMPLES:
                raise Unfit("too_few_samples", f"{data}: {len(samples)} calls' worth, at least {LEAST_SAMPLES} needed")
            answers = [dict(rungs.call(whole, sample)) for sample in samples]
        (first,) = cuttable.tensors([points[tensor]], samples[:1])
        cuttable.declare(first)
        head = cuttable.half(HEAD_NAME, cuttable.inputs, [tensor])
        tail = cuttable.half(TAIL_NAME, [tensor], cuttable.outputs)
        with closing(load(head)) as front, closing(load(tail)) as back:
            cuts = [np.asarray(rungs.call(front, sample)[tensor]) for sample in samples]
            range_ = _range(cuts, coding, tensor)
            spec = next(found for found in front.info.outputs if found.name == tensor)
            exact = _parity(answers, [_tail(back, tensor, array) for array in cuts])
            packed = [to_packed(tensor, array, u8=range_ is not None, known=range_) for array in cuts]
            coded_answers = [_tail(back, tensor, to_array(each)) for each in packed]
        coded = _parity(answers, coded_answers)
        agreement = _agreement(answers, coded_answers)
        _judge(exact, coded, agreement, wanted)
        plan = _plan(cuttable.file, head, tail, spec, range_, info.inputs, info.outputs)
        plan = msgspec.structs.replace(plan, verified=_verified(dataset, len(samples), exact, coded, agreement))
        _write(folder, head, tail, plan)
    sent = float(np.mean([each.header.bytes for each in packed]))
    return Split(folder, plan, len(samples), exact, coded, agreement, sent)


def _dataset(data: Path | None, coding: Coding) -> Dataset | None:
    if data is not None:
        return read_npz(data)
    if coding == "u8":
        raise Unfit(
            "samples_needed",
            "one byte a number needs real inputs: for the range, and to see what it costs",
            hint="--data DATA.npz, or --coding plain",
        )
    return None


def _range(cuts: Sequence[np.ndarray], coding: Coding, tensor: str) -> Range | None:
    """The range of a float tensor over the samples; None where nothing is quantised."""
    if coding == "plain" or str(cuts[0].dtype) not in FLOATS:
        return None
    if not all(np.isfinite(array).all() for array in cuts):
        raise Unfit("not_finite", f"{tensor} has NaN or infinity on the samples", hint="cut elsewhere, or plain")
    return range_of(min(float(array.min()) for array in cuts), max(float(array.max()) for array in cuts))


def _tail(back: Model, tensor: str, array: np.ndarray) -> dict[str, np.ndarray]:
    return dict(rungs.call(back, {tensor: array}))


def _parity(wanted: Sequence[Arrays], got: Sequence[Arrays]) -> tuple[Parity, ...]:
    return compare(_joined(wanted), _joined(got))


def _joined(answers: Sequence[Arrays]) -> dict[str, np.ndarray]:
    """All calls in one array per output, the first axis counting rows."""
    return {name: np.concatenate([np.atleast_1d(each[name]) for each in answers]) for name in answers[0]}


def _agreement(wanted: Sequence[Arrays], got: Sequence[Arrays]) -> float:
    """Share of rows that both give the same class, by the first output."""
    before, after = _joined(wanted), _joined(got)
    name = next(iter(before))
    return float((classes(before[name]) == classes(after[name])).mean())


def _judge(exact: Sequence[Parity], coded: Sequence[Parity], agreement: float, wanted: Wanted) -> None:
    for found in exact:
        if not found.finite or found.sqnr_db < EXACT_SQNR_DB:
            raise Unfit(
                "split_differs", f"output {found.output}: head and tail are {found.sqnr_db:.1f} dB from the whole"
            )
    for found in coded:
        if not found.finite or found.sqnr_db < wanted.min_sqnr_db:
            raise Unfit(
                "sqnr_low",
                f"output {found.output}: {found.sqnr_db:.1f} dB from the whole with one byte a number,"
                f" expected {wanted.min_sqnr_db:g} or more; nothing was written",
                hint="cut at another tensor, or --coding plain",
            )
    if agreement < wanted.min_agreement:
        raise Unfit(
            "labels_differ",
            f"{agreement:.4f} of the samples keep their class, expected {wanted.min_agreement:g}; nothing was written",
            hint="cut at another tensor, or --coding plain",
        )


def _plan(
    whole: ModelFile,
    head: ModelFile,
    tail: ModelFile,
    spec: TensorSpec,
    range_: Range | None,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
) -> Plan:
    scale, zero_point = range_ or (1.0, 0)
    return Plan(
        v=VERSION,
        whole=HalfFile(whole.path.name, whole.sha256, whole.size_bytes),
        head=HalfFile(HEAD_NAME, head.sha256, head.size_bytes),
        tail=HalfFile(TAIL_NAME, tail.sha256, tail.size_bytes),
        cut=Cut(spec.name, spec.dtype, spec.shape, "plain" if range_ is None else "u8", scale, zero_point),
        inputs=tuple(Tensor(*each) for each in inputs),
        outputs=tuple(Tensor(*each) for each in outputs),
    )


def _verified(
    data: Dataset | None, calls: int, exact: Sequence[Parity], coded: Sequence[Parity], agreement: float
) -> dict[str, Any]:
    return {
        "data_sha256": None if data is None else data.sha256,
        "calls": calls,
        "exact_sqnr_db": min(found.sqnr_db for found in exact),
        "sqnr_db": min(found.sqnr_db for found in coded),
        "agreement": agreement,
    }


def _write(folder: Path, head: ModelFile, tail: ModelFile, plan: Plan) -> None:
    """split.json last: until it is there, the folder is no split."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / PLAN_NAME).unlink(missing_ok=True)
    for name, file in ((HEAD_NAME, head), (TAIL_NAME, tail)):
        data = file.read()
        durable_files.replace(folder / name, data, 0o644)
    durable_files.replace(folder / PLAN_NAME, to_bytes(msgspec.to_builtins(plan)), 0o644)


def document(made: Split) -> dict[str, Any]:
    """The plan, and where it was written."""
    return {"folder": str(made.folder), "cut_bytes_sent": made.cut_bytes, **msgspec.to_builtins(made.plan)}
