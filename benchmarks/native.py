"""Builds the C programs: the load generator and the two floors."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from benchmarks.plan import BUILD, HERE

SOURCES = HERE / "native"
FLAGS = ("-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wshadow", "-Wconversion")


class NotMeasured(Exception):
    """Something that a figure needs is not there; the message says what, and how to get it."""


@dataclass(frozen=True)
class Program:
    """One executable and what it is made of."""

    name: str
    sources: tuple[str, ...]
    libraries: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        return BUILD / self.name


LOADGEN = Program("loadgen", ("loadgen.c", "mqtt_wire.c"))
ECHO_RAW = Program("echo_raw", ("echo_raw.c", "mqtt_wire.c"))
ECHO_LIBMOSQUITTO = Program("echo_libmosquitto", ("echo_libmosquitto.c",), ("-lmosquitto",))


def build(program: Program) -> Path:
    """Compile `program` into the build folder; returns its path.

    Raises:
        NotMeasured: no compiler, or it refuses (with its first error line).
    """
    gcc = shutil.which("gcc") or shutil.which("cc")
    if gcc is None:
        raise NotMeasured("no C compiler found: apt-get install gcc libc6-dev")
    BUILD.mkdir(parents=True, exist_ok=True)
    sources = [str(SOURCES / source) for source in program.sources]
    done = subprocess.run(
        [gcc, *FLAGS, "-o", str(program.path), *sources, *program.libraries],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines() or ["?"]
        raise NotMeasured(f"compiling {program.name} failed: {errors[0]}")
    return program.path
