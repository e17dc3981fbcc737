"""The turn: one batch through decode, windows, inference, commit, publish, acknowledge."""
