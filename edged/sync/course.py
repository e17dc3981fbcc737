"""How far one stream is: which numbers exist, which are home, on their way or given up, and where live begins. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from edged.sync.lanes import LIVE_STREAMS, Part
from edged.sync.protocol import BATCH_ROWS_MAX, RANGES_MAX, Range, Stream, StreamExtent
from edged.sync.ranges import Ranges, add, clip, contiguous, count, covers, missing, normalise

LIVE_MAX_NS = 30_000_000_000  # unsent for so long, a row is backlog
MARK_NS = 200_000_000  # numbers made within this time count as made at once
ROW_MIN_BYTES = 0.05  # rows that repeat each other compress to almost nothing
FIXED_BYTES = 500  # of a batch: header and column names
FIRST_GUESS_BYTES = {"alarm": 120.0, "health": 120.0, "result": 20.0, "telemetry": 30.0}


class Course:
    """One stream. Numbers are those of the store, which go on counting from epoch to epoch.

    spare: how many ranges may appear while answers come out of order; a new one begins only with so much room.
    """

    def __init__(self, stream: Stream, spare: int) -> None:
        self.stream = stream
        self.extents: tuple[StreamExtent, ...] = ()
        self.home: Ranges = ()
        self.given_up: Ranges = ()
        """Refused by the hub, and not yet replaced by a tombstone."""
        self.shelved: Ranges = ()
        """Refused although they are a tombstone: left alone for an hour, or until the next hello."""
        self.shelved_ns = 0
        self.flying: Ranges = ()
        self.front: int | None = None
        """First live number; None while there are too many ranges to begin another one."""
        self.quiet_until_ns = 0
        self.rejects_in_row = 0
        self.rows_max = BATCH_ROWS_MAX
        self.row_bytes = FIRST_GUESS_BYTES[stream]
        self._ranges_max = RANGES_MAX - spare
        self._marks: deque[tuple[int, int]] = deque()  # (when, first number made then)

    # --- what exists ---

    @property
    def next(self) -> int:
        """The number that the next row will get; 0 while nothing is known."""
        return self.extents[-1].next if self.extents else 0

    @property
    def made(self) -> int:
        return sum(extent.next - extent.base for extent in self.extents)

    @property
    def waiting(self) -> int:
        """Numbers that are not home."""
        return self.made - count(self.home)

    def moved(self, extents: Sequence[StreamExtent], now_ns: int) -> None:
        """Take over what the store says; numbers that appear are as old as now."""
        before = self.next
        self.extents = tuple(extents)
        self.home = self.clip_home(self.home)
        if self.next > before:
            self._mark(max(before, 1), now_ns)

    def grown(self, next_number: int, now_ns: int) -> None:
        """Rows were made in the current epoch."""
        newest = self.extents[-1]
        if next_number > newest.next:
            self._mark(newest.next, now_ns)
            self.extents = (*self.extents[:-1], StreamExtent(newest.epoch, newest.stream, newest.base, next_number))

    def clip_home(self, ranges: Ranges) -> Ranges:
        """The part of `ranges` that exists."""
        return normalise(piece for extent in self.extents for piece in clip(ranges, extent.base, extent.next - 1))

    def told(self, epoch: str, upto: int, ranges: Iterable[Range]) -> Ranges | None:
        """What a receiver says to have of one epoch, as our numbers; None when we know no such epoch."""
        for extent in self.extents:
            if extent.epoch == epoch:
                return clip(normalise([(extent.base, upto), *ranges]), extent.base, extent.next - 1)
        return None

    # --- what is home ---

    def arrived(self, ranges: Ranges) -> Ranges:
        """Add to what is home; returns what is new."""
        fresh = [hole for first, last in ranges for hole in missing(self.home, first, last)]
        for first, last in fresh:
            self.home = add(self.home, first, last)
        return tuple(fresh)

    def begin(self, home: Ranges) -> None:
        """The hub said what it has: everything else is to be sent, and what is made from now on is live."""
        self.home = self.clip_home(home)
        self.shelved = ()
        self.front = None
        self.open_front()

    def open_front(self) -> None:
        """Let live rows begin at the next number, when another range may be begun."""
        if self.front is None and self.stream in LIVE_STREAMS and self.extents and self._room(self.extents[-1]):
            self.front = self.next
            self._marks.clear()

    def age_live(self, now_ns: int) -> bool:
        """Give live rows that waited too long to the backlog; returns whether that happened."""
        hole = self.hole("live")
        if hole is None or now_ns - self.made_ns(hole[0]) < LIVE_MAX_NS:
            return False
        self.front = None
        self.open_front()
        return True

    # --- what is to be sent ---

    def hole(self, part: Part) -> Range | None:
        """The oldest numbers of this part that must be sent; None when there are none."""
        low, high = 1, self.next - 1
        if self.front is not None:
            low, high = (self.front, high) if part == "live" else (low, self.front - 1)
        elif part == "live":
            return None
        aside = self.flying
        for first, last in (*self.given_up, *self.shelved):
            aside = add(aside, first, last)
        taken = self.home
        for first, last in aside:
            taken = add(taken, first, last)
        for extent in self.extents:
            for hole in missing(taken, max(low, extent.base), min(high, extent.next - 1)):
                return hole if self._may_send(hole[0], extent) else None
        return None

    def rows(self, target_bytes: int) -> int:
        """How many rows make about `target_bytes`."""
        return max(1, min(self.rows_max, int((target_bytes - FIXED_BYTES) / self.row_bytes)))

    def weighed(self, rows: int, size_bytes: int) -> None:
        """Learn from a batch how many bytes a row takes; few rows teach little."""
        seen = max(ROW_MIN_BYTES, (size_bytes - FIXED_BYTES) / rows)
        trust = max(0.05, min(0.5, rows / 200))
        self.row_bytes += trust * (seen - self.row_bytes)

    def too_heavy(self, rows: int, size_bytes: int) -> None:
        """Believe at once that rows are so large."""
        self.row_bytes = max(ROW_MIN_BYTES, (size_bytes - FIXED_BYTES) / rows)

    def made_ns(self, number: int) -> int:
        """When it was noticed that `number` exists."""
        found = 0
        for when_ns, first in self._marks:
            if first > number:
                break
            found = when_ns
        return found

    # --- inside ---

    def _room(self, extent: StreamExtent) -> bool:
        """Whether the receiver can remember one more range of this epoch."""
        known = clip(self.home, extent.base, extent.next - 1)
        return len(contiguous(known, extent.base)[1]) < self._ranges_max

    def _may_send(self, first: int, extent: StreamExtent) -> bool:
        """Whether sending from `first` on begins no range more than both sides remember."""
        before = first - 1
        joins = covers(self.home, before, before) or covers(self.flying, before, before)
        return first == extent.base or joins or self._room(extent)

    def _mark(self, first: int, now_ns: int) -> None:
        while len(self._marks) > 1 and now_ns - self._marks[1][0] >= 2 * LIVE_MAX_NS:
            self._marks.popleft()
        if not self._marks or now_ns - self._marks[-1][0] >= MARK_NS:
            self._marks.append((now_ns, first))
