"""Verbs of `edged-hub`: found by name, explained, and errors become messages and exit codes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest

from edged.errors import ConfigError, EdgedError, ExitCode
from edged.hub import cli
from edged.hub.status_socket import socket_file
from edged.hub.verbs import describe
from tests.unit.hub.conftest import HubCommand, Write


@contextmanager
def verb(error: BaseException | None) -> Iterator[None]:
    """A verb `raises`, for as long as the block lasts."""

    @click.command("raises")
    def command() -> None:
        if error is not None:
            raise error

    module = type(sys)("edged.hub.raising")
    module.command = command  # type: ignore[attr-defined]
    sys.modules["edged.hub.raising"] = module
    cli.VERBS["raises"] = cli.Verb("edged.hub.raising", "command", "Raises.")
    try:
        yield
    finally:
        del sys.modules["edged.hub.raising"], cli.VERBS["raises"]


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_every_verb_has_help_with_an_example(edged_hub: HubCommand, name: str) -> None:
    ran = edged_hub(name, "--help")
    assert ran.code == ExitCode.OK
    assert "Example" in ran.out
    assert f"edged-hub {name}" in ran.out


def test_help_lists_the_verbs(edged_hub: HubCommand) -> None:
    ran = edged_hub("--help")
    assert ran.code == ExitCode.OK
    assert all(f"  {name} " in ran.out for name in cli.VERBS)
    assert edged_hub("chek").code == edged_hub("check", "--jsn").code == edged_hub().code == ExitCode.USAGE


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EdgedError("no broker", hint="start it"), ExitCode.TEMPORARY, "edged-hub: no broker\ntry: start it\n"),
        (ConfigError("two problems", ("a", "b")), ExitCode.CONFIG, "a\nb\nedged-hub: two problems\n"),
        (
            PermissionError(13, "Permission denied", "/x"),
            ExitCode.IO,
            "edged-hub: [Errno 13] Permission denied: '/x'\n",
        ),
        (click.exceptions.Abort(), cli.INTERRUPTED, ""),
        (KeyboardInterrupt(), cli.INTERRUPTED, ""),
        (click.exceptions.Exit(3), 3, ""),
        (None, ExitCode.OK, ""),
    ],
    ids=["world", "configuration", "disk", "abort", "interrupt", "exit", "nothing"],
)
def test_an_error_of_the_world_is_a_message_and_an_exit_code(
    edged_hub: HubCommand, error: BaseException | None, code: int, said: str
) -> None:
    with verb(error):
        ran = edged_hub("raises")
    assert (ran.code, ran.err) == (code, said)


def test_our_own_bug_shows_where_it_is(edged_hub: HubCommand) -> None:
    with verb(ZeroDivisionError("oops")):
        ran = edged_hub("raises")
    assert ran.code == ExitCode.BUG
    assert "Traceback" in ran.err


def test_a_reader_that_has_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "edged.hub", "version"]
    try:
        done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_version_is_told(edged_hub: HubCommand) -> None:
    assert edged_hub("--version").out.startswith("edged-hub ")
    assert "aiohttp" in edged_hub("version").out
    assert json.loads(edged_hub("version", "--json").out)["paho-mqtt"]


def test_check_tells_problems_for_people_and_machines(edged_hub: HubCommand, write: Write) -> None:
    file = write("[hub]\nworkers = 0\nstate = 1\n")
    ran = edged_hub("check", "--config", file)
    assert ran.code == ExitCode.CONFIG
    assert "2 problems" in ran.out
    facts = json.loads(edged_hub("check", "--json", "--config", file).out)
    assert (facts["ok"], len(facts["problems"])) == (False, 2)


@pytest.mark.allow_blocking(reason="asyncpg looks for a password file when it connects")
def test_check_tells_what_cannot_be_reached_as_notes(edged_hub: HubCommand, write: Write) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        port = nobody.getsockname()[1]
        file = write(
            f'[broker]\nurl = "mqtt://127.0.0.1:{port}"\n[database]\nurl = "postgresql://u@127.0.0.1:{port}/d"\n'
        )
        ran = edged_hub("check", "--json", "--config", file)
    assert ran.code == ExitCode.OK
    assert [note["key"] for note in json.loads(ran.out)["notes"]] == ["database.url", "broker.url"]
    migrated = edged_hub("migrate", "--config", file)
    assert (migrated.code, "Traceback" in migrated.err) == (ExitCode.UNAVAILABLE, False)


def test_migrate_makes_the_folder_and_says_what_it_did(edged_hub: HubCommand, write: Write, tmp_path: Path) -> None:
    file = write('[hub]\nstate_dir = "state"\n[database]\nurl = "sqlite:///state/hub.db"\n')
    assert edged_hub("migrate", "--config", file).code == ExitCode.OK
    assert "nothing to do" in edged_hub("migrate", "--config", file).out
    (tmp_path / "file").touch()
    file = write('[hub]\nstate_dir = "file/state"\n')
    assert "making the state directory" in edged_hub("migrate", "--config", file).err


def test_run_refuses_a_configuration_without_a_way_in(edged_hub: HubCommand, write: Write) -> None:
    ran = edged_hub("run", "--config", write(""))
    assert ran.code == ExitCode.CONFIG
    assert "nothing to receive from" in ran.err


def test_status_without_a_hub_says_so(edged_hub: HubCommand, write: Write, tmp_path: Path) -> None:
    file = write('[hub]\nstate_dir = "."\n')
    assert edged_hub("status", "--config", file).code == ExitCode.UNAVAILABLE
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(socket_file(str(tmp_path))))
        ran = edged_hub("status", "--config", file)
    assert (ran.code, "Traceback" in ran.err) == (ExitCode.UNAVAILABLE, False)


def test_the_status_is_readable() -> None:
    document = {
        "healthy": False,
        "version": "1",
        "faults": [{"code": "database_away", "detail": "refused"}],
        "receiver": "",
        "workers": [
            {"number": 1, "pid": None, "starts": 2, "answered": 5, "inflight_batches": 0, "faults": ["worker_away"]}
        ],
        "metrics": {
            "edged_hub_rows_total": [
                {"worker": "1", "stream": "alarm", "kind": "rows", "value": 5},
                {"worker": "2", "stream": "alarm", "kind": "rows", "value": 6},
            ]
        },
    }
    lines = list(describe(document))
    assert lines[1] == "  fault   database_away: refused"
    assert "not known yet" in lines[2]
    assert "worker_away" in lines[3]
    assert lines[-1] == "home      alarm rows: 11"


def test_the_command_line_alone_imports_no_verb() -> None:
    code = (
        "import sys, edged.hub.cli; sys.exit(any(m in sys.modules for m in ('aiohttp', 'asyncpg', 'paho', 'asyncio')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
