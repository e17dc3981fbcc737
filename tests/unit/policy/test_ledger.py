"""The books of events and results."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edged.policy.ledger import InputTerms, Ledger, ResultTerms, add, load


def test_new_books_are_balanced() -> None:
    ledger = Ledger()
    ledger.input("pump")
    ledger.result("result")
    assert ledger.balanced()
    assert ledger.balanced({"result": 0})


def test_a_stream_keeps_the_terms_that_were_opened_for_it() -> None:
    ledger = Ledger()
    assert ledger.input("pump") is ledger.input("pump")
    assert ledger.result("result") is ledger.result("result")
    assert ledger.input("pump") is not ledger.input("valve")


def test_two_ledgers_share_nothing() -> None:
    one, other = Ledger(), Ledger()
    add(one.input("pump").refused, "not_json")
    assert other.inputs == {}
    assert InputTerms().refused == {}


def test_an_event_that_no_term_explains_is_named() -> None:
    ledger = Ledger()
    terms = ledger.input("pump")
    terms.received, terms.stored, terms.duplicates = 10, 5, 1
    add(terms.refused, "not_json", 2)
    add(terms.shed, "overload")
    assert terms.unaccounted() == 1
    assert not ledger.balanced()
    assert ledger.problems() == ["pump: received 10, unaccounted 1"]
    add(terms.shed, "overload")
    assert terms.shed == {"overload": 2}
    assert ledger.balanced()


def test_the_store_must_hold_what_the_books_say_is_waiting() -> None:
    ledger = Ledger()
    terms = ledger.result("result")
    terms.stored, terms.delivered = 10, 4
    add(terms.evicted, "budget", 2)
    add(terms.refused_by_broker, "not_authorized")
    assert terms.waiting() == 3
    assert ledger.balanced({"result": 3})
    assert ledger.problems({"result": 2}) == ["result: the books say 3 results wait, the store has 2"]
    assert ledger.problems({}) == ["result: the books say 3 results wait, the store has 0"]


def test_more_deliveries_than_results_are_a_problem_even_without_counting_the_store() -> None:
    ledger = Ledger()
    ledger.results["result"] = ResultTerms(stored=1, delivered=2)
    assert not ledger.balanced()


_counts = st.integers(0, 10**12)
_terms = st.dictionaries(st.text(min_size=1, max_size=20), _counts, max_size=4)


@given(
    st.dictionaries(st.text(max_size=10), st.builds(InputTerms, _counts, _counts, _counts, _terms, _terms), max_size=3),
    st.dictionaries(st.text(max_size=10), st.builds(ResultTerms, _counts, _counts, _terms, _terms), max_size=3),
)
def test_books_survive_being_written_down(inputs: dict[str, InputTerms], results: dict[str, ResultTerms]) -> None:
    ledger = Ledger(inputs, results)
    assert load(ledger.dump()) == ledger


def test_books_of_another_version_may_have_terms_that_we_do_not_know() -> None:
    assert load(b'{"inputs": {"pump": {"received": 1, "stored": 1, "later": 7}}}').balanced()


def test_bytes_that_are_no_books_are_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        load(b"[]")
