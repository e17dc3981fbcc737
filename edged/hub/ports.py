"""What the hub's parts need of each other."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from edged.errors import EdgedError

if TYPE_CHECKING:
    from edged.messages import RecordColumns, ResultColumns, TelemetryColumns
    from edged.sync.protocol import Ack, BatchHeader, Hello, HelloAck, Lost


class Batch(NamedTuple):
    """A batch that was checked and decoded: exactly one of `rows` and `lost` is there."""

    header: BatchHeader
    rows: ResultColumns | TelemetryColumns | RecordColumns | None
    lost: Lost | None


class DatabaseAway(EdgedError):
    """The database does not answer, or not in time: nothing was committed, or it is not known; send it again."""


class StreamBooks(NamedTuple):
    """One stream of one gateway and epoch, as the view `ledger` shows it."""

    site: str
    gateway: str
    epoch: str
    stream: str
    rows: int
    tombstoned: int
    quarantined: int
    missing: int


class Database(Protocol):
    """Where rows end. One instance per worker; several workers at once on one database."""

    @property
    def receiver(self) -> str:
        """Identity of the database, made with it: the same for all workers."""

    async def hello(self, hello: Hello) -> HelloAck:
        """Cursors of every stream of this gateway, and where its history parts from ours. Raises `DatabaseAway`."""

    async def commit(self, batch: Batch) -> Ack:
        """Make the batch durable, leaving out what is home already; the answer counts after the commit.

        Rows that cannot be stored are set aside and named in `bad`. Raises `DatabaseAway`.
        """

    async def books(self) -> list[StreamBooks]: ...

    async def close(self) -> None: ...
