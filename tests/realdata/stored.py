"""Results as they wait in the store of the real daemon: SKAB through broker and daemon, then what is to go home."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw

from edged.messages import ResultColumns
from edged.store.segment import Unpacker
from edged.sync.piece import Piece
from tests.realdata import skab
from tests.realdata.replay import Plant, plant, table
from tests.realdata.test_skab import interleaved, slug


def skab_results(shared_data: Path, folder: Path, *, events: int = 0, per_s: float = 0) -> ResultColumns:
    """All results of a replay, oldest first.

    events: how many are sent, 0 for all. per_s: at which rate, 0 for as fast as the broker takes them.
    """
    runs = [skab.read_run(path) for path in skab.run_files(shared_data)]
    tables = []
    for run in runs:
        file = folder / f"{slug(run)}.onnx"
        file.write_bytes(skab.to_onnx(skab.fit(run.values[: skab.TRAINING_ROWS])))
        output = f'{{ kind = "anomaly", threshold = {skab.THRESHOLD} }}'
        window = f"window = {skab.WINDOW}"
        tables.append(table(slug(run), f"skab/{slug(run)}", file, output, fields=run.fields, more=window))
    messages = list(interleaved(runs))[: events or None]
    with plant(folder, *tables) as running:
        _send(running, messages, per_s)
        running.settled()
        assert running.daemon.stop() == 0
        return _stored(running.daemon.state / "store.db")


def _send(running: Plant, messages: list[tuple[str, bytes]], per_s: float) -> None:
    if not per_s:
        running.publish(messages)
        return
    begun = time.monotonic()
    for number, message in enumerate(messages):
        time.sleep(max(0.0, begun + number / per_s - time.monotonic()))  # the rate is what is asked for
        running.publish([message])


def _stored(database: Path) -> ResultColumns:
    unpacker = Unpacker()
    with closing(apsw.Connection(str(database), flags=apsw.SQLITE_OPEN_READONLY)) as connection:
        journal = list(connection.execute("SELECT result_n, results FROM journal WHERE result_n > 0 ORDER BY batch"))
    return joined([unpacker.results(blob, n) for n, blob in journal])


def joined(units: list[ResultColumns]) -> ResultColumns:
    """One after the other, under the contexts of all of them."""
    names = ResultColumns.__struct_fields__[2:]
    whole = ResultColumns([], [], *([] for _ in names))
    for unit in units:
        whole.contexts += [context for context in unit.contexts if context not in whole.contexts]
        whole.context += [whole.contexts.index(unit.contexts[context]) for context in unit.context]
        for name in names:
            getattr(whole, name).extend(getattr(unit, name))
    return whole


def pieces(rows: ResultColumns, size: int) -> Iterator[Piece]:
    """Batches of `size` rows, each with the contexts that it needs; what is left at the end is a smaller one."""
    for first in range(0, len(rows.context), size):
        columns = [getattr(rows, name)[first : first + size] for name in rows.__struct_fields__[1:]]
        used = sorted(set(columns[0]))
        context = [used.index(each) for each in columns[0]]
        part = ResultColumns([rows.contexts[each] for each in used], context, *columns[1:])
        last = first + len(context)
        yield Piece("result", "0b0e9ea1c3a84b6c", 1, first + 1, last, "boot", "synced", part, None)
