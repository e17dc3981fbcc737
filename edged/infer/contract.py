"""What every runtime keeps, as checks that anybody can run: edged's own tests and those of a plug-in's author.

A check takes a `Subject` and raises `ContractBroken` with what went wrong. None needs pytest:

    @pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
    def test_it_keeps_the_contract(check, tmp_path):
        check(Subject(RUNTIME, "cpu", Path("model.onnx"), tmp_path))
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, get_args

import numpy as np

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import ModelFile, open_model
from edged.infer.runtime import Abilities, DeviceHealth, HealthState, Isolation, LoadOptions, Probe
from edged.policy.faults import FAULTS

if TYPE_CHECKING:
    from edged.infer.runtime import Runtime
    from edged.ports import Model

_DEADLINE_S = 60.0
_READING = {"changed", "io", "too_large"}  # what reading the file may answer, before the runtime
_DAMAGED = {"corrupt", "unsupported", "incompatible", "crashes", "load_failed", "not_finite"}
_ABSENT = {"device_unavailable", "runtime_unavailable"}
_TOO_LATE = {"infer_timeout", "device_busy"}
_NO_DEVICES = ("abacus", "", "gpu:99", "CPU", "auto")
_FLIPS = 24

Batch = Mapping[str, np.ndarray]


class Subject(NamedTuple):
    """What is checked: a runtime, one device of it, and a model file that it can load there.

    folder: an empty one to write to. bound: how far two answers for one input may differ, relative to the largest.
    """

    runtime: Runtime
    device: str
    model: Path
    folder: Path
    bound: float = 1e-5

    def file(self) -> ModelFile:
        """The model in the format that the runtime wants."""
        opened = open_model(self.model, allow_unsigned=True)
        return opened.form_for(self.runtime.abilities(self.device).formats)

    def load(self, file: ModelFile | None = None, device: str | None = None) -> Model:
        """Prepared and loaded, as a chain does it."""
        wanted, chosen = file or self.file(), self.device if device is None else device
        options = LoadOptions(cache=self.folder / "cache")
        if self.runtime.abilities(chosen).prepares:
            self.runtime.prepare(wanted, chosen, options)
        return self.runtime.load(wanted, chosen, options)


class ContractBroken(AssertionError):
    """A runtime does not keep what every runtime must."""


Check = Callable[[Subject], None]


def a_probe_answers_and_never_raises(subject: Subject) -> None:
    for device in (subject.device, *_NO_DEVICES):
        probe = subject.runtime.probe(device)
        _require(isinstance(probe, Probe), f"probe({device!r}) gave {probe!r}")
        if probe.usable:
            _require(bool(probe.devices) and not probe.code, f"usable without a device, or with a code: {probe}")
        else:
            _require(probe.code in FAULTS and bool(probe.reason), f"unusable without a known code or reason: {probe}")
    _require(subject.runtime.probe(subject.device).usable, "the device under test is not usable")
    _require(not subject.runtime.probe("abacus").usable, "a device that cannot exist is usable")


def abilities_are_declared_for_any_device(subject: Subject) -> None:
    for device in (subject.device, *_NO_DEVICES):
        declared = subject.runtime.abilities(device)
        _require(isinstance(declared, Abilities), f"abilities({device!r}) gave {declared!r}")
        _require(bool(declared.formats) and declared.concurrent >= 1, f"neither formats nor calls: {declared}")
        _require(declared.isolation in get_args(Isolation), f"expected {get_args(Isolation)}, got {declared}")


def health_is_said_and_never_raised(subject: Subject) -> None:
    for device in (subject.device, *_NO_DEVICES):
        health = subject.runtime.health(device)
        _require(isinstance(health, DeviceHealth), f"health({device!r}) gave {health!r}")
        _require(health.state in get_args(HealthState), f"expected one of {get_args(HealthState)}, got {health}")


def what_it_loads_says_what_it_is(subject: Subject) -> None:
    with _loaded(subject) as model:
        info, file = model.info, subject.file()
        _require(info.runtime == f"{subject.runtime.name}:{subject.device}", f"{info.runtime} is not the rung")
        _require((info.model, info.version, info.sha256) == (file.model_id, file.version, file.sha256), f"{info}")
        for spec in (*info.inputs, *info.outputs):
            _require(all(axis >= -1 for axis in spec.shape) and bool(np.dtype(spec.dtype).name), f"{spec}")
        answer = model.infer(_inputs(model, 1), deadline_s=_DEADLINE_S)
        _require(list(answer) == [spec.name for spec in info.outputs], f"{list(answer)} against {info.outputs}")
        for spec in info.outputs:
            found = answer[spec.name]
            fits = len(found.shape) == len(spec.shape) and all(
                axis in (-1, size) for axis, size in zip(spec.shape, found.shape, strict=True)
            )
            _require(found.dtype == np.dtype(spec.dtype) and fits, f"{found.dtype} {found.shape} against {spec}")


def other_formats_are_incompatible(subject: Subject) -> None:
    file = subject.file()
    for other in {"onnx", "tflite", "hieroglyphs"} - set(subject.runtime.abilities(subject.device).formats):
        _refused(subject, file._replace(format=other), codes={"incompatible"})


def a_device_that_is_not_there_is_refused_and_never_replaced(subject: Subject) -> None:
    for device in _NO_DEVICES:
        if not subject.runtime.probe(device).usable:
            _refused(subject, subject.file(), device, codes=_ABSENT)


def bytes_that_changed_since_the_check_are_not_loaded(subject: Subject) -> None:
    data = bytearray(subject.file().read())
    file = _written(subject, bytes(data))
    data[len(data) // 2] ^= 1
    file.path.write_bytes(data)
    _refused(subject, file, codes=_READING)


def a_truncated_model_is_refused(subject: Subject) -> None:
    data = subject.file().read()
    for share in (0.3, 0.6, 0.9):
        _refused(subject, _written(subject, data[: int(len(data) * share)]), codes=_DAMAGED)


def a_damaged_model_is_refused_or_answers_and_nothing_else_happens(subject: Subject) -> None:
    """Bits all over the file. Whether an answer is right, golden vectors decide; here nothing may crash or leak."""
    data = subject.file().read()
    with _loaded(subject) as whole:
        batch = _inputs(whole, 1)
    for flip in range(_FLIPS):
        damaged = bytearray(data)
        position = (2 * flip + 1) * len(data) * 8 // (2 * _FLIPS)
        damaged[position // 8] ^= 1 << position % 8
        try:
            model = subject.load(_written(subject, bytes(damaged)))
        except ModelError as error:
            _known(error)
            continue
        try:
            model.infer(batch, deadline_s=_DEADLINE_S)
        except InferenceError as error:
            _known(error)
        finally:
            model.close()


def a_batch_is_answered_as_its_rows_are_alone(subject: Subject) -> None:
    with _loaded(subject) as model:
        whole = free_batch(model)
        batch = _inputs(whole, 5)
        together = whole.infer(batch, deadline_s=_DEADLINE_S)
        for row in range(5):
            alone = whole.infer({name: array[row : row + 1] for name, array in batch.items()}, deadline_s=_DEADLINE_S)
            for name, array in alone.items():
                _same(array, together[name][row : row + 1], subject.bound, f"row {row} of {name}")


def the_same_input_gets_the_same_answer_whatever_came_between(subject: Subject) -> None:
    with _loaded(subject) as model:
        first, other = _inputs(model, 1), _inputs(model, 1, seed=2)
        before = _copied(model.infer(first, deadline_s=_DEADLINE_S))
        model.infer(other, deadline_s=_DEADLINE_S)
        after = model.infer(first, deadline_s=_DEADLINE_S)
        for name, array in before.items():
            _same(array, after[name], subject.bound, name)


def an_answer_shares_no_memory_with_inputs_or_other_answers(subject: Subject) -> None:
    with _loaded(subject) as model:
        batch = _inputs(model, 1)
        given = _copied(batch)
        answer = model.infer(batch, deadline_s=_DEADLINE_S)
        kept = _copied(answer)
        later = model.infer(_inputs(model, 1, seed=2), deadline_s=_DEADLINE_S)
        for name, array in answer.items():
            _require(np.array_equal(array, kept[name], equal_nan=True), f"{name} changed when the next answer came")
            _require(not np.shares_memory(array, later[name]), f"{name} lies where the next answer does")
            for input_name, inputs in batch.items():
                _require(not np.shares_memory(array, inputs), f"{name} lies where the input {input_name} does")
        for name, array in given.items():
            _require(np.array_equal(array, batch[name]), f"the input {name} was written to")


def inputs_are_read_wherever_they_lie(subject: Subject) -> None:
    with _loaded(subject) as model:
        batch = _inputs(model, 1)
        expected = _copied(model.infer(batch, deadline_s=_DEADLINE_S))
        spread, fixed = {}, _copied(batch)
        for name, array in batch.items():
            spread[name] = np.repeat(array, 2, axis=-1)[..., ::2] if array.ndim else array
            fixed[name].flags.writeable = False
        for other in (spread, fixed):
            for name, array in model.infer(other, deadline_s=_DEADLINE_S).items():
                _same(array, expected[name], subject.bound, name)


def a_batch_that_does_not_fit_is_invalid_and_the_model_goes_on(subject: Subject) -> None:
    with _loaded(subject) as model:
        good = _inputs(model, 1)
        name, array = next(iter(good.items()))
        other = np.float64 if array.dtype != np.float64 else np.float32
        for misfit in (
            {},
            {**good, "no such input": array},
            {**good, name: array.astype(other)},
            {**good, name: array[None]},
        ):
            try:
                model.infer(misfit, deadline_s=_DEADLINE_S)
            except InferenceError as error:
                _known(error)
                _require(error.code == "invalid_input", f"expected invalid_input, got {error.code}")
            else:
                raise ContractBroken(f"a batch that does not fit was answered: {sorted(misfit)}")
            model.infer(good, deadline_s=_DEADLINE_S)


def a_deadline_ends_a_call_or_changes_nothing(subject: Subject) -> None:
    with _loaded(subject) as model:
        batch = _inputs(model, 1)
        expected = _copied(model.infer(batch, deadline_s=_DEADLINE_S))
        try:
            answer = model.infer(batch, deadline_s=0.0)
        except InferenceError as error:
            _known(error)
            _require(error.code in _TOO_LATE, f"expected one of {sorted(_TOO_LATE)}, got {error.code}")
            return
        for name, array in answer.items():
            _same(array, expected[name], subject.bound, name)


def closing_is_idempotent_and_leaves_other_models_alone(subject: Subject) -> None:
    with _loaded(subject) as other:
        model = subject.load()
        batch = _inputs(model, 1)
        model.close()
        model.close()
        try:
            model.infer(batch, deadline_s=_DEADLINE_S)
        except InferenceError as error:
            _known(error)
            _require(error.code == "closed", f"expected closed, got {error.code}")
        else:
            raise ContractBroken("a closed model answered")
        other.infer(batch, deadline_s=_DEADLINE_S)


def as_many_calls_as_declared_may_run_at_once(subject: Subject) -> None:
    """On one model as many as it declares; on two models always two, as two pipelines do."""
    calls = subject.runtime.abilities(subject.device).concurrent
    with _loaded(subject) as first, _loaded(subject) as second:
        batches = [_inputs(first, 1, seed) for seed in range(calls + 1)]
        expected = [_copied(first.infer(batch, deadline_s=_DEADLINE_S)) for batch in batches]

        def call(caller: int) -> None:
            model = second if caller == calls else first
            for _ in range(20):
                for name, array in model.infer(batches[caller], deadline_s=_DEADLINE_S).items():
                    _same(array, expected[caller][name], subject.bound, f"{name} in a thread")

        with ThreadPoolExecutor(calls + 1) as pool:
            for done in [pool.submit(call, caller) for caller in range(calls + 1)]:
                done.result()


def preparing_twice_is_harmless(subject: Subject) -> None:
    options = LoadOptions(cache=subject.folder / "cache")
    for _ in range(2):
        subject.runtime.prepare(subject.file(), subject.device, options)
    with _loaded(subject) as model:
        model.infer(_inputs(model, 1), deadline_s=_DEADLINE_S)


CHECKS: tuple[Check, ...] = (
    a_probe_answers_and_never_raises,
    abilities_are_declared_for_any_device,
    health_is_said_and_never_raised,
    what_it_loads_says_what_it_is,
    other_formats_are_incompatible,
    a_device_that_is_not_there_is_refused_and_never_replaced,
    bytes_that_changed_since_the_check_are_not_loaded,
    a_truncated_model_is_refused,
    a_damaged_model_is_refused_or_answers_and_nothing_else_happens,
    a_batch_is_answered_as_its_rows_are_alone,
    the_same_input_gets_the_same_answer_whatever_came_between,
    an_answer_shares_no_memory_with_inputs_or_other_answers,
    inputs_are_read_wherever_they_lie,
    a_batch_that_does_not_fit_is_invalid_and_the_model_goes_on,
    a_deadline_ends_a_call_or_changes_nothing,
    closing_is_idempotent_and_leaves_other_models_alone,
    as_many_calls_as_declared_may_run_at_once,
    preparing_twice_is_harmless,
)


def _require(kept: bool, what: str) -> None:
    if not kept:
        raise ContractBroken(what)


def _same(found: np.ndarray, expected: np.ndarray, bound: float, what: str) -> None:
    """Equal within `bound` of the largest number; NaN equals NaN."""
    _require(found.shape == expected.shape, f"{what}: expected the shape {expected.shape}, got {found.shape}")
    finite = np.abs(expected[np.isfinite(expected)]) if expected.dtype.kind == "f" else np.abs(expected)
    scale = float(finite.max()) if finite.size else 0.0
    close = np.allclose(found, expected, rtol=bound, atol=bound * max(scale, 1e-30), equal_nan=True)
    _require(close, f"{what}: two answers for one input")


def _copied(arrays: Batch) -> dict[str, np.ndarray]:
    return {name: array.copy() for name, array in arrays.items()}


def _inputs(model: Model, rows: int, seed: int = 1) -> dict[str, np.ndarray]:
    """Numbers between 0 and 1, or small integers, of the shapes that the model takes."""
    chance = np.random.default_rng(seed)
    made: dict[str, np.ndarray] = {}
    for spec in model.info.inputs:
        first, *rest = spec.shape or (1,)
        shape = (rows if first < 0 else first, *(8 if axis < 0 else axis for axis in rest))
        dtype = np.dtype(spec.dtype)
        made[spec.name] = chance.random(shape).astype(dtype) if dtype.kind == "f" else np.ones(shape, dtype)
    return made


@contextmanager
def _loaded(subject: Subject) -> Iterator[Model]:
    model = subject.load()
    try:
        yield model
    finally:
        model.close()


def _written(subject: Subject, data: bytes) -> ModelFile:
    """Other bytes under the same description, as if they had been checked."""
    path = subject.folder / f"contract{subject.file().path.suffix}"
    path.write_bytes(data)
    file = subject.file()
    return file._replace(path=path, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data))


def _refused(subject: Subject, file: ModelFile, device: str | None = None, *, codes: set[str]) -> None:
    try:
        subject.load(file, device).close()
    except ModelError as error:
        _known(error)
        _require(error.code in codes, f"expected one of {sorted(codes)}, got {error.code}: {error}")
    else:
        raise ContractBroken(f"loaded {file.format} {file.path.name} on {device or subject.device}")


def _known(error: ModelError | InferenceError) -> None:
    """Its code is in the table of faults, and it survives the way from one process to another."""
    _require(error.code in FAULTS or error.code in _READING, f"no row in edged.policy.faults for {error.code!r}")
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes, made this moment
    kept = [(each.code, each.message, each.hint, each.retryable) for each in (error, copy)]
    _require(type(copy) is type(error) and kept[0] == kept[1], f"{error!r} does not survive pickling")
