"""Accelerators in their own process: one per device, with several models inside, each behind `edged.ports.Model`."""
