"""A running PostgreSQL for tests that need one."""

from __future__ import annotations

from tests.doubles.postgres import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]
