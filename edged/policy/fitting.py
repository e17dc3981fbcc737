"""Which of the known classes of hardware fits a box, and why. Pure; the table is in the order of preference."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple


class Fit(NamedTuple):
    """One row: a class fits a box that has one of these kinds of device. `kinds` empty: it fits every box."""

    name: str
    kinds: frozenset[str]
    why: str


FITS: tuple[Fit, ...] = (
    Fit("jetson-vision", frozenset({"jetson"}), "it is an NVIDIA Jetson"),
    Fit("factory-gateway-gpu", frozenset({"nvidia_gpu"}), "it has an NVIDIA GPU"),
    Fit("coral-usb", frozenset({"coral_usb", "coral_pci"}), "it has a Coral Edge TPU"),
    Fit("intel-lowpower", frozenset({"intel_npu", "intel_gpu"}), "it has an Intel GPU or NPU, which OpenVINO can use"),
    Fit("cpu", frozenset(), "nothing that computes models better than the processor was found"),
)


class Choice(NamedTuple):
    """The class that fits, why, and the others that would, best first."""

    name: str
    why: str
    others: tuple[str, ...]


def choose(kinds: Collection[str]) -> Choice:
    """kinds: of the devices that were found."""
    fitting = [fit for fit in FITS if not fit.kinds or fit.kinds & set(kinds)]
    best = fitting[0]
    return Choice(best.name, best.why, tuple(fit.name for fit in fitting[1:]))
