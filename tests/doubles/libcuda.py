"""A driver of NVIDIA that has no device: a compiled libcuda whose state lies in a file beside it."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

from edged.infer.runtimes.cuda_driver import CudaDriver

SOURCE = Path(__file__).with_name("libcuda.c")


class CudaDouble:
    """library: what a test opens. `driver` is what the runtime is given."""

    def __init__(self, folder: Path) -> None:
        self.library = folder / "libcuda.so.1"
        self._folder = folder

    def become(self, state: str) -> None:
        """One of the words that libcuda.c explains; seen by the next call."""
        (self._folder / "state.new").write_text(state)
        (self._folder / "state.new").rename(self._folder / "state")

    def installed(self, release: str) -> None:
        """From now on the driver is of this release."""
        (self._folder / "version").write_text(f"{release}\n")

    def driver(self) -> CudaDriver:
        return CudaDriver(str(self.library), self._folder / "version")

    def outstanding(self) -> int:
        """Blocks of memory, contexts and streams that nobody has given back."""
        return int(ctypes.CDLL(str(self.library)).outstanding())


def make_cuda(folder: Path) -> CudaDouble | None:
    """Compile the double into `folder`; None where there is no gcc."""
    if shutil.which("gcc") is None:
        return None
    made = CudaDouble(folder)
    subprocess.run(
        ["gcc", "-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o", made.library, SOURCE, "-ldl"],
        check=True,
        capture_output=True,
    )
    made.become("ok")
    made.installed("560.35")
    return made
