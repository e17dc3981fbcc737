"""Options that several verbs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])


def config_option(function: F) -> F:
    """--config PATH, as often as wanted; the command receives `config: tuple[Path, ...]`."""
    return click.option(
        "--config",
        "-c",
        multiple=True,
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="File, or folder with edged.toml and conf.d, instead of /etc/edged. May be given several times.",
    )(function)


def json_option(function: F) -> F:
    """--json; the command receives `as_json: bool`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")(function)


def state_dir_option(function: F) -> F:
    """--state-dir DIR; the command receives `state_dir: Path | None`."""
    return click.option(
        "--state-dir",
        metavar="DIR",
        type=click.Path(path_type=Path),
        help="Folder of the store, instead of the configured gateway.state_dir.",
    )(function)
