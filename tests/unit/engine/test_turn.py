"""One turn: computed, committed, published, acknowledged, in that order and as one batch."""

import asyncio

from edged.engine.engine import TurnLimits
from tests.doubles.engine_rig import Rig


async def test_a_result_and_the_acknowledgement_leave_only_after_the_commit() -> None:
    rig = Rig()
    await rig.start()
    rig.journal.hold = True
    packet_id = rig.event(0, 3.0)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert rig.results() == []
    assert rig.link.acks == []
    rig.journal.release()
    (result,) = rig.results()
    assert (result["label"], result["score"], result["input"]["seq"]) == ("ok", 10.0, 0)
    assert rig.link.acks == [packet_id]


async def test_messages_that_arrive_during_a_commit_share_the_next_one() -> None:
    rig = Rig()
    await rig.start()
    rig.journal.hold = True
    rig.event(0)
    await asyncio.sleep(0)
    for seq in range(1, 50):
        rig.event(seq)
    rig.journal.release()
    rig.journal.hold = False
    await rig.engine.settled()
    assert len(rig.journal.units) == 2
    assert rig.model.calls == [1, 49]
    assert [r["input"]["seq"] for r in rig.results()] == list(range(50))


async def test_with_a_linger_the_commit_waits_for_company() -> None:
    rig = Rig(limits=TurnLimits(linger_s=0.01))
    await rig.start()
    rig.event(0)
    await asyncio.sleep(0)
    rig.event(1)
    await rig.engine.settled()
    assert len(rig.journal.units) == 1
    rig.engine.set_linger(0)
    rig.event(2)
    await rig.engine.settled()
    assert len(rig.journal.units) == 2


async def test_a_turn_takes_no_more_messages_than_allowed() -> None:
    rig = Rig(limits=TurnLimits(max_messages=10))
    await rig.start()
    for seq in range(25):
        rig.event(seq)
    await rig.engine.settled()
    assert [len(unit.events.source) for unit in rig.journal.units if unit.events] == [10, 10, 5]
    assert len(rig.results()) == 25


async def test_refused_and_repeated_messages_are_counted_in_a_commit_and_acknowledged() -> None:
    rig = Rig()
    await rig.start()
    packet_ids = [rig.event(0), rig.event(0), rig.link.arrive("in/d1", b"{"), rig.link.arrive("else/d1", b"{}")]
    await rig.engine.settled()
    assert rig.link.acks == packet_ids
    assert len(rig.results()) == 1
    terms = rig.ledger.inputs["p"]
    assert (terms.received, terms.stored, terms.duplicates, terms.refused) == (3, 1, 1, {"not_json": 1})
    assert rig.ledger.inputs["unrouted"].refused == {"no_route": 1}
    assert rig.ledger.balanced()
    assert {letter["reason"] for letter in rig.told("dlq/")} == {"not_json", "no_route"}


async def test_events_without_a_timestamp_get_the_arrival_time_and_say_so() -> None:
    rig = Rig()
    await rig.start()
    rig.event(None)
    rig.link.arrive("in/d1", b'{"a":1,"seq":3,"ts":1700000000000}', retain=True)
    await rig.engine.settled()
    first, second = rig.results()
    assert (first["quality"], first["quality_reasons"]) == (64, ["ts_arrival"])
    assert (second["quality"], second["quality_reasons"]) == (64, ["retained"])
    assert first["ts"] == first["produced"]


async def test_a_failed_inference_is_published_with_nulls_and_its_reason() -> None:
    rig = Rig()
    await rig.start()
    rig.model.fail = "out_of_memory"
    rig.event(0)
    await rig.engine.settled()
    (result,) = rig.results()
    assert (result["label"], result["score"], result["values"]) == (None, None, None)
    assert (result["quality"], result["quality_reasons"]) == (0, ["out_of_memory"])
    assert rig.runner.failed == 1


async def test_without_a_usable_model_events_are_kept_and_every_answer_is_bad() -> None:
    rig = Rig(usable=False)
    await rig.start()
    packet_id = rig.event(0)
    await rig.engine.settled()
    (result,) = rig.results()
    assert (result["quality"], result["quality_reasons"], result["degraded"]) == (0, ["model_unusable"], True)
    assert rig.link.acks == [packet_id]


async def test_an_answer_after_its_deadline_is_uncertain_and_says_so() -> None:
    rig = Rig(deadline_ms=5)
    await rig.start()
    rig.journal.hold = True
    rig.event(0)
    await asyncio.sleep(0)
    rig.event(1)
    rig.clock.advance_s(0.1)
    rig.journal.release()
    rig.journal.hold = False
    await rig.engine.settled()
    assert [r["quality_reasons"] for r in rig.results()] == [[], ["deadline_missed"]]
    assert rig.results()[1]["quality"] == 64
    assert rig.runner.late == 1


async def test_a_windowed_pipeline_answers_once_per_stride_with_the_newest_event() -> None:
    rig = Rig(window=4, stride=2)
    await rig.start()
    for seq in range(9):
        rig.event(seq, float(seq))
    await rig.engine.settled()
    assert [r["input"]["seq"] for r in rig.results()] == [3, 5, 7]
    assert [r["score"] for r in rig.results()] == [10.0, 10.0, 10.0]


async def test_a_result_the_broker_refuses_is_counted_and_gets_a_letter_and_does_not_block() -> None:
    rig = Rig()
    await rig.start()
    rig.event(0)
    rig.event(1)
    await rig.engine.settled()
    rig.link.refuse(1, "not_authorized")
    rig.link.settle_all()
    await rig.engine.settled()
    assert rig.outbox.waiting == 0
    assert rig.ledger.results["result"].refused_by_broker == {"not_authorized": 1}
    assert rig.ledger.balanced({"result": 0})
    assert rig.told("dlq/publish_refused")[0]["detail"].endswith("not_authorized")


async def test_stopping_takes_nothing_more_and_leaves_it_to_the_broker() -> None:
    rig = Rig()
    await rig.start()
    rig.engine.stop_taking()
    rig.event(0)
    await rig.engine.settled()
    assert (rig.results(), rig.link.acks, rig.link.waiting()) == ([], [], 1)
