"""The outbox keeps order, loses nothing and reads back only what it must."""

from hypothesis import given
from hypothesis import strategies as st

from edged.messages import Outbound
from edged.publish.outbox import TAIL_LIMIT, Outbox


def results(first: int, last: int) -> list[Outbound]:
    return [Outbound(b"t", b"p", seq) for seq in range(first, last + 1)]


def send(box: Outbox, slots: int) -> list[int]:
    items = box.peek(slots)
    box.sent(len(items))
    return [item.token for item in items]


def test_fresh_results_go_out_without_being_read_back() -> None:
    box = Outbox(delivered=0, committed=0)
    box.offer(results(1, 3))
    assert box.refill_from() is None
    assert send(box, 10) == [1, 2, 3]
    assert box.delivered == 0
    assert box.settle([1, 2, 3]) == 3
    assert (box.delivered, box.waiting, box.in_flight) == (3, 0, 0)


def test_the_delivered_mark_stops_at_the_oldest_unacknowledged_result() -> None:
    box = Outbox(0, 0)
    box.offer(results(1, 3))
    send(box, 3)
    box.settle([2, 3])
    assert box.delivered == 0
    box.settle([1])
    assert box.delivered == 3


def test_only_as_many_results_leave_as_the_window_has_slots() -> None:
    box = Outbox(0, 0)
    box.offer(results(1, 5))
    assert send(box, 2) == [1, 2]
    assert send(box, 2) == [3, 4]
    assert box.next_seq == 5


def test_after_a_lost_connection_everything_unacknowledged_is_asked_for_again() -> None:
    box = Outbox(0, 0)
    box.offer(results(1, 5))
    send(box, 4)
    box.settle([1])
    box.rewind()
    assert box.refill_from() == 2
    assert box.resent == 3
    box.refill(results(2, 5))
    assert send(box, 10) == [2, 3, 4, 5]


def test_results_committed_while_older_ones_are_read_back_wait_their_turn() -> None:
    box = Outbox(delivered=0, committed=10)
    box.offer(results(11, 12))
    assert box.peek(10) == []
    assert box.refill_from() == 1
    box.refill(results(1, 12))
    assert send(box, 100) == list(range(1, 13))
    box.offer(results(13, 13))
    assert send(box, 100) == [13]


def test_an_overlong_burst_stays_in_the_store_and_not_in_memory() -> None:
    box = Outbox(0, 0)
    box.offer(results(1, TAIL_LIMIT + 50))
    assert len(send(box, TAIL_LIMIT + 50)) == TAIL_LIMIT
    assert box.refill_from() == TAIL_LIMIT + 1
    assert box.waiting == TAIL_LIMIT + 50


def test_evicted_results_are_passed_over() -> None:
    box = Outbox(delivered=0, committed=10)
    box.refill(results(6, 10))
    assert send(box, 10) == [6, 7, 8, 9, 10]
    behind = Outbox(delivered=0, committed=10)
    behind.skip_to(8)
    assert behind.refill_from() == 8


def test_what_is_in_memory_leaves_although_its_row_is_given_up() -> None:
    box = Outbox(0, 0)
    box.offer(results(1, 4))
    box.give_up_to(3)
    assert send(box, 10) == [1, 2, 3, 4]
    box.give_up_to(3)
    box.settle([1, 2, 3, 4])
    box.give_up_to(3)
    assert (box.delivered, box.take_holes()) == (4, [])


def test_a_hole_is_told_once_the_cursor_has_passed_it_and_found_again_after_a_lost_connection() -> None:
    box = Outbox(delivered=0, committed=9)
    box.refill([*results(1, 2), *results(5, 6)])
    assert send(box, 10) == [1, 2, 5, 6]
    box.settle([1])
    assert box.take_holes() == []
    box.rewind()
    box.refill([*results(2, 2), *results(5, 6), *results(8, 9)])
    assert send(box, 10) == [2, 5, 6, 8, 9]
    box.settle([2, 5, 6])
    assert (box.take_holes(), box.take_holes()) == ([(3, 4), (7, 7)], [])


def test_nothing_offered_changes_nothing() -> None:
    box = Outbox(4, 4)
    box.offer([])
    assert (box.next_seq, box.refill_from(), box.in_flight_item(4)) == (5, None, None)


@given(st.lists(st.sampled_from(["offer", "send", "ack", "cut", "refill"]), max_size=60), st.randoms())
def test_whatever_happens_each_result_is_finally_delivered_in_order(steps: list[str], random: object) -> None:
    box = Outbox(0, 0)
    committed, seen = 0, 0
    flight: list[int] = []
    for step in [*steps, "cut"]:
        if step == "offer":
            box.offer(results(committed + 1, committed + 3))
            committed += 3
        elif step == "send":
            sent = send(box, 4)
            assert not sent or sent[0] <= seen + 1 + len(flight) + committed
            flight += sent
        elif step == "ack" and flight:
            box.settle([flight.pop(0)])
        elif step == "cut":
            flight = []
            box.rewind()
        elif (first := box.refill_from()) is not None:
            box.refill(results(first, committed))
        assert box.delivered <= committed
    delivered = box.delivered
    if (first := box.refill_from()) is not None:
        box.refill(results(first, committed))
    rest = send(box, 1000)
    assert rest == list(range(delivered + 1, committed + 1))
    box.settle(rest)
    assert box.waiting == 0
