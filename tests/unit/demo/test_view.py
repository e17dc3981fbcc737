"""What people and machines read of the demo: one screen, one line, one summary."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from edged.demo.accounting import Tally
from edged.demo.chaos import Damage
from edged.demo.scada import Device, Picture
from edged.demo.show import LineShow, TerminalShow
from edged.demo.summary import Summary, facts, sentences
from edged.demo.view import Screen, ledger_line, plain, render
from tests.doubles.clock import FakeClock

LEDGER = {
    "inputs": {"s": {"received": 12, "stored": 9, "duplicates": 1, "refused": {"bad_json": 2}, "shed": {}}},
    "results": {"all": {"stored": 10, "delivered": 8, "evicted": {}}},
    "balanced": True,
}


def tally(**changes: Any) -> Tally:
    base = Tally(480, 520, 520, 0, 0, 3, 0, 1.25, 9.876, 2000.0)
    return base._replace(**changes)


def picture() -> Picture:
    seen = Picture("edged/v1/demo/gw-01", "condition", state="online", mode="degraded", reasons=("lane_behind",))
    seen.devices = {
        "a-1": Device("ok", 0.99, 0.4, 192, results=80),
        "a-2": Device("bearing", 0.93, 3.2, 192, results=80, alarms={"bearing": "active"}),
        "a-3": Device(quality=0),
        "b-4": Device(state="stale"),
    }
    seen.health = {"ledger": LEDGER}
    seen.letters = Counter({"bad_json": 2})
    return seen


def screen(**changes: Any) -> Screen:
    damages = (Damage(6.0, "link_cut", 3.0, 1.5),)
    return Screen(12.3, 30.0, picture(), tally(), [1.0, 2.0, 9.0], "", damages, "running")._replace(**changes)


def drawn(shown: Screen) -> str:
    console = Console(width=120, file=io.StringIO(), record=True, force_terminal=True)
    console.print(render(shown))
    return console.export_text()


def test_a_screen_shows_what_scada_sees_and_what_the_books_say() -> None:
    text = drawn(screen())

    for expected in ("online", "degraded (lane_behind)", "bearing active", "3.20", "window is filling", "b-4 (stale)"):
        assert expected in text
    for expected in ("no trustworthy answer", "p50 2.0 ms", "p99 9.0 ms", "owed now 0", "received 12 = stored 9"):
        assert expected in text
    assert "1.5 s later every result owed had arrived" in text


def test_a_screen_says_what_is_being_broken_and_does_not_grow_with_the_plant() -> None:
    many = picture()
    many.devices = {f"p-{n:03}": Device() for n in range(200)}
    text = drawn(screen(doing="the cable to the broker is cut", picture=many, damages=()))

    assert "now: the cable to the broker is cut" in text
    assert "and 176 more" in text
    assert len(text.splitlines()) < 50


def test_a_screen_before_the_first_message_is_empty_but_whole() -> None:
    fresh = Picture("edged/v1/demo/gw-01", "condition")
    text = drawn(screen(picture=fresh, recent_ms=[], seconds=None, damages=()))

    assert "unknown" in text
    assert "p50 – ms" in text
    assert "Broken on purpose" not in text


def test_a_plain_line_has_the_same_figures() -> None:
    line = plain(screen(doing="black hole"))

    assert "online/degraded" in line
    assert "events 480" in line
    assert "alarms 1" in line
    assert line.endswith("| black hole")


def test_the_ledger_is_summed_over_its_streams_and_an_imbalance_is_shouted() -> None:
    line = ledger_line(LEDGER)

    assert (
        line == "received 12 = stored 9 + refused 2 + shed 0 + duplicates 1; results: stored 10, delivered 8, evicted 0"
    )
    assert "DO NOT BALANCE" in ledger_line({**LEDGER, "balanced": False})


def summary(**changes: Any) -> Summary:
    damages = [Damage(6.0, "link_stalled", 3.0, 0.2), Damage(18.0, "kill9", 0.0, None)]
    return Summary(30.0, tally(), picture(), LEDGER, damages, 0)._replace(**changes)


def test_the_facts_are_one_json_object_with_the_promised_keys() -> None:
    told = json.loads(json.dumps(facts(summary())))

    promised = {"events", "results", "expected_results", "ledger", "lost", "duplicates", "p50_ms", "p99_ms"}
    assert promised | {"alarms", "gaps", "mode", "chaos"} <= told.keys()
    assert (told["events"], told["p99_ms"]) == (480, 9.88)
    assert told["chaos"][1] == {"at_s": 18.0, "what": "kill9", "lasted_s": 0.0, "recovered_s": None}


@pytest.mark.parametrize("broken", [{"lost": 1}, {"duplicates": 1}, {"events": 0}])
def test_a_loss_a_duplicate_or_silence_breaks_the_promise_and_is_said(broken: dict[str, int]) -> None:
    told = summary(tally=tally(**broken))

    assert not told.kept_its_promise
    assert "BROKEN" in sentences(told)[-1]


def test_a_kept_promise_is_said_with_what_was_survived() -> None:
    told = "\n".join(sentences(summary()))

    assert "Nothing was lost." in told
    assert "link silent for 3.0 s; 0.2 s later" in told
    assert "not recovered" in told
    assert "came again with the same id" in told


def test_a_demo_that_heard_nothing_has_no_latency_to_tell() -> None:
    silent = tally(p50_ms=None, p99_ms=None, worst_ms=None, resent=0)

    assert "99 %" not in "\n".join(sentences(summary(tally=silent)))
    assert facts(summary(tally=silent))["p50_ms"] is None


def test_lines_come_every_two_seconds_and_the_last_one_is_json() -> None:
    out, clock = io.StringIO(), FakeClock()
    with LineShow(out, clock) as show:
        for _ in range(5):
            show.frame(screen)
            clock.advance_s(1)
        show.end(summary())

    lines = out.getvalue().splitlines()
    assert len([line for line in lines if "events 480" in line and "online/" in line]) == 3
    assert json.loads(lines[-1])["lost"] == 0


def test_a_terminal_is_redrawn_and_ends_with_the_sentences() -> None:
    out, clock = io.StringIO(), FakeClock()
    with TerminalShow(Console(file=out, force_terminal=True, width=100), clock) as show:
        show.frame(screen)
        show.frame(screen)
        show.end(summary())

    assert "Nothing was lost." in out.getvalue()
    assert "{" not in out.getvalue().splitlines()[-1]
