"""The bench beside the line: models are made smaller, verified and measured here, never inside the daemon."""
