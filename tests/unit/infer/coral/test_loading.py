"""What an Edge TPU takes and refuses: strict placement, and a code for everything that the library says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.errors import ModelError
from edged.infer.loading import ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.infer.runtimes.coral import RUNTIME, Coral, find_placement
from tests.doubles.libedgetpu import TpuDouble
from tests.unit.infer.coral.rig import ask, refusal, stored
from tests.unit.infer.models import sum_model
from tests.unit.infer.tflite_models import sum_tflite, unary


def test_it_declares_a_process_of_its_own_and_a_device_for_itself(coral: Coral) -> None:
    assert coral.abilities("usb") == (("tflite-edgetpu",), "process", True, False, 1)
    assert find_runtime("coral") is RUNTIME


def test_a_compiled_model_answers_and_says_where_it_computes(coral: Coral, tpu: TpuDouble, file: ModelFile) -> None:
    tpu.knows([stored([12, 14, 16, 18], [10, 11, 12, 255])])
    coral.prepare(file, "usb:0", LoadOptions())
    model = coral.load(file, "usb:0", LoadOptions())
    assert model.info.runtime == "coral:usb:0"
    assert (model.info.model, model.info.version, model.info.sha256) == ("m_edgetpu", "7", file.sha256)
    assert model.info.placement == (("edgetpu", 1), ("cpu", 0))
    assert [tuple(spec) for spec in model.info.inputs] == [("x", "float32", (1, 4))]
    answer = model.infer({"x": np.array([[1, 2, 3, 4]], np.float32)}, deadline_s=1)
    assert answer["y"].tolist() == [[0, 0.5, 1, 122.5]]
    model.close()
    assert ask(model) == "closed"


def test_two_models_share_one_device_in_one_process(coral: Coral, file: ModelFile) -> None:
    first, second = coral.load(file, "usb", LoadOptions()), coral.load(file, "usb", LoadOptions())
    first.close()
    second.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)


def test_a_model_for_the_processor_is_refused_because_it_would_silently_stay_there(
    coral: Coral, tmp_path: Path
) -> None:
    error = refusal(coral, open_model(sum_tflite(tmp_path / "m.tflite"), allow_unsigned=True))
    assert (error.code, "on the processor" in error.message) == ("incompatible", True)
    assert refusal(coral, open_model(sum_model(tmp_path / "m.onnx"), allow_unsigned=True)).code == "incompatible"


def test_a_model_that_only_mentions_the_edge_tpu_is_refused(coral: Coral, tmp_path: Path) -> None:
    path = sum_tflite(tmp_path / "m.tflite")
    path.write_bytes(path.read_bytes() + b"edgetpu-custom-op")
    assert refusal(coral, open_model(path, allow_unsigned=True)).code == "placement_rejected"


def test_another_custom_operator_beside_it_is_unsupported(coral: Coral, tmp_path: Path) -> None:
    path = unary(tmp_path / "m.tflite", "uint8", builtin=BuiltinOperator.CUSTOM, custom="frob")
    file = open_model(path, allow_unsigned=True)._replace(format="tflite-edgetpu")
    assert refusal(coral, file).code == "unsupported"


@pytest.mark.parametrize(
    ("operators", "placement"),
    [
        ([("edgetpu-custom-op", [1]), ("DELEGATE", [1])], (("edgetpu", 1), ("cpu", 0))),
        ([("edgetpu-custom-op", [1, 2]), ("SOFTMAX", [3]), ("DELEGATE", [1, 2])], (("edgetpu", 1), ("cpu", 1))),
    ],
)
def test_what_computes_where_is_counted(operators: list[Any], placement: Any) -> None:
    assert find_placement([{"op_name": name, "outputs": outputs} for name, outputs in operators]) == placement


@pytest.mark.parametrize(
    "operators",
    [
        [],
        [("SOFTMAX", [1]), ("DELEGATE", [1])],
        [("edgetpu-custom-op", [1]), ("SOFTMAX", [2]), ("DELEGATE", [2])],
        [("edgetpu-custom-op", [1]), ("edgetpu-custom-op", [2]), ("DELEGATE", [2])],
    ],
)
def test_an_operator_that_was_left_on_the_processor_is_refused(operators: list[Any]) -> None:
    with pytest.raises(ModelError) as caught:
        find_placement([{"op_name": name, "outputs": outputs} for name, outputs in operators])
    assert caught.value.code == "placement_rejected"


# refusals of loading


@pytest.mark.parametrize("device", ["cpu", "usb:", "usb:x", "USB", "pcie", "usb:0,pci:0", ""])
def test_a_device_that_it_does_not_know_is_refused(coral: Coral, file: ModelFile, device: str) -> None:
    assert refusal(coral, file, device).code == "device_unavailable"
    assert coral.probe(device).code == "device_unavailable"


@pytest.mark.parametrize(("state", "said"), [("absent", "does not say why"), ("said", "Could not map pages")])
def test_a_device_that_does_not_open_is_unavailable_and_may_come(
    coral: Coral, tpu: TpuDouble, file: ModelFile, state: str, said: str
) -> None:
    tpu.become(state)
    error = refusal(coral, file)
    assert (error.code, error.retryable, said in error.message) == ("device_unavailable", True, True)
    tpu.become("ok")
    assert coral.load(file, "usb", LoadOptions()).info.runtime == "coral:usb"


@pytest.mark.parametrize(
    ("state", "code"),
    [
        ("newer", "unsupported"),
        ("handler", "runtime_unavailable"),
        ("idle", "runtime_unavailable"),
        ("refused", "unsupported"),
        ("lost", "device_unavailable"),
        ("memory", "out_of_memory"),
    ],
)
def test_what_the_library_says_while_it_loads_becomes_a_code(
    coral: Coral, tpu: TpuDouble, file: ModelFile, state: str, code: str
) -> None:
    tpu.become(state)
    assert refusal(coral, file).code == code


def test_without_the_library_nothing_but_the_cure_is_said(file: ModelFile, tmp_path: Path) -> None:
    """LiteRT's own way leaves an object whose end complains on stderr; warnings are errors here."""
    error = refusal(Coral(str(tmp_path / "libedgetpu.so.1")), file)
    assert error.code == "runtime_unavailable"
    assert "libedgetpu.so.1: cannot open shared object file" in error.message
    assert "EDGED_LIBEDGETPU" in error.hint
    assert Coral(str(tmp_path / "libedgetpu.so.1")).probe("usb").code == "runtime_unavailable"


def test_a_library_that_is_another_one_is_refused(file: ModelFile) -> None:
    assert refusal(Coral("libc.so.6"), file).code == "runtime_unavailable"


def test_damaged_bytes_never_reach_the_library(coral: Coral, file: ModelFile) -> None:
    file.path.write_bytes(file.path.read_bytes()[:-8])
    assert refusal(coral, file).code == "changed"
    half = file.path.read_bytes()[:200] + b"edgetpu-custom-op"
    file.path.write_bytes(half)
    assert refusal(coral, open_model(file.path, allow_unsigned=True)).code == "corrupt"
