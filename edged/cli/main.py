"""The `edged` command: finds the verb, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import NoReturn

import click

from edged import __version__
from edged.errors import ConfigError, EdgedError, ExitCode

# One line per verb, so that --help needs no imports. The verb `x` is the click command `x` in edged/cli/x.py; what it
# returns is the exit code, None for 0.
VERBS = {
    "run": "Run the daemon in the foreground.",
    "check": "Check the configuration and list every problem.",
    "doctor": "Say which class of hardware fits this box, what it can run, and what is in the way.",
    "schema": "Print the JSON Schema of the configuration.",
    "status": "Show what the running daemon is doing.",
    "store": "Look into the store, and carry it home on a stick: stats, verify, export.",
    "model": "Make models smaller, verify and measure them: optimize, verify, benchmark.",
    "demo": "Show a simulated plant, a broker, the daemon and a SCADA view.",
    "version": "Print versions.",
}
INTERRUPTED = 130  # what shells expect after Ctrl-C


class Verbs(click.Group):
    """A group whose commands are imported when they are used, so that `edged run` stays small in memory."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [verb for verb in VERBS if find_spec(f"edged.cli.{verb}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        command = getattr(import_module(f"edged.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command), f"edged.cli.{cmd_name}.{cmd_name} is not a click command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(verb, VERBS[verb]) for verb in self.list_commands(ctx)])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="edged %(version)s")
def edged() -> None:
    """Sensor events in over MQTT, inference on the spot, durable results out.

    \b
    Example:
      edged check --config configs/pump.toml
      edged run --config configs/pump.toml
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `edged` command."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; says on stderr what went wrong."""
    try:
        # Not edged.main(): that answers a closed pipe with exit code 1, which means nothing here.
        with edged.make_context("edged", list(sys.argv[1:] if arguments is None else arguments)) as context:
            result = edged.invoke(context)
        sys.stdout.flush()
    except click.exceptions.Exit as leaving:
        return leaving.exit_code
    except (click.exceptions.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except click.ClickException as error:
        error.show()
        return ExitCode.USAGE
    except EdgedError as error:
        report(error)
        return error.exit_code
    except OSError as error:
        if error.errno == errno.EPIPE:  # the reader of our output (`| head`) has enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return ExitCode.OK
        click.echo(f"edged: {error}", err=True)
        return ExitCode.IO
    except Exception:  # noqa: BLE001 - the edge of the process: whatever arrives here is our bug, and says where
        traceback.print_exc()
        click.echo(
            "edged: this is a bug in edged, not a mistake of yours; please report it with the lines above", err=True
        )
        return ExitCode.BUG
    return result if isinstance(result, int) else ExitCode.OK


def report(error: EdgedError) -> None:
    """Say on stderr what was wrong and what to try, without a traceback."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(problem, err=True)
    click.echo(f"edged: {error.message}", err=True)
    if error.hint:
        click.echo(f"try: {error.hint}", err=True)
