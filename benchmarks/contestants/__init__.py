"""Who is measured: one file each. `contestant.py` says what a contestant must be able to do."""
