"""`edged check`: every problem of the configuration, for people or as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edged.cli.options import config_option, json_option
from edged.errors import ExitCode


@click.command("check")
@config_option
@json_option
def check(config: tuple[Path, ...], as_json: bool) -> int:
    """Check the configuration and list every problem: file, key, got, allowed, unit.

    Reads the model files, certificates and secrets that it names; writes nothing. Exits with 78 when something is
    wrong; notes never prevent a start.

    \b
    Example:
      edged check
      edged check --config configs/pump.toml --json
    """
    from edged.config.loading import examine

    report = examine(config)
    if as_json:
        facts = {
            "ok": report.config is not None,
            "files": report.files,
            "problems": [problem.as_dict() for problem in report.problems],
            "notes": [note.as_dict() for note in report.notes],
        }
        click.echo(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        for note in report.notes:
            click.echo(f"note: {note}")
        for problem in report.problems:
            click.echo(problem)
        count = len(report.problems)
        click.echo(f"{count} problem{'s' if count != 1 else ''} in {', '.join(report.files)}" if count else "ok")
    return ExitCode.OK if report.config is not None else ExitCode.CONFIG
