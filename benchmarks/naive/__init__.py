"""The daemon that one would write first."""
