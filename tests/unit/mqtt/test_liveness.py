"""When to ping, when to read in between, and when to give a connection up."""

from __future__ import annotations

import pytest

from edged.mqtt.liveness import Liveness, Verdict

S = 1_000_000_000
NOTHING = Verdict(ping=False, short_read=False, half_open="")


def watch(now_s: float = 100.0) -> Liveness:
    return Liveness(int(now_s * S), keep_alive_s=20, ack_timeout_s=30)


def at(alive: Liveness, now_s: float, inflight: int = 0) -> Verdict:
    return alive.verdict(int(now_s * S), inflight=inflight)


@pytest.mark.parametrize(("keep_alive_s", "tick_s"), [(1, 0.125), (4, 0.5), (15, 1.0), (3_600, 1.0)])
def test_it_is_asked_often_enough_for_short_keep_alives(keep_alive_s: int, tick_s: float) -> None:
    assert Liveness(0, keep_alive_s=keep_alive_s, ack_timeout_s=1).tick_s == tick_s


def test_a_ping_is_due_at_three_quarters_of_the_keep_alive() -> None:
    alive = watch()
    assert at(alive, 114.9) == NOTHING
    assert at(alive, 115).ping


def test_a_ping_is_due_when_we_write_and_nobody_answers() -> None:
    alive = watch()
    alive.written_ns = 115 * S
    assert at(alive, 115).ping
    alive.pinged = True
    alive.written_ns = 115 * S
    assert at(alive, 120) == NOTHING  # once is enough


def test_silence_after_a_ping_for_one_and_a_half_keep_alives_is_the_end() -> None:
    alive = watch()
    alive.pinged = True
    alive.written_ns = 120 * S
    assert at(alive, 129.9).half_open == ""
    assert at(alive, 130).half_open == "nothing came for 30.0 s, not even an answer to a ping"


def test_any_byte_after_a_ping_is_life() -> None:
    alive = watch()
    alive.pinged = True
    alive.heard(125 * S)
    alive.written_ns = 125 * S
    assert at(alive, 130) == NOTHING
    assert not alive.pinged


def test_publishes_without_acknowledgement_are_the_end_although_bytes_come() -> None:
    alive = watch()
    alive.heard(129 * S)
    alive.written_ns = 129 * S
    assert at(alive, 130, inflight=0) == NOTHING
    assert at(alive, 129.9, inflight=3) == NOTHING
    assert at(alive, 130, inflight=3).half_open == "3 publishes, no acknowledgement for 30.0 s"


def test_while_we_do_not_read_silence_is_our_own_doing_but_pings_go_out() -> None:
    alive = watch()
    alive.paused(101 * S)
    alive.pinged = True
    assert at(alive, 120.9, inflight=5) == Verdict(ping=True, short_read=False, half_open="")
    assert at(alive, 121, inflight=5) == Verdict(ping=True, short_read=True, half_open="")
    alive.written_ns = 121 * S
    assert not at(alive, 122).ping


def test_reading_again_starts_all_waiting_anew() -> None:
    alive = watch()
    alive.paused(101 * S)
    alive.pinged = True
    alive.resumed(200 * S)
    alive.written_ns = 200 * S
    assert at(alive, 210, inflight=5) == NOTHING
    assert alive.paused_ns == 0
