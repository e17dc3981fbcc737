"""`edged version`: what is installed here."""

from __future__ import annotations

import json
import platform
from importlib import metadata

import click

from edged import __version__
from edged.cli.options import json_option

# What a bug report needs; the runtimes are optional, so absent ones are shown as absent.
_PACKAGES = ("ai-edge-litert", "apsw", "mqtt5", "msgspec", "numpy", "onnxruntime", "openvino", "pydantic", "uvloop")


@click.command("version")
@json_option
def version(as_json: bool) -> None:
    """Print the version of edged and of what it stands on.

    \b
    Example:
      edged version --json
    """
    facts = {"edged": __version__, "python": platform.python_version(), "machine": platform.machine()}
    facts |= {package: _installed(package) for package in _PACKAGES}
    if as_json:
        click.echo(json.dumps({name: version or None for name, version in facts.items()}))
        return
    for name, version in facts.items():
        click.echo(f"{name:<14} {version or 'not installed'}")


def _installed(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""
