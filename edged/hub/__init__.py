"""`edged-hub`, the receiver: batches in, rows in PostgreSQL or SQLite out, exactly once."""
