"""What the child is told follows from the configuration."""

from __future__ import annotations

from pathlib import Path

from edged.config.loading import load
from edged.uplink.supervisor import start_of
from tests.unit.config.conftest import VALID


def test_the_child_is_told_who_we_are_where_the_store_is_and_how_to_send(tmp_path: Path) -> None:
    file = tmp_path / "edged.toml"
    file.write_text(VALID + '\n[upstream]\nurl = "https://hub.example/below/"\nwindow = 3\n', encoding="utf-8")
    config = load([file], need_models=False)
    start = start_of(config, "1.2.3", "hub-1")

    assert (start.site, start.gateway, start.version, start.receiver) == ("lyon", "gw-01", "1.2.3", "hub-1")
    assert start.state_dir == str(tmp_path / "state")
    upstream = start.upstream
    assert (upstream.host, upstream.port, upstream.path, upstream.window) == ("hub.example", 443, "/below", 3)
    assert (upstream.tls, upstream.http, upstream.client_id) == (True, True, "edged-up-lyon-gw-01")
