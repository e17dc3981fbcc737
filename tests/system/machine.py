"""A Debian machine in a container: systemd is its PID 1, the disk is an overlay, the network only loopback."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

from tests.doubles.waiting import until

CGROUPS = Path("/sys/fs/cgroup")
BOOT_WITHIN_S = 60.0
TOOLS = ("systemd-nspawn", "nsenter", "unshare", "setpriv")

# Runs in a process tree and with mounts of its own: all of it ends with its first process, or with that one's parent.
# Two containers started in one cgroup would share its children, so each gets one of its own, in every hierarchy.
_BOOT = """
set -e
name=$1 layers=$2 disk=$3
shift 3
for cgroup; do echo $$ > "$cgroup/cgroup.procs"; done
mount -t overlay overlay -o "lowerdir=$layers,upperdir=$disk/files,workdir=$disk/work" "$disk/root"
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --directory="$disk/root" --boot --keep-unit --register=no --machine="$name" \
    --private-network --console=pipe
"""


def hindrance() -> str:
    """Why no container can be booted here; empty when one can."""
    if os.geteuid() != 0:
        return "containers need root"
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt install systemd-container)"
    if not any(os.access(folder / "cgroup.procs", os.W_OK) for folder in _hierarchies()):
        return f"no control group below {CGROUPS} can be written"
    return ""


def _hierarchies() -> list[Path]:
    """Roots of the control group hierarchies: one on a unified host, one per controller on an old one."""
    if (CGROUPS / "cgroup.procs").exists():
        return [CGROUPS]
    return sorted({folder.resolve() for folder in CGROUPS.glob("*/") if (folder / "cgroup.procs").exists()})


def _is_number_1(pid: str) -> bool:
    """Whether the process is number 1 of its own process tree; while it starts it has helpers beside it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it is gone already
        return False
    return any(line.startswith("NSpid:") and line.split()[-1] == "1" for line in lines)


class Machine:
    """`boot`, `run` commands inside, `power_cut`, `boot` again with the same disk. Leaving the `with` block ends it.

    layers: folders of an overlay's lower side, joined by colons, topmost first. They stay as they are.
    """

    def __init__(self, layers: str, folder: Path) -> None:
        self._layers = layers
        self._folder = folder
        self._name = f"edged-{secrets.token_hex(4)}"
        self._cgroups = [root / self._name for root in _hierarchies()]
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        for part in ("files", "work", "root"):
            (folder / part).mkdir()

    def boot(self) -> Machine:
        """Start and wait until systemd has finished its own start."""
        for cgroup in self._cgroups:
            cgroup.mkdir(exist_ok=True)
            for name in ("cpuset.cpus", "cpuset.mems"):  # empty, they keep every process out
                if (given := cgroup.parent / name).exists():
                    (cgroup / name).write_text(given.read_text())
        command = ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount-proc", "--pid", "--fork", "--kill-child"]
        command += [
            "--",
            "bash",
            "-c",
            _BOOT,
            "boot",
            self._name,
            self._layers,
            str(self._folder),
            *map(str, self._cgroups),
        ]
        with (self._folder / "console.log").open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self._init = until(self._started, "systemd has its control group", BOOT_WITHIN_S)
        until(self._is_up, "the machine is up", BOOT_WITHIN_S)
        return self

    def run(self, *command: str, check: bool = True, text: str = "") -> str:
        """Run a command as root inside and return what it printed. `text`: its standard input."""
        done = subprocess.run(self._inside(command), input=text, capture_output=True, text=True, check=False)
        assert not check or done.returncode == 0, f"{command} ended with {done.returncode}: {done.stderr}{done.stdout}"
        return done.stdout

    def write(self, path: str, text: str, mode: str = "644") -> None:
        self.run("install", "-D", "-m", mode, "/dev/stdin", path, text=text)

    def power_cut(self) -> None:
        """End every process of the machine at once; what was written stays on its disk."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(30)
            until(lambda: not self._find_init(), "the machine is off")
        self._process, self._init = None, 0

    def _inside(self, command: tuple[str, ...]) -> list[str]:
        enter = ["nsenter", "-t", str(self._init), "-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w", "--"]
        environment = ["env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"]
        return [*enter, *environment, *command]

    def _started(self) -> int:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "console.log").read_text(errors="replace")
        return self._find_init()

    def _find_init(self) -> int:
        for cgroup in self._cgroups:
            if (scope := cgroup / "payload/init.scope/cgroup.procs").exists():
                return next((int(pid) for pid in scope.read_text().split() if _is_number_1(pid)), 0)
        return 0

    def _is_up(self) -> bool:
        return self.run("systemctl", "is-system-running", check=False).strip() in ("running", "degraded")

    def __enter__(self) -> Machine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.power_cut()
        for cgroup in self._cgroups:
            for folder, _, _ in os.walk(cgroup, topdown=False):
                Path(folder).rmdir()
