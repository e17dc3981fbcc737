"""Do the results answer the events? Finds every lost, doubled, changed or wrong one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tests.doubles.sensors import Event, total

Json = dict[str, Any]


class Books(NamedTuple):
    """problems: in words, empty when all is well. repeated: the same result received once more, with the same id."""

    events: int
    results: int
    repeated: int
    problems: list[str]


def check(
    events: Iterable[Event],
    results: Iterable[Json],
    pipeline: str,
    *,
    window: int = 1,
    stride: int = 1,
    limit: int = 10,
) -> Books:
    """Every window of acknowledged events has exactly one answer, and it is the right one.

    Windows are counted per device over the acknowledged events in order of seq.
    """
    mine = [result for result in results if result["pipeline"] == pipeline]
    by_id: dict[str, Json] = {}
    repeated = 0
    problems: list[str] = []
    for result in mine:
        first = by_id.setdefault(result["id"], result)
        if first is not result:
            repeated += 1
            if first | {"historical": None} != result | {"historical": None}:
                problems.append(f"{result['id']} came again with other content: {first} / {result}")
    answers: dict[Event, list[Json]] = defaultdict(list)
    for result in by_id.values():
        answers[Event(result["device"], result["input"]["seq"])].append(result)
    wanted = dict(windows(events, window, stride))
    for closing, seqs in wanted.items():
        found = answers.pop(closing, [])
        if len(found) != 1:
            problems.append(f"{closing}: expected one result, got {[r['id'] for r in found]}")
        problems += [f"{closing}: {why}" for answer in found if (why := _wrong(answer, total(closing.device, seqs)))]
    problems += [f"{closing}: an answer that no event asked for" for closing in answers]
    shown = [*problems[:limit], *([f"... {len(problems)} in all"] if len(problems) > limit else [])]
    return Books(len(set(events)), len(by_id), repeated, shown)


def windows(events: Iterable[Event], window: int, stride: int) -> Iterator[tuple[Event, list[int]]]:
    """(closing event, seqs of its window) for every full window."""
    by_device: dict[str, list[int]] = defaultdict(list)
    for event in set(events):
        by_device[event.device].append(event.seq)
    for device, seqs in by_device.items():
        seqs.sort()
        for end in range(window, len(seqs) + 1, stride):
            yield Event(device, seqs[end - 1]), seqs[end - window : end]


def _wrong(answer: Json, expected: float) -> str:
    if (answer["quality"], answer["quality_reasons"]) not in ((192, []), (64, ["deadline_missed"])):
        return f"quality {answer['quality']} {answer['quality_reasons']}"
    if answer["values"] != {"total": expected}:
        return f"expected {expected}, got {answer['values']}"
    return ""
