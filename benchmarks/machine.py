"""Where a figure comes from: processor, kernel, disk and versions. No host name, no path."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from benchmarks.broker import find_mosquitto
from benchmarks.contestants.node_red import node_red_version
from benchmarks.native import NotMeasured

PACKAGES = ("apsw", "msgspec", "mqtt5", "numpy", "onnxruntime", "paho-mqtt", "pydantic", "uvloop")


def describe(workdir: Path) -> dict[str, object]:
    """The machine as one JSON object; `workdir` is where the stores lie."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "kernel": f"{platform.system()} {platform.release().partition('-')[0]} {platform.machine()}",
        "file_system": file_system(workdir, Path("/proc/self/mounts").read_text()),
        "load_average": [round(value, 2) for value in os.getloadavg()],
        "python": platform.python_version(),
        "versions": _versions(),
    }


def file_system(path: Path, mounts: str) -> str:
    """Type of the file system that `path` lies on, by the longest mount point above it. mounts: /proc/self/mounts."""
    points = [line.split()[1:3] for line in mounts.splitlines()]
    above = [(point, kind) for point, kind in points if path.resolve().is_relative_to(point)]
    return max(above, key=lambda entry: len(entry[0]))[1] if above else "unknown"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model", "Hardware"}:
            return value.strip()
    return platform.machine()


def _versions() -> Mapping[str, str]:
    found: dict[str, str] = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    try:
        found["mosquitto"] = _first_version([find_mosquitto(), "-h"])
        found["gcc"] = _first_version(["gcc", "--version"])
        found["node"] = _first_version(["node", "--version"])
    except (NotMeasured, OSError):
        pass  # absent here: what needed it is in not_measured
    if (node_red := node_red_version()) is not None:
        found["node-red"] = node_red
    return dict(sorted(found.items()))


def _first_version(command: list[str]) -> str:
    """The first thing in the command's output that looks like a version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"\d+\.\d+\.\d+", done.stdout + done.stderr)
    return match.group() if match else "unknown"
