"""Messages of one read become events: routed, decoded, checked for duplicates and gaps, fed to the pipelines.

The loop in `take` runs for every message; all else in the engine runs once per batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from edged.engine.runner import FLAG_RETAINED, FLAG_TS_ARRIVAL
from edged.errors import Refused
from edged.messages import Oversize
from edged.policy.ledger import Ledger, add

if TYPE_CHECKING:
    from edged.engine.draft import Present
    from edged.engine.runner import Runner
    from edged.ingest.decode_json import JsonSource
    from edged.ingest.routes import Routes
    from edged.ingest.sequence import SequenceTracker
    from edged.messages import Inbound
    from edged.publish.letters import LetterBox

UNROUTED = "unrouted"  # the ledger stream of messages that no source wants
DUPLICATE = "duplicate"


class Source:
    """One source of events: its decoder, its memory of sequences, the pipelines it feeds."""

    def __init__(self, name: str, decoder: JsonSource, tracker: SequenceTracker, runners: Sequence[Runner]) -> None:
        self.name = name
        self.parse = decoder.parse
        self.tracker = tracker
        self.runners = tuple(runners)


class Taken(NamedTuple):
    """acks: packet ids in order of receipt. events: how many were accepted."""

    acks: list[int]
    size_bytes: int
    events: int


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

    def take(self, messages: Sequence[Inbound], *, first_seq: int, mono_ms: int, wall_ms: int) -> Taken:
        """Write the events of `messages` into the draft and feed them to the pipelines.

        Refused and duplicate messages are acknowledged too, after the same commit has counted them.
        """
        events = self._present.draft.events
        find = self._routes.sources
        add_source, add_device, add_topic = events.source.append, events.device.append, events.topic.append
        add_ts, add_in_seq, add_boot = events.ts.append, events.in_seq.append, events.boot.append
        add_flags, add_payload = events.flags.append, events.payload.append
        acks: list[int] = []
        size = 0
        seq = first_seq
        for packet_id, topic, payload, retain in messages:
            if packet_id:
                acks.append(packet_id)
            size += len(payload)
            if payload.__class__ is Oversize:
                self._refuse(UNROUTED, _oversize(payload), topic, payload, mono_ms, wall_ms)
                continue
            wanted = find(topic)
            if not wanted:
                refusal = Refused("no_route", "no pipeline subscribes to this topic")
                self._refuse(UNROUTED, refusal, topic, payload, mono_ms, wall_ms)
            for source in wanted:
                name = source.name
                terms = self.ledger.input(name)
                admit, admit_unnumbered = source.tracker.admit, source.tracker.admit_unnumbered
                for item in source.parse(topic, payload):
                    if item.__class__ is Refused:
                        self._refuse(name, item, topic, payload, mono_ms, wall_ms)
                        continue
                    device, ts, in_seq, boot, row, raw = item  # type: ignore[misc]
                    flags = FLAG_RETAINED if retain else 0
                    when = ts
                    if when is None:
                        when = wall_ms
                        flags |= FLAG_TS_ARRIVAL
                    if in_seq is not None:
                        verdict = admit(device, boot, in_seq, when, mono_ms)
                    else:
                        verdict = admit_unnumbered(device, topic, ts, raw)
                    if verdict is None:
                        terms.received += 1
                        terms.stored += 1
                        add_source(name)
                        add_device(device)
                        add_topic(topic)
                        add_ts(when)
                        add_in_seq(in_seq)
                        add_boot(boot)
                        add_flags(flags)
                        add_payload(raw)
                        for runner in source.runners:
                            if not runner.lagging:
                                runner.feed(device, when, row, seq, topic, in_seq, flags)
                        seq += 1
                    elif verdict == DUPLICATE:
                        terms.received += 1
                        terms.duplicates += 1
                    else:
                        detail = f"device {device!r} is one more than this gateway may serve"
                        self._refuse(name, Refused(verdict, detail), topic, raw, mono_ms, wall_ms)
        for source in self.sources.values():
            for runner in source.runners:
                if not runner.lagging:
                    runner.cursor = seq - 1
        return Taken(acks, size, seq - first_seq)

    def _refuse(self, stream: str, refusal: Refused, topic: str, payload: bytes, mono_ms: int, wall_ms: int) -> None:
        terms = self.ledger.input(stream)
        terms.received += 1
        add(terms.refused, refusal.reason)
        notice = self._letters.letter(
            refusal.reason, refusal.detail, topic=topic, payload=payload, mono_ms=mono_ms, wall_ms=wall_ms
        )
        if notice is not None:
            self._present.draft.notices.append(notice)


def _oversize(payload: bytes) -> Refused:
    assert isinstance(payload, Oversize)
    return Refused("too_large", f"{payload.size_bytes} bytes, sha256 {payload.sha256}; only the first 1 KiB was kept")
