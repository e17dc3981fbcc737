"""Reports are one file: no script, nothing from outside, whole plots, and names that cannot smuggle anything in."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from edged.workbench import report_benchmark, report_optimize, report_verify, svg
from edged.workbench.benchmarking import Benchmark, Run, benchmark
from edged.workbench.gate import Thresholds
from edged.workbench.hardware import find_target
from edged.workbench.measuring import BatchFigures, RungFigures
from edged.workbench.optimizing import Optimized
from edged.workbench.page import page, section, table
from edged.workbench.svg import Bar, Series
from edged.workbench.verifying import verify
from tests.unit.workbench.conftest import Bench

HOSTILE = "<script>alert(1)</script>"
_VOID = {"meta", "link", "br", "img", "input"}


class Balanced(HTMLParser):
    """Counts what is open and keeps what must not be there."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in {"script", "link", "img", "iframe", "object"}:
            self.outside.append(tag)
        self.outside += [f"{tag} {name}" for name, _ in attrs if name in {"src", "href"} or name.startswith("on")]
        if tag not in _VOID and not (self.get_starttag_text() or "").endswith("/>"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def sound(text: str) -> str:
    """The page, when it is balanced, closed, and every plot is XML."""
    found = Balanced(text)
    assert (found.open, found.outside) == ([], [])
    assert "http://" not in text
    assert "https://" not in text
    assert "prefers-color-scheme: dark" in text
    for plot in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        ElementTree.fromstring(plot)
    return text


def test_the_optimizer_report_shows_what_was_lost_and_where(portable: Optimized) -> None:
    text = sound(report_optimize.render(portable))
    for words in ("Where precision is lost", "What it was calibrated with", "Not verified yet", portable.result.sha256):
        assert words in text
    assert text.count("<svg") == 5


def test_the_verification_report_shows_the_verdict_first(for_cpu: Optimized, bench: Bench) -> None:
    good = verify(
        for_cpu.result.path,
        bench.model,
        bench.labelled,
        metric="accuracy",
        thresholds=Thresholds(),
        target=find_target(None),
    )
    text = sound(report_verify.render(good))
    assert text.index("Passed") < text.index("<h1>")
    bad = good._replace(checks=tuple(check._replace(passed=False) for check in good.checks))
    assert "Refused: " in sound(report_verify.render(bad))


def test_the_verification_report_of_values_has_no_classes(for_cpu: Optimized, bench: Bench, tmp_path: Path) -> None:
    np.savez(tmp_path / "rows.npz", x=bench.samples, labels=np.eye(8)[bench.labels])
    found = verify(
        for_cpu.result.path,
        bench.model,
        tmp_path / "rows.npz",
        metric="mae",
        thresholds=Thresholds(),
        target=find_target(None),
    )
    assert "changed their class" not in sound(report_verify.render(found))


def figures(*batches: int) -> RungFigures:
    one = [BatchFigures(batch, 9, 1.5, None, None, 4.0, 1.0, 700.0, tuple(range(101))) for batch in batches]
    return RungFigures(20.0, 5.0, 9.0, 1_000_000, 2_000_000, 40_000_000, 0, tuple(one))


def measured(*runs: Run) -> Benchmark:
    names = {run.model: 1000 for run in runs}
    return Benchmark(runs, names, dict.fromkeys(names, "0" * 64), 1, 1.0, find_target(None), ())


def test_the_benchmark_report_shows_batches_where_there_are_several() -> None:
    one = sound(report_benchmark.render(measured(Run("a.onnx", "r:cpu", "measured", figures(1)))))
    assert "What batches gain" not in one
    two = measured(
        Run("a.onnx", "r:cpu", "measured", figures(1, 8)),
        Run("b.onnx", "r:cpu", "measured", figures(1, 8)),
        Run("b.onnx", "q:npu", "crashed", None, "worker_crashed", "SIGSEGV"),
    )
    text = sound(report_benchmark.render(two._replace(notes=("slow",))))
    assert "What batches gain" in text
    assert "worker_crashed" in text


def test_the_benchmark_report_without_figures_says_so() -> None:
    run = Run("a.onnx", "r:cpu", "not_installed", None, "runtime_unknown", "none")
    assert "nothing could be measured" in sound(report_benchmark.render(measured(run)))


def test_names_cannot_smuggle_anything_into_a_page(bench: Bench, tmp_path: Path) -> None:
    run = Run(HOSTILE, HOSTILE, "measured", figures(1, 2))
    assert HOSTILE not in sound(report_benchmark.render(measured(run)))
    text = page(
        HOSTILE, HOSTILE, (HOSTILE, "bad"), (), (section(HOSTILE, HOSTILE, table((HOSTILE,), [(HOSTILE,)])),), HOSTILE
    )
    assert HOSTILE not in sound(text)
    proto = onnx.load(str(bench.model))
    for value in (*proto.graph.input, *proto.graph.output):
        value.name = HOSTILE + value.name
    proto.graph.node[0].input[0], proto.graph.node[-1].output[0] = f"{HOSTILE}x", f"{HOSTILE}y"
    hostile = tmp_path / "hostile.onnx"
    hostile.write_bytes(proto.SerializeToString())
    found = verify(
        hostile,
        hostile,
        bench.labelled,
        metric="accuracy",
        thresholds=Thresholds(min_metric=0.5),
        target=find_target(None),
    )
    assert HOSTILE not in sound(report_verify.render(found))


def test_the_policy_of_a_page_allows_neither_script_nor_network() -> None:
    text = page("t", "l", ("v", "plain"), (), (), "f")
    assert "default-src 'none'; style-src 'unsafe-inline'" in text


@pytest.mark.parametrize(
    "plot",
    [
        svg.bars([Bar("a", 0.0, "0"), Bar("b" * 80, -1.0, "-1")], title="t"),
        svg.bars([Bar("a", 3.0, "3")], title="t", limit=2.0, limit_text="two"),
        svg.histogram((), 0.0, 1.0, title="t"),
        svg.histogram_of([5.0, 5.0], title="t"),
        svg.scatter(np.zeros(3), np.zeros(3), title="t", across_label="a", up_label="u"),
        svg.scatter(np.arange(5000.0), np.arange(5000.0), title="t", across_label="a", up_label="u"),
        svg.lines([Series("one", ((1.0, 5.0),), "a")], title="t", across_label="a", up_label="u", log_across=True),
    ],
)
def test_plots_are_whole_even_with_hardly_anything_to_show(plot: str) -> None:
    root = ElementTree.fromstring(plot)
    assert root.tag == "svg"
    assert "nan" not in plot
    assert len(root.findall("circle")) <= 900


def test_a_benchmark_of_nothing_installed_renders(bench: Bench) -> None:
    found = benchmark([bench.model], ("abacus:wood",), threads=1, seconds=0.1, batches=(1,), target=find_target(None))
    assert "not installed here" in sound(report_benchmark.render(found))
