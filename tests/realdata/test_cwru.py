"""The bearing features of CWRU through broker and daemon: declared scaling, softmax, labels, as offline."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.realdata import cwru
from tests.realdata.conftest import Show
from tests.realdata.replay import Plant, Result, by_seq, deviation, plant, table, toml

pytestmark = pytest.mark.realdata


class Replayed(NamedTuple):
    """shares: of each class for each row, offline in double precision."""

    plant: Plant
    table: cwru.Table
    classifier: cwru.Classifier
    shares: cwru.Floats
    answers: dict[int, Result]


@pytest.fixture(scope="module")
def replayed(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replayed]:
    folder = tmp_path_factory.mktemp("cwru")
    features = cwru.read_table(shared_data)
    classifier = cwru.fit(features)
    model = folder / "bearing.onnx"
    model.write_bytes(classifier.model)
    lines = [
        f"{toml(name)} = {{ mean = {mean!r}, std = {std!r} }}"
        for name, mean, std in zip(features.fields, classifier.mean, classifier.std, strict=True)
    ]
    output = f'{{ kind = "classification", softmax = true, labels = {toml(list(classifier.labels))} }}'
    scaling = f"scaling = {{ {', '.join(lines)} }}"
    messages = (
        (
            "bearing/drive-end",
            json.dumps({"ts": row * 1000, "seq": row} | dict(zip(features.fields, values, strict=True))).encode(),
        )
        for row, values in enumerate(features.held_back.tolist())
    )
    with plant(folder, table("bearing", "bearing/+", model, output, fields=features.fields, more=scaling)) as running:
        answers = by_seq(running.replay(messages, len(features.held_back)))
        yield Replayed(running, features, classifier, cwru.expected_shares(classifier, features.held_back), answers)


def test_every_row_has_the_class_and_share_of_the_offline_classifier(replayed: Replayed, show: Show) -> None:
    answers = list(replayed.answers.values())
    best = replayed.shares.argmax(axis=1)
    assert list(replayed.answers) == list(range(len(best)))
    assert [answer["label"] for answer in answers] == [replayed.classifier.labels[index] for index in best]
    largest = deviation([answer["score"] for answer in answers], replayed.shares.max(axis=1))
    show(f"CWRU  {len(answers)} shares from the daemon, largest relative deviation from offline {largest:.1e}")
    # the logits are float32 in the model, of up to about 30: their rounding is 2e-6 of the share that exp makes of it
    assert largest <= 2e-5
    assert {answer["quality"] for answer in answers} == {192}
    replayed.plant.quiet()


def test_most_held_back_rows_are_classified_right(replayed: Replayed, show: Show) -> None:
    labels = replayed.table.held_back_labels
    right = sum(answer["label"] == label for answer, label in zip(replayed.answers.values(), labels, strict=True))
    largest = max(labels.count(label) for label in set(labels))
    show(
        f"CWRU  softmax regression: {right} of {len(labels)} right ({right / len(labels):.1%}); "
        f"always the same class: {largest / len(labels):.1%}"
    )
    assert len(labels) == 575
    assert right / len(labels) > 0.85  # a straight line per class can do no more
