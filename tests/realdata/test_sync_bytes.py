"""What results of real data cost on the line home: SKAB's results as the daemon stored them, sealed as they travel."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.messages import ResultColumns
from edged.sync.envelope import open_body, read_header, seal
from edged.sync.protocol import Encoding
from tests.realdata.conftest import Show
from tests.realdata.stored import pieces, skab_results

pytestmark = [pytest.mark.realdata, pytest.mark.slow, pytest.mark.timeout(180)]

MUST_BYTES = 15
ROWS_PER_BATCH = 2_000
# One event after the other, so that each result has times of its own: what costs most.
ONE_BY_ONE = {"events": 4_000, "per_s": 400.0}
REPLAYS: dict[str, dict[str, float]] = {"as fast as it goes": {}, "400 events a second": ONE_BY_ONE}


@pytest.fixture(scope="module", params=REPLAYS)
def replayed(
    request: pytest.FixtureRequest, shared_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ResultColumns]:
    how = REPLAYS[request.param]
    folder = tmp_path_factory.mktemp("skab")
    rows = skab_results(shared_data, folder, events=int(how.get("events", 0)), per_s=how.get("per_s", 0))
    return request.param, rows


@pytest.mark.parametrize("encoding", ["zstd", "gzip"])
def test_a_result_takes_few_bytes_on_the_line_and_arrives_as_it_was_made(
    replayed: tuple[str, ResultColumns], encoding: Encoding, show: Show
) -> None:
    name, rows = replayed
    size_bytes = 0
    for piece in pieces(rows, ROWS_PER_BATCH):
        header, payload = seal(piece, site="skoltech", gateway="bench", encoding=encoding)
        assert read_header(payload)[0] == header
        assert open_body(*read_header(payload)) == (piece.rows, None)
        size_bytes += len(payload)
    count = len(rows.context)
    assert count > 3_500
    show(f"sync  {size_bytes / count:5.2f} bytes a result, {encoding}, {count} results of SKAB, {name}")
    assert size_bytes / count <= MUST_BYTES
