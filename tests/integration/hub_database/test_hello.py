"""What a gateway that comes back learns: what is home, and whether its history is still ours."""

from __future__ import annotations

from edged.hub.ports import Database
from edged.sync.protocol import Cursor, Fork, Probe, StreamExtent
from tests.integration.hub_database.samples import BOOT, EPOCH, hello, lost, records, results

MONO_NS = 1_000_000
"""Of the sample row with number 1; that of number n is n times as much."""


async def test_an_unknown_gateway_gets_a_cursor_before_each_base(database: Database) -> None:
    ack = await database.hello(hello(StreamExtent(EPOCH, "result", 1, 50), StreamExtent(EPOCH, "alarm", 8, 8)))

    assert (ack.status, ack.receiver, ack.instance, ack.forks) == ("ok", database.receiver, "i", ())
    assert set(ack.cursors) == {Cursor(EPOCH, "result", 0), Cursor(EPOCH, "alarm", 7)}


async def test_cursors_of_every_epoch_come_back_with_their_ranges(database: Database) -> None:
    await database.commit(results(1, 10))
    await database.commit(results(21, 30))
    await database.commit(results(31, 40, epoch="e2", base=31))

    ack = await database.hello(hello(epoch="e2"))

    assert set(ack.cursors) == {Cursor(EPOCH, "result", 10, ((21, 30),)), Cursor("e2", "result", 40)}


async def test_only_the_newest_streams_and_ranges_are_named_so_that_the_answer_stays_small(database: Database) -> None:
    for seq in range(2, 162, 2):
        await database.commit(results(seq, seq))

    ack = await database.hello(hello(*(StreamExtent(f"old-{i}", "result", 1, 2) for i in range(200))))

    assert len(ack.cursors) == 128
    later = await database.hello(hello())
    assert len(later.cursors) == 128
    assert all(len(cursor.ranges) <= 64 for cursor in later.cursors)


async def test_a_probe_of_the_same_row_is_no_fork(database: Database) -> None:
    await database.commit(results(1, 10))

    same = hello(StreamExtent(EPOCH, "result", 1, 11), probes=(Probe(EPOCH, 5, BOOT, 5 * MONO_NS),))

    assert (await database.hello(same)).forks == ()


async def test_another_maker_under_our_number_is_a_fork_at_the_first_such_number(database: Database) -> None:
    await database.commit(results(1, 10))
    probes = (
        Probe(EPOCH, 2, BOOT, 2 * MONO_NS),
        Probe(EPOCH, 7, "boot-2", 7 * MONO_NS),
        Probe(EPOCH, 4, BOOT, 4 * MONO_NS + 1),
        Probe(EPOCH, 11, "boot-3", 1),
        Probe("e2", 1, "boot-3", 1),
    )

    ack = await database.hello(hello(StreamExtent(EPOCH, "result", 1, 12), probes=probes))

    assert ack.forks == (Fork(EPOCH, 4),)


async def test_numbers_of_another_history_are_not_expected(database: Database) -> None:
    """They are about to get another epoch; under this one they would be missing for ever."""
    await database.commit(results(1, 10))
    probe = Probe(EPOCH, 7, "boot-2", 7 * MONO_NS)
    extents = StreamExtent(EPOCH, "result", 1, 21), StreamExtent(EPOCH, "health", 1, 6)

    ack = await database.hello(hello(*extents, probes=(probe,)))

    assert ack.forks == (Fork(EPOCH, 7),)
    assert [(books.stream, books.rows, books.missing) for books in await database.books()] == [("result", 10, 0)]


async def test_a_gateway_that_has_made_fewer_rows_than_are_home_was_put_back(database: Database) -> None:
    await database.commit(results(1, 10))
    await database.commit(records(1, [("mode", {})] * 5))

    behind = hello(StreamExtent(EPOCH, "result", 1, 8), StreamExtent(EPOCH, "health", 1, 6))
    behind_in_health = hello(StreamExtent(EPOCH, "result", 1, 11), StreamExtent(EPOCH, "health", 1, 4))
    level = hello(StreamExtent(EPOCH, "result", 1, 11), StreamExtent(EPOCH, "health", 1, 6))

    assert (await database.hello(behind)).forks == (Fork(EPOCH, 8),)
    assert (await database.hello(behind_in_health)).forks == (Fork(EPOCH, 11),)
    assert (await database.hello(level)).forks == ()


async def test_a_closed_epoch_is_not_behind_and_numbers_that_are_gone_are_no_proof(database: Database) -> None:
    await database.commit(lost(1, 10))
    await database.commit(results(1, 4, epoch="e2"))

    ack = await database.hello(
        hello(
            StreamExtent(EPOCH, "result", 1, 5),
            StreamExtent("e2", "result", 1, 5),
            epoch="e2",
            probes=(Probe(EPOCH, 3, "boot-9", 1),),
        )
    )

    assert ack.forks == ()


async def test_a_hello_that_cannot_be_right_is_rejected_and_leaves_nothing(database: Database) -> None:
    wrong = hello(StreamExtent("nul\0", "result", 1, 5))
    reversed_ = hello(StreamExtent(EPOCH, "result", 9, 5))
    endless = hello(*(StreamExtent(f"e{i}", "result", 1, 2) for i in range(600)))

    for said in (wrong, reversed_, endless):
        ack = await database.hello(said)
        assert (ack.status, ack.reason, ack.cursors) == ("reject", "bad_header", ())
    assert await database.books() == []
