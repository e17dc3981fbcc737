"""The hub database: against a real PostgreSQL, and SQLite."""
