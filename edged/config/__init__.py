"""TOML → frozen configuration, every problem at once. Values are plain dataclasses; `load` validates in one step."""

from __future__ import annotations

from edged.config.hardware import Envelope, HardwareClass, HardwareLimits, Lanes
from edged.config.pipeline import (
    Alarm,
    Calibration,
    Constraint,
    Input,
    ModelSource,
    Output,
    Pipeline,
    Scaling,
)
from edged.config.settings import (
    Broker,
    Config,
    Gateway,
    Limits,
    Results,
    Security,
    Sparkplug,
    Status,
    Store,
    Upstream,
)

__all__ = [
    "Alarm",
    "Broker",
    "Calibration",
    "Config",
    "Constraint",
    "Envelope",
    "Gateway",
    "HardwareClass",
    "HardwareLimits",
    "Input",
    "Lanes",
    "Limits",
    "ModelSource",
    "Output",
    "Pipeline",
    "Results",
    "Scaling",
    "Security",
    "Sparkplug",
    "Status",
    "Store",
    "Upstream",
]
