"""Retained topics: newest value wins, and a broker that lost everything gets everything again."""

import pytest

from edged.publish import board as board_module
from edged.publish.board import Board


def flush(board: Board) -> list[tuple[bytes, bytes, int]]:
    items = board.peek(100)
    board.sent(items)
    return [(i.topic, i.payload, i.token) for i in items]


def test_only_the_newest_value_of_a_topic_is_sent() -> None:
    board = Board()
    board.put("a", b"1")
    board.put("a", b"2", expiry_s=3)
    assert [(t, p) for t, p, _ in flush(board)] == [(b"a", b"2")]
    assert board.pending == 0
    assert board.value("a") == b"2"
    assert board.value("b") is None


def test_an_unchanged_value_is_not_sent_again() -> None:
    board = Board()
    board.put("a", b"1")
    flush(board)
    board.put("a", b"1")
    assert board.pending == 0


def test_a_new_connection_sends_everything_again() -> None:
    board = Board()
    board.put("a", b"1")
    board.put("b", b"2")
    flush(board)
    board.connected()
    assert [t for t, _, _ in flush(board)] == [b"a", b"b"]


def test_a_cleared_topic_is_published_empty_until_the_broker_has_it() -> None:
    board = Board()
    board.put("a", b"1")
    flush(board)
    board.clear("a")
    board.clear("never")
    ((topic, payload, token),) = flush(board)
    assert (topic, payload) == (b"a", b"")
    board.settle([token, 12345])
    assert board.value("a") is None
    board.connected()
    assert flush(board) == []


def test_a_topic_set_again_while_its_clearing_is_in_flight_survives() -> None:
    board = Board()
    board.put("a", b"1")
    flush(board)
    board.clear("a")
    ((_, _, token),) = flush(board)
    board.put("a", b"2")
    board.settle([token])
    assert board.value("a") == b"2"


def test_a_refused_topic_is_counted_and_tried_again_after_a_reconnect() -> None:
    board = Board()
    board.put("a", b"1")
    ((_, _, token),) = flush(board)
    board.refuse([token, 99])
    assert board.refused == 1
    board.connected()
    assert board.pending == 1


def test_no_more_slots_than_given_are_used() -> None:
    board = Board()
    for n in range(5):
        board.put(f"t{n}", b"x")
    assert len(board.peek(2)) == 2


def test_the_number_of_topics_is_bounded_and_the_overflow_counted() -> None:
    board = Board()
    for n in range(board_module.TOPIC_LIMIT + 2):
        board.put(str(n), b"x")
    assert board.dropped == 2


@pytest.mark.parametrize("tokens", [[], [-1]])
def test_unknown_tokens_are_ignored(tokens: list[int]) -> None:
    board = Board()
    board.settle(tokens)
    assert board.pending == 0


def test_a_topic_cleared_again_while_its_first_clearing_is_in_flight_is_published_empty_once_more() -> None:
    board = Board()
    board.put("a", b"1")
    flush(board)
    board.clear("a")
    ((_, _, first),) = flush(board)
    board.put("a", b"2")
    board.clear("a")
    board.settle([first])

    ((topic, payload, second),) = flush(board)
    assert (topic, payload) == (b"a", b"")
    board.settle([second])
    assert board.value("a") is None
