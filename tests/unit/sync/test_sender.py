"""The sender in simulated worlds: whatever link and hub do, every number comes home, alarms first, memory bounded."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edged.errors import BugError
from edged.sync.dispatch import SHELF_S, Rules
from edged.sync.effects import Look, Read, SayHello, Sealed, Send
from edged.sync.pacing import BATCH_MAX_BYTES, BATCH_MIN_BYTES
from edged.sync.protocol import RANGES_MAX, Ack, Cursor, Fork, HelloAck, Stream, StreamExtent
from edged.sync.ranges import count, normalise
from edged.sync.sender import Sender
from tests.unit.sync.simulated import GATEWAY, HUB, INSTANCE, MS, SITE, Hub, S, Store, Weather, World

M = TypeVar("M", Ack, HelloAck)


def world(*, results: int = 0, alarms: int = 0, weather: Weather | None = None, **rules: Any) -> World:
    store = Store()
    for stream, rows in (("alarm", alarms), ("result", results), ("health", 0)):
        store.make(stream, rows)  # type: ignore[arg-type]
    return World(store, Hub(), weather or Weather(), **rules)


def sent_streams(w: World) -> list[Stream]:
    return [stream for _, stream, _ in w.sent]


def active(w: World) -> set[str]:
    found: set[str] = set()
    for code, on, _ in w.raised:
        (found.add if on else found.discard)(code)
    return found


def altered(message: M, **fields: object) -> M:
    return msgspec.structs.replace(message, **fields)


# --- every number, once -----------------------------------------------------------------------------------------

FAULTS = st.sampled_from(["calm", "lossy", "deaf", "slow hub", "rejecting", "cut", "foreign", "crawl"])


def _weather(kind: str, chance: random.Random) -> Weather:
    match kind:
        case "lossy":
            return Weather(rate=50_000, lose=0.3, lose_answer=0.3, repeat=0.3, jitter_ns=900 * MS)
        case "deaf":
            return Weather(lose_answer=1.0)
        case "slow hub":
            return Weather(verdict=lambda *_: ("retry", "database_slow", 700) if chance.random() < 0.7 else None)
        case "rejecting":
            return Weather(verdict=lambda *_: ("reject", "bad_body", 0) if chance.random() < 0.2 else None)
        case "foreign":
            return Weather(foreign=0.5, repeat=0.5)
        case "crawl":
            return Weather(rate=2_000, delay_ns=2 * S)
        case _:
            return Weather()


@settings(max_examples=60)
@given(st.integers(0, 1_000_000), st.lists(FAULTS, min_size=1, max_size=6), st.sampled_from([2, 3, 4, 8]))
def test_whatever_happens_on_the_way_every_number_is_home_exactly_once(
    seed: int, faults: list[str], window: int
) -> None:
    chance = random.Random(seed)
    w = world(results=2_000, alarms=3, seed=seed, window=window, rate_limit_bytes_s=32_000.0)
    w.up()
    for fault in faults:
        w.weather = _weather(fault, chance)
        if fault == "cut":
            w.down()
            w.run(chance.random() * 5)
            w.up()
        for _ in range(chance.randrange(4)):
            w.make(chance.choice(["alarm", "result", "health"]), chance.randrange(1, 40))
            w.run(chance.random() * 20)
    w.weather = Weather()

    assert w.run(20_000, w.all_home), w.sender.standing()

    made = sum(extent.next - extent.base for extent in w.store.extents)
    assert sum(map(count, w.hub.home.values())) == made
    assert set(w.hub.writes.values()) == {1}
    assert {stream: count(home) for stream, home in w.home.items() if home} == {
        extent.stream: extent.next - 1 for extent in w.store.extents if extent.next > 1
    }
    assert w.most_in_flight <= window
    assert w.most_bytes <= window * BATCH_MAX_BYTES
    assert w.hub.most_ranges <= RANGES_MAX


def test_the_past_goes_oldest_first_and_in_full_windows() -> None:
    w = world(results=5_000, weather=Weather(rate=100_000, delay_ns=50 * MS), rate_limit_bytes_s=50_000.0)
    w.up()

    assert w.run(60, w.all_home)

    firsts = [batch.first for _, _, batch in w.sent]
    assert firsts == sorted(firsts)
    assert w.hub.most_ranges == 0
    assert w.sender.counts.resends == 0


def test_nothing_is_sent_before_hello_is_answered_and_hello_is_repeated_until_then() -> None:
    w = world(results=100, weather=Weather(lose=1.0))
    w.up()
    w.run(60)
    assert w.sent == []
    assert 3 <= w.sender.counts.hellos <= 8
    assert "upstream_away" in active(w)

    w.weather = Weather()

    assert w.run(60, w.all_home)
    assert active(w) == set()


def test_what_the_hub_has_already_is_not_sent() -> None:
    w = world(results=1_000)
    w.hub.home["e1", "result"] = ((1, 400), (500, 999))
    w.hub.base["e1", "result"] = 1
    w.up()

    assert w.run(30, w.all_home)

    sent = normalise((batch.first, batch.last) for _, _, batch in w.sent)
    assert sent == ((401, 499), (1000, 1000))
    assert w.home["result"] == ((1, 1000),)


def test_numbers_go_on_in_a_new_epoch_and_gaps_between_epochs_do_not_exist() -> None:
    w = world(results=100)
    w.store.extents += [StreamExtent("e2", "result", 150, 200)]
    w.up()

    assert w.run(30, w.all_home)

    assert w.hub.home == {("e1", "result"): ((1, 100),), ("e2", "result"): ((150, 199),)}
    assert w.sender.standing().lag["result"] == 0


# --- order ------------------------------------------------------------------------------------------------------


def test_an_alarm_overtakes_the_backlog_even_with_a_full_window_and_an_empty_bucket() -> None:
    w = world(results=1_000_000, weather=Weather(rate=32_000, delay_ns=40 * MS), rate_limit_bytes_s=32_000.0)
    w.up()
    w.run(30)
    waits = []
    for _ in range(40):
        w.run(w.random.random())
        w.make("alarm", 1)
        made, number = w.now, w.store.extents[-1].next - 1
        assert w.run(5, lambda n=number: ("alarm", n) in w.hub.arrived_ns)  # type: ignore[misc]
        waits.append((w.hub.arrived_ns["alarm", number] - made) / S)

    assert max(waits) < 0.5
    assert w.sender.counts.batches > 100


def test_alarms_of_the_time_without_a_link_go_first_and_do_not_wait_for_the_fleet() -> None:
    w = world(results=5_000, alarms=50, reconnect_spread_s=1000.0, rate_limit_bytes_s=32_000.0)
    w.up()
    w.run(2)
    w.make("result", 5)
    w.run(2)

    streams = sent_streams(w)
    assert streams == sorted(streams)  # alarm, result
    assert w.sent[-1][2].first == 5_001
    assert w.sender.standing().lag == {"alarm": 0, "result": 5_000, "health": 0}

    assert w.run(1000, w.all_home)


def test_live_rows_gather_for_the_interval_and_go_before_the_past() -> None:
    w = world(results=200_000, weather=Weather(rate=32_000), rate_limit_bytes_s=32_000.0)
    w.up()
    w.run(20)
    before = len(w.sent)
    for _ in range(50):
        w.make("result", 1)
        w.run(0.1)
    w.run(2)

    live = [batch for _, _, batch in w.sent[before:] if batch.first > 200_000]
    assert 3 <= len(live) <= 8
    assert live[-1].last == 200_050


def test_live_rows_leave_the_backlog_its_part_and_become_backlog_when_they_wait_too_long() -> None:
    w = world(results=100_000, weather=Weather(rate=10_000), rate_limit_bytes_s=8_000.0)
    w.up()
    w.run(5)
    before = w.hub.home["e1", "result"][0][1]
    for _ in range(900):
        w.make("result", 150)  # more than the link carries
        w.run(0.1)

    upto, beyond = w.hub.home["e1", "result"][0][1], w.hub.home["e1", "result"][1:]
    past_rows, live_rows = upto - before, count(beyond)
    assert 0.2 < past_rows / (past_rows + live_rows) < 0.45
    assert w.sender.counts.fallbacks >= 1
    assert len(beyond) >= 2


def test_no_live_range_is_begun_when_the_receiver_could_not_remember_it() -> None:
    w = world(results=10_000)
    w.hub.home["e1", "result"] = tuple((10 + 100 * i, 20 + 100 * i) for i in range(RANGES_MAX))
    w.hub.base["e1", "result"] = 1
    w.weather = Weather(rate=20_000)
    w.sender = Sender(w.sender._rules._replace(rate_limit_bytes_s=10_000.0), w.random.random)
    w.up()
    w.run(0.1)
    w.make("result", 50)

    assert w.run(200, w.all_home)

    assert w.hub.most_ranges <= RANGES_MAX
    assert [batch.first for _, _, batch in w.sent][:2] == [1, 21]


# --- the link ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kbit", "limit_kbit"), [(64, 10_000), (256, 10_000), (2_000, 1_000_000)])
def test_a_queue_on_a_slow_link_is_noticed_and_kept_short(kbit: int, limit_kbit: int) -> None:
    w = world(
        results=2_000_000, weather=Weather(rate=kbit * 125, delay_ns=30 * MS), rate_limit_bytes_s=limit_kbit * 125
    )
    w.up()
    w.run(20)
    queues = []
    for _ in range(300):
        w.run(0.2)
        queues.append(max(0, w._free_ns - w.now) / S)

    assert sum(queues) / len(queues) < 0.3
    assert max(queues) < 1.0
    assert w.sender.standing().slowdowns > 0
    carried = w.sender.counts.bytes / 80 / (kbit * 125)
    assert carried > 0.7


def test_batches_start_small_and_grow_to_the_bound_where_the_link_lets_them() -> None:
    w = world(results=3_000_000, weather=Weather(rate=1e9, delay_ns=0, hub_row_ns=0), window=4)
    w.up()
    assert w.run(60, w.all_home)

    sizes = [len(batch.payload) for _, _, batch in w.sent]
    assert sizes[0] <= BATCH_MIN_BYTES
    assert max(sizes) > BATCH_MAX_BYTES / 2
    assert max(sizes) <= 2 * BATCH_MAX_BYTES


def test_rows_that_are_larger_than_thought_are_read_again_in_smaller_batches() -> None:
    w = world(results=3_000, rate_limit_bytes_s=32_000.0)
    w.store.row_bytes = 2_000
    w.up()

    assert w.run(2_000, w.all_home)

    assert w.sender.counts.shrunk >= 1
    assert max(len(batch.payload) for _, _, batch in w.sent) <= 32_000


def test_a_link_that_takes_only_small_packets_gets_small_packets() -> None:
    w = world(results=30_000)
    w.act(w.sender.link_up(w.now, 5_000))

    assert w.run(300, w.all_home)

    assert max(len(batch.payload) for _, _, batch in w.sent) <= 5_000


def test_what_the_link_refuses_as_too_large_is_halved_and_a_single_row_given_up() -> None:
    w = world(results=100)
    w.store.row_bytes = 100
    w.up()
    w.run(0.05)
    order = next(key for key in w._batches)
    rows = w._batches[order].last
    assert rows > 1
    w.act(w.sender.unsendable(w.now, order, "packet_too_large"))
    w.run(0.05)
    assert w.sent[-1][2].last - w.sent[-1][2].first + 1 <= rows // 2

    alone = world(results=1)
    alone.weather = Weather(lose=0.0, lose_answer=0.0, verdict=lambda *_: ("retry", "busy", 1000))
    alone.up()
    alone.run(0.05)
    (key,) = alone._batches
    alone.act(alone.sender.unsendable(alone.now, key, "packet_too_large"))
    assert [(given.first, given.last, given.reason) for given in alone.given_up] == [(1, 1, "too_large")]


def test_a_denied_publish_is_said_aloud_and_tried_again() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    w.up()
    w.act(w.sender.unsendable(w.now, 1, "not_authorized"))  # the hello
    assert "upstream_refused" in active(w)
    w.weather = Weather()
    w.run(30, lambda: bool(w.sent))
    (key,) = w._batches
    w.act(w.sender.unsendable(w.now, key, "not_authorized"))

    assert w.run(60, w.all_home)
    assert active(w) == set()


def test_a_cut_link_forgets_what_was_on_its_way_and_reads_it_again() -> None:
    w = world(results=1_000, weather=Weather(lose_answer=0.0, rate=20_000), rate_limit_bytes_s=20_000.0)
    w.up()
    w.run(0.5, lambda: bool(w.sent))
    w.down("pulled")
    assert w.sender.standing()[:1] == ("away",)
    assert w.sender.standing().in_flight == 0
    assert "upstream_away" in active(w)
    w.run(10)
    sent = len(w.sent)
    w.run(10)
    assert len(w.sent) == sent
    w.up()

    assert w.run(60, w.all_home)
    assert set(w.hub.writes.values()) == {1}


# --- the hub ----------------------------------------------------------------------------------------------------


def test_a_batch_without_an_answer_is_sent_again_with_the_same_bytes() -> None:
    w = world(results=10)
    w.up()
    w.run(0.011)
    w.weather = Weather(lose=1.0)
    w.run(1, lambda: bool(w.sent))
    w.weather = Weather()
    for _ in range(4):
        w.run(9)
        w.make("alarm", 1)  # somebody answers, only this batch was lost

    assert w.run(60, w.all_home)
    mine = [batch for _, stream, batch in w.sent if stream == "result"]
    assert len(mine) == 2
    assert mine[0] is mine[1]
    assert w.sender.counts.timeouts == 1


def test_when_nobody_answers_any_more_hello_asks_who_is_there_and_the_rest_is_sent_again() -> None:
    w = world(results=1_000, weather=Weather(rate=50_000), rate_limit_bytes_s=50_000.0)
    w.up()
    w.run(0.1, lambda: bool(w.sent))
    w.weather = Weather(lose=1.0)
    w.run(100)
    assert w.sender.standing().state == "greeting"
    assert "upstream_away" in active(w)
    w.weather = Weather()

    assert w.run(40, w.all_home)
    assert active(w) == set()


def test_a_batch_that_never_gets_through_while_others_do_is_cut_into_smaller_ones() -> None:
    w = world(results=2_000, rate_limit_bytes_s=100_000.0)
    w.store.row_bytes = 20
    swallowed = []
    honest = w.hub.commit

    def commit(stream: Stream, batch: Sealed, base: int, now_ns: int) -> Ack:
        if len(batch.payload) > 1_500:
            swallowed.append(batch)
            return altered(w.hub.ack(stream, batch, "ok"), v="unheard of")
        return honest(stream, batch, base, now_ns)

    w.hub.commit = commit  # type: ignore[method-assign]
    w.up()

    assert w.run(10_000, w.all_home)
    assert swallowed
    assert w.sender.counts.shrunk >= 1


def test_a_hub_that_asks_for_time_gets_it_and_then_one_batch_at_a_time() -> None:
    w = world(results=5_000, weather=Weather(rate=20_000), rate_limit_bytes_s=20_000.0)
    w.weather.verdict = lambda *_: ("retry", "database_away", 4_000)
    w.up()
    w.run(1)
    w.run(30)
    assert "upstream_slow" in active(w)
    times = [when for when, _, _ in w.sent]
    assert min(b - a for a, b in pairwise(times[3:])) >= 4 * S
    w.weather.verdict = lambda *_: None

    assert w.run(60, w.all_home)
    assert active(w) == set()


def test_an_alarm_does_not_wait_for_a_hub_that_asks_for_time() -> None:
    w = world(results=5_000, weather=Weather(verdict=lambda b, s: ("retry", "busy", 60_000) if s == "result" else None))
    w.up()
    w.run(2)
    w.make("alarm", 1)

    assert w.run(1, lambda: w.sender.standing().lag["alarm"] == 0)
    assert w.sender.standing().lag["result"] == 5_000


def test_a_rejected_batch_is_given_up_and_the_line_moves_on() -> None:
    w = world(results=5_000, rate_limit_bytes_s=50_000.0)
    w.weather = Weather(verdict=lambda b, s: ("reject", "bad_body", 0) if b.first == 1 and not b.lost else None)
    w.up()
    assert w.run(60, w.all_home)

    (given,) = w.given_up
    assert (given.stream, given.first, given.reason, given.tombstone) == ("result", 1, "bad_body", True)
    lost = [batch for _, _, batch in w.sent if batch.lost]
    assert [(batch.first, batch.last) for batch in lost] == [(1, given.last)]
    assert w.sender.counts.given_up == given.last
    w.make("result", 1)
    assert w.run(5, w.all_home)
    assert active(w) == set()


def test_rows_behind_a_refused_batch_do_not_wait_for_its_tombstone() -> None:
    w = world(results=500)
    w.confirms_tombstones = False
    w.weather = Weather(verdict=lambda b, s: ("reject", "bad_checksum", 0) if b.first == 1 else None)
    w.up()
    w.run(10)

    assert w.sender.standing().lag["result"] == w.given_up[0].last
    assert "upstream_rejecting" in active(w)


def test_a_refused_tombstone_is_left_alone_for_an_hour_or_until_the_next_hello() -> None:
    w = world(results=500)
    w.store.tombstones["result"] = ((1, 60),)
    w.weather = Weather(verdict=lambda b, s: ("reject", "bad_body", 0) if b.lost else None)
    w.up()
    w.run(10)

    assert w.sender.standing().lag["result"] == 60
    assert [given.tombstone for given in w.given_up] == [False]
    w.run(SHELF_S)
    assert [given.tombstone for given in w.given_up] == [False, False]

    w.down()
    w.weather = Weather()
    w.up()
    assert w.run(10, w.all_home)


def test_a_hub_that_refuses_everything_does_not_make_us_give_up_everything() -> None:
    w = world(results=100_000, rate_limit_bytes_s=100_000.0)
    w.weather = Weather(verdict=lambda *_: ("reject", "bad_body", 0))
    w.up()
    w.run(3600)

    assert len(w.given_up) <= 15
    w.weather = Weather()
    assert w.run(7_200, w.all_home)


def test_a_stream_that_the_hub_never_takes_is_not_given_up_because_others_and_tombstones_are_fine() -> None:
    w = world(results=100_000, rate_limit_bytes_s=100_000.0)
    w.weather = Weather(verdict=lambda b, s: ("reject", "bad_body", 0) if s == "result" and not b.lost else None)
    w.up()
    for _ in range(360):
        w.make("alarm", 1)
        w.run(10)

    assert len(w.given_up) <= 12
    assert w.sender.standing().lag["alarm"] == 0
    w.weather = Weather()
    assert w.run(7_200, w.all_home)


@pytest.mark.parametrize("reason", ["foreign_gateway", "bad_header"])
def test_a_hub_that_does_not_know_us_is_asked_again_much_later_and_costs_no_row(reason: str) -> None:
    w = world(results=1_000)
    w.weather = Weather(verdict=lambda *_: ("reject", reason, 0))
    w.up()
    w.run(50)
    assert w.given_up == []
    assert "upstream_refused" in active(w)
    assert w.sender.counts.hellos == 1
    w.weather = Weather(hello_verdict=lambda: ("reject", reason, 0))
    w.run(600)
    assert w.sender.counts.hellos <= 6
    w.weather = Weather()

    assert w.run(7_200, w.all_home)
    assert active(w) == set()


def test_a_hub_that_cannot_greet_now_is_asked_when_it_said() -> None:
    w = world(results=10)
    w.weather = Weather(hello_verdict=lambda: ("retry", "database_away", 20_000))
    w.up()
    w.run(15)
    assert w.sender.counts.hellos == 1
    assert active(w) == {"upstream_slow"}
    w.weather = Weather()

    assert w.run(30, w.all_home)
    assert active(w) == set()


def test_the_first_receiver_stays_the_receiver_and_another_one_is_ignored_and_reported() -> None:
    w = world(results=5_000, weather=Weather(foreign=1.0, rate=20_000), rate_limit_bytes_s=20_000.0)
    w.up()
    assert w.run(60, w.all_home)

    assert w.sender.receiver == HUB
    assert count(w.hub.home["e1", "result"]) == 5_000
    assert "receiver_foreign" in active(w)
    assert w.sender.counts.foreign > 0

    w.weather = Weather()
    for _ in range(7):
        w.run(100)
        w.make("result", 1)
        w.run(2)
    assert active(w) == set()


def test_a_named_receiver_is_waited_for() -> None:
    w = world(results=10, receiver="the right one")
    w.up()
    w.run(30)
    assert w.sent == []
    assert {"receiver_foreign", "upstream_away"} <= active(w)

    w.hub.receiver = "the right one"
    assert w.run(60, w.all_home)


def test_another_history_under_our_numbers_stops_the_sender_for_good() -> None:
    w = world(results=100)
    w.weather = Weather(lose=1.0)
    w.up()
    answer = w.hub.hello(forks=(Fork("e1", 51),))
    w.act(w.sender.welcomed(w.now, answer))

    assert [(parted.epoch, parted.seq) for parted in w.parted] == [("e1", 51)]
    w.weather = Weather()
    w.down()
    w.up()
    w.act(w.sender.answered(w.now, w.hub.commit("result", Sealed("e1", 1, 5, False, b"x"), 1, w.now)))
    w.run(60)
    assert w.sent == []
    assert w.sender.standing().state == "halted"
    assert w.home == {}


def test_answers_for_others_and_about_unknown_things_change_nothing() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    fine = w.hub.ack("result", Sealed("e1", 1, 5, False, b""), "ok", upto=5)
    w.act(w.sender.answered(w.now, fine))  # before any hello: whose answer is it?
    w.up()
    w.act(w.sender.welcomed(w.now, w.hub.hello()))
    w.run(1, lambda: bool(w.sent))

    for name, value in (("site", "x"), ("gateway", "x"), ("v", "x"), ("epoch", "x"), ("stream", "telemetry")):
        w.act(w.sender.answered(w.now, altered(fine, **{name: value})))
    w.act(w.sender.welcomed(w.now, altered(w.hub.hello(), instance="x")))

    assert w.home == {}
    assert w.sender.counts.strange == 6
    w.act(w.sender.answered(w.now, fine))
    assert w.home == {"result": ((1, 5),)}


def test_a_cursor_of_an_unknown_epoch_is_not_ours() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    w.up()
    cursors = (Cursor("nobody's", "result", 10), Cursor("e1", "result", 3, ((5, 6),)), Cursor("e1", "telemetry", 3))
    w.act(w.sender.welcomed(w.now, altered(w.hub.hello(), cursors=cursors)))

    assert w.home == {"result": ((1, 3), (5, 6))}


# --- the store --------------------------------------------------------------------------------------------------


def test_news_that_overtake_the_rows_are_asked_for_again() -> None:
    w = world()
    w.up()
    w.run(1)
    w.act(w.sender.made(w.now, {"alarm": 2}))  # not there yet
    w.run(0.2)
    assert w.sent == []
    w.store.make("alarm", 1, w.now)

    assert w.run(1, w.all_home)


def test_a_stream_that_is_not_known_yet_is_looked_up() -> None:
    sender = Sender(Rules(SITE, GATEWAY, INSTANCE, ("alarm",)), lambda: 0.0)

    assert sender.made(S, {"alarm": 1}) == []
    assert sender.made(S, {"alarm": 2, "result": 5}) == [Look()]
    sender.moved(S, [StreamExtent("e1", "alarm", 1, 2)])
    assert sender.standing().lag == {"alarm": 1}


def test_a_tombstone_for_a_stream_that_is_not_sent_is_no_news() -> None:
    sender = Sender(Rules(SITE, GATEWAY, INSTANCE, ("alarm",)), lambda: 0.0)
    assert sender.gave_up(S, "telemetry", 1, 2) == []


def test_a_row_that_cannot_be_made_a_batch_is_given_up() -> None:
    w = world(results=1)
    w.weather = Weather(lose_answer=1.0)
    w.up()
    w.act(w.sender.welcomed(w.now, w.hub.hello()))
    key = w.sender._dispatch.reading.key  # type: ignore[union-attr]
    w.act(w.sender.sealed(w.now, key, Sealed("e1", 1, 1, False, b"")))

    assert [(given.first, given.reason) for given in w.given_up] == [(1, "too_large")]


def test_an_answer_to_a_read_of_a_former_connection_is_dropped() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    w.up()
    w.act(w.sender.welcomed(w.now, w.hub.hello()))
    old = w.sender._dispatch.reading
    assert isinstance(old, Read)
    w.down()

    assert w.sender.sealed(w.now, old.key, Sealed("e1", 1, 5, False, b"x")) == []
    assert w.sender.standing().in_flight == 0


def test_a_store_that_answers_with_other_numbers_is_a_bug() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    w.up()
    w.act(w.sender.welcomed(w.now, w.hub.hello()))
    order = w.sender._dispatch.reading
    assert isinstance(order, Read)

    with pytest.raises(BugError, match="read result 1, got 2 to 5"):
        w.sender.sealed(w.now, order.key, Sealed("e1", 2, 5, False, b"x"))


def test_effects_come_in_the_order_in_which_they_must_happen() -> None:
    sender = Sender(Rules(SITE, GATEWAY, INSTANCE, ("result",), reconnect_spread_s=0.0), lambda: 0.0)
    (hello,) = sender.link_up(S)
    assert isinstance(hello, SayHello)
    sender.moved(S, [StreamExtent("e1", "result", 1, 11)])
    (read,) = sender.welcomed(S, Hub().hello())
    assert isinstance(read, Read)
    (send,) = sender.sealed(S, read.key, Sealed("e1", 1, 10, False, bytes(900)))
    assert isinstance(send, Send)
    assert sender.due_ns > S


def test_an_answer_to_a_batch_that_is_no_longer_on_its_way_only_tells_what_is_home() -> None:
    w = world(results=10)
    w.weather = Weather(lose=1.0)
    w.up()
    w.act(w.sender.welcomed(w.now, w.hub.hello()))
    gone = Sealed("e1", 3, 4, False, b"")
    w.act(w.sender.answered(w.now, w.hub.ack("result", gone, "reject", reason="bad_body", upto=2)))
    w.act(w.sender.answered(w.now, w.hub.ack("result", gone, "retry", reason="busy", retry_ms=1)))

    assert w.home == {"result": ((1, 2),)}
    assert w.given_up == []
    assert active(w) == set()


@pytest.mark.parametrize("rows", [1, 40])
def test_a_batch_that_the_hub_finds_too_large_is_halved_down_to_a_single_row(rows: int) -> None:
    w = world(results=rows)
    w.weather = Weather(
        verdict=lambda b, s: ("reject", "too_large", 0) if b.last >= 7 >= b.first and not b.lost else None
    )
    w.up()

    assert w.run(600, w.all_home)

    assert [(given.first, given.last) for given in w.given_up] == ([(7, 7)] if rows > 1 else [])
    assert set(w.hub.writes.values()) == {1}
