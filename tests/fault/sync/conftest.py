"""The databases of hubs, and what is left to `make sync-faults` because it takes long."""

import os

import pytest

from tests.doubles.postgres import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]

THOROUGH = bool(os.environ.get("EDGED_THOROUGH"))
thorough = pytest.mark.skipif(not THOROUGH, reason="takes long: make sync-faults")
