"""The two error families: the world's fault (`EdgedError`) and our own (`BugError`).

An `EdgedError` says what was attempted, what was expected, what came, and the cure (`hint`).
A `BugError` is never caught except at the edge of the process, which exits with 70.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """What the process tells its caller; systemd restarts on 75 and never on 78."""

    OK = 0
    USAGE = 2
    UNAVAILABLE = 69
    BUG = 70
    IO = 74
    TEMPORARY = 75
    REFUSED = 77
    CONFIG = 78


class EdgedError(Exception):
    """Base of everything the outside world can do to us."""

    exit_code: ExitCode = ExitCode.TEMPORARY

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable

    def __str__(self) -> str:
        return f"{self.message}; try: {self.hint}" if self.hint else self.message


class ConfigError(EdgedError):
    """Raised when the configuration cannot be used; lists every problem found."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, problems: tuple[str, ...] = (), *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems


class Refused(EdgedError):
    """Raised when one input is refused; `reason` is the stable code used in `R/dlq/{reason}` and the ledger."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class LinkError(EdgedError):
    """Raised when the broker cannot be reached, refuses us or breaks the protocol."""

    exit_code = ExitCode.UNAVAILABLE


class ProtocolViolation(LinkError):
    """Raised by a codec when the peer sent bytes that MQTT does not allow; the connection is closed."""


class StoreError(EdgedError):
    """Raised when the store cannot be opened, written or read."""

    exit_code = ExitCode.IO


class StoreLocked(StoreError):
    """Raised when another process already owns the store."""

    exit_code = ExitCode.TEMPORARY


class StoreCorrupt(StoreError):
    """Raised when the database file is damaged; it is set aside and salvaged, never a reason to stop."""


class ModelError(EdgedError):
    """Raised when a model cannot be used; `code` is stable (`unsupported`, `corrupt`, `missing`, ...)."""

    exit_code = ExitCode.REFUSED

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint, retryable=retryable)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """Carries code and hint from one process to another; the standard way keeps the message alone."""
        return _make_coded, (type(self), self.code, self.message, self.hint, self.retryable)


class InferenceError(EdgedError):
    """Raised when one call of a model fails; `code` becomes the quality reason of the results."""

    def __init__(self, code: str, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message, hint=hint, retryable=retryable)
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        """Carries code and hint from one process to another; the standard way keeps the message alone."""
        return _make_coded, (type(self), self.code, self.message, self.hint, self.retryable)


class BugError(RuntimeError):
    """Our own mistake: an impossible state, a broken invariant. Never caught, exits with 70."""

    exit_code: ExitCode = ExitCode.BUG


def _make_coded(
    kind: type[ModelError | InferenceError], code: str, message: str, hint: str, retryable: bool
) -> ModelError | InferenceError:
    return kind(code, message, hint=hint, retryable=retryable)
