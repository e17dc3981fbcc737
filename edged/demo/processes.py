"""Child processes that never outlive the demo: own process group, told by the kernel when the parent dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from edged.errors import EdgedError, ExitCode

_STOP_S = 10.0
_LOG_TAIL_LINES = 12


class DemoError(EdgedError):
    """Raised when the demo cannot be played: something it needs is missing or does not start."""

    exit_code = ExitCode.UNAVAILABLE


class Child:
    """One process with its log in a file. `stop` is idempotent; leaving the `with` block kills."""

    def __init__(self, name: str, command: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self._command = tuple(command)
        self._env = env
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start, or start again. For the main thread only: it is the death of the *thread* that the kernel reports."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*_die_with_parent(), *self._command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(self._env or {})},
                process_group=0,  # a Ctrl-C at the terminal is for the demo alone, which ends things in order
            )

    @property
    def pid(self) -> int | None:
        """Of the process that runs now, or ran last."""
        return self._process.pid if self._process is not None else None

    def ended(self) -> int | None:
        """Exit status, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def kill(self) -> None:
        """SIGKILL to the whole group, and wait until it is gone."""
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait(_STOP_S)

    def stop(self, within_s: float = _STOP_S) -> int | None:
        """SIGTERM, SIGKILL after `within_s`; returns the exit status."""
        self._signal(signal.SIGTERM)
        if self._process is not None:
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()
        return self.ended()

    def log_tail(self) -> str:
        """The last lines it wrote, for an error message."""
        try:
            lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return "(no log)"
        return "\n".join(lines[-_LOG_TAIL_LINES:]) or "(empty log)"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            try:
                os.killpg(self._process.pid, number)
            except ProcessLookupError:
                pass  # it ended between the question and the signal


def _die_with_parent() -> tuple[str, ...]:
    """PR_SET_PDEATHSIG by way of setpriv, which every Debian has; elsewhere the `with` block has to do."""
    setpriv = shutil.which("setpriv")
    return (setpriv, "--pdeathsig", "KILL", "--") if setpriv else ()
