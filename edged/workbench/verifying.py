"""`edged model verify`: may this model take the place of its reference? Static checks, parity, and the task itself."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edged import __version__
from edged.workbench import rungs
from edged.workbench.arrays import LABELS, Dataset, model_inputs, read_npz
from edged.workbench.documents import describe_file
from edged.workbench.gate import Check, Thresholds, differences, judge
from edged.workbench.hardware import Target
from edged.workbench.metrics import METRICS, Scored, needed_samples, score
from edged.workbench.onnx_model import Facts, Finding, find_problems, read_facts
from edged.workbench.parity import Parity, compare
from edged.workbench.refusal import Unfit

if TYPE_CHECKING:
    from edged.infer.loading import ModelFile
    from edged.messages import TensorSpec
    from edged.ports import Model

VERSION = "edged.verification/1"
_DATA_HINT = "--data LABELLED.npz with the inputs and an array 'labels'; without labels nobody knows whether it works"
_OUTSIDE_SHARE = 0.01


class Verified(NamedTuple):
    """A verdict and everything that it rests on. `answers`: (reference, model) for the pictures."""

    model: ModelFile
    reference: ModelFile
    data: Dataset
    rung: str
    target: Target
    thresholds: Thresholds
    facts: Facts
    findings: tuple[Finding, ...]
    parity: tuple[Parity, ...]
    scored: Scored
    output: str
    checks: tuple[Check, ...]
    notes: tuple[str, ...]
    answers: tuple[np.ndarray, np.ndarray]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)

    @property
    def failures(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.passed)


def verify(
    model: Path,
    reference: Path,
    data: Path | None,
    *,
    metric: str,
    thresholds: Thresholds,
    target: Target,
    rung: str = rungs.DEFAULT_RUNG,
    output: str | None = None,
) -> Verified:
    """Compare `model` with `reference` on labelled samples. A verdict of no is an answer, not an exception.

    Raises:
        Unfit: where no verdict is possible: no labelled data, labels that say nothing, files that cannot be read.
    """
    file, original = rungs.open_file(model), rungs.open_file(reference)
    if file.sha256 == original.sha256 and thresholds.min_metric is None:
        raise Unfit(
            "reference_is_model",
            f"{reference} has the same bytes as {model}: nothing is compared with anything",
            hint="name the model it was made from, or say with --min-metric what the original must reach",
        )
    facts = read_facts(file)
    findings = tuple(find_problems(facts, max_bytes=target.model_bytes))
    if data is None:
        raise Unfit("no_labelled_data", "a model is not verified without labelled data", hint=_DATA_HINT)
    labelled = read_npz(data)
    reference_rung = rungs.DEFAULT_RUNG if original.format == "onnx" else rung
    with closing(rungs.load(reference_rung, original)) as first, closing(rungs.load(rung, file)) as second:
        inputs, labels = _samples(labelled, first, thresholds)
        interface = differences((first.info.inputs, first.info.outputs), (second.info.inputs, second.info.outputs))
        wanted, got = rungs.answers(first, inputs), _matched(second, first, inputs)
    chosen = _choose(wanted, output)
    parity = compare(wanted, got)
    _refuse_bad_reference(wanted)
    finite = np.nan_to_num(got[chosen], nan=0.0, posinf=0.0, neginf=0.0)  # the check of its own says that it was not
    scored = score(METRICS[metric], wanted[chosen], finite, labels)
    checks = judge(findings, interface, parity, scored, thresholds)
    notes = tuple(_notes(facts, findings, original, labelled, inputs))
    pair = wanted[chosen], finite
    return Verified(
        file, original, labelled, rung, target, thresholds, facts, findings, parity, scored, chosen, checks, notes, pair
    )


def _samples(data: Dataset, model: Model, thresholds: Thresholds) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Inputs and labels, as many of the one as of the other."""
    labels = data.arrays.get(LABELS)
    if labels is None:
        raise Unfit("no_labels", f"{data.path} has {sorted(data.arrays)} and no array {LABELS!r}", hint=_DATA_HINT)
    inputs = model_inputs(data, model.info.inputs, besides=(LABELS,))
    samples = len(next(iter(inputs.values())))
    if labels.ndim == 0 or len(labels) != samples:
        raise Unfit("labels_shape", f"{data.path}: {samples} samples and labels of the shape {labels.shape}")
    needed = needed_samples(thresholds.max_drop)
    if samples < needed:
        raise Unfit(
            "too_few_labelled",
            f"{samples} labelled samples cannot show a drop of {thresholds.max_drop:g}: expected {needed} or more",
            hint="label more, or allow more with --max-drop",
        )
    for name, array in inputs.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise Unfit("data_not_finite", f"{data.path}: input {name} has NaN or infinity")
    return inputs, labels


