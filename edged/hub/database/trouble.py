"""What a database does to us, in words without passwords."""

from __future__ import annotations

import re

from edged.errors import EdgedError, ExitCode
from edged.hub.ports import DatabaseAway

_PASSWORD = re.compile(r"(?<=://)([^:/@]*):[^@/]*@")
_PASSWORD_KEY = re.compile(r"(?i)(password=)[^&]*")


class DatabaseUnfit(EdgedError):
    """Raised when the database answers, but its schema or its rights are not what this program needs."""

    exit_code = ExitCode.IO


def shown(url: str) -> str:
    """The URL for people and logs."""
    return _PASSWORD_KEY.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def away(doing: str, error: BaseException, *, hint: str = "") -> DatabaseAway:
    """A failure after which the same batch may be sent again, whether its commit succeeded or not."""
    return DatabaseAway(f"{doing}: {type(error).__name__}: {str(error)[:300]}", hint=hint, retryable=True)


def not_migrated(found: int, wanted: int) -> DatabaseUnfit:
    """A schema of another version than this program's."""
    if found > wanted:
        return DatabaseUnfit(
            f"the schema of the database has version {found}, this edged-hub knows versions up to {wanted}",
            hint="install the newer edged-hub",
        )
    had = f"version {found}" if found else "no tables of edged-hub yet"
    return DatabaseUnfit(f"the database has {had}, version {wanted} is needed", hint="edged-hub migrate")
