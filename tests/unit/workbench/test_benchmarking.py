"""Each rung in a process of its own: figures that add up, and rungs that are absent, refuse, crash or hang."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.ops.clock import SystemClock
from edged.workbench.benchmarking import Benchmark, benchmark, describe_machine, document
from edged.workbench.hardware import Target, find_target
from edged.workbench.measuring import Memory, Order, measure, read_memory, summarize
from edged.workbench.refusal import Unfit
from tests.doubles.clock import FakeClock
from tests.unit.workbench.conftest import Bench

RUNG = "onnxruntime:cpu"
ANY = find_target(None)


def run(bench: Bench, chain: tuple[str, ...], **options: Any) -> Benchmark:
    chosen: dict[str, Any] = {"threads": 1, "seconds": 0.1, "batches": (1,), "target": ANY, **options}
    models = chosen.pop("models", [bench.model])
    return benchmark(models, chain, **chosen)


def script(code: str) -> tuple[str, ...]:
    """A child that does something else. Its last argument is the descriptor for the answer."""
    return sys.executable, "-c", code


def test_a_rung_that_is_there_is_measured_and_one_that_is_not_is_named(bench: Bench) -> None:
    found = run(bench, (RUNG, "abacus:wood"), batches=(1, 8))
    measured, missing = found.runs
    assert (measured.state, missing.state) == ("measured", "not_installed")
    assert missing.code == "runtime_unknown"
    assert measured.figures is not None
    one, eight = measured.figures.batches
    assert (one.batch, eight.batch) == (1, 8)
    assert 0 < one.p50_ms <= one.max_ms
    assert eight.samples_per_s > one.samples_per_s
    assert measured.figures.load_ms > 0
    assert measured.figures.first_ms > 0
    assert measured.figures.peak_bytes > measured.figures.runtime_bytes > 1_000_000
    facts = document(found)
    assert facts["runs"][0]["batches"][0]["calls"] == one.calls
    assert facts["runs"][1]["code"] == "runtime_unknown"
    assert facts["models"][0]["sha256"] == found.digests["clusters.onnx"]


def test_a_model_that_a_rung_refuses_is_refused_by_its_code(bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(bench.model.read_bytes()[:900])
    (refused,) = run(bench, (RUNG,), models=[broken]).runs
    assert (refused.state, refused.code) == ("refused", "corrupt")


def test_a_child_that_crashes_is_an_answer(bench: Bench) -> None:
    (crashed,) = run(bench, (RUNG,), child=script("import os; os.abort()")).runs
    assert (crashed.state, crashed.code) == ("crashed", "worker_crashed")
    assert "SIGABRT" in crashed.detail
    (left,) = run(bench, (RUNG,), child=script("raise SystemExit('driver /opt/vendor/lib.so is too old')")).runs
    assert left.detail == "the process ended with exit code 1: driver lib.so is too old"


def test_a_child_that_hangs_is_stopped(bench: Bench) -> None:
    child = script("import signal; signal.pause()")
    (hung,) = run(bench, (RUNG,), child=child, grace_s=0.3).runs
    assert (hung.state, hung.code) == ("hung", "runtime_stuck")


def test_files_that_are_no_models_are_refused_before_anything_is_measured(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(Unfit, match="missing"):
        run(bench, (RUNG,), models=[bench.model, tmp_path / "absent.onnx"])


def test_models_of_one_name_are_told_apart_by_their_folders(bench: Bench, tmp_path: Path) -> None:
    twin = tmp_path / bench.model.name
    twin.write_bytes(bench.model.read_bytes())
    found = run(bench, ("abacus:wood",), models=[bench.model, twin])
    assert [one.model for one in found.runs] == [str(bench.model), str(twin)]


def test_a_class_says_what_is_too_slow_for_it(bench: Bench) -> None:
    strict = Target("strict", (RUNG,), 10_000_000, 1e-6)
    assert "the class strict allows 1e-06 ms" in run(bench, (RUNG,), target=strict, seconds=0.2).notes[0]


def test_measuring_in_this_process_uses_the_given_samples(bench: Bench) -> None:
    ticks = iter(range(0, 10**12, 2_000_000))
    order = Order(str(bench.model), RUNG, 1, 0.01, (1, 3), str(bench.labelled))
    found = measure(order, SystemClock(), lambda: next(ticks))
    assert [one.cpu_ms for one in found.batches] == [2.0, 2.0]
    assert all(one.calls >= 5 for one in found.batches)


def test_memory_is_read_before_and_after(bench: Bench) -> None:
    readings = iter([Memory(10, 10), Memory(30, 30), Memory(70, 80), Memory(75, 90), Memory(78, 90), Memory(78, 95)])
    order = Order(str(bench.model), RUNG, 1, 0.01, (1,))
    found = measure(order, SystemClock(), FakeClock().mono_ns, lambda: next(readings))
    assert (found.runtime_bytes, found.model_bytes, found.peak_bytes, found.drift_bytes) == (20, 40, 85, 3)


def test_percentiles_that_so_few_calls_do_not_have_are_left_out() -> None:
    def figures(calls: int) -> tuple[float | None, float | None]:
        wall = np.arange(1, calls + 1, dtype=np.int64) * 1_000_000
        found = summarize(2, wall, wall // 2)
        return found.p95_ms, found.p99_ms

    assert figures(19) == (None, None)
    assert figures(99)[1] is None
    p95, p99 = figures(200)
    assert p95 == pytest.approx(190.05)
    assert p99 == pytest.approx(198.01)


def test_throughput_counts_samples_not_calls() -> None:
    found = summarize(4, np.full(10, 2_000_000, np.int64), np.full(10, 1_500_000, np.int64))
    assert (found.samples_per_s, found.cpu_ms, found.p50_ms) == (2000.0, 1.5, 2.0)
    assert len(found.curve_ms) == 101


def test_memory_comes_from_the_kernel(tmp_path: Path) -> None:
    status = tmp_path / "status"
    status.write_text("Name:\tx\nVmHWM:\t  2048 kB\nVmRSS:\t  1024 kB\n")
    assert read_memory(status) == Memory(1024 * 1024, 2048 * 1024)


def test_the_machine_is_described_without_its_name() -> None:
    facts = describe_machine()
    assert set(facts) == {"cpu", "architecture", "cores", "int8_instructions"}