def _refuse_bad_reference(answers: Mapping[str, np.ndarray]) -> None:
    bad = sorted(name for name, array in answers.items() if array.dtype.kind == "f" and not np.isfinite(array).all())
    if bad:
        raise Unfit("reference_not_finite", f"the reference itself answers NaN or infinity on outputs {bad}")


def _matched(model: Model, reference: Model, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The model's answers under the reference's names; where those differ there must be one of each."""
    own, wanted = model.info, reference.info
    names = _names(own.inputs, wanted.inputs)
    named = {name: inputs[spec.name] for spec, name in zip(wanted.inputs, names, strict=True)}
    outputs = rungs.answers(model, named)
    names = _names(own.outputs, wanted.outputs)
    matched = {spec.name: outputs[name] for spec, name in zip(wanted.outputs, names, strict=True)}
    for spec in wanted.outputs:
        fixed = [axis for axis in spec.shape[1:] if axis > 0]
        if len(fixed) == len(spec.shape) - 1 and matched[spec.name].shape[1:] != tuple(fixed):
            raise Unfit(
                "interface_differs",
                f"output {spec.name}: the reference answers {spec.shape}, the model {matched[spec.name].shape}",
            )
    return matched


def _names(own: tuple[TensorSpec, ...], wanted: tuple[TensorSpec, ...]) -> list[str]:
    """The model's names in the order of the reference's."""
    known = {spec.name for spec in own}
    if all(spec.name in known for spec in wanted):
        return [spec.name for spec in wanted]
    if len(own) == len(wanted) == 1:
        return [own[0].name]
    raise Unfit(
        "interface_differs",
        f"the reference has {[spec.name for spec in wanted]}, the model {sorted(known)}: which is which?",
    )


def _choose(outputs: Mapping[str, np.ndarray], name: str | None) -> str:
    """The output that the metric is about."""
    if name is None and len(outputs) == 1:
        return next(iter(outputs))
    if name is None or name not in outputs:
        raise Unfit("which_output", f"--output must be one of {sorted(outputs)}, got {name}")
    return name


def _notes(
    facts: Facts, findings: tuple[Finding, ...], reference: ModelFile, data: Dataset, inputs: Mapping[str, np.ndarray]
) -> list[str]:
    notes = [f"{finding.code}: {finding.detail}" for finding in findings if not finding.fatal]
    source = facts.metadata.get("edged.source_sha256")
    if source is not None and source != reference.sha256:
        notes.append("other_reference: the model says that it was made from another file than the reference")
    if facts.metadata.get("edged.calibration_sha256") == data.sha256:
        notes.append("same_data: the labelled samples are those that it was calibrated with, which flatters it")
    for name, array in inputs.items():
        low, high = _calibrated(facts.metadata, name)
        if low is None or high is None:
            continue
        outside = float(((array < low) | (array > high)).mean())
        if outside > _OUTSIDE_SHARE:
            notes.append(
                f"outside_calibration: {outside:.0%} of the values of {name} lie outside of {low:g} to {high:g},"
                " where the model was calibrated"
            )
    return notes


def _calibrated(metadata: Mapping[str, str], name: str) -> tuple[float | None, float | None]:
    """The range that the model was calibrated for, where it says so."""
    try:
        low, high = (float(part) for part in metadata.get(f"edged.input_range.{name}", "").split())
    except ValueError:
        return None, None
    return low, high


def document(found: Verified) -> dict[str, Any]:
    """`edged.verification/1`. The same files give the same bytes on the same machine: there is no time in it."""
    scored = found.scored
    return {
        "v": VERSION,
        "passed": found.passed,
        "edged": __version__,
        "model": {**describe_file(found.model), "format": found.model.format},
        "reference": describe_file(found.reference),
        "data": {"file": found.data.path.name, "sha256": found.data.sha256, "samples": scored.samples},
        "rung": found.rung,
        "machine": platform.machine(),
        "hardware_class": found.target.name or None,
        "thresholds": found.thresholds._asdict(),
        "checks": [check._asdict() for check in found.checks],
        "metric": {
            "name": scored.metric, "output": found.output, "reference": scored.reference, "model": scored.model,
            "naive": scored.naive, "drop": scored.drop,
            "interval_95": list(scored.interval) if scored.interval else None,
            "right_to_wrong": scored.changed[0] if scored.changed else None,
            "wrong_to_right": scored.changed[1] if scored.changed else None,
        },
        "parity": [
            {"output": one.output, "sqnr_db": one.sqnr_db,
             "worst_sample_db": one.worst_sample_db if one.finite else None, "cosine": one.cosine,
             "max_abs": one.max_abs, "mean_abs": one.mean_abs, "finite": one.finite}
            for one in found.parity
        ],
        "notes": list(found.notes),
    }  # fmt: skip
