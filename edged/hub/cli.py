"""The `edged-hub` command: finds the verb, runs it, and turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

from edged import __version__
from edged.errors import ConfigError, EdgedError, ExitCode

INTERRUPTED = 130  # what shells expect after Ctrl-C


class Verb(NamedTuple):
    """Where the click command of a verb is, and its line in --help, so that --help needs no imports."""

    module: str
    name: str
    text: str


VERBS = {
    "run": Verb("edged.hub.verbs", "run", "Receive until told to stop."),
    "check": Verb("edged.hub.verbs", "check", "Check the configuration and list every problem."),
    "migrate": Verb("edged.hub.verbs", "migrate", "Bring the schema of the database up to date."),
    "status": Verb("edged.hub.verbs", "status", "Show what the running hub is doing."),
    "ledger": Verb("edged.hub.ledger_cli", "ledger", "Show what is home and what is missing, by gateway."),
    "import": Verb("edged.hub.stick_cli", "import_stick", "Take what is on a stick, and write a receipt."),
    "keys": Verb("edged.hub.stick_cli", "keys", "Show this hub's public key, which sticks are sealed to."),
    "version": Verb("edged.hub.verbs", "version", "Print versions."),
}


class Verbs(click.Group):
    """A group whose commands are imported when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        if verb is None:
            return None
        command = getattr(import_module(verb.module), verb.name)
        assert isinstance(command, click.Command), f"{verb.module}.{verb.name} is not a click command"
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, verb.text) for name, verb in VERBS.items()])


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="edged-hub %(version)s")
def edged_hub() -> None:
    """Receives what gateways send home, and answers only after its own commit.

    \b
    Example:
      edged-hub check --config hub.toml
      edged-hub run --config hub.toml
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of the `edged-hub` command."""
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code; says on stderr what went wrong."""
    try:
        # Not edged_hub.main(): that answers a closed pipe with exit code 1, which means nothing here.
        with edged_hub.make_context("edged-hub", list(sys.argv[1:] if arguments is None else arguments)) as context:
            result = edged_hub.invoke(context)
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
        click.echo(f"edged-hub: {error}", err=True)
        return ExitCode.IO
    except Exception:  # noqa: BLE001 - the edge of the process: whatever arrives here is our bug, and says where
        traceback.print_exc()
        click.echo("edged-hub: this is a bug in edged, not a mistake of yours; please report it", err=True)
        return ExitCode.BUG
    return result if isinstance(result, int) else ExitCode.OK


def report(error: EdgedError) -> None:
    """Say on stderr what was wrong and what to try, without a traceback."""
    if isinstance(error, ConfigError):
        for problem in error.problems:
            click.echo(problem, err=True)
    click.echo(f"edged-hub: {error.message}", err=True)
    if error.hint:
        click.echo(f"try: {error.hint}", err=True)
