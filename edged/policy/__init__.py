"""Decisions without a home elsewhere: modes, backoff, ledger. Pure: numbers and values in, decisions out."""
