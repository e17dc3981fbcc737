"""The Edge TPU through a libedgetpu that is a double: strict placement, every way to fail, and the twin on the CPU."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import BuiltinOperator

from edged.errors import InferenceError, ModelError
from edged.infer.chain import ChainSpec, Serving, load_chain
from edged.infer.contract import CHECKS, Check, Subject
from edged.infer.loading import ModelFile, open_model
from edged.infer.parity import parity_inputs
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions, Runtime
from edged.infer.runtimes.coral import LIBRARY, RUNTIME, Coral, code_of, find_placement, judge_pair
from edged.infer.runtimes.tflite_io import TfliteModel
from edged.ops.clock import SystemClock
from edged.ports import Model
from tests.doubles.libedgetpu import TpuDouble, make_tpu
from tests.unit.infer.models import sum_model
from tests.unit.infer.tflite_models import sum_tflite, unary

CHILD = Path(__file__).resolve().parents[2] / "doubles" / "coral_child.py"
REPOSITORY = CHILD.parents[2]
AFFINE = (0.5, 10)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> TpuDouble:
    made = make_tpu(tmp_path_factory.mktemp("libedgetpu"))
    if made is None:
        pytest.skip("gcc is missing: it compiles the double of libedgetpu")
    return made


@pytest.fixture
def tpu(library: TpuDouble) -> TpuDouble:
    library.become("ok")
    library.knows([])
    return library


@pytest.fixture
def coral(tpu: TpuDouble) -> Coral:
    return Coral(str(tpu.library))


@pytest.fixture
def file(tmp_path: Path) -> ModelFile:
    return open_model(compiled(tmp_path / "m_edgetpu.tflite"), allow_unsigned=True, version="7")


def compiled(path: Path) -> Path:
    """A model of one operator for the Edge TPU, uint8, (1, 4) to (1, 4)."""
    return unary(path, "uint8", builtin=BuiltinOperator.CUSTOM, custom="edgetpu-custom-op", affine=AFFINE, rows=1)


def stored(inputs: list[int], outputs: list[int]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """All inputs and all outputs of an operator that has one of each."""
    return [np.array([inputs], np.uint8)], [np.array([outputs], np.uint8)]


def refusal(runtime: Runtime, file: ModelFile, device: str = "usb") -> ModelError:
    with pytest.raises(ModelError) as caught:
        runtime.load(file, device, LoadOptions())
    return caught.value


def ask(model: TfliteModel) -> str:
    """The code of the refusal of a call."""
    with pytest.raises(InferenceError) as caught:
        model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)
    return caught.value.code


# what is taken, and where it computes


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


# calls


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("USB transfer error 2 [LibUsbDataOut:19]Node number 1 (EdgeTpuDelegateForCustomOp) failed", "device_lost"),
        ("transfer on tag 2 failed. Abort. Deadline exceeded: USB transfer error 2", "device_lost"),
        ("HIB Error. hib_error_status = 0000000000000001", "device_lost"),
        ("Node number 3 (SOFTMAX) failed to invoke", "infer_failed"),
    ],
)
def test_what_the_library_says_while_it_computes_becomes_a_code(text: str, code: str) -> None:
    assert code_of(text) == code


def test_a_device_that_was_lost_stays_lost_until_it_is_opened_again(
    coral: Coral, tpu: TpuDouble, file: ModelFile
) -> None:
    model = coral.load(file, "usb", LoadOptions())
    tpu.become("usb")
    assert ask(model) == "device_lost"
    tpu.become("ok")
    assert ask(model) == "device_lost"
    model.close()
    coral.load(file, "usb", LoadOptions()).infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)


def test_another_failure_of_a_call_is_one_of_that_call(coral: Coral, tpu: TpuDouble, file: ModelFile) -> None:
    model = coral.load(file, "usb", LoadOptions())
    tpu.become("other")
    assert ask(model) == "infer_failed"
    tpu.become("ok")
    model.infer({"x": np.zeros((1, 4), np.float32)}, deadline_s=1)


# looking


def usb(sysfs: Path, name: str, vendor: str, product: str) -> None:
    folder = sysfs / "bus" / "usb" / "devices" / name
    folder.mkdir(parents=True)
    (folder / "idVendor").write_text(f"{vendor}\n")
    (folder / "idProduct").write_text(f"{product}\n")


def test_sticks_are_found_before_and_after_their_firmware_is_loaded(tpu: TpuDouble, tmp_path: Path) -> None:
    (tmp_path / "bus" / "usb" / "devices" / "1-0:1.0").mkdir(parents=True)
    usb(tmp_path, "1-1", "1d6b", "0002")
    usb(tmp_path, "1-2", "1a6e", "089a")
    usb(tmp_path, "2-1", "18d1", "9302")
    coral = Coral(str(tpu.library), sysfs=tmp_path, dev=tmp_path)
    found = coral.probe("usb")
    assert (found.usable, [each.id for each in found.devices]) == (True, ["usb:0", "usb:1"])
    assert [each.name for each in found.devices] == [
        "Coral USB Accelerator before its firmware is loaded at 1-2",
        "Coral USB Accelerator at 2-1",
    ]
    assert coral.probe("usb:1").devices == found.devices[1:]
    assert coral.probe("usb:2").code == coral.probe("pci").code == "device_unavailable"
    assert coral.health("usb:0").state == "ok"
    assert coral.health("pci").state == "unknown"
    tpu.become("absent")
    file = open_model(compiled(tmp_path / "m_edgetpu.tflite"), allow_unsigned=True)
    assert "seen: Coral USB Accelerator at 2-1;" not in refusal(coral, file, "usb:0").message
    assert "at 1-2" in refusal(coral, file, "usb:0").message


def test_cards_are_found_by_the_nodes_of_their_driver(tpu: TpuDouble, tmp_path: Path) -> None:
    coral = Coral(str(tpu.library), sysfs=tmp_path, dev=tmp_path)
    assert "gasket" in coral.probe("pci:0").reason
    for number in (0, 1):
        (tmp_path / f"apex_{number}").touch()
    assert [each.name for each in coral.probe("pci").devices] == [str(tmp_path / f"apex_{n}") for n in (0, 1)]
    assert coral.probe("pci:1").usable


def test_the_versions_are_told_and_whether_anybody_has_seen_them_work_together(coral: Coral) -> None:
    versions = coral.probe("usb").versions
    assert versions["libedgetpu"] == "RuntimeVersion(14)"
    assert versions["ai-edge-litert"].startswith("2.")
    assert versions["pair"].startswith("untested")
    assert judge_pair("1", "2").startswith("untested")


def test_a_library_without_a_version_is_of_an_unknown_one(tmp_path: Path, tpu: TpuDouble) -> None:
    source = tmp_path / "mute.c"
    source.write_text("void tflite_plugin_create_delegate(void) {}\nvoid tflite_plugin_destroy_delegate(void) {}\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", tmp_path / "mute.so", source], check=True)
    assert Coral(str(tmp_path / "mute.so")).probe("usb").versions["libedgetpu"] == "unknown"


# what all runtimes keep


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_it_keeps_the_contract_of_all_runtimes(tpu: TpuDouble, check: Check, tmp_path: Path) -> None:
    usb(tmp_path, "2-1", "18d1", "9302")
    check(Subject(Coral(str(tpu.library), sysfs=tmp_path), "usb", compiled(tmp_path / "m_edgetpu.tflite"), tmp_path))


# the twin on the processor


def chain(path: Path, coral: Coral) -> Serving:
    def find(name: str) -> Runtime:
        return coral if name == "coral" else find_runtime(name)

    spec = ChainSpec("p", path, ("coral:usb", "litert:cpu"), allow_unsigned=True)
    return load_chain(spec, SystemClock(), find=find)


def bundle(folder: Path, twin: Callable[[Path], Path], x: list[float], y: list[float]) -> Path:
    """A slot with both forms and golden vectors."""
    folder.mkdir()
    compiled(folder / "m_edgetpu.tflite")
    twin(folder / "m.tflite")
    vectors: dict[str, Any] = {"in.x": np.array([x], np.float32), "out.y": np.array([y], np.float32)}
    np.savez(folder / "golden.npz", **vectors)
    files = [
        {"path": path.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": role}
        for path, role in (
            (folder / "m_edgetpu.tflite", "model"),
            (folder / "m.tflite", "model"),
            (folder / "golden.npz", "golden"),
        )
        if (data := path.read_bytes())
    ]
    golden = {"file": "golden.npz", "tolerance": 1e-4}
    manifest = {"v": "edged.model/1", "model_id": "m", "version": "1", "files": files, "golden": golden}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def relu(path: Path) -> Path:
    return unary(path, "uint8", builtin=BuiltinOperator.RELU, affine=AFFINE, rows=1)


def test_a_device_that_answers_nonsense_is_found_out_and_the_twin_serves(
    coral: Coral, tpu: TpuDouble, tmp_path: Path
) -> None:
    slot = bundle(tmp_path / "slot", relu, [-1, 0, 1, 2], [0, 0, 1, 2])
    serving = chain(slot, coral)
    assert (serving.rung, [skipped.code for skipped in serving.skipped]) == ("litert:cpu", ["golden_mismatch"])
    tpu.knows([stored([8, 10, 12, 14], [10, 10, 12, 14])])
    serving = chain(slot, coral)
    assert (serving.rung, serving.skipped) == ("coral:usb", ())


def test_without_a_device_the_twin_beside_the_file_serves_and_the_mode_says_so(
    coral: Coral, tpu: TpuDouble, tmp_path: Path
) -> None:
    tpu.become("absent")
    compiled(tmp_path / "m_edgetpu.tflite")
    relu(tmp_path / "m.tflite")
    serving = chain(tmp_path / "m_edgetpu.tflite", coral)
    assert (serving.rung, serving.reason) == ("litert:cpu", "fallback_runtime")
    assert [skipped.code for skipped in serving.skipped] == ["device_unavailable"]


def parrot(shared_data: Path) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    with image.open(shared_data / "coral" / "parrot.jpg") as photo:
        pixels = np.asarray(photo.convert("RGB").resize((128, 128), image.Resampling.BILINEAR), np.float32)
    return (pixels[None] - 128) / 128


def answers_of(model: Model, *batches: np.ndarray) -> list[tuple[list[np.ndarray], list[np.ndarray]]]:
    """What the double has to know to compute as the twin does: MobileNet's scales are 1/128 around 128, and 1/256."""
    found = []
    for row in np.concatenate(batches):
        (scores,) = model.infer({"input": row[None]}, deadline_s=10).values()
        pixels = np.clip(np.rint(row * 128) + 128, 0, 255)
        found.append(([pixels.astype(np.uint8)], [np.rint(scores * 256).astype(np.uint8)]))
    return found


