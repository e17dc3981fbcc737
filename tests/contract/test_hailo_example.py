"""The plug-in in the documentation keeps the contract, with a stand-in for the vendor's package."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.loading import open_model
from edged.infer.runtime import LoadOptions
from tests.conftest import REPOSITORY
from tests.doubles import hailo_platform
from tests.doubles.hailo_platform import Chip

EXAMPLE = REPOSITORY / "docs" / "how-to" / "examples" / "edged-hailo"
X = np.arange(8, dtype=np.float32).reshape(2, 2, 2, 1)


@pytest.fixture(scope="module")
def plugin() -> Iterator[Any]:
    """The module of the page, which finds the stand-in where it looks for the vendor's package."""
    spec = importlib.util.spec_from_file_location("edged_hailo", EXAMPLE / "edged_hailo.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["hailo_platform"] = hailo_platform
    yield module
    del sys.modules["hailo_platform"]


@pytest.fixture
def chip() -> Iterator[type[Chip]]:
    """The stand-in's only chip, well again afterwards, and with nothing left open."""
    yield Chip
    Chip.ids, Chip.scan_error, Chip.configure_error = ("0000:01:00.0",), None, None
    Chip.infer_error = Chip.close_error = None
    assert Chip.opened == 0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return hailo_platform.compiled(tmp_path / "m.hef")


def load(plugin: Any, path: Path, device: str = "pcie") -> Any:
    return plugin.RUNTIME.load(open_model(path, allow_unsigned=True), device, LoadOptions())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract_of_all_runtimes(
    check: Check, plugin: Any, chip: type[Chip], path: Path, tmp_path: Path
) -> None:
    check(Subject(plugin.RUNTIME, "pcie", path, tmp_path))


def test_its_package_names_it_as_edged_looks_for_it(plugin: Any) -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text("utf-8"))
    assert project["project"]["entry-points"]["edged.runtimes"] == {"hailo": "edged_hailo:RUNTIME"}
    assert project["tool"]["setuptools"]["py-modules"] == ["edged_hailo"]
    declared = plugin.RUNTIME.abilities("pcie")
    assert (declared.formats, declared.isolation, declared.exclusive) == (("hef",), "process", True)


def test_without_the_vendors_package_it_is_unavailable_with_the_cure(plugin: Any, path: Path) -> None:
    sys.modules["hailo_platform"] = None  # type: ignore[assignment]  # to Python: it is not installed
    try:
        probe = plugin.RUNTIME.probe("pcie")
        with pytest.raises(ModelError) as caught:
            load(plugin, path)
    finally:
        sys.modules["hailo_platform"] = hailo_platform
    assert (probe.usable, probe.code, caught.value.code) == (False, "runtime_unavailable", "runtime_unavailable")
    assert "HailoRT" in caught.value.hint


@pytest.mark.parametrize("gone", ["absent", "driver"])
def test_a_chip_that_is_not_there_is_no_device(plugin: Any, chip: type[Chip], path: Path, gone: str) -> None:
    chip.ids = ()
    if gone == "driver":
        chip.scan_error = hailo_platform.HailoRTException("libhailort failed with error: 36")
    with pytest.raises(ModelError) as caught:
        load(plugin, path)
    assert caught.value.code == plugin.RUNTIME.probe("pcie").code == "device_unavailable"
    assert plugin.RUNTIME.health("pcie").state == "failed"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (hailo_platform.HailoRTHEFNotCompatibleWithDevice("compiled for Hailo-8L"), "incompatible"),
        (hailo_platform.HailoRTTimeout("no answer"), "device_unavailable"),
        (hailo_platform.HailoRTException("77"), "load_failed"),
    ],
)
def test_what_fails_while_loading_leaves_nothing_open(
    plugin: Any, chip: type[Chip], path: Path, error: Exception, code: str
) -> None:
    chip.configure_error = error
    with pytest.raises(ModelError) as caught:
        load(plugin, path)
    assert (caught.value.code, chip.opened) == (code, 0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (hailo_platform.HailoRTTimeout("no answer"), "device_lost"),
        (hailo_platform.HailoRTException("77"), "infer_failed"),
    ],
)
def test_a_chip_that_stops_answering_is_lost(
    plugin: Any, chip: type[Chip], path: Path, error: Exception, code: str
) -> None:
    model = load(plugin, path)
    chip.infer_error = error
    with pytest.raises(InferenceError) as caught:
        model.infer({"net/input": X}, deadline_s=1)
    assert caught.value.code == code
    chip.close_error = error
    model.close()


def test_frames_go_in_and_come_out_as_real_numbers(plugin: Any, chip: type[Chip], path: Path) -> None:
    model = load(plugin, path)
    np.testing.assert_array_equal(model.infer({"net/input": X}, deadline_s=1)["net/output"], X * 2)
    assert model.infer({"net/input": X[:0]}, deadline_s=1)["net/output"].shape == (0, 2, 2, 1)
    model.close()


def test_a_file_that_does_not_begin_like_one_is_corrupt(path: Path) -> None:
    path.write_bytes(b"\x08\x09" + path.read_bytes())
    with pytest.raises(ModelError) as caught:
        open_model(path, allow_unsigned=True)
    assert caught.value.code == "corrupt"
