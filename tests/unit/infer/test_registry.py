"""Names of runtimes: built in or a plug-in's, and never one of two that share it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from edged.errors import ModelError
from edged.infer.registry import BUILT_IN, find_runtime


def package(folder: Path, name: str, entry_point: str) -> None:
    """An installed package, as far as its entry point goes."""
    info = folder / f"{name}-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[edged.runtimes]\n{entry_point}\n")


def found(name: str, folder: Path) -> str:
    """What `find_runtime` says in a process that finds the packages of `folder`."""
    code = (
        "from edged.errors import ModelError\n"
        "from edged.infer.registry import find_runtime\n"
        f"try: print('found', type(find_runtime({name!r})).__name__)\n"
        "except ModelError as error: print(error.code, error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return done.stdout.strip()


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_plug_in_that_takes_a_built_in_name_disables_it_instead_of_replacing_it_silently(
    tmp_path: Path, name: str
) -> None:
    (tmp_path / "abacus.py").write_text("def load(model, device, options): ...\n")
    package(tmp_path, "abacus", f"{name} = abacus:load")
    said = found(name, tmp_path)
    assert said.startswith(f"runtime_unavailable Cannot use the runtime {name!r}: 2 claim this name: edged itself")
    assert "abacus (abacus:load)" in said


def test_two_plug_ins_of_one_name_are_both_refused_by_name(tmp_path: Path) -> None:
    for module in ("abacus", "soroban"):
        (tmp_path / f"{module}.py").write_text("def load(model, device, options): ...\n")
        package(tmp_path, module, f"beads = {module}:load")
    said = found("beads", tmp_path)
    assert said.startswith("runtime_unavailable")
    assert "2 claim this name: abacus (abacus:load), soroban (soroban:load)" in said


def test_one_plug_in_of_a_new_name_is_taken(tmp_path: Path) -> None:
    (tmp_path / "abacus.py").write_text("def load(model, device, options): ...\n")
    package(tmp_path, "abacus", "beads = abacus:load")
    assert found("beads", tmp_path) == "found PlainRuntime"


@pytest.mark.parametrize("line", ["raise RuntimeError('no licence')", "import no_such_vendor", "load ="])
def test_a_plug_in_that_does_not_import_is_unavailable_whatever_it_raises(tmp_path: Path, line: str) -> None:
    (tmp_path / "abacus.py").write_text(f"{line}\n")
    package(tmp_path, "abacus", "beads = abacus:load")
    assert found("beads", tmp_path).startswith("runtime_unavailable Cannot use the runtime 'beads'")


def test_a_name_that_nobody_has_is_unknown_and_those_there_are_are_named() -> None:
    with pytest.raises(ModelError, match="litert, onnxruntime, openvino") as caught:
        find_runtime("beads")
    assert caught.value.code == "runtime_unknown"
