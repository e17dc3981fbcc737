"""The checks of the contract find each way to break it: one runtime that keeps all, and one for each promise broken."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer import contract
from edged.infer.batch_check import BatchCheck
from edged.infer.contract import CHECKS, Check, ContractBroken, Subject
from edged.infer.loading import ModelFile
from edged.infer.runtime import Abilities, Device, DeviceHealth, LoadOptions, Probe
from edged.messages import ModelInfo, TensorSpec
from edged.ports import Model
from tests.unit.infer.models import sum_model


class HonestModel:
    """y = sum of x's four columns. Its methods are what the broken ones replace."""

    def __init__(self, info: ModelInfo) -> None:
        self.info = info
        self.check = BatchCheck(info)
        self.closed = False

    def infer(self, batch: Mapping[str, np.ndarray], *, deadline_s: float) -> Mapping[str, np.ndarray]:
        if self.closed:
            raise InferenceError("closed", "closed")
        self.check(batch)
        return {"y": batch["x"].sum(axis=1)}

    def close(self) -> None:
        self.closed = True


class HonestRuntime:
    """Keeps the contract. `whole`: the only bytes that it takes for a model."""

    name = "honest"
    model: Callable[[ModelInfo], Model] = HonestModel

    def __init__(self, whole: bytes) -> None:
        self.whole = whole

    def abilities(self, device: str) -> Abilities:
        return Abilities(("onnx",), concurrent=2)

    def probe(self, device: str) -> Probe:
        if device != "cpu":
            return Probe(False, code="device_unavailable", reason=f"no {device!r}")
        return Probe(True, (Device("cpu", "cpu", "cpu"),))

    def prepare(self, model: ModelFile, device: str, options: LoadOptions) -> None:
        """Nothing to make."""

    def load(self, model: ModelFile, device: str, options: LoadOptions) -> Model:
        if device != "cpu":
            raise ModelError("device_unavailable", f"no {device!r}")
        if model.format != "onnx":
            raise ModelError("incompatible", f"no {model.format}")
        if model.read() != self.whole:
            raise ModelError("corrupt", "damaged")
        ports = (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1,)),)
        return type(self).model(ModelInfo(model.model_id, model.version, model.sha256, "honest:cpu", *ports))

    def health(self, device: str) -> DeviceHealth:
        return DeviceHealth("ok")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return sum_model(tmp_path / "sum.onnx")


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_runtime_that_keeps_the_contract_passes(check: Check, path: Path, tmp_path: Path) -> None:
    check(Subject(HonestRuntime(path.read_bytes()), "cpu", path, tmp_path))


def raises(error: Exception) -> Callable[..., Any]:
    def method(*_args: Any, **_more: Any) -> Any:
        raise error

    return method


