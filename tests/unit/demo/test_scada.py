"""SCADA's picture follows from published messages alone, and survives nonsense."""

from __future__ import annotations

import json

import pytest

from edged.demo.accounting import Seen
from edged.demo.facts import Heard
from edged.demo.scada import Picture

ROOT = "edged/v1/demo/gw-01"


@pytest.fixture
def picture() -> Picture:
    return Picture(ROOT, labelled="condition")


def heard(branch: str, body: object, at_ns: int = 5) -> Heard:
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Heard(f"{ROOT}/{branch}", payload, False, at_ns)


def result(pipeline: str, **changes: object) -> Heard:
    body = {"id": "i-1", "device": "a-1", "pipeline": pipeline, "input": {"seq": 40}, "label": "bearing", "score": 0.9}
    return heard(f"result/a-1/{pipeline}", body | {"quality": 192} | changes)


def test_a_result_is_seen_with_its_identity_and_shown_at_its_pump(picture: Picture) -> None:
    assert picture.hear(result("condition")) == Seen("condition", "a-1", 40, "i-1", 5)
    picture.hear(result("anomaly", label=None, score=2.5))

    device = picture.devices["a-1"]
    assert (device.label, device.label_score, device.anomaly, device.results) == ("bearing", 0.9, 2.5, 2)
    assert picture.last_result_ns == 5


def test_a_failed_inference_is_a_result_but_changes_no_value(picture: Picture) -> None:
    picture.hear(result("condition"))
    assert picture.hear(result("condition", label=None, score=None, quality=0)) is not None

    assert picture.devices["a-1"].label == "bearing"
    assert picture.devices["a-1"].quality == 0
    assert picture.bad_results == 1


def test_state_mode_health_and_devices_are_the_newest_heard(picture: Picture) -> None:
    picture.hear(heard("state", {"state": "online"}))
    picture.hear(heard("mode", {"mode": "degraded", "reasons": [{"code": "lane_behind"}, "other"]}))
    picture.hear(heard("health", {"ledger": {"balanced": True}}))
    picture.hear(heard("device/a-1/state", {"state": "online"}))

    assert picture.state == "online"
    assert (picture.mode, picture.reasons) == ("degraded", ("lane_behind", "other"))
    assert picture.ledger == {"balanced": True}
    assert picture.devices["a-1"].state == "online"


def test_an_alarm_counts_once_while_it_lasts_and_again_after_it_was_cleared(picture: Picture) -> None:
    for body in ({"state": "active"}, {"state": "acknowledged"}, {"state": "cleared"}, {"state": "active"}, b""):
        picture.hear(heard("alarm/a-1/bearing", body))

    assert picture.alarms_raised == 2
    assert picture.devices["a-1"].alarms == {}


def test_gaps_and_letters_are_added_up(picture: Picture) -> None:
    picture.hear(heard("gap", {"count": 3}))
    picture.hear(heard("gap", {"count": None}))
    picture.hear(heard("dlq/bad_json", {"suppressed": 4}))

    assert (picture.gaps, picture.missing_events) == (2, 3)
    assert picture.letters == {"bad_json": 5}


@pytest.mark.parametrize(
    "message",
    [
        heard("result/a-1/condition", b"{"),
        heard("result/a-1/condition", {"id": 1}),
        heard("result/a-1/condition", [1]),
        heard("mode", {}),
        heard("health", b"\xff"),
    ],
)
def test_nonsense_is_counted_and_changes_nothing(picture: Picture, message: Heard) -> None:
    assert picture.hear(message) is None
    assert picture.unreadable == 1
    assert picture.mode == "unknown"


def test_branches_that_the_demo_does_not_show_are_passed_over(picture: Picture) -> None:
    picture.hear(heard("meta/models", {"x": 1}))
    picture.hear(heard("last/a-1/condition", {"x": 1}))
    picture.hear(heard("meta/canary", b"2"))

    assert picture.unreadable == 0
    assert picture.devices == {}
