"""One file per vendor; none is imported before a configuration names it."""