def best(serving: Serving, shared_data: Path) -> str:
    assert serving.model is not None
    (scores,) = serving.model.infer({"input": parrot(shared_data)}, deadline_s=10).values()
    return (shared_data / "coral" / "imagenet_labels.txt").read_text().splitlines()[int(scores[0].argmax())].strip()


@pytest.mark.realdata
def test_the_parrot_is_a_macaw_with_the_device_and_without(
    coral: Coral, tpu: TpuDouble, shared_data: Path, tmp_path: Path
) -> None:
    path = shared_data / "coral" / "mobilenet_v1_0.25_128_quant_edgetpu.tflite"
    tpu.become("absent")
    twin = chain(path, coral)
    assert (twin.rung, best(twin, shared_data)) == ("litert:cpu", "macaw")
    tpu.become("ok")
    assert [skipped.code for skipped in chain(path, coral).skipped] == ["parity_failed"]
    assert twin.model is not None
    tpu.knows(answers_of(twin.model, parity_inputs(twin.model.info.inputs)["input"], parrot(shared_data)))
    serving = chain(path, coral)
    assert (serving.rung, best(serving, shared_data)) == ("coral:usb", "macaw")
    assert serving.model is not None
    assert serving.model.info.placement == (("edgetpu", 1), ("cpu", 0))


