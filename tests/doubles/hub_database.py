"""The hub's database in memory: exactly-once by number, forks by probe, and away when told so."""

from __future__ import annotations

from edged.hub.ports import Batch, DatabaseAway, StreamBooks
from edged.messages import ResultColumns
from edged.sync import ranges
from edged.sync.protocol import VERSION, Ack, AckStatus, Cursor, Fork, Hello, HelloAck
from edged.sync.ranges import Ranges

Key = tuple[str, str, str, str]  # site, gateway, epoch, stream


class MemoryDatabase:
    """Implements `edged.hub.ports.Database`. away_after: commits until it is away. answers: by stream."""

    def __init__(self, receiver: str = "hub-db-1") -> None:
        self._receiver = receiver
        self.home: dict[Key, Ranges] = {}
        self.makers: dict[tuple[str, str, str, int], tuple[str, int]] = {}
        self.commits = 0
        self.rows_written = 0
        self.away_after: int | None = None
        self.answer: tuple[AckStatus, str] = ("ok", "")
        self.answers: dict[str, tuple[AckStatus, str]] = {}
        self.closed = False

    @property
    def receiver(self) -> str:
        return self._receiver

    async def hello(self, hello: Hello) -> HelloAck:
        self._reach()
        forks = []
        for probe in hello.probes:
            found = self.makers.get((hello.site, hello.gateway, probe.epoch, probe.seq))
            if found is not None and found != (probe.boot, probe.mono_ns):
                forks.append(Fork(probe.epoch, probe.seq))
        cursors = []
        for (site, gateway, epoch, stream), home in self.home.items():
            if (site, gateway) == (hello.site, hello.gateway):
                upto, beyond = ranges.contiguous(home, 1)
                cursors.append(Cursor(epoch, stream, upto, beyond))  # type: ignore[arg-type]
        return HelloAck(
            v=VERSION, receiver=self._receiver, site=hello.site, gateway=hello.gateway, instance=hello.instance,
            status=self.answer[0], reason=self.answer[1], cursors=tuple(cursors), forks=tuple(forks),
        )  # fmt: skip

    async def commit(self, batch: Batch) -> Ack:
        self._reach()
        head = batch.header
        key = (head.site, head.gateway, head.epoch, head.stream)
        before = self.home.get(key, ())
        status, reason = self.answers.get(head.stream, self.answer)
        if status == "ok":
            self.commits += 1
            for first, last in ranges.missing(before, head.first, head.last):
                self.rows_written += last - first + 1
                if isinstance(batch.rows, ResultColumns):
                    for seq in range(first, last + 1):
                        index = seq - head.first
                        context = batch.rows.contexts[batch.rows.context[index]]
                        self.makers[head.site, head.gateway, head.epoch, seq] = context.boot, batch.rows.mono_ns[index]
            self.home[key] = ranges.add(before, head.first, head.last)
        upto, beyond = ranges.contiguous(self.home.get(key, ()), head.base)
        return Ack(
            v=VERSION, receiver=self._receiver, site=head.site, gateway=head.gateway, epoch=head.epoch,
            stream=head.stream, first=head.first, last=head.last, status=status, reason=reason,
            upto=upto, ranges=beyond,
        )  # fmt: skip

    def _reach(self) -> None:
        if self.away_after is not None and self.commits >= self.away_after:
            raise DatabaseAway("the database does not answer", hint="start it")

    async def books(self) -> list[StreamBooks]:
        return []

    async def close(self) -> None:
        self.closed = True
