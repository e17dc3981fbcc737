"""6. Results become payloads; the store is the outbox; retained topics are kept on a board."""
