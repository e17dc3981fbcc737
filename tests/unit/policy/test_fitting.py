"""Which class of hardware fits which box."""

from __future__ import annotations

import pytest

from edged.policy.fitting import FITS, choose


@pytest.mark.parametrize(
    ("kinds", "name", "others"),
    [
        ((), "cpu", ()),
        (("other_gpu", "hailo"), "cpu", ()),
        (("intel_gpu",), "intel-lowpower", ("cpu",)),
        (("intel_npu", "intel_gpu"), "intel-lowpower", ("cpu",)),
        (("coral_usb", "intel_gpu"), "coral-usb", ("intel-lowpower", "cpu")),
        (("coral_pci",), "coral-usb", ("cpu",)),
        (("nvidia_gpu", "intel_gpu"), "factory-gateway-gpu", ("intel-lowpower", "cpu")),
        (("jetson",), "jetson-vision", ("cpu",)),
        (("jetson", "nvidia_gpu", "coral_usb"), "jetson-vision", ("factory-gateway-gpu", "coral-usb", "cpu")),
    ],
)
def test_the_first_class_of_the_table_whose_device_was_found_fits(
    kinds: tuple[str, ...], name: str, others: tuple[str, ...]
) -> None:
    choice = choose(kinds)
    assert (choice.name, choice.others) == (name, others)
    assert choice.why


def test_the_last_class_fits_every_box() -> None:
    assert FITS[-1].kinds == frozenset()
    assert all(fit.kinds for fit in FITS[:-1])
