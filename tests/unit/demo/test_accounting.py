"""The books of the demo find every loss and every duplicate, in whatever order things are seen."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edged.demo.accounting import Accounts, Owing, Seen, percentile

EVENTS = Owing("anomaly", window=1, stride=1)
WINDOWS = Owing("condition", window=32, stride=8)
MS = 1_000_000


def seen(seq: int, *, pipeline: str = "anomaly", device: str = "a-1", id_: str = "", at_ns: int = 0) -> Seen:
    return Seen(pipeline, device, seq, id_ or f"{pipeline}/{device}/{seq}", at_ns)


def test_an_event_pipeline_owes_a_result_for_every_event() -> None:
    assert [seq for seq in range(1, 6) if EVENTS.owes(seq)] == [1, 2, 3, 4, 5]


def test_a_window_pipeline_owes_a_result_when_the_window_is_full_and_then_every_stride() -> None:
    assert [seq for seq in range(1, 60) if WINDOWS.owes(seq)] == [32, 40, 48, 56]


def test_what_is_owed_and_never_arrives_is_lost() -> None:
    accounts = Accounts([EVENTS, WINDOWS])
    for seq in range(1, 41):
        accounts.acknowledged("a-1", seq, at_ns=seq)
    for seq in range(1, 40):
        accounts.result(seen(seq))
    accounts.result(seen(40, pipeline="condition"))

    tally = accounts.tally()
    assert (tally.events, tally.expected_results, tally.results, tally.lost) == (40, 42, 40, 2)
    assert accounts.oldest_owed_ns == 32


def test_a_result_may_overtake_the_acknowledgement_of_its_event() -> None:
    accounts = Accounts([EVENTS])
    accounts.result(seen(1))
    accounts.acknowledged("a-1", 1, at_ns=5)

    assert accounts.owed == 0
    assert accounts.oldest_owed_ns is None
    assert accounts.tally().unexpected == 0


def test_the_same_id_again_is_a_repetition_and_another_id_a_duplicate() -> None:
    accounts = Accounts([EVENTS])
    accounts.acknowledged("a-1", 1, at_ns=0)
    accounts.result(seen(1, id_="x"))
    accounts.result(seen(1, id_="x"))
    accounts.result(seen(1, id_="y"))

    tally = accounts.tally()
    assert (tally.results, tally.resent, tally.duplicates) == (1, 1, 1)


def test_results_of_other_devices_and_pipelines_pay_no_debts() -> None:
    accounts = Accounts([EVENTS, WINDOWS])
    accounts.acknowledged("a-1", 32, at_ns=0)
    accounts.result(seen(32, device="b-1"))

    tally = accounts.tally()
    assert (tally.lost, tally.unexpected) == (2, 1)


def test_latency_runs_from_publishing_an_event_to_its_first_result_on_the_first_pipeline() -> None:
    accounts = Accounts([EVENTS, WINDOWS])
    accounts.published("a-1", 32, at_ns=10 * MS)

    assert accounts.result(seen(32, pipeline="condition", at_ns=99 * MS)) is None
    assert accounts.result(seen(32, at_ns=13 * MS)) == 3.0
    assert accounts.result(seen(32, at_ns=50 * MS)) is None
    assert accounts.recent_ms(10) == [3.0]
    assert accounts.tally().worst_ms == 3.0


def test_a_result_of_an_event_that_was_never_published_has_no_latency() -> None:
    assert Accounts([EVENTS]).result(seen(1, at_ns=5)) is None


def test_memory_is_bounded_however_long_the_demo_runs() -> None:
    accounts = Accounts([EVENTS], memory=10)
    for seq in range(1, 101):
        accounts.published("a-1", seq, at_ns=seq)
        accounts.published("a-2", seq, at_ns=seq)
        accounts.acknowledged("a-1", seq, at_ns=seq)
        accounts.result(seen(seq, at_ns=seq))

    assert accounts.tally().lost == 0
    accounts.result(seen(100))
    assert accounts.tally().resent == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 20)), max_size=80))
def test_expected_results_are_always_those_seen_plus_those_owed(history: list[tuple[bool, int]]) -> None:
    accounts = Accounts([EVENTS])
    acknowledged: set[int] = set()
    for is_result, seq in history:
        if is_result:
            accounts.result(seen(seq))
        elif seq not in acknowledged:
            acknowledged.add(seq)
            accounts.acknowledged("a-1", seq, at_ns=0)

    tally = accounts.tally()
    assert tally.results - tally.unexpected + tally.lost == tally.expected_results
    assert tally.unexpected >= 0


def test_a_percentile_is_the_nearest_rank() -> None:
    values = [float(n) for n in range(1, 101)]

    assert percentile(values, 0.50) == 50
    assert percentile(values, 0.99) == 99
    assert percentile([7.0], 0.99) == 7
    assert percentile([], 0.5) is None