def gives(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_more: value


def broken_model(**methods: Any) -> dict[str, Any]:
    return {"model": type("BrokenModel", (HonestModel,), methods)}


def alone_otherwise(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """A row is answered otherwise when it is not alone."""
    return {"y": HonestModel.infer(self, batch, deadline_s=deadline_s)["y"] * np.float32(len(batch["x"]))}


def remembers(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """The answer depends on the call before."""
    answer = HonestModel.infer(self, batch, deadline_s=deadline_s)["y"]
    before, self.before = getattr(self, "before", answer), answer
    return {"y": answer + before}


def same_memory(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """Each answer is written over the one before."""
    answer = HonestModel.infer(self, batch, deadline_s=deadline_s)["y"]
    self.kept = getattr(self, "kept", answer)
    self.kept[...] = answer
    return {"y": self.kept}


def one_at_a_time(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """What another thread brings meanwhile is answered instead."""
    self.given = batch
    time.sleep(0.001)
    return HonestModel.infer(self, self.given, deadline_s=deadline_s)


def takes_anything(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """An answer to whatever comes."""
    return {"y": np.ones(1, np.float32)}


def late(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """Another answer when there is no time."""
    return {"y": HonestModel.infer(self, batch, deadline_s=1)["y"] * np.float32(1 if deadline_s else 0)}


def answers_when_closed(self: Any, batch: Any, *, deadline_s: float) -> Any:
    self.check(batch)
    return {"y": batch["x"].sum(axis=1)}


def writes_to_inputs(self: Any, batch: Any, *, deadline_s: float) -> Any:
    self.check(batch)
    answer = batch["x"].sum(axis=1)
    if batch["x"].flags.writeable:
        batch["x"][...] = 0
    return {"y": answer}


def wants_fortran(self: Any, batch: Any, *, deadline_s: float) -> Any:
    """Reads memory as if it lay in one piece."""
    self.check(batch)
    flat = np.lib.stride_tricks.as_strided(batch["x"], batch["x"].shape, (16, 4))
    return {"y": flat.sum(axis=1)}


def loads_all(self: Any, model: ModelFile, device: str, options: LoadOptions) -> Model:
    """Whatever file, whatever device."""
    ports = (TensorSpec("x", "float32", (-1, 4)),), (TensorSpec("y", "float32", (-1,)),)
    return HonestModel(ModelInfo(model.model_id, model.version, model.sha256, "honest:cpu", *ports))


def crashes_on_damage(self: Any, model: ModelFile, device: str, options: LoadOptions) -> Model:
    if model.read() != self.whole:
        raise ZeroDivisionError("a vendor's own exception")
    return HonestRuntime.load(self, model, device, options)


def not_from_the_table(self: Any, model: ModelFile, device: str, options: LoadOptions) -> Model:
    if model.read() != self.whole:
        raise ModelError("made_up", "a code that nobody knows")
    return HonestRuntime.load(self, model, device, options)


class Unpicklable(ModelError):
    def __reduce__(self) -> tuple[object, ...]:
        return ModelError, ("corrupt", "the hint is gone")


BROKEN: list[tuple[Check, dict[str, Any]]] = [
    (contract.a_probe_answers_and_never_raises, {"probe": raises(OSError("no driver"))}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(None)}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(Probe(True))}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(Probe(True, (Device("a", "cpu", "a"),)))}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(Probe(False, code="nope", reason="why"))}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(Probe(False, code="device_unavailable"))}),
    (contract.a_probe_answers_and_never_raises, {"probe": gives(Probe(False, code="device_unavailable", reason="x"))}),
    (contract.abilities_are_declared_for_any_device, {"abilities": raises(KeyError("abacus"))}),
    (contract.abilities_are_declared_for_any_device, {"abilities": gives(Abilities(()))}),
    (contract.abilities_are_declared_for_any_device, {"abilities": gives(Abilities(("onnx",), concurrent=0))}),
    (contract.abilities_are_declared_for_any_device, {"abilities": gives(Abilities(("onnx",), isolation="vm"))}),  # type: ignore[arg-type]
    (contract.health_is_said_and_never_raised, {"health": raises(OSError("no driver"))}),
    (contract.health_is_said_and_never_raised, {"health": gives(DeviceHealth("fine"))}),  # type: ignore[arg-type]
    (contract.what_it_loads_says_what_it_is, {"name": "somebody else"}),
    (contract.what_it_loads_says_what_it_is, broken_model(infer=gives({"z": np.ones(1, np.float32)}))),
    (contract.what_it_loads_says_what_it_is, broken_model(infer=gives({"y": np.ones(1, np.float64)}))),
    (contract.what_it_loads_says_what_it_is, broken_model(infer=gives({"y": np.ones((1, 1), np.float32)}))),
    (contract.other_formats_are_incompatible, {"load": loads_all}),
    (contract.a_device_that_is_not_there_is_refused_and_never_replaced, {"load": loads_all}),
    (contract.bytes_that_changed_since_the_check_are_not_loaded, {"load": loads_all}),
    (contract.a_truncated_model_is_refused, {"load": loads_all}),
    (contract.a_truncated_model_is_refused, {"load": crashes_on_damage}),
    (contract.a_truncated_model_is_refused, {"load": not_from_the_table}),
    (contract.a_truncated_model_is_refused, {"load": raises(Unpicklable("corrupt", "damaged", hint="copy"))}),
    (contract.a_damaged_model_is_refused_or_answers_and_nothing_else_happens, {"load": crashes_on_damage}),
    (contract.a_batch_is_answered_as_its_rows_are_alone, broken_model(infer=alone_otherwise)),
    (contract.the_same_input_gets_the_same_answer_whatever_came_between, broken_model(infer=remembers)),
    (contract.an_answer_shares_no_memory_with_inputs_or_other_answers, broken_model(infer=same_memory)),
    (contract.an_answer_shares_no_memory_with_inputs_or_other_answers, broken_model(infer=writes_to_inputs)),
    (contract.inputs_are_read_wherever_they_lie, broken_model(infer=wants_fortran)),
    (contract.a_batch_that_does_not_fit_is_invalid_and_the_model_goes_on, broken_model(infer=takes_anything)),
    (contract.a_deadline_ends_a_call_or_changes_nothing, broken_model(infer=late)),
    (contract.closing_is_idempotent_and_leaves_other_models_alone, broken_model(infer=answers_when_closed)),
    (contract.as_many_calls_as_declared_may_run_at_once, broken_model(infer=one_at_a_time)),
    (contract.preparing_twice_is_harmless, {"prepare": raises(FileExistsError("the engine"))}),
]


@pytest.mark.parametrize(
    ("check", "parts"), BROKEN, ids=[f"{check.__name__}-{n}" for n, (check, _) in enumerate(BROKEN)]
)
def test_a_runtime_that_breaks_it_is_found(check: Check, parts: dict[str, Any], path: Path, tmp_path: Path) -> None:
    broken: Any = type("BrokenRuntime", (HonestRuntime,), parts)
    with pytest.raises(Exception) as caught:  # what a broken runtime raises itself breaks it, too
        check(Subject(broken(path.read_bytes()), "cpu", path, tmp_path))
    assert isinstance(caught.value, ContractBroken | OSError | KeyError | ZeroDivisionError)


def test_every_check_is_broken_by_something() -> None:
    assert {check for check, _ in BROKEN} == set(CHECKS)
