"""Verbs are found by name, and errors become messages and exit codes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click
import pytest

from edged.cli import main as cli
from edged.errors import ConfigError, EdgedError, ExitCode, ModelError
from tests.unit.cli.conftest import Edged

PRESENT = cli.edged.list_commands(click.Context(cli.edged))


@contextmanager
def verb(name: str, error: BaseException | None) -> Iterator[None]:
    """A verb that raises, for as long as the block lasts: a module of its own, as the real verbs are."""
    module = type(sys)(f"edged.cli.{name}")
    module.__spec__ = type(cli.__spec__)(f"edged.cli.{name}", None)

    @click.command(name)
    def command() -> None:
        if error is not None:
            raise error

    setattr(module, name, command)
    sys.modules[f"edged.cli.{name}"] = module
    cli.VERBS[name] = "Raises."
    try:
        yield
    finally:
        del sys.modules[f"edged.cli.{name}"], cli.VERBS[name]


@pytest.mark.parametrize("name", PRESENT)
def test_every_verb_has_help_with_an_example(edged: Edged, name: str) -> None:
    ran = edged(name, "--help")
    assert ran.code == ExitCode.OK
    assert "Example" in ran.out
    assert f"edged {name}" in ran.out


def test_help_lists_the_verbs_that_are_there(edged: Edged) -> None:
    ran = edged("--help")
    assert ran.code == ExitCode.OK
    assert {"run", "check", "schema", "version"} <= set(PRESENT)
    for name in cli.VERBS:
        assert (f"  {name} " in ran.out) == (name in PRESENT)


def test_an_unknown_verb_is_a_usage_error(edged: Edged) -> None:
    ran = edged("chekc")
    assert (ran.code, ran.out) == (ExitCode.USAGE, "")
    assert "chekc" in ran.err


def test_an_unknown_option_is_a_usage_error(edged: Edged) -> None:
    assert edged("check", "--jsn").code == ExitCode.USAGE


def test_no_verb_prints_the_help(edged: Edged) -> None:
    ran = edged()
    assert ran.code == ExitCode.USAGE
    assert "Commands:" in ran.out + ran.err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EdgedError("no broker", hint="start it"), ExitCode.TEMPORARY, "edged: no broker\ntry: start it\n"),
        (ModelError("corrupt", "bad model"), ExitCode.REFUSED, "edged: bad model\n"),
        (ConfigError("two problems", ("a", "b")), ExitCode.CONFIG, "a\nb\nedged: two problems\n"),
        (PermissionError(13, "Permission denied", "/x"), ExitCode.IO, "edged: [Errno 13] Permission denied: '/x'\n"),
        (click.exceptions.Abort(), cli.INTERRUPTED, ""),
        (KeyboardInterrupt(), cli.INTERRUPTED, ""),
        (click.exceptions.Exit(3), 3, ""),
    ],
    ids=["world", "refused", "configuration", "disk", "abort", "interrupt", "exit"],
)
def test_an_error_of_the_world_is_a_message_and_an_exit_code(
    edged: Edged, error: BaseException, code: int, said: str
) -> None:
    with verb("raises", error):
        ran = edged("raises")
    assert (ran.code, ran.err) == (code, said)


def test_our_own_bug_shows_where_it_is(edged: Edged) -> None:
    with verb("raises", ZeroDivisionError("oops")):
        ran = edged("raises")
    assert ran.code == ExitCode.BUG
    assert "Traceback" in ran.err
    assert "bug in edged" in ran.err


def test_success_is_zero(edged: Edged) -> None:
    with verb("works", None):
        assert edged("works").code == ExitCode.OK


def test_the_version_is_told_in_three_ways(edged: Edged) -> None:
    flag, plain, facts = edged("--version"), edged("version"), edged("version", "--json")
    assert flag.out.startswith("edged ")
    assert plain.out.startswith("edged ")
    assert "python" in plain.out
    assert '"edged": "' in facts.out
    assert {flag.code, plain.code, facts.code} == {ExitCode.OK}


def test_the_module_runs_as_the_command_does() -> None:
    done = subprocess.run([sys.executable, "-m", "edged", "version"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "edged", "schema"], stdout=writing, stderr=subprocess.PIPE, check=False
        )
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_command_line_alone_imports_no_verb() -> None:
    code = "import sys, edged.cli.main; sys.exit(any(m in sys.modules for m in ('pydantic', 'numpy', 'edged.daemon')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
