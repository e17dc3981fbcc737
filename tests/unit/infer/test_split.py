"""`split:upstream` without a network: what is asked, what is refused, and what is told when it cannot be used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.loading import open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.infer.split import SHARE, SplitModel, SplitRuntime
from edged.infer.split_file import folder_of
from edged.infer.upstream import UpstreamAddress
from edged.policy.faults import FAULTS
from edged.sync.inference import Packed
from edged.sync.tensors import to_array
from edged.workbench.arrays import file_sha256
from tests.doubles import split_models
from tests.doubles.runtime import StandInModel
from tests.doubles.split_models import CUT, SplitModels

ADDRESS = UpstreamAddress("127.0.0.1", 1, "lyon", "gw-01")
OPTIONS = LoadOptions(upstream=ADDRESS)


class Centre:
    """Has the tail. Implements `PackedUpstream`."""

    def __init__(self, models: SplitModels) -> None:
        path = folder_of(models.model.path) / "tail.onnx"
        self._tail = find_runtime("onnxruntime").load(open_model(path, allow_unsigned=True), "cpu", LoadOptions())
        self.asked: list[tuple[str, Packed, float]] = []
        self.closed = 0

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        raise NotImplementedError

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        (tensor,) = tensors
        self.asked.append((digest, tensor, deadline_s))
        return self._tail.infer({tensor.header.name: to_array(tensor)}, deadline_s=deadline_s)

    def close(self) -> None:
        self.closed += 1


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> SplitModels:
    return split_models.make(tmp_path_factory.mktemp("models"))


def test_the_cut_tensor_travels_as_bytes_and_the_answers_are_those_of_the_whole(models: SplitModels) -> None:
    centre = Centre(models)
    split = SplitRuntime(lambda _: centre).load(models.model, "upstream", OPTIONS)
    whole = find_runtime("onnxruntime").load(models.model, "cpu", LoadOptions())
    batch = {"x": models.samples[:9]}

    got, wanted = split.infer(batch, deadline_s=2.0)["y"], whole.infer(batch, deadline_s=2.0)["y"]

    assert np.array_equal(got.argmax(axis=1), wanted.argmax(axis=1))
    ((digest, tensor, deadline_s),) = centre.asked
    assert digest == models.tail
    assert (tensor.header.name, tensor.header.coding, tensor.header.shape) == (CUT, "u8", (9, 4, 5, 5))
    assert tensor.header.scale == models.split.plan.cut.scale
    assert 0 < deadline_s <= 2.0 * SHARE
    split.close()
    assert centre.closed == 1


def test_an_input_unlike_all_samples_widens_the_range_instead_of_being_clipped(models: SplitModels) -> None:
    centre = Centre(models)
    split = SplitRuntime(lambda _: centre).load(models.model, "upstream", OPTIONS)
    whole = find_runtime("onnxruntime").load(models.model, "cpu", LoadOptions())
    batch = {"x": models.samples[:1] * 40}

    got, wanted = split.infer(batch, deadline_s=2.0)["y"], whole.infer(batch, deadline_s=2.0)["y"]

    assert centre.asked[0][1].header.scale > 10 * models.split.plan.cut.scale
    assert np.abs(got - wanted).max() < 0.02 * np.abs(wanted).max()


def test_a_cut_tensor_that_is_no_number_is_not_sent(models: SplitModels) -> None:
    centre = Centre(models)
    split = SplitRuntime(lambda _: centre).load(models.model, "upstream", OPTIONS)

    with pytest.raises(InferenceError, match="NaN or infinity") as failed:
        split.infer({"x": np.full((1, 1, 12, 12), np.inf, np.float32)}, deadline_s=2.0)

    assert (failed.value.code, centre.asked) == ("infer_failed", [])


def test_a_head_that_takes_all_of_the_time_leaves_none_to_ask(models: SplitModels) -> None:
    centre = Centre(models)
    times = iter((0, 10_000_000_000))
    whole = SplitRuntime(lambda _: centre).load(models.model, "upstream", OPTIONS)
    slow = SplitModel(whole.info, models.split.plan, whole._head, centre, lambda: next(times))

    with pytest.raises(InferenceError) as failed:
        slow.infer({"x": models.samples[:1]}, deadline_s=1.0)

    assert (failed.value.code, centre.asked) == ("upstream_timeout", [])


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"device": "cpu"}, "device_unavailable"),
        ({"options": LoadOptions()}, "device_unavailable"),
        ({"format": "tflite"}, "incompatible"),
    ],
)
def test_what_cannot_be_used_is_told_at_load(models: SplitModels, change: dict[str, Any], code: str) -> None:
    model = models.model._replace(format=change.get("format", "onnx"))

    with pytest.raises(ModelError) as refused:
        SplitRuntime(lambda _: Centre(models)).load(
            model, change.get("device", "upstream"), change.get("options", OPTIONS)
        )

    assert refused.value.code == code


def copied(models: SplitModels, folder: Path) -> SplitModels:
    """The whole and its halves in another folder."""
    path = folder / models.model.path.name
    path.write_bytes(models.model.read())
    folder_of(path).mkdir()
    for each in folder_of(models.model.path).iterdir():
        (folder_of(path) / each.name).write_bytes(each.read_bytes())
    return models._replace(model=open_model(path, allow_unsigned=True))


def test_a_bundle_that_lists_its_halves_is_split_as_a_plain_file_is(models: SplitModels, tmp_path: Path) -> None:
    own = copied(models, tmp_path)
    roles = {"bars.onnx": "model", "bars.split/split.json": "split", "bars.split/head.onnx": "split"}
    files = [
        {"path": name, "role": role, "size": (tmp_path / name).stat().st_size, "sha256": file_sha256(tmp_path / name)}
        for name, role in roles.items()
    ]
    manifest = {"v": "edged.model/1", "model_id": "bars", "version": "7", "files": files}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    bundle = open_model(tmp_path, allow_unsigned=True)
    centre = Centre(models)

    split = SplitRuntime(lambda _: centre).load(bundle.form_for(("onnx",)), "upstream", OPTIONS)

    assert split.info[:4] == ("bars", "7", own.model.sha256, "split:upstream")
    assert split.infer({"x": models.samples[:2]}, deadline_s=2.0)["y"].shape == (2, 5)
    (folder_of(own.model.path) / "split.json").write_text("{}")
    with pytest.raises(ModelError) as refused:
        SplitRuntime(lambda _: centre).load(bundle, "upstream", OPTIONS)
    assert refused.value.code == "changed"


def test_a_head_that_is_not_the_one_of_the_plan_is_refused(models: SplitModels, tmp_path: Path) -> None:
    own = copied(models, tmp_path)
    head = folder_of(own.model.path) / "head.onnx"
    data = bytearray(head.read_bytes())
    data[-40] ^= 1
    head.write_bytes(data)

    with pytest.raises(ModelError) as refused:
        SplitRuntime(lambda _: Centre(models)).load(own.model, "upstream", OPTIONS)
    assert refused.value.code == "digest_mismatch"
    head.unlink()
    with pytest.raises(ModelError) as refused:
        SplitRuntime(lambda _: Centre(models)).load(own.model, "upstream", OPTIONS)
    assert refused.value.code == "missing"


def test_a_head_with_other_ends_than_the_plan_is_closed_again(models: SplitModels, tmp_path: Path) -> None:
    own = copied(models, tmp_path)
    plan = models.split.plan
    other = msgspec.structs.replace(plan.cut, name="elsewhere")
    changed = msgspec.structs.replace(plan, cut=other)
    (folder_of(own.model.path) / "split.json").write_bytes(msgspec.json.encode(changed))
    head = StandInModel()

    class Finder:
        name = "onnxruntime"

        def load(self, *_: object) -> StandInModel:
            return head

    find: Callable[[str], Any] = lambda _name: Finder()  # noqa: E731
    with pytest.raises(ModelError) as refused:
        SplitRuntime(lambda _: Centre(models), find).load(own.model, "upstream", OPTIONS)

    assert refused.value.code == "incompatible"
    assert head.closed.is_set()


def test_the_runtime_is_built_in_and_declares_itself() -> None:
    runtime = find_runtime("split")

    assert runtime.abilities("upstream").formats == ("onnx",)
    assert runtime.abilities("upstream").isolation == "process"
    assert runtime.probe("upstream").usable
    assert runtime.health("upstream").state == "unknown"
    runtime.prepare(None, "upstream", OPTIONS)  # type: ignore[arg-type]


def test_every_code_of_asking_moves_the_chain_on() -> None:
    for code in ("upstream_timeout", "upstream_away", "upstream_refused", "upstream_busy"):
        assert FAULTS[code].action == "next"
