"""A machine per test, with edged installed and running, where `make test-system` prepared one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.machine import Machine, hindrance
from tests.system.service import Service


@pytest.fixture(scope="session")
def layers() -> str:
    """The file system that `make test-system` makes: DEBIAN-WITH-EDGED, as layers of an overlay."""
    layers = os.environ.get("EDGED_SYSTEM_ROOT", "")
    if not layers:
        pytest.skip("boots a Debian with systemd: run by `make test-system`, which installs edged on one")
    if why := hindrance():
        pytest.skip(why)
    return layers


@pytest.fixture
def machine(layers: str, tmp_path: Path) -> Iterator[Machine]:
    with Machine(layers, tmp_path) as machine:
        yield machine.boot()


@pytest.fixture
def installed(machine: Machine) -> Service:
    """Installed and configured, not started."""
    return Service(machine).install()


@pytest.fixture
def service(installed: Service) -> Service:
    """Running and connected."""
    return installed.start()
