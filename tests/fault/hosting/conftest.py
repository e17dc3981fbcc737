"""The fixtures of the unit tests: a model file, and processes that are ended with the test."""

from __future__ import annotations

from tests.unit.infer.hosting.conftest import devices, file, make_devices

__all__ = ["devices", "file", "make_devices"]
