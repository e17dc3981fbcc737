"""The verbs from the command line: files, exit codes, JSON, and never a traceback for an operator's mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edged.errors import ExitCode
from edged.workbench.optimizing import Optimized
from tests.unit.workbench.conftest import Bench, Edged

REFUSED = ExitCode.REFUSED


@pytest.mark.parametrize("verb", ["optimize", "verify", "benchmark"])
def test_every_verb_has_an_example(edged: Edged, verb: str) -> None:
    ran = edged("model", verb, "--help")
    assert ran.code == ExitCode.OK
    assert f"edged model {verb}" in ran.out


def test_optimize_writes_the_model_and_a_report(edged: Edged, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    ran = edged("model", "optimize", bench.model, "--calibration", bench.calibration, "--to", out, "--report", tmp_path)
    assert ran.code == ExitCode.OK
    assert "not verified yet" in ran.out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.onnx", "optimization.html", "optimization.json"]
    assert json.loads((tmp_path / "optimization.json").read_text())["v"] == "edged.optimization/1"


def test_optimize_prints_json_for_machines(edged: Edged, bench: Bench, tmp_path: Path) -> None:
    out = tmp_path / "o.onnx"
    ran = edged(
        "model", "optimize", bench.model, "--calibration", bench.calibration, "--to", out, "--class", "cpu", "--json"
    )
    facts = json.loads(ran.out)
    assert (facts["hardware_class"], facts["result"]["file"]) == ("cpu", "o.onnx")


def test_verify_writes_the_document_beside_the_model(
    edged: Edged, bench: Bench, for_cpu: Optimized, tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(for_cpu.result.read())
    ran = edged("model", "verify", model, "--reference", bench.model, "--data", bench.labelled)
    assert (ran.code, ran.err) == (ExitCode.OK, "")
    assert ran.out.endswith("passed\n")
    facts = json.loads((tmp_path / "verification.json").read_text())
    assert facts["passed"] is True
    assert (tmp_path / "verification.html").exists()


def test_a_failed_gate_exits_with_77_names_the_code_and_leaves_a_red_document(
    edged: Edged, bench: Bench, for_cpu: Optimized, tmp_path: Path
) -> None:
    ran = edged(
        "model", "verify", for_cpu.result.path, "--reference", bench.model, "--data", bench.labelled,
        "--min-sqnr-db", 90, "--report", tmp_path, "--json",
    )  # fmt: skip
    assert ran.code == REFUSED
    assert "edged: sqnr_low: " in ran.err
    assert json.loads(ran.out)["passed"] is False
    assert json.loads((tmp_path / "verification.json").read_text())["passed"] is False


def test_verify_without_data_is_refused_with_its_code(
    edged: Edged, bench: Bench, for_cpu: Optimized, tmp_path: Path
) -> None:
    ran = edged("model", "verify", for_cpu.result.path, "--reference", bench.model, "--report", tmp_path)
    assert ran.code == REFUSED
    assert ran.err.startswith("edged: no_labelled_data: ")
    assert "try: " in ran.err
    assert list(tmp_path.iterdir()) == []


def test_benchmark_measures_what_is_there_and_names_what_is_not(edged: Edged, bench: Bench, tmp_path: Path) -> None:
    ran = edged(
        "model", "benchmark", bench.model, "--rung", "onnxruntime:cpu", "--rung", "abacus:wood",
        "--seconds", "0.2", "--batch", 1, "--batch", 4, "--report", tmp_path,
    )  # fmt: skip
    assert ran.code == ExitCode.OK
    assert "batch 4: p50" in ran.out
    assert "abacus:wood: not installed: runtime_unknown" in ran.out
    assert json.loads((tmp_path / "benchmark.json").read_text())["runs"][1]["state"] == "not_installed"


def test_benchmark_with_nothing_installed_is_unavailable(edged: Edged, bench: Bench) -> None:
    ran = edged("model", "benchmark", bench.model, "--rung", "abacus:wood", "--json")
    assert ran.code == ExitCode.UNAVAILABLE
    assert json.loads(ran.out)["runs"][0]["code"] == "runtime_unknown"


def test_benchmark_uses_the_chain_of_the_class(edged: Edged, bench: Bench, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(bench.model.read_bytes()[:900])
    ran = edged("model", "benchmark", broken, "--class", "cpu", "--seconds", "0.1")
    assert ran.code == REFUSED
    assert "onnxruntime:cpu: refused: corrupt" in ran.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("optimize", "absent.onnx", "--calibration", "c.npz", "--to", "o.onnx"),
        ("optimize", "MODEL", "--calibration", "absent.npz", "--to", "o.onnx"),
        ("optimize", "MODEL", "--calibration", "MODEL", "--to", "o.onnx"),
        ("optimize", "MODEL", "--calibration", "c.npz", "--to", "nowhere/o.onnx"),
        ("optimize", "MODEL", "--calibration", "c.npz", "--to", "o.onnx", "--report", "nowhere"),
        ("optimize", "MODEL", "--calibration", "c.npz", "--to", "o.onnx", "--class", "toaster"),
        ("verify", ".", "--reference", "MODEL", "--data", "c.npz"),
        ("verify", "MODEL", "--reference", "absent.onnx", "--data", "c.npz"),
        ("verify", "absent.onnx", "--reference", "MODEL", "--data", "c.npz"),
        ("benchmark", "absent.onnx"),
        ("benchmark", "MODEL", "--data", "absent.npz", "--seconds", "0.1"),
    ],
)
def test_an_operators_mistake_is_refused_with_a_code_and_no_traceback(
    arguments: tuple[str, ...], edged: Edged, bench: Bench, tmp_path: Path
) -> None:
    np.savez(tmp_path / "c.npz", x=np.zeros((1, 16), np.float32))
    ran = edged("model", *(_place(word, bench, tmp_path) for word in arguments))
    assert ran.code == REFUSED
    assert "Traceback" not in ran.out + ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["c.npz"]


@pytest.mark.parametrize(
    "arguments",
    [("optimize",), ("verify", "m.onnx"), ("benchmark",), ("benchmark", "m", "--batch", "0"), ("optimise",)],
)
def test_a_command_line_that_cannot_be_understood_is_a_usage_error(arguments: tuple[str, ...], edged: Edged) -> None:
    assert edged("model", *arguments).code == ExitCode.USAGE


def _place(word: str, bench: Bench, folder: Path) -> str:
    """A word of the command line; files lie in `folder`."""
    if word == "MODEL":
        return str(bench.model)
    return str(folder / word) if word in {".", "nowhere"} or ("." in word[1:] and word != "0.1") else word
