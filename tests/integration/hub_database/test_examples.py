"""The examples of docs/reference/hub-schema.md run, and its columns are there."""

from __future__ import annotations

import re
from pathlib import Path

from edged.hub.ports import Database
from tests.integration.hub_database.samples import ask, lost, records, results

PAGE = Path(__file__).resolve().parents[3] / "docs" / "reference" / "hub-schema.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = re.findall(r"([^\n]*)\n\n```sql\n(.*?);\n```", TEXT, re.DOTALL)
VIEWS = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|$", TEXT.split("###")[0], re.MULTILINE)


async def test_every_example_of_the_page_runs(database: Database, url: str) -> None:
    await database.commit(results(1, 50))
    await database.commit(lost(51, 60))
    await database.commit(records(1, [("mode", {"mode": "normal"})]))

    assert len(EXAMPLES) == 6
    for title, query in EXAMPLES:
        if "(PostgreSQL)" in title and url.startswith("sqlite"):
            continue
        await ask(url, query)
    assert sorted(await ask(url, EXAMPLES[2][1])) == [
        ("lyon", "gw-1", "health", 1, 1, 0, 0),
        ("lyon", "gw-1", "result", 60, 50, 10, 0),
    ]


async def test_every_column_that_the_page_names_is_in_its_view(database: Database, url: str) -> None:
    assert database.receiver
    assert len(VIEWS) == 11
    for view, said in VIEWS:
        columns = ["site", "gateway", "epoch", *re.findall(r"`(\w+)`", said)]
        if view != "ledger":
            columns += ["seq"] if view == "quarantined" else ["seq", "ts", "ts_corrected"]
        names = ", ".join(f'"{column}"' for column in columns)
        await ask(url, f"SELECT {names} FROM {view}")
