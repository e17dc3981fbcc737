"""What the pages tell people to copy works as it stands."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import numpy as np

from edged.demo.train import MODELS
from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.registry import find_runtime
from edged.infer.runtime import PlainRuntime, Runtime
from edged.policy.causes import CAUSES
from tests.contract.promises import REFERENCE
from tests.doubles.broker import Mosquitto
from tests.doubles.clock import FakeClock

HOW_TO = REFERENCE.parent / "how-to"
REPOSITORY = REFERENCE.parents[1]
CONFIGS = REPOSITORY / "configs"


def test_the_runtime_of_the_page_answers_like_onnxruntime(tmp_path: Path) -> None:
    module = _module_of(HOW_TO / "write-a-runtime.md", tmp_path / "edged_reference.py")
    reference, real = _serving("reference:cpu", module).model, _serving("onnxruntime:cpu", module).model
    assert reference is not None
    assert real is not None
    assert reference.info.runtime == "reference:cpu"
    (spec,) = real.info.inputs
    batch = {spec.name: np.linspace(-3, 3, 5 * 7, dtype=np.float32).reshape(5, 7)}

    answers, expected = reference.infer(batch, deadline_s=1.0), real.infer(batch, deadline_s=1.0)

    assert answers.keys() == expected.keys()
    for output in expected:
        np.testing.assert_allclose(answers[output], expected[output], rtol=1e-5, atol=1e-6)


def test_the_runtime_of_the_page_refuses_what_it_cannot_run(tmp_path: Path) -> None:
    module = _module_of(HOW_TO / "write-a-runtime.md", tmp_path / "edged_reference.py")

    serving = _serving("reference:gpu", module)

    assert (serving.model, serving.skipped[0].code) == (None, "device_unavailable")


def test_mosquitto_understands_the_recommended_settings(tmp_path: Path) -> None:
    lines = [line.partition("#")[0].strip() for line in (CONFIGS / "mosquitto.conf").read_text("utf-8").splitlines()]
    settings = [line for line in lines if line and not line.startswith(("listener", "allow_anonymous"))]

    with Mosquitto(tmp_path, *settings, f"persistence_location {tmp_path}/") as broker:
        assert "Error" not in broker.log.read_text()
    for setting in settings:
        assert f"`{setting.split()[0]}" in (HOW_TO / "broker.md").read_text("utf-8"), setting


def test_there_is_something_to_do_about_every_reason_of_a_mode() -> None:
    page = (HOW_TO / "mode-not-normal.md").read_text("utf-8")

    assert set(re.findall(r"^### `([a-z_]+)`$", page, re.MULTILINE)) == set(CAUSES)


def test_every_command_of_the_evidence_names_tests_or_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (REPOSITORY / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands = re.findall(r"^\|[^|]+\| `([^`]+)` \|", (HOW_TO.parent / "evidence.md").read_text("utf-8"), re.MULTILINE)
    assert len(commands) > 50
    for command in commands:
        program, *arguments = shlex.split(command)
        if program == "make":
            assert arguments[0] in targets, command
            continue
        assert (program, arguments[0]) == (".venv/bin/pytest", "-q"), command
        path, _, test = arguments[1].partition("::")
        assert (REPOSITORY / path).exists(), command
        assert not test or f"def {test}(" in (REPOSITORY / path).read_text("utf-8"), command


def test_no_page_links_to_a_file_that_does_not_exist() -> None:
    pages = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    links = [
        (page, link)
        for page in pages
        for link in re.findall(r"\]\(([^)#\s]+)", page.read_text("utf-8"))
        if "://" not in link
    ]

    assert [(str(page), link) for page, link in links if not (page.parent / link).exists()] == []


def _serving(rung: str, plugin: ModuleType) -> Serving:
    """A chain of one rung; `plugin` stands for the entry point `reference`."""

    def find(name: str) -> Runtime:
        return PlainRuntime(name, plugin.load) if name == "reference" else find_runtime(name)

    spec = ChainSpec("p", MODELS / "anomaly.onnx", (rung,), allow_unsigned=True)
    return load_chain(spec, FakeClock(), find=find)


def _module_of(page: Path, path: Path) -> ModuleType:
    """The first Python block of a page, imported from `path`."""
    block = re.search(r"^```python\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block
    path.write_text(block[1], encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
