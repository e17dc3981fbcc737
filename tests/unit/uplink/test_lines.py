"""Lines between daemon and uplink survive the way there and back, and a foreign one is refused with what it said."""

from __future__ import annotations

import pytest

from edged.config.settings import Upstream
from edged.errors import EdgedError
from edged.uplink.lines import (
    ForkFound,
    FromUplink,
    GaveUp,
    Line,
    News,
    Reason,
    Rejected,
    Start,
    Status,
    Synced,
    ToUplink,
    decode,
    encode,
)

STATUS = Status(
    state="open", receiver="hub", lag_rows={"alarm": 1}, ranges={"alarm": 1}, in_flight=1, in_flight_bytes=2,
    rate_kbit_s=3, link_delay_ms=4, ack_delay_ms=5, counters={"rows": 6},
)  # fmt: skip


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (Start(site="s", gateway="g", version="1", state_dir="/x", upstream=Upstream(url="mqtt://h", window=2)), Start),
        (News(next={"alarm": 3}), ToUplink),
        (GaveUp(stream="result", first=1, last=2), ToUplink),
        (Synced(stream="result", ranges=((1, 2), (4, 5))), FromUplink),
        (Rejected(stream="result", first=1, last=2, reason="bad_body"), FromUplink),
        (ForkFound(epoch="e", seq=3), FromUplink),
        (Reason(code="upstream_away", active=True, detail="ü\n"), FromUplink),
        (STATUS, FromUplink),
    ],
)
def test_a_line_comes_back_as_it_was(line: Line, kind: object) -> None:
    text = encode(line)

    assert text.count(b"\n") == 1
    assert decode(text, kind) == line


@pytest.mark.parametrize("text", [b"", b"{}", b'{"is":"start"}', b"\xff", b'{"is":"news","next":{"alarm":"x"}}'])
def test_a_line_of_another_kind_or_version_is_refused(text: bytes) -> None:
    with pytest.raises(EdgedError, match="between daemon and uplink"):
        decode(text, ToUplink)
