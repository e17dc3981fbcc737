"""Messages of one read become events: routed, decoded, checked for duplicates and gaps, fed to the pipelines.

The loop in `take` runs for every message; all else in the engine runs once per batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edged.engine.runner_parts import FLAG_RETAINED, FLAG_TS_ARRIVAL
from edged.errors import Refused
from edged.messages import Oversize
from edged.policy.ledger import InputTerms, Ledger, add

if TYPE_CHECKING:
    from edged.engine.draft import Present
    from edged.engine.runner import Runner
    from edged.ingest.decode_json import JsonSource, Parsed
    from edged.ingest.image import ImageSource, ParsedFrame
    from edged.ingest.routes import Routes
    from edged.ingest.sequence import SequenceTracker
    from edged.messages import Inbound
    from edged.pipeline.windows import Row
    from edged.publish.letters import LetterBox

UNROUTED = "unrouted"  # the ledger stream of messages that no source wants
DUPLICATE = "duplicate"


class Source:
    """One source of events: its decoder, its memory of sequences, the pipelines it feeds."""

    def __init__(
        self, name: str, decoder: JsonSource | ImageSource, tracker: SequenceTracker, runners: Sequence[Runner]
    ) -> None:
        self.name = name
        self.parse: Callable[[str, bytes], Sequence[Parsed | ParsedFrame | Refused]] = decoder.parse
        self.reread: Callable[[str, bytes], Row | bytes | None] = decoder.reread
        self.tracker = tracker
        self.admit = tracker.admit
        self.admit_unnumbered = tracker.admit_unnumbered
        self.runners = tuple(runners)
        self.terms = InputTerms()
        """Its lines in the books; `Intake` puts the real ones here."""


class Taken(NamedTuple):
    """acks: packet ids in order of receipt. events: how many were accepted."""

    acks: list[int]
    size_bytes: int
    events: int


class _Now(NamedTuple):
    mono_ms: int
    wall_ms: int


# One accepted event, a plain tuple for speed: source, device, topic, ts, in_seq, boot, flags, JSON of the event, row.
_Accepted = tuple[Source, str, str, int, "int | None", "str | None", int, bytes, "tuple[float, ...] | bytes"]


class Intake:
    """Turns messages into event columns of the draft."""

    def __init__(
        self, sources: Iterable[Source], routes: Routes[Source], ledger: Ledger, letters: LetterBox, present: Present
    ) -> None:
        self.sources = {source.name: source for source in sources}
        self.ledger = ledger
        self._routes = routes
        self._letters = letters
        self._present = present
        for source in self.sources.values():
            source.terms = ledger.input(source.name)

    def take(self, messages: Sequence[Inbound], *, first_seq: int, mono_ms: int, wall_ms: int) -> Taken:
        """Write the events of `messages` into the draft and feed them to the pipelines.

        Refused and duplicate messages are acknowledged too, after the same commit has counted them.
        """
        now = _Now(mono_ms, wall_ms)
        wanting, judge = self._routes.sources, self._judge
        accepted: list[_Accepted] = []
        acks: list[int] = []
        size = 0
        for packet_id, topic, payload, retain in messages:
            if packet_id:
                acks.append(packet_id)
            size += len(payload)
            sources = wanting(topic)
            if payload.__class__ is Oversize or not sources:
                self._refuse(UNROUTED, _unreadable(payload), topic, payload, now)
                continue
            for source in sources:
                judge(source, topic, payload, retain, now, accepted)
        if accepted:
            self._write(accepted)
        self._feed(accepted, first_seq)
        return Taken(acks, size, len(accepted))

    def _judge(
        self, source: Source, topic: str, payload: bytes, retain: bool, now: _Now, accepted: list[_Accepted]
    ) -> None:
        """Decode one message for one source; what is taken goes to `accepted`, everything else into the books."""
        terms = source.terms
        for item in source.parse(topic, payload):
            if item.__class__ is Refused:
                self._refuse(source.name, item, topic, payload, now)
                continue
            device, ts, in_seq, boot, row, raw = item  # type: ignore[misc]
            flags = FLAG_RETAINED if retain else 0
            when = ts
            if when is None:
                when = now.wall_ms
                flags |= FLAG_TS_ARRIVAL
            if in_seq is not None:
                verdict = source.admit(device, boot, in_seq, ts, now.mono_ms)
            else:
                verdict = source.admit_unnumbered(device, topic, ts, raw)
            if verdict is None:
                terms.received += 1
                terms.stored += 1
                accepted.append((source, device, topic, when, in_seq, boot, flags, raw, row))
            elif verdict == DUPLICATE:
                terms.received += 1
                terms.duplicates += 1
            else:
                detail = f"device {device!r} is one more than this gateway may serve"
                self._refuse(source.name, Refused(verdict, detail), topic, raw, now)

    def _write(self, accepted: list[_Accepted]) -> None:
        events = self._present.draft.events
        sources, devices, topics, times, in_seqs, boots, flags, payloads, _ = zip(*accepted, strict=True)
        events.source += [source.name for source in sources]
        events.device += devices
        events.topic += topics
        events.ts += times
        events.in_seq += in_seqs
        events.boot += boots
        events.flags += flags
        events.payload += payloads

    def _feed(self, accepted: list[_Accepted], first_seq: int) -> None:
        """Show the events to the pipelines that keep up; the others read them from the store."""
        for seq, (source, device, topic, when, in_seq, _, flags, _, row) in enumerate(accepted, first_seq):
            for runner in source.runners:
                if not runner.lagging:
                    runner.feed(device, when, row, seq, topic, in_seq, flags)
        newest = first_seq + len(accepted) - 1
        for source in self.sources.values():
            for runner in source.runners:
                if not runner.lagging:
                    runner.cursor = newest

    def _refuse(self, stream: str, refusal: Refused, topic: str, payload: bytes, now: _Now) -> None:
        terms = self.ledger.input(stream)
        terms.received += 1
        add(terms.refused, refusal.reason)
        notice = self._letters.letter(
            refusal.reason, refusal.detail, topic=topic, payload=payload, mono_ms=now.mono_ms, wall_ms=now.wall_ms
        )
        if notice is not None:
            self._present.draft.notices.append(notice)


def _unreadable(payload: bytes) -> Refused:
    if isinstance(payload, Oversize):
        detail = f"{payload.size_bytes} bytes, sha256 {payload.sha256}; only the first 1 KiB was kept"
        return Refused("too_large", detail)
    return Refused("no_route", "no pipeline subscribes to this topic")
