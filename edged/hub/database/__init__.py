"""Where rows end: one schema for PostgreSQL and one for SQLite, and the decisions that both share."""
