"""Gaps and letters are sent in order, remembered by batch, and read back after a lost connection."""

import base64
import hashlib

import msgspec

from edged.messages import Notice, Oversize
from edged.publish.letters import LETTER_INTERVAL_MS, LetterBox, gap_notice
from edged.publish.notices import NoticeBox


def note(n: int) -> Notice:
    return Notice("gap", str(n).encode())


def flush(box: NoticeBox, slots: int = 100) -> list[int]:
    items = box.peek(slots)
    box.sent(items, len(items))
    return [item.token for item in items]


def test_the_cursor_moves_only_past_batches_whose_notices_are_all_acknowledged() -> None:
    box = NoticeBox("R", delivered=0, committed=0)
    box.offer(3, [note(1), note(2)])
    box.offer(5, [note(3)])
    first, second, third = flush(box)
    box.settle([first, third])
    assert box.delivered == 2
    box.settle([second])
    assert box.delivered == 5


def test_unsent_notices_hold_the_cursor_back() -> None:
    box = NoticeBox("R", 0, 0)
    box.offer(3, [note(1), note(2)])
    (token,) = flush(box, 1)
    box.settle([token])
    assert box.delivered == 2


def test_a_lost_connection_reads_back_from_the_cursor() -> None:
    box = NoticeBox("R", 0, 0)
    box.offer(3, [note(1)])
    box.offer(4, [note(2)])
    first, _ = flush(box)
    box.settle([first])
    box.rewind()
    assert box.refill_from() == 3
    box.refill([(4, [note(2)])], complete=True)
    assert box.refill_from() is None
    assert len(flush(box)) == 1


def test_peeked_but_unsent_notices_stay() -> None:
    box = NoticeBox("R", 0, 0)
    box.offer(1, [note(1), note(2)])
    peeked = box.peek(10)
    box.sent(peeked, 1)
    assert peeked[0].topic == b"R/gap"
    assert len(flush(box)) == 1


def test_notices_made_while_older_ones_are_in_the_store_are_read_back_in_order() -> None:
    box = NoticeBox("R", delivered=0, committed=9)
    box.offer(10, [note(2)])
    assert box.peek(10) == []
    assert box.refill_from() == 0
    box.refill([(9, [note(1)]), (10, [note(2)])], complete=False)
    assert box.refill_from() is None
    assert len(flush(box)) == 2


def test_nothing_stored_any_more_moves_the_cursor_on() -> None:
    box = NoticeBox("R", delivered=0, committed=9)
    box.refill([], complete=True)
    assert box.refill_from() is None
    assert box.delivered == 9
    box.offer(11, [])
    assert box.delivered == 9


def test_a_refused_notice_is_counted_and_does_not_block() -> None:
    box = NoticeBox("R", 0, 0)
    box.offer(1, [note(1)])
    (token,) = flush(box)
    box.refuse([token, 5])
    assert (box.refused, box.delivered) == (1, 1)


def test_a_letter_names_topic_size_hash_and_head() -> None:
    payload = b"\xff" * 3000
    letter = LetterBox().letter("not_json", "x" * 999, topic="in/a", payload=payload, mono_ms=0, wall_ms=0)
    assert letter is not None
    body = msgspec.json.decode(letter.payload)
    assert letter.topic == "dlq/not_json"
    assert body["size"] == 3000
    assert body["sha256"] == hashlib.sha256(payload).hexdigest()
    assert base64.b64decode(body["head"]) == payload[:1024]
    assert len(body["detail"]) == 400


def test_a_letter_about_a_payload_that_was_too_large_to_keep_tells_its_real_size_and_hash() -> None:
    payload = Oversize(b"\xff" * 1024)
    payload.size_bytes, payload.sha256 = 5_000_000, "ab" * 32
    letter = LetterBox().letter("too_large", "d", topic="in/a", payload=payload, mono_ms=0, wall_ms=0)
    assert letter is not None
    body = msgspec.json.decode(letter.payload)
    assert (body["size"], body["sha256"]) == (5_000_000, "ab" * 32)


def test_a_flood_of_one_reason_is_counted_in_the_next_letter_and_does_not_silence_another_reason() -> None:
    box = LetterBox()

    def write(reason: str, at_ms: int) -> Notice | None:
        return box.letter(reason, "d", topic="t", payload=b"", mono_ms=at_ms, wall_ms=at_ms)

    assert write("a", 0) is not None
    assert [write("a", 1) for _ in range(7)] == [None] * 7
    assert write("b", 2) is not None
    again = write("a", LETTER_INTERVAL_MS)
    assert again is not None
    assert msgspec.json.decode(again.payload)["suppressed"] == 7


def test_a_gap_says_inclusive_limits_and_kind() -> None:
    gap = gap_notice(device="d", first=3, last=5, count=3, kind="sequence", wall_ms=0)
    assert msgspec.json.decode(gap.payload) == {
        "v": "edged.gap/1", "device": "d", "from": 3, "to": 5, "count": 3,
        "kind": "sequence", "ts": "1970-01-01T00:00:00.000Z",
    }  # fmt: skip


def test_what_was_held_back_is_told_even_when_nothing_follows() -> None:
    box = LetterBox()
    for number in range(5):
        letter = box.letter("empty", "d", topic=f"in/{number}", payload=b"", mono_ms=number, wall_ms=0)
        assert (letter is not None) == (number == 0)
    assert box.overdue(mono_ms=LETTER_INTERVAL_MS - 1, wall_ms=0) == []
    (late,) = box.overdue(mono_ms=LETTER_INTERVAL_MS, wall_ms=0)
    body = msgspec.json.decode(late.payload)
    assert (body["topic"], body["suppressed"]) == ("in/4", 3)
    assert box.overdue(mono_ms=9 * LETTER_INTERVAL_MS, wall_ms=0) == [], "it is told once"
    after = box.letter("empty", "d", topic="in/5", payload=b"", mono_ms=9 * LETTER_INTERVAL_MS, wall_ms=0)
    assert after is not None
    assert msgspec.json.decode(after.payload)["suppressed"] == 0
