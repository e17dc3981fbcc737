"""The report of `edged model optimize` for people."""

from __future__ import annotations

from edged.workbench.arrays import Dataset
from edged.workbench.calibration import InputRange
from edged.workbench.optimizing import Optimized
from edged.workbench.page import Card, listing, megabytes, page, section, table
from edged.workbench.svg import Bar, bars, histogram, scatter

_WEAK_LAYER_DB = 20.0


def render(made: Optimized) -> str:
    worst = min(made.parity, key=lambda found: found.sqnr_db)
    cards = [
        Card(f"{made.source.size_bytes / made.result.size_bytes:.1f} ×", "smaller file", "good"),
        Card(f"{made.speed.ratio:.2f} ×", "as fast on this machine", "good" if made.speed.ratio > 1 else "bad"),
        Card(
            f"{worst.sqnr_db:.1f} dB", "from the original (SQNR)", "good" if worst.sqnr_db >= _WEAK_LAYER_DB else "bad"
        ),
        Card(f"{made.calibration.distinct}", "different calibration samples"),
    ]
    sections = [_size_and_speed(made), _answers(made)]
    if made.layers:
        sections.append(_layers(made))
    sections.append(_calibration(made.data, made.calibration.ranges))
    if made.notes:
        sections.append(
            section("Notes", "Odd and allowed; worth a thought before the model goes anywhere.", listing(made.notes))
        )
    sections.append(_contents(made))
    return page(
        f"{made.result.path.name}: {made.precision.upper()} from {made.source.path.name}",
        made.form,
        ("Not verified yet: run edged model verify with labelled data", "plain"),
        cards,
        sections,
        f"model sha256 {made.result.sha256} · source sha256 {made.source.sha256}"
        f" · calibration sha256 {made.data.sha256}",
    )


def _size_and_speed(made: Optimized) -> str:
    return section(
        "Size and speed",
        f"Processor time is the least of all calls with one sample on one thread of {made.speed.rung}, both models in"
        " turns in the same minute on this machine. Other processors have other ratios: edged model benchmark.",
        bars(
            [
                Bar("before", made.source.size_bytes, megabytes(made.source.size_bytes), "b"),
                Bar("after", made.result.size_bytes, megabytes(made.result.size_bytes)),
            ],
            title="File size",
        ),
        bars(
            [
                Bar("before", made.speed.before_ms, f"{made.speed.before_ms:.3g} ms", "b"),
                Bar("after", made.speed.after_ms, f"{made.speed.after_ms:.3g} ms"),
            ],
            title="Processor time per call",
        ),
    )


def _answers(made: Optimized) -> str:
    before, after = made.pairs
    rows = [
        (found.output, f"{found.sqnr_db:.1f} dB", f"{found.worst_sample_db:.1f} dB", f"{found.cosine:.5f}",
         f"{found.max_abs:.4g}", f"{found.mean_abs:.4g}")
        for found in made.parity
    ]  # fmt: skip
    return section(
        "Its answers beside the original's",
        "On calibration samples, which the quantiser has seen: a good picture here is necessary and proves nothing"
        " about the task. Each point is one output value; on the dashed line both agree.",
        scatter(before, after, title="Answers", across_label="original", up_label="optimized"),
        table(("output", "SQNR", "worst sample", "cosine", "largest difference", "mean difference"), rows),
    )


def _layers(made: Optimized) -> str:
    rows = [
        Bar(layer.name, layer.sqnr_db, f"{layer.sqnr_db:.1f} dB", "a" if layer.sqnr_db >= _WEAK_LAYER_DB else "bad")
        for layer in made.layers
    ]
    return section(
        "Where precision is lost",
        f"Inner tensors from input to output; the error adds up along the way. A tensor that falls below"
        f" {_WEAK_LAYER_DB:g} dB at once has outliers, or its weights differ much from channel to channel.",
        bars(rows, title="SQNR by layer", limit=_WEAK_LAYER_DB, limit_text=f"{_WEAK_LAYER_DB:g} dB"),
    )


def _calibration(data: Dataset, ranges: tuple[InputRange, ...]) -> str:
    parts = [
        histogram(found.counts, found.low, found.high, title=f"Values of {found.name} in the calibration samples")
        for found in ranges
    ]
    rows = [
        (found.name, str(found.shape), found.dtype, f"{found.low:.4g} to {found.high:.4g}",
         f"{found.mean:.4g} ± {found.std:.3g}", f"{found.dead} of {found.places}")
        for found in ranges
    ]  # fmt: skip
    return section(
        "What it was calibrated with",
        f"{data.path.name}. The model will clip what lies outside of these values. They should look like the plant:"
        " every product, load and season. Heights are square roots of the counts.",
        *parts,
        table(("input", "shape", "type", "range", "mean", "never changing"), rows),
    )


def _contents(made: Optimized) -> str:
    kinds = list(dict.fromkeys([*made.after.operators, *made.before.operators]))
    rows = [
        (kind, str(made.before.operators.get(kind, 0) or "–"), str(made.after.operators.get(kind, 0) or "–"))
        for kind in kinds
    ]
    return section(
        "What is inside",
        f"Operators by kind. Opset {made.before.opset} before, {made.after.opset} after.",
        table(("operator", "before", "after"), rows),
    )
