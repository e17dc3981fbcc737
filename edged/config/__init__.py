"""TOML → frozen configuration, every problem at once.

The values are plain dataclasses and cheap to import; only `load` needs the validation library.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
from edged.config.problems import InvalidConfig, Problem
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
    "InvalidConfig",
    "Lanes",
    "Limits",
    "ModelSource",
    "Output",
    "Pipeline",
    "Problem",
    "Results",
    "Scaling",
    "Security",
    "Sparkplug",
    "Status",
    "Store",
    "Upstream",
    "load",
]


def load(paths: Sequence[str | Path] = (), *, need_models: bool = True, isolated: bool = False) -> Config:
    """The configuration, or `InvalidConfig` (a `ConfigError`) with every problem.

    paths: files that replace /etc/edged/edged.toml and its conf.d; a folder stands for its edged.toml and conf.d.
    need_models: a missing model file is a problem; the daemon says False, since it serves without a usable model.
    isolated: validate in a child process, which keeps the validation library (20 MB) out of this one.
    """
    if isolated:
        from edged.config.isolated import load_isolated

        return load_isolated(paths, need_models=need_models)
    from edged.config.loading import load as load_here

    return load_here(paths, need_models=need_models)
