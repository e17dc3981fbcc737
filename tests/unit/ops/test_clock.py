"""What the host's clock is worth."""

from __future__ import annotations

from pathlib import Path

import pytest

from edged.ops.clock import KernelClock, SystemClock, read_kernel_clock


class Kernel:
    """Answers what it is told; counts how often it was asked."""

    def __init__(self, says: KernelClock) -> None:
        self.says: KernelClock = says
        self.asked = 0
        self.now_ns = 0

    def __call__(self) -> KernelClock:
        self.asked += 1
        return self.says

    def mono_ns(self) -> int:
        return self.now_ns


def clock_of(kernel: Kernel, tmp_path: Path, *, synced_before: bool = False) -> SystemClock:
    return SystemClock(
        kernel_clock=kernel, mono_ns=kernel.mono_ns, synced_marker=tmp_path / "synced", synced_before=synced_before
    )


def test_the_real_clock_moves_and_knows_its_boot() -> None:
    clock = SystemClock()
    assert clock.boot_id == SystemClock().boot_id
    assert len(clock.boot_id) == 36
    assert clock.mono_ns() <= clock.mono_ns()
    assert clock.wall_ms() > 1_600_000_000_000
    assert clock.quality() in ("synced", "holdover", "unsynced")
    assert read_kernel_clock() in ("synced", "unsynced", "unknown")


def test_wall_time_is_whole_milliseconds() -> None:
    assert SystemClock(wall_ns=lambda: 1_234_567_899).wall_ms() == 1234


def test_a_synchronised_clock_that_loses_its_source_is_in_holdover(tmp_path: Path) -> None:
    kernel = Kernel("unsynced")
    clock = clock_of(kernel, tmp_path)
    found = [clock.quality()]
    for says in ("synced", "unsynced", "unknown"):
        kernel.says = says
        kernel.now_ns += 1_000_000_000
        found.append(clock.quality())
    assert found == ["unsynced", "synced", "holdover", "holdover"]


def test_the_kernel_is_asked_once_a_second(tmp_path: Path) -> None:
    kernel = Kernel("synced")
    clock = clock_of(kernel, tmp_path)
    for _ in range(100):
        clock.quality()
    assert kernel.asked == 1
    kernel.now_ns += 999_999_999
    clock.quality()
    assert kernel.asked == 1
    kernel.now_ns += 1
    clock.quality()
    assert kernel.asked == 2


def test_a_clock_that_was_right_earlier_in_this_boot_starts_in_holdover(tmp_path: Path) -> None:
    assert clock_of(Kernel("unsynced"), tmp_path, synced_before=True).quality() == "holdover"
    (tmp_path / "synced").touch()
    assert clock_of(Kernel("unsynced"), tmp_path).quality() == "holdover"


def test_a_kernel_that_may_not_be_asked_is_no_proof_of_a_right_clock(tmp_path: Path) -> None:
    assert clock_of(Kernel("unknown"), tmp_path).quality() == "unsynced"


def test_without_a_boot_id_two_processes_never_look_like_one_boot(tmp_path: Path) -> None:
    missing = tmp_path / "boot_id"
    one, other = SystemClock(boot_id_file=missing), SystemClock(boot_id_file=missing)
    assert one.boot_id != other.boot_id


@pytest.mark.parametrize("text", ["8ec5b742-14bf-4dde-a314-d4e07191f5db\n"])
def test_the_boot_id_is_read_without_its_line_end(tmp_path: Path, text: str) -> None:
    path = tmp_path / "boot_id"
    path.write_text(text)
    assert SystemClock(boot_id_file=path).boot_id == text.strip()
