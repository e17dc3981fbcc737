"""Tests of edged: unit (pure), integration (real broker, store, runtime), fault (what breaks in the field)."""
