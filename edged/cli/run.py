"""`edged run`: configuration in, daemon until it is told to stop."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from edged.cli.options import config_option


@click.command("run")
@config_option
def run(config: tuple[Path, ...]) -> int:
    """Run the daemon in the foreground, with or without systemd; SIGTERM or Ctrl-C drains and stops it.

    Starts with a missing model, a broker that is away, or a wrong clock, and says so; only a configuration with
    problems keeps it from starting (exit code 78).

    \b
    Example:
      edged run --config configs/pump.toml
    """
    from edged import daemon
    from edged.config import load

    return daemon.run(partial(load, config, need_models=False, isolated=True))
