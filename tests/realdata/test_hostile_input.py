"""Hostile JSON and naughty strings through broker and daemon, healthy events in between: refused, counted, survived."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.doubles.daemon import ROOT
from tests.realdata import hostile
from tests.realdata.conftest import Show
from tests.realdata.replay import Plant, Result, plant, table, toml
from tests.unit.infer.models import save

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(180)]

WARM_UP = 3  # passes in which caches, a thousand new devices and the buffers for a burst reach their working size
REPETITIONS = 10
MAX_GROWTH_MB = 8.0
HEALTHY_EVERY = 5
CODES = Path(__file__).parents[2] / "docs" / "reference" / "reasons.md"
FIELD = ["x"]
VALUE = '{ kind = "regression", names = ["y"] }'


class Survived(NamedTuple):
    """What came of the first pass over the whole set, and the resident memory after each pass."""

    plant: Plant
    attacks: list[hostile.Attack]
    first: list[Result]
    status: dict[str, Any]
    memory_bytes: list[int]
    healthy: int


def identity(path: Path, width: int) -> Path:
    """Computes y = x, float32 (n, width)."""
    shape = ["n", width]
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], {"x": (TensorProto.FLOAT, shape)}, {"y": (TensorProto.FLOAT, shape)})


def one_hot(path: Path, classes: int) -> Path:
    """Scores 1 for the class whose number is x, float32 (n, 1) → (n, classes)."""
    numbers = numpy_helper.from_array(np.arange(classes, dtype=np.float32)[None, :], "numbers")
    nodes = [
        helper.make_node("Equal", ["x", "numbers"], ["same"]),
        helper.make_node("Cast", ["same"], ["y"], to=TensorProto.FLOAT),
    ]
    shapes = {"x": (TensorProto.FLOAT, ["n", 1])}, {"y": (TensorProto.FLOAT, ["n", classes])}
    return save(path, nodes, *shapes, initializer=[numbers])


class Sender:
    """The hostile set, numbered through, with a healthy event after every few."""

    def __init__(self, attacks: list[hostile.Attack]) -> None:
        self._attacks = attacks
        self.healthy = 0

    def messages(self) -> Iterator[tuple[str, bytes]]:
        for number, attack in enumerate(self._attacks):
            yield attack.numbered(number)
            if number % HEALTHY_EVERY == 0:
                self.healthy += 1
                yield (
                    "plain/healthy",
                    json.dumps({"ts": self.healthy, "seq": self.healthy, "x": -self.healthy}).encode(),
                )


@pytest.fixture(scope="module")
def survived(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Survived]:
    folder = tmp_path_factory.mktemp("hostile")
    model = identity(folder / "identity.onnx", 1)
    named = table("named", "named", model, VALUE, fields=FIELD).replace("{topic[1]}", "{payload.device}")
    attacks = hostile.attacks(shared_data)
    sender = Sender(attacks)
    with plant(folder, table("plain", "plain/+/#", model, VALUE, fields=FIELD), named) as running:
        running.publish(sender.messages())
        status = running.settled()
        first = list(running.scada.results)
        memory = [running.daemon.memory_bytes("VmRSS")]
        for _ in range(WARM_UP - 1 + REPETITIONS):
            running.publish(sender.messages())
            running.settled()
            memory.append(running.daemon.memory_bytes("VmRSS"))
        yield Survived(running, attacks, first, status, memory, sender.healthy)


def test_each_message_is_answered_or_refused_as_it_must_be(survived: Survived) -> None:
    answered = {int(result["values"]["y"]) for result in survived.first}
    wrong = [
        f"{attack.name}: {'answered' if number in answered else 'refused'}"
        for number, attack in enumerate(survived.attacks)
        if attack.fate != "either" and (number in answered) != (attack.fate == "answered")
    ]
    assert wrong == []


def test_every_refusal_is_counted_under_a_documented_reason_and_has_a_letter(survived: Survived) -> None:
    streams = survived.status["ledger"]["inputs"]
    refused = {reason: n for terms in streams.values() for reason, n in terms["refused"].items()}
    hostile_answers = sum(int(result["values"]["y"]) >= 0 for result in survived.first)
    total = sum(sum(terms["refused"].values()) for terms in streams.values())
    assert sum(terms["stored"] for terms in streams.values()) == len(survived.first)
    assert total >= len(survived.attacks) - hostile_answers  # more: each element of an array is refused by itself
    assert {terms["duplicates"] for terms in streams.values()} == {0}
    assert set(refused) <= set(re.findall(r"^\| `(\w+)`", CODES.read_text(), re.MULTILINE))
    assert {letter["reason"] for letter in survived.plant.scada.letters} == set(refused)
    bad_names = sum(attack.topic == "named" and attack.fate == "refused" for attack in survived.attacks)
    assert streams["named"]["refused"] == {"bad_device": bad_names}


def test_a_string_that_can_be_a_device_is_one_under_exactly_this_name(survived: Survived) -> None:
    devices = {number: result["device"] for result in survived.first if (number := int(result["values"]["y"])) >= 0}
    for number, attack in enumerate(survived.attacks):
        if attack.topic == "named" and attack.fate == "answered":
            name = json.loads(attack.payload.replace(b"{x}", b"0"))["device"]
            assert devices[number] == name
            assert f"{ROOT}/device/{name}/state" in survived.plant.scada.topics


def test_every_healthy_event_in_between_is_answered_well(survived: Survived) -> None:
    results = [result for result in survived.plant.scada.results if result["device"] == "healthy"]
    assert [result["input"]["seq"] for result in results] == list(range(1, survived.healthy + 1))
    assert all(result["values"] == {"y": -result["input"]["seq"]} for result in results)
    assert {(result["quality"], *result["quality_reasons"]) for result in results} == {(192,)}


def test_memory_stays_flat_over_ten_repetitions(survived: Survived, show: Show) -> None:
    passes = [size / 1e6 for size in survived.memory_bytes]
    warm = passes[WARM_UP - 1]
    growth = max(passes[WARM_UP:]) - warm
    show(
        f"hostile: {len(survived.attacks)} messages × {len(passes)}, {survived.healthy} healthy ones in between; VmRSS "
        f"{passes[0]:.1f} MB after the first pass, {warm:.1f} when warm, at most {growth:+.1f} in {REPETITIONS} more"
    )
    assert growth < MAX_GROWTH_MB


def test_the_daemon_lives_on_and_no_text_breaks_its_log(survived: Survived) -> None:
    assert survived.plant.daemon.ended is None
    log = survived.plant.daemon.log
    assert "Traceback" not in log
    assert [line for line in log.splitlines() if not re.match(r"\d{4}-\d\d-\d\dT[\d:.]+Z (info|warning) ", line)] == []


def test_naughty_strings_as_names_of_fields_labels_and_values_come_back_unchanged(
    shared_data: Path, tmp_path: Path
) -> None:
    strings = hostile.read_strings(shared_data)
    names = [text for text in strings if hostile.is_field(text)]
    labels = [text for text in strings if hostile.is_label(text)]
    assert len(names) > 200
    wide = identity(tmp_path / "wide.onnx", len(names))
    tables = [
        table("fields", "fields/+", wide, f'{{ kind = "regression", names = {toml(names)} }}', fields=names),
        table(
            "labels",
            "labels/+",
            one_hot(tmp_path / "one-hot.onnx", len(labels)),
            f'{{ kind = "classification", labels = {toml(labels)} }}',
            fields=["number"],
        ),
    ]
    row = dict(zip(names, range(len(names)), strict=True))
    messages = [("fields/all", json.dumps({"ts": 0, "seq": 0} | row).encode())]
    messages += [("labels/all", json.dumps({"ts": n, "seq": n, "number": n}).encode()) for n in range(len(labels))]
    with plant(tmp_path, *tables) as running:
        results = running.replay(messages, len(messages))
        running.quiet()
    assert [result["values"] for result in results if result["pipeline"] == "fields"] == [row]
    assert [result["label"] for result in results if result["pipeline"] == "labels"] == labels
