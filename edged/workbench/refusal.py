"""What the workbench says no to."""

from __future__ import annotations

from edged.errors import EdgedError, ExitCode, ModelError


class Unfit(EdgedError):
    """Raised when a model or its data are refused; `code` is stable and stands first in the message."""

    exit_code = ExitCode.REFUSED

    def __init__(self, code: str, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{code}: {detail}", hint=hint)
        self.code = code
        self.detail = detail


def unfit(error: ModelError) -> Unfit:
    """A refusal of the loader or of a runtime, with its code in front."""
    return Unfit(error.code, error.message, hint=error.hint)
