"""The books add up whatever is refused, given up or lost, and wherever the process dies."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import apsw

from edged.store.place import MARKER_NAME, STORE_NAME
from tests.doubles.daemon import ROOT, Daemon, pipeline
from tests.doubles.engine_rig import Rig
from tests.doubles.hand_broker import HandBroker
from tests.doubles.sensors import Event, payload
from tests.doubles.waiting import until
from tests.unit.store.plant import fill, opened


async def events(rig: Rig, *seqs: int) -> None:
    for seq in seqs:
        rig.event(seq)
    await rig.engine.settled()


def balanced(rig: Rig) -> bool:
    return bool(rig.report.ledger()["balanced"])


async def test_a_result_refused_ahead_of_the_cursor_is_booked_once_although_the_process_dies() -> None:
    first = Rig()
    await first.start()
    await events(first, 1, 2, 3)
    first.link.refuse(2, "payload_format_invalid")
    await first.engine.settled()
    assert balanced(first)
    second = Rig(journal=first.journal)
    await second.start()
    await second.delivery.refill_once()
    second.link.refuse(2, "payload_format_invalid")
    second.link.settle_all()
    terms = second.ledger.results["result"]
    assert (terms.delivered, terms.refused_by_broker) == (2, {"payload_format_invalid": 1})
    assert balanced(second)


async def test_a_result_refused_on_one_connection_and_taken_on_the_next_is_delivered() -> None:
    rig = Rig()
    await rig.start()
    await events(rig, 1, 2)
    rig.link.refuse(2, "implementation_specific_error")
    rig.link.down()
    rig.link.up(session_present=True)
    await rig.delivery.refill_once()
    rig.link.settle_all()
    terms = rig.ledger.results["result"]
    assert (terms.delivered, terms.refused_by_broker) == (2, {})
    assert balanced(rig)


async def test_rows_given_up_while_their_results_are_in_flight_cost_nothing_when_the_broker_takes_them() -> None:
    rig = Rig()
    await rig.start()
    await events(rig, 1, 2, 3)
    rig.journal.hold = True
    rig.event(4)
    await asyncio.sleep(0)
    assert rig.engine.busy
    rig.journal.evict_upto = 3
    rig.link.settle_all()
    rig.journal.hold = False
    rig.journal.release()
    await rig.engine.settled()
    rig.upkeep.tick()
    rig.link.settle_all()
    terms = rig.ledger.results["result"]
    assert (terms.delivered, terms.evicted) == (4, {})
    assert balanced(rig)


async def test_rows_given_up_while_their_results_are_in_flight_are_lost_with_the_connection_and_told() -> None:
    rig = Rig()
    await rig.start()
    await events(rig, 1, 2, 3)
    rig.journal.evict_upto = 2
    await events(rig, 4)
    rig.upkeep.tick()
    assert rig.ledger.results["result"].evicted == {}
    rig.link.down()
    rig.upkeep.tick()
    await rig.engine.settled()
    assert rig.ledger.results["result"].evicted == {"budget": 2}
    assert balanced(rig)
    rig.link.up(session_present=True)
    await rig.delivery.refill_once()
    (gap,) = rig.told("gap")
    assert (gap["kind"], gap["from"], gap["to"], gap["count"]) == ("store_result", 1, 2, 2)
    assert "store_full" in rig.modes.state.codes


async def test_events_given_up_before_a_slow_model_came_to_them_are_told() -> None:
    first = Rig(lane=True)
    await first.start()
    await events(first, *range(1, 6))
    second = Rig(lane=True, journal=first.journal)
    first.journal.gone_events_upto = 3
    await second.start()
    await second.engine.settled()
    await second.delivery.refill_once()
    (gap,) = second.told("gap")
    assert (gap["kind"], gap["from"], gap["to"]) == ("store_event", 1, 3)
    assert "events_shed" in second.modes.state.codes
    assert second.lane is not None
    while second.lane.jobs:
        second.lane.answer()
    await second.engine.settled()
    assert [result["input"]["seq"] for result in second.results()] == [4, 5]


NOISE_BYTES = 100_000
BUDGET = "budget_bytes = 16000000\nfree_floor_bytes = 1000000\nsnapshot_interval_s = 1"


def test_a_budget_used_up_while_the_broker_takes_no_results_is_a_declared_loss_to_the_last_result(
    tmp_path: Path, single_model: Path
) -> None:
    events = [Event("dev-0", seq) for seq in range(1, 401)]
    with (
        HandBroker(withhold=True) as broker,
        Daemon(tmp_path, broker.port, pipeline("single", single_model), store=BUDGET) as daemon,
    ):
        daemon.start()
        first = broker.connection()
        for event in events:
            first.publish(event.seq, "in/dev-0", payload(event, noise=os.urandom(NOISE_BYTES // 2).hex()))
        until(lambda: len(first.acks) == len(events), "every event is stored and acknowledged")
        status = daemon.status()
        assert (status["waiting_results"], status["ledger"]["balanced"]) == (400, True)
        first.close()
        second = broker.connection(2)
        second.acknowledge_all()
        until(lambda: daemon.status()["waiting_results"] == 0, "what is left is delivered")
        until(lambda: "store_full" in daemon.codes(), "the mode says so")
        assert daemon.status()["mode"] == "shedding"
        terms = daemon.status()["ledger"]["results"]["result"]
        assert terms["evicted"]["budget"] > 50
        assert terms["delivered"] + terms["evicted"]["budget"] == 400
        assert daemon.status()["ledger"]["balanced"]

        def told() -> int:
            return sum(gap["count"] for gap in second.bodies(f"{ROOT}/gap") if gap["kind"] == "store_result")

        until(lambda: told() == terms["evicted"]["budget"], "every lost result is told")


async def test_a_second_damage_that_loses_more_than_the_first_gives_no_result_the_identity_of_another(
    tmp_path: Path,
) -> None:
    store = await opened(tmp_path)
    await fill(store, 4)
    next_result = store.recovered.next_result
    await store.journal.close()
    connection = apsw.Connection(str(tmp_path / STORE_NAME))
    connection.execute("INSERT INTO epoch VALUES (NULL, 'second', 'damage', 5001, 5001, 5001, 0)")
    connection.close()
    (tmp_path / MARKER_NAME).write_text("the rows of the second epoch are lost again")
    again = await opened(tmp_path)
    assert next_result < 5001 <= again.recovered.next_result
    epochs = {again.journal.epoch_of_result(seq) for seq in (1, 5000, again.recovered.next_result)}
    assert len(epochs) == 2, "the first one and the newest one; nothing of the second is left"
    assert again.journal.epoch_of_result(again.recovered.next_result) == again.journal.epoch
    await again.journal.close()
