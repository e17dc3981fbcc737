"""Whoever names the upstream as somebody to compute needs one that can be asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.config.loading import Report
from edged.infer.upstream import UpstreamAddress, upstream_address
from tests.unit.config.conftest import Examine, spoil

SPLIT = ('chain = ["onnxruntime:cpu"]', 'chain = ["split:upstream", "onnxruntime:cpu"]')
CASCADE = ('chain = ["onnxruntime:cpu"]', f'cascade = {{ where = "upstream", sha256 = "{"a" * 64}", low = 0.3, high = 0.7 }}')  # noqa: E501  # fmt: skip


def upstream(text: str) -> tuple[str, str]:
    return "[security]", f"[upstream]\n{text}\n[security]"


def problems(report: Report) -> dict[str, str]:
    return {problem.key: problem.message for problem in report.problems}


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ((), "cannot be asked"),
        ((upstream('url = "https://hub.example"'),), "cannot be asked"),
        ((upstream('url = "mqtt://hub.example"\nprotocol = "3.1.1"'),), "MQTT 5"),
    ],
)
def test_a_split_without_anybody_to_ask_is_a_mistake(
    look: Examine, more: tuple[tuple[str, str], ...], words: str
) -> None:
    found = problems(look(spoil(SPLIT, *more)))

    assert words in found["pipeline[pump].model.chain"]


def test_a_cascade_to_the_upstream_needs_it_as_well(look: Examine) -> None:
    assert "cannot be asked" in problems(look(spoil(CASCADE)))["pipeline[pump].model.cascade.where"]


def test_with_a_broker_it_is_right_and_the_address_is_known(look: Examine, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    lines = 'url = "mqtts://hub.example"\nusername = "gw"\npassword_file = "secret"\ninfer_limit_kbit_s = 100'
    report = look(spoil(SPLIT, upstream(lines)))
    assert report.config is not None, report.problems

    assert upstream_address(report.config) == UpstreamAddress(
        "hub.example",
        8883,
        "lyon",
        "gw-01",
        tls=True,
        username="gw",
        password_file=str(tmp_path / "secret"),
        kbit_s=100,
    )


def test_a_password_that_is_a_credential_is_looked_for_where_systemd_lays_it(
    look: Examine,
) -> None:
    lines = 'url = "mqtt://hub.example"\nusername = "gw"\npassword_credential = "hub"'
    report = look(spoil(SPLIT, upstream(lines)))

    assert report.config is not None, report.problems
    address = upstream_address(report.config)
    assert address is not None
    assert address.password_file.endswith("/hub")
    assert address.root == "edged/v1/lyon/gw-01/infer"


def test_without_a_line_there_is_nobody_to_ask(look: Examine) -> None:
    report = look()
    assert report.config is not None
    assert upstream_address(report.config) is None
