"""The databases of hubs."""

from tests.doubles.postgres import own_postgres, postgres

__all__ = ["own_postgres", "postgres"]
