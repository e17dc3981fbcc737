"""The report of `edged model verify` for people."""

from __future__ import annotations

import numpy as np

from edged.workbench.gate import Check
from edged.workbench.metrics import METRICS, classes
from edged.workbench.page import Card, Cell, Tone, listing, megabytes, page, paragraph, section, table
from edged.workbench.svg import Bar, bars, histogram_of, scatter
from edged.workbench.verifying import Verified

_SHOWN_CHANGES = 20


def render(found: Verified) -> str:
    scored = found.scored
    worst = min(found.parity, key=lambda one: one.sqnr_db)
    unit = "points" if scored.higher_is_better else "of naive error"
    cards = [
        Card(
            f"{scored.model:.4f}", f"{scored.metric}, the reference has {scored.reference:.4f}", _tone(found, "metric")
        ),
        Card(
            f"{scored.drop:+.4f}", f"drop in {unit}, {found.thresholds.max_drop:g} allowed", _tone(found, "metric_drop")
        ),
        Card(
            f"{worst.sqnr_db:.1f} dB",
            f"from the reference, {found.thresholds.min_sqnr_db:g} needed",
            _tone(found, "sqnr"),
        ),
        Card(str(scored.samples), "labelled samples"),
    ]
    sections = [_checks(found.checks), _task(found), _parity(found)]
    if found.notes:
        sections.append(section("Notes", "Not part of the verdict.", listing(found.notes)))
    sections.append(_about(found))
    failed = ", ".join(check.code for check in found.failures)
    return page(
        f"Verification of {found.model.path.name}",
        f"against {found.reference.path.name} on {found.data.path.name}, run on {found.rung}",
        ("Passed: it may take the place of its reference", "good") if found.passed else (f"Refused: {failed}", "bad"),
        cards,
        sections,
        f"model sha256 {found.model.sha256} · reference sha256 {found.reference.sha256}"
        f" · data sha256 {found.data.sha256}",
    )


def _tone(found: Verified, prefix: str) -> Tone:
    """Red when a check of that kind failed."""
    return "bad" if any(check.code.startswith(prefix) for check in found.failures) else "good"


def _checks(checks: tuple[Check, ...]) -> str:
    rows = [
        (
            Cell("passed", "good") if check.passed else Cell(f"refused: {check.code}", "bad"),
            check.what,
            check.got,
            check.allowed,
        )
        for check in checks
    ]
    return section("Verdict", "Green needs every line.", table(("", "check", "got", "wanted"), rows))


def _task(found: Verified) -> str:
    scored = found.scored
    rows = [
        Bar("reference", scored.reference, f"{scored.reference:.4f}", "b"),
        Bar("this model", scored.model, f"{scored.model:.4f}"),
        Bar("knowing nothing", scored.naive, f"{scored.naive:.4f}", "c"),
    ]
    better = "higher is better" if scored.higher_is_better else "lower is better"
    words = f"{scored.metric} of the output {found.output} on labelled data; {better}."
    if scored.changed is not None and scored.interval is not None:
        low, high = scored.interval
        words += (
            f" {scored.changed[0]} samples turned from right to wrong and {scored.changed[1]} from wrong to right:"
            f" the drop lies between {low:+.4f} and {high:+.4f} with 95 % confidence."
        )
    return section("The task", words, bars(rows, title=scored.metric), _changes(found))


def _changes(found: Verified) -> str:
    """Samples whose class changed, the first of them, so that somebody can look at them."""
    if METRICS[found.scored.metric].name not in {"accuracy", "balanced_accuracy"}:
        return ""
    before, after = (classes(answers) for answers in found.answers)
    changed = np.flatnonzero(before != after)
    if not len(changed):
        return paragraph("Every sample has the same class as before.")
    labels = found.data.arrays["labels"].reshape(len(before), -1)
    wanted = labels[:, 0] if labels.shape[1] == 1 else labels.argmax(axis=1)
    rows = [(str(at), str(wanted[at]), str(before[at]), str(after[at])) for at in changed[:_SHOWN_CHANGES]]
    shown = f"{len(changed)} samples changed their class" + (
        f"; the first {_SHOWN_CHANGES}:" if len(changed) > _SHOWN_CHANGES else ":"
    )
    return paragraph(shown) + table(("sample", "label", "reference", "this model"), rows)


def _parity(found: Verified) -> str:
    rows = [
        (
            one.output,
            f"{one.sqnr_db:.1f} dB",
            f"{one.worst_sample_db:.1f} dB",
            f"{one.cosine:.5f}",
            f"{one.max_abs:.4g}",
        )
        for one in found.parity
    ]
    before, after = (answers.reshape(-1).astype(np.float64) for answers in found.answers)
    chosen = next(one for one in found.parity if one.output == found.output)
    plots = [
        scatter(before, after, title="Answers", across_label="reference", up_label="this model"),
    ]
    if chosen.per_sample_db:
        plots.append(histogram_of(chosen.per_sample_db, title="SQNR of each sample", unit=" dB"))
    return section(
        "Its answers beside the reference's",
        "Each point is one output value; on the dashed line both agree. Below, how many samples are how close.",
        *plots,
        table(("output", "SQNR", "worst sample", "cosine", "largest difference"), rows),
    )


def _about(found: Verified) -> str:
    facts = found.facts
    rows = [
        ("format", f"{facts.format}, opset {facts.opset}" if facts.opset else facts.format),
        ("size", f"{megabytes(facts.size_bytes)}, {facts.parameters} parameters"),
        ("inputs", "; ".join(f"{one.name} {one.dtype} {one.shape}" for one in facts.inputs) or "–"),
        ("outputs", "; ".join(f"{one.name} {one.dtype} {one.shape}" for one in facts.outputs) or "–"),
        ("operators", ", ".join(f"{count} {name}" for name, count in facts.operators.items()) or "–"),
        ("made by", facts.producer or "–"),
        ("hardware class", found.target.name or "none named"),
    ]
    return section("The model", "As its file declares it.", table(("", ""), rows))
