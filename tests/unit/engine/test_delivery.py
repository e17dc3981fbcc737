"""What leaves, in which order, and what the books say about it."""

from edged.messages import Outbound
from tests.doubles.engine_rig import Rig


async def run(rig: Rig, *seqs: int) -> None:
    for seq in seqs:
        rig.event(seq)
    await rig.engine.settled()


async def test_a_small_window_of_the_broker_is_respected_and_refilled_by_acknowledgements() -> None:
    rig = Rig(slots=4)
    await rig.start()
    await run(rig, *range(20))
    for _ in range(40):
        assert len(rig.link.in_flight) <= 4
        rig.link.settle_all()
    assert [r["input"]["seq"] for r in rig.results()] == list(range(20))
    assert rig.ledger.results["result"].delivered == 20


async def test_while_the_link_is_down_events_are_not_lost_and_results_leave_when_it_returns() -> None:
    rig = Rig()
    await rig.start()
    await run(rig, 0, 1)
    rig.link.down()
    assert rig.modes.mode == "offline"
    rig.link.up(session_present=True)
    await rig.delivery.refill_once()
    assert [(r["input"]["seq"], r["historical"]) for r in rig.results()] == [
        (0, False), (1, False), (0, True), (1, True),
    ]  # fmt: skip
    assert len({r["id"] for r in rig.results()}) == 2


async def test_acknowledgements_of_an_old_connection_are_not_sent_on_the_new_one() -> None:
    rig = Rig()
    await rig.start()
    rig.journal.hold = True
    rig.event(0)
    for _ in range(3):
        import asyncio

        await asyncio.sleep(0)
    rig.link.down()
    rig.link.up(session_present=True)
    rig.journal.release()
    assert rig.link.acks == []
    assert rig.link.stale_acks == [1]


async def test_a_broker_that_asks_for_patience_gets_the_same_results_again_later() -> None:
    rig = Rig()
    await rig.start()
    await run(rig, 0, 1)
    rig.link.refuse(1, "quota_exceeded")
    assert rig.outbox.waiting == 2
    rig.link.in_flight.clear()
    await rig.delivery.refill_once()
    rig.link.settle_all()
    assert rig.outbox.waiting == 0
    assert rig.ledger.results["result"].delivered == 2


async def test_results_evicted_before_they_were_sent_are_booked_and_passed_over() -> None:
    rig = Rig()
    await rig.start()
    await run(rig, 0, 1, 2)
    rig.link.down()
    rig.journal.evict_upto = 2
    await run(rig, 3)
    rig.upkeep.tick()
    assert rig.outbox.waiting == 2, "what is given up does not wait"
    assert "store_full" in rig.modes.state.codes
    rig.link.up()
    await rig.delivery.refill_once()
    rig.link.settle_all()
    terms = rig.ledger.results["result"]
    assert (terms.stored, terms.evicted, terms.delivered) == (4, {"budget": 2}, 2)
    assert rig.ledger.balanced({"result": 0})


async def test_retained_topics_are_all_sent_again_to_a_broker_that_restarted_empty() -> None:
    rig = Rig()
    await rig.start()
    rig.board.put("edged/v1/lyon/gw/meta/x", b"1")
    rig.delivery.pump()
    rig.link.settle_all()
    before = len(rig.link.published)
    rig.link.down()
    rig.link.up(session_present=False)
    assert b"edged/v1/lyon/gw/meta/x" in {item.topic for item in rig.link.published[before:]}


async def test_a_refused_notice_or_retained_topic_blocks_nothing() -> None:
    rig = Rig()
    await rig.start()
    rig.link.arrive("in/d1", b"{")
    await rig.engine.settled()
    rig.board.put("edged/v1/lyon/gw/meta/x", b"1")
    rig.delivery.pump()
    for token in list(rig.link.in_flight):
        rig.link.refuse(token, "not_authorized")
    assert (rig.notices.refused, rig.board.refused) == (1, 1)
    await run(rig, 0)
    assert len(rig.results()) == 1


async def test_letters_and_gaps_not_acknowledged_before_a_lost_connection_are_read_back() -> None:
    rig = Rig()
    await rig.start()
    rig.link.arrive("in/d1", b"{")
    await rig.engine.settled()
    rig.link.down()
    rig.link.up(session_present=True)
    await rig.delivery.refill_once()
    assert len(rig.told("dlq/not_json")) == 2
    rig.link.settle_all()
    assert rig.notices.delivered == len(rig.journal.units)


async def test_health_is_worthless_later_and_never_kept() -> None:
    rig = Rig()
    rig.delivery.send_unreliably(Outbound(b"t", b"x", 0))
    await rig.start(up=False)
    rig.delivery.send_unreliably(Outbound(b"t", b"x", 0))
    assert rig.link.published == []
