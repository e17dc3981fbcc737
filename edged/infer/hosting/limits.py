"""How long, how large and how often: what a host of processes allows."""

from __future__ import annotations

from typing import NamedTuple


class WorkerLimits(NamedTuple):
    """Limits of every process of `Devices`.

    start_s: of a new process, until it says hello. load_s: of one load; opening a Coral holds the process for 3 s, an
    engine takes longer. unload_s: of closing one model. ping_s: an idle process that does not answer so long is wedged.
    grace_s: between SIGTERM and SIGKILL: a device that is cut off in mid-call may need a power cycle. kill_wait_s: a
    process that survives SIGKILL so long is stuck in the kernel, and the device needs a power cycle.
    slot_bytes: greatest batch, inputs or outputs, that is handed over.
    starts_count: of the process of one device within `starts_within_s`, whatever the caller decides.
    idle_end_s: a process without a model ends after this time, so that others may have the device.
    recycle_calls, recycle_rss_bytes: a process beyond them is due to be replaced; 0: never.
    memory_factor: room that a loaded model takes, per byte of its file. process_bytes: room that a new process takes.
    reserve_bytes: must stay free after that.
    """

    start_s: float = 20.0
    load_s: float = 180.0
    unload_s: float = 5.0
    ping_s: float = 2.0
    grace_s: float = 1.0
    kill_wait_s: float = 2.0
    slot_bytes: int = 256 * 1024 * 1024
    starts_count: int = 20
    starts_within_s: float = 60.0
    idle_end_s: float = 30.0
    recycle_calls: int = 0
    recycle_rss_bytes: int = 0
    memory_factor: float = 3.0
    process_bytes: int = 96 * 1024 * 1024
    reserve_bytes: int = 64 * 1024 * 1024


DEFAULTS = WorkerLimits()
