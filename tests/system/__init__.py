"""The installed service under a real systemd: `make test-system`. Skipped by `make test`."""