@pytest.mark.realdata
@pytest.mark.parametrize("name", ["mobilenet_v1_0.25_128_quant", "keras_lstm_mnist_ptq", "tools/split_concat"])
def test_every_compiled_model_loads_through_the_double_and_is_refused_without_it(
    coral: Coral, shared_data: Path, tmp_path: Path, name: str
) -> None:
    alone = Path(shutil.copy(shared_data / "coral" / f"{name}_edgetpu.tflite", tmp_path))
    file = open_model(alone, allow_unsigned=True)
    model = coral.load(file, "usb", LoadOptions())
    zeros = {spec.name: np.zeros(spec.shape, spec.dtype) for spec in model.info.inputs}
    assert model.infer(zeros, deadline_s=5).keys() == {spec.name for spec in model.info.outputs}
    serving = chain(alone, Coral(str(tmp_path / LIBRARY)))
    assert [skipped.code for skipped in serving.skipped] == ["runtime_unavailable", "unsupported"]


# in a process of its own


@pytest.fixture
def child(tpu: TpuDouble, file: ModelFile) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        environment = os.environ | {"EDGED_LIBEDGETPU": str(tpu.library), "PYTHONPATH": str(REPOSITORY)}
        command = (sys.executable, CHILD, file.path)
        process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()


def heard(process: subprocess.Popen[str]) -> str:
    """The next line; empty when the process has ended."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_library_of_the_wrong_version_ends_only_the_process_that_loads_it(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    tpu.become("segfault")
    process = child()
    assert (heard(process), process.wait(20)) == ("", -signal.SIGSEGV)


def test_a_call_that_ends_its_process_ends_only_that_one(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("abort")
    say(process, "infer")
    assert (heard(process), process.wait(20)) == ("", -signal.SIGABRT)


def test_a_call_that_hangs_ends_with_its_process_and_the_next_one_serves(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("hang")
    say(process, "infer")
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    process.kill()
    assert process.wait(20) == -signal.SIGKILL
    tpu.become("ok")
    again = child()
    say(again, "infer")
    assert [heard(again), heard(again)] == ["loaded", "answered"]


def test_unplugging_during_a_call_is_a_lost_device(child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble) -> None:
    process = child()
    assert heard(process) == "loaded"
    tpu.become("wait")
    say(process, "infer")
    tpu.become("usb")
    assert heard(process) == "device_lost"
    say(process, "infer")
    assert heard(process) == "device_lost"
    tpu.become("absent")
    assert heard(child()) == "device_unavailable"


def test_opening_stops_every_thread_of_its_process_which_is_why_it_has_one(
    child: Callable[[], subprocess.Popen[str]], tpu: TpuDouble
) -> None:
    """If this fails because nothing stalls, LiteRT has learned to release the lock, and the page may say so."""
    tpu.become("slow")
    process = child()
    say(process, "stall")
    assert heard(process) == "loaded"
    assert int(heard(process)) > 400


def test_nothing_of_a_missing_library_reaches_stderr(file: ModelFile, tmp_path: Path) -> None:
    environment = os.environ | {"EDGED_LIBEDGETPU": str(tmp_path / LIBRARY), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, CHILD, file.path], capture_output=True, text=True, env=environment, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("runtime_unavailable", "")


def test_the_vendor_s_name_on_the_package_index_is_never_needed() -> None:
    """`pycoral` there is a tool for coral reefs."""
    assert "pycoral" not in (REPOSITORY / "pyproject.toml").read_text()
