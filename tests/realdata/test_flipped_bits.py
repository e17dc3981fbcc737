"""One flipped bit of a trained network, at many places and in every runtime: it never answers unnoticed.

A bundle is refused, wherever the bit is. A plain file has no digest to be held against: the structure gives most flips
away, golden vectors some of the rest, and what still answers does so under another version, in every result.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from edged.errors import InferenceError, ModelError
from edged.infer.fixed_batch import free_batch
from edged.infer.loading import GoldenFile, ModelFile, open_model
from edged.infer.registry import find_runtime
from edged.infer.runtime import LoadOptions
from edged.infer.warmup import warm_up
from edged.ops.clock import SystemClock
from edged.policy.faults import FAULTS
from edged.ports import Model
from tests.realdata.conftest import Show

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(300)]

DIGITS, KEYWORDS = Path("onnx/mnist_8/model.onnx"), Path("tiny/kws01/kws_ref_model.tflite")
TOLERANCE = 1e-4


class Flipped(NamedTuple):
    """flips: so many, because each takes its time: LiteRT tries every new file in a process of its own."""

    rung: str
    model: Path
    flips: int

    def load(self, file: ModelFile) -> Model:
        name, _, device = self.rung.partition(":")
        return free_batch(find_runtime(name).load(file, device, LoadOptions()))


FLIPPED = (
    Flipped("onnxruntime:cpu", DIGITS, 300),
    Flipped("openvino:cpu", DIGITS, 40),
    Flipped("openvino:cpu", KEYWORDS, 25),
    Flipped("litert:cpu", KEYWORDS, 20),
)


def flips(data: bytes, count: int) -> Iterator[bytes]:
    """`data` with one bit changed, at places spread over all of it by chance, the same every time."""
    chance = np.random.default_rng(20261121)
    for position in chance.integers(0, len(data) * 8, count):
        damaged = bytearray(data)
        damaged[position // 8] ^= 1 << int(position % 8)
        yield bytes(damaged)


def inputs(model: Model, rows: int, seed: int) -> dict[str, np.ndarray]:
    (spec,) = model.info.inputs
    return {spec.name: np.random.default_rng(seed).normal(20, 40, (rows, *spec.shape[1:])).astype(np.float32)}


def answers(model: Model, given: dict[str, np.ndarray]) -> list[np.ndarray]:
    return list(model.infer(given, deadline_s=60).values())


@pytest.mark.parametrize("flipped", FLIPPED, ids=lambda each: f"{each.rung} {each.model.name}")
def test_a_flip_in_a_plain_file_is_refused_or_caught_or_harmless_or_answers_under_another_version(
    shared_data: Path, tmp_path: Path, flipped: Flipped, show: Show
) -> None:
    whole = open_model(shared_data / flipped.model, allow_unsigned=True)
    reference = flipped.load(whole)
    known, unseen = inputs(reference, 4, seed=1), inputs(reference, 20, seed=2)
    golden = tmp_path / "golden.npz"
    stored: dict[str, Any] = {f"in.{name}": array for name, array in known.items()}
    stored |= {f"out.{name}": array for name, array in reference.infer(known, deadline_s=60).items()}
    np.savez(golden, **stored)
    vectors = GoldenFile(golden, hashlib.sha256(golden.read_bytes()).hexdigest(), TOLERANCE, TOLERANCE)
    right = answers(reference, unseen)
    path = tmp_path / whole.path.name
    found, codes = Counter[str](), set[str]()
    for data in flips(whole.read(), flipped.flips):
        path.write_bytes(data)
        try:
            opened = open_model(path, allow_unsigned=True)
            model = flipped.load(opened)
        except ModelError as error:
            codes.add(error.code)
            found["refused"] += 1
            continue
        assert model.info.version == f"sha256-{hashlib.sha256(data).hexdigest()[:12]}" != reference.info.version
        noticed, code = _noticed(model, vectors, unseen, right)
        found[noticed] += 1
        codes.add(code)
        model.close()
    assert codes <= {*FAULTS, "wrong_format", "outside_bundle", ""}
    show(f"{flipped.rung} {flipped.model.name}, {flipped.flips} flipped bits: " + _counted(found))
    assert found["refused"] + found["caught by golden vectors"] >= flipped.flips // 5


def _noticed(
    model: Model, golden: GoldenFile, unseen: dict[str, np.ndarray], right: list[np.ndarray]
) -> tuple[str, str]:
    """What becomes of a damaged model that was loaded, and with which code."""
    try:
        warm_up(model, SystemClock(), golden)
        found = answers(model, unseen)
    except (ModelError, InferenceError) as error:
        return "caught by golden vectors", error.code
    close = (np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE) for a, b in zip(found, right, strict=True))
    return "harmless" if all(close) else "other answers under another version", ""


def _counted(found: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in found.most_common())


@pytest.mark.parametrize("model", [DIGITS, KEYWORDS], ids=lambda path: path.name)
def test_a_flip_in_a_bundle_is_always_refused_before_a_runtime_sees_it(
    shared_data: Path, tmp_path: Path, model: Path
) -> None:
    data = (shared_data / model).read_bytes()
    entry = {"path": model.name, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "role": "model"}
    manifest = {"v": "edged.model/1", "model_id": "m", "version": "1", "files": [entry]}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    (tmp_path / model.name).write_bytes(data)
    assert open_model(tmp_path, allow_unsigned=True).sha256 == entry["sha256"]
    for damaged in flips(data, 500):
        (tmp_path / model.name).write_bytes(damaged)
        with pytest.raises(ModelError) as caught:
            open_model(tmp_path, allow_unsigned=True)
        assert caught.value.code == "digest_mismatch"


@pytest.mark.parametrize("flipped", FLIPPED, ids=lambda each: f"{each.rung} {each.model.name}")
def test_a_bit_that_flips_between_the_check_and_the_loading_is_noticed(
    shared_data: Path, tmp_path: Path, flipped: Flipped
) -> None:
    data = (shared_data / flipped.model).read_bytes()
    path = tmp_path / flipped.model.name
    path.write_bytes(data)
    opened = open_model(path, allow_unsigned=True)
    for damaged in flips(data, 20):
        path.write_bytes(damaged)
        with pytest.raises(ModelError) as caught:
            flipped.load(opened)
        assert caught.value.code == "changed"
