"""`edged schema`: the JSON Schema of the configuration."""

from __future__ import annotations

import json

import click


@click.command("schema")
def schema() -> None:
    """Print the JSON Schema (2020-12) of the configuration, for editors and generators.

    \b
    Example:
      edged schema > edged.schema.json
    """
    from edged.config.schema import config_schema

    click.echo(json.dumps(config_schema(), indent=2, ensure_ascii=False))
