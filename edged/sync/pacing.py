"""How fast to send, and how much at once, learned from how long the link takes to carry a batch. Pure.

A token bucket without a burst, whose rate follows the link: it grows while batches arrive as quickly as they should,
and falls when they queue. What is queued somewhere delays the next alarm, so queues are kept short.
"""

from __future__ import annotations

_NS = 1_000_000_000

BATCH_S = 0.25  # what one batch may occupy the link for: an alarm that comes now waits at most so long
BATCH_SLOW_S = 1.0  # on a link with a long delay, or the window would leave it idle
BATCH_MIN_BYTES = 2_048
BATCH_MAX_BYTES = 262_144
START_BYTES_S = 8_192.0  # 64 kbit/s: what the slowest link in use carries
FLOOR_BYTES_S = 512.0  # below this a batch takes minutes; the queue is then bounded by the window
QUEUE_S = 0.07  # queueing beyond this, and beyond a quarter of the delay (jitter), means that we are too fast
QUEUE_DEEP_S = 1.0
DRAIN_MAX_S = 5.0  # how long we keep still, at most, for a queue to empty
GROW_FIRST = 1.03  # per batch; it accelerates while all goes well
GROW_STEP = 0.005
GROW_MAX = 1.5
FALL = 0.7
FALL_DEEP = 0.5
OVERHEAD_BYTES = 120  # of one batch: TCP/IP, TLS and MQTT around it
OVERHEAD_PART = 1.03  # 40 of 1448 bytes are TCP/IP again
BURST_NS = 20_000_000  # a timer that fires late must not cost throughput
BASE_WINDOW_NS = 300 * _NS  # the delay of an empty link is the least one of the last five to ten minutes


class Pacing:
    """The bucket and its rate. All times are monotonic nanoseconds.

    Args:
        limit_bytes_s: the configured bound; the rate never exceeds it.
        slots: batches that may be on their way at once, alarms aside.
    """

    def __init__(self, limit_bytes_s: float, slots: int) -> None:
        self._limit = limit_bytes_s
        self._slots = slots
        self.rate_bytes_s = 0.0
        self.free_ns = 0
        """From when on the next paced batch may go."""
        self.slowdowns = 0
        self.restart(0)

    def restart(self, now_ns: int) -> None:
        """A new connection, maybe over another way: begin carefully, for its delay is not known either."""
        self.rate_bytes_s = min(self._limit, START_BYTES_S)
        self.free_ns = now_ns
        self._growth = 0.0  # 0: doubling, until the first queue
        self._changed(now_ns)
        self._base_ns = self._base_next_ns = 0  # least delay of this window and of the one before; 0: unknown
        self._window_ns = now_ns

    @property
    def base_s(self) -> float:
        """How long the empty link takes; 0 while unknown."""
        return self._base_ns / _NS

    @property
    def batch_bytes(self) -> int:
        """How large a batch should be now."""
        slow_s = min(BATCH_SLOW_S, self.base_s / self._slots)
        return int(max(BATCH_MIN_BYTES, min(BATCH_MAX_BYTES, self.rate_bytes_s * max(BATCH_S, slow_s))))

    def fits(self, uncarried_bytes: int) -> bool:
        """Whether more may be handed over while this much is still on its way: what fills the link, and one batch."""
        return uncarried_bytes <= self.rate_bytes_s * self.base_s + self.batch_bytes

    def sent(self, now_ns: int, size_bytes: int) -> None:
        """Charge a batch, whether it waited or not."""
        cost_ns = int(_cost_bytes(size_bytes) / self.rate_bytes_s * _NS)
        self.free_ns = max(now_ns - BURST_NS, self.free_ns) + cost_ns

    def carried(self, now_ns: int, sent_ns: int, size_bytes: int, *, paced: bool) -> None:
        """A batch is on the other side. paced: it left when the bucket let it, so it should not have met a queue."""
        delay_ns = now_ns - sent_ns
        self._remember(now_ns, delay_ns)
        if not paced or sent_ns < self._changed_ns:
            return  # it says nothing about the present rate
        own_ns = _cost_bytes(size_bytes) / self.rate_bytes_s * _NS
        queued_s = (delay_ns - self._base_ns - own_ns) / _NS
        if queued_s > QUEUE_S + self.base_s / 4:
            self._slow_down(now_ns, queued_s, size_bytes / delay_ns * _NS)
            return
        self._carried_bytes += size_bytes
        if size_bytes * 2 >= self.batch_bytes or self._in_use(now_ns):  # else it proves little
            self._speed_up(now_ns)

    def _in_use(self, now_ns: int) -> bool:
        """Whether the present rate was really used, if in small batches."""
        possible_bytes = self.rate_bytes_s * (now_ns - self._changed_ns) / _NS
        return self._carried_bytes * 2 >= max(possible_bytes, self.batch_bytes)

    def _slow_down(self, now_ns: int, queued_s: float, proven_bytes_s: float) -> None:
        fall = FALL_DEEP if queued_s > QUEUE_DEEP_S else FALL
        self.rate_bytes_s = max(self.rate_bytes_s * fall, min(proven_bytes_s, self.rate_bytes_s), FLOOR_BYTES_S)
        self.free_ns = max(self.free_ns, now_ns + int(min(queued_s, DRAIN_MAX_S) * _NS))
        self._growth = GROW_FIRST
        self._changed(now_ns)
        self.slowdowns += 1

    def _speed_up(self, now_ns: int) -> None:
        if self._growth:
            self.rate_bytes_s = min(self._limit, self.rate_bytes_s * self._growth)
            self._growth = min(GROW_MAX, self._growth + GROW_STEP)
        else:
            self.rate_bytes_s = min(self._limit, self.rate_bytes_s * 2)
        self._changed(now_ns)

    def _changed(self, now_ns: int) -> None:
        self._changed_ns = now_ns
        self._carried_bytes = 0

    def _remember(self, now_ns: int, delay_ns: int) -> None:
        if now_ns - self._window_ns >= BASE_WINDOW_NS:
            self._window_ns = now_ns
            self._base_ns, self._base_next_ns = self._base_next_ns or delay_ns, delay_ns
        self._base_next_ns = min(self._base_next_ns or delay_ns, delay_ns)
        self._base_ns = min(self._base_ns or delay_ns, delay_ns)


def _cost_bytes(size_bytes: int) -> float:
    return size_bytes * OVERHEAD_PART + OVERHEAD_BYTES
