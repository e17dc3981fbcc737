"""Validation in a child process: the daemon gets its configuration without keeping the validator (20 MB) in memory."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path as FilePath

import msgspec

from edged.config.problems import InvalidConfig, Problem
from edged.config.settings import Config
from edged.errors import BugError, EdgedError

TIMEOUT_S = 60.0  # a second on slow hardware; a hung file system must not hang the daemon for ever


class Answer(msgspec.Struct):
    """What the child says: a configuration or its problems."""

    config: Config | None
    problems: tuple[Problem, ...]


def load_isolated(
    paths: Sequence[str | FilePath] = (),
    *,
    need_models: bool = True,
    python: str = sys.executable,
    timeout_s: float = TIMEOUT_S,
) -> Config:
    """`load` in a child process; blocks for the time of a Python start (0.5 s), so call it off the loop."""
    package = str(FilePath(__file__).parents[2])
    command = [python, "-P", "-m", "edged.config.isolated", str(int(need_models)), *map(str, paths)]
    search = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    try:
        child = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": search}, stdout=subprocess.PIPE, timeout=timeout_s, check=False
        )
    except subprocess.TimeoutExpired as error:
        hint = "look for a file system that hangs"
        raise EdgedError(f"the configuration could not be read within {timeout_s} s", hint=hint) from error
    if child.returncode != 0:
        raise BugError(f"checking the configuration ended with {child.returncode}; its own message stands above")
    answer = msgspec.msgpack.decode(child.stdout, type=Answer)
    if answer.config is None:
        raise InvalidConfig(answer.problems)
    return answer.config


def main(arguments: Sequence[str]) -> None:
    """The child's side: [need_models, path...] → msgpack on standard output."""
    from edged.config.loading import examine

    report = examine(arguments[1:], need_models=arguments[0] == "1")
    sys.stdout.buffer.write(msgspec.msgpack.encode(Answer(config=report.config, problems=report.problems)))


if __name__ == "__main__":
    main(sys.argv[1:])
