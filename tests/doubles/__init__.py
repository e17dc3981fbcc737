"""Doubles that implement the ports of edged.ports; nothing is ever patched."""
