"""What the C library may keep for itself."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # <malloc.h>


def use_one_arena() -> bool:
    """Let all threads share one heap; call it before any of them starts. True where the C library knows the wish.

    glibc gives each thread a heap of its own and returns little of it: in a process that runs for years, with threads
    that hand large buffers to each other, memory nobody uses. Our threads wait for the disk, not for the allocator.
    """
    try:
        return bool(ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1))
    except (OSError, AttributeError):  # another C library: nothing to set, nothing lost
        return False
