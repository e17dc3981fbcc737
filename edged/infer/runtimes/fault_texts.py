"""What a vendor's error text means. They have one exception for many causes; the text tells them apart. Pure."""

from __future__ import annotations

import re

_OUT_OF_MEMORY_TEXTS = (
    "bad_alloc",
    "bad allocation",
    "failed to allocate",
    "out of memory",
    "cannot allocate memory",
    "cublas failure 3:",
    "cl_mem_object_allocation_failure",
    "cl_out_of_host_memory",
    "ze_result_error_out_of_",
)
_DEVICE_LOST_TEXTS = (
    "device removed",
    "device_removed",
    "device hung",
    "device lost",
    "device_lost",
    "device reset",
    "gpu is lost",
    "gpu has fallen off the bus",
    "subsystem restart",
)
_CUDA_FAILURE = re.compile(r"(?:cuda|cudnn)(?:_call)? failure (\d+)|cuda error (?:code )?(\d+)", re.IGNORECASE)
_CUDA_OUT_OF_MEMORY = 2
# The device is not there or its context is poisoned: every later call of this process fails, too, or answers wrongly
# with a code of success. 3, 35, 46, 100, 101: no device, or a driver too old; 214, 220, 226: uncorrectable memory or
# link; 700, 702, 709 to 720: illegal access, time-out, lost context; 999: unknown. 701 (too many resources) passes.
_CUDA_LOST = {3, 35, 46, 100, 101, 214, 220, 226, 700, 702, 999, *range(709, 721)}


def is_out_of_memory(text: str) -> bool:
    """Whether there was no memory for a call or a model, on the processor or on the device."""
    lowered = text.lower()
    return _CUDA_OUT_OF_MEMORY in _cuda_numbers(text) or any(known in lowered for known in _OUT_OF_MEMORY_TEXTS)


def is_device_lost(text: str) -> bool:
    """Whether the device has gone, so that nothing but a new process helps."""
    lowered = text.lower()
    return bool(_CUDA_LOST & _cuda_numbers(text)) or any(known in lowered for known in _DEVICE_LOST_TEXTS)


def _cuda_numbers(text: str) -> set[int]:
    """CUDA's error numbers in a text; cuDNN numbers its own from 1000 on."""
    return {int(first or second) for first, second in _CUDA_FAILURE.findall(text)}
