"""What only an NVIDIA Jetson says: load and clock of its integrated GPU. Its zones and alerts are in `thermal`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from edged.ops.sensors.files import count, entries, text

_MOST_DEVFREQ = 32
_GPU_NAMES = frozenset({"gv11b", "gp10b", "gm20b", "ga10b", "gb10b", "gpu"})
_GPU_STARTS = "gpu-gpc-"  # Thor: one node per cluster of the GPU
_LOAD_ELSEWHERE = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load")


class Jetson(NamedTuple):
    """One look. `gpu_load_share`: 0 to 1. `gpu_most_hz` follows the power mode and, under heat, the kernel."""

    model: str | None
    gpu_load_share: float | None
    gpu_hz: int | None
    gpu_most_hz: int | None


def read_jetson(root: Path) -> Jetson | None:
    """None on every box whose device tree does not name a Tegra."""
    if "nvidia,tegra" not in (text(root / "proc/device-tree/compatible") or ""):
        return None
    model = text(root / "proc/device-tree/model")
    nodes = [node for node in entries(root / "sys/class/devfreq", "*", _MOST_DEVFREQ) if _is_gpu(node)]
    if not nodes:
        return Jetson(model, _load_share([root / name for name in _LOAD_ELSEWHERE]), None, None)
    gpu = nodes[0]
    load = _load_share([gpu / "device/load", *(root / name for name in _LOAD_ELSEWHERE)])
    return Jetson(model, load, count(gpu / "cur_freq"), count(gpu / "max_freq"))


def _is_gpu(node: Path) -> bool:
    """Named like 17000000.ga10b, or by its device tree."""
    names = {node.name.rpartition(".")[2].lower(), (text(node / "device/of_node/name") or "").lower()}
    return bool(names & _GPU_NAMES) or node.name.startswith(_GPU_STARTS)


def _load_share(places: list[Path]) -> float | None:
    """The first that says a number of thousandths."""
    for place in places:
        thousandths = count(place)
        if thousandths is not None and thousandths <= 1000:
            return thousandths / 1000
    return None
