"""The demo's broker is found where Debian hides it, configured not to lose, and missed with a cure."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.demo.broker import config, find_mosquitto, start_broker
from edged.demo.processes import DemoError
from edged.demo.waiting import Waiter
from edged.ops.clock import SystemClock


def fake(folder: Path, script: str) -> str:
    """A folder for PATH with a `mosquitto` that runs `script`."""
    folder.mkdir()
    binary = folder / "mosquitto"
    binary.write_text(f"#!/bin/sh\n{script}\n")
    binary.chmod(0o755)
    return str(folder)


def test_a_mosquitto_on_the_path_is_found_first(tmp_path: Path) -> None:
    assert find_mosquitto(fake(tmp_path / "bin", "exit 0")) == str(tmp_path / "bin" / "mosquitto")


def test_a_missing_mosquitto_is_named_with_the_cure(tmp_path: Path) -> None:
    with pytest.raises(DemoError) as caught:
        find_mosquitto(str(tmp_path), more=())

    assert "mosquitto" in str(caught.value)
    assert "apt install mosquitto" in caught.value.hint
    assert caught.value.exit_code == 69


def test_the_broker_queues_more_than_a_demo_can_produce_and_listens_on_loopback_only() -> None:
    lines = config(1883).splitlines()

    assert "listener 1883 127.0.0.1" in lines
    assert "max_queued_messages 100000" in lines
    assert "set_tcp_nodelay true" in lines


def test_a_broker_that_dies_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    path = fake(tmp_path / "bin", "echo 'Error: no space'; exit 3")

    with pytest.raises(DemoError, match="no space"):
        start_broker(tmp_path, Waiter(SystemClock()), path=path)
