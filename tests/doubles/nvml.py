"""NVML as an object: a library whose functions answer what a test puts into them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

NOT_SUPPORTED, FUNCTION_NOT_FOUND, GPU_IS_LOST = 3, 13, 15


class NvmlLibrary:
    """Knows the functions of `answers` and no others, as an old or a stripped library does.

    An answer is a code, or the values for the output parameters (the last arguments), in order. `gpus`: how many.
    """

    def __init__(self, answers: Mapping[str, int | tuple[int, ...]] | None = None, gpus: int = 1) -> None:
        self.calls: list[str] = []
        self._answers: dict[str, int | tuple[int, ...]] = {
            "nvmlInit_v2": 0,
            "nvmlShutdown": 0,
            "nvmlDeviceGetCount_v2": (gpus,),
            "nvmlDeviceGetHandleByIndex_v2": (1,),
            **(answers or {}),
        }

    def __getattr__(self, function: str) -> Callable[..., int]:
        try:
            answer = self._answers[function]
        except KeyError:
            raise AttributeError(function) from None

        def call(*arguments: Any) -> int:
            self.calls.append(function)
            if isinstance(answer, int):
                return answer
            for reference, value in zip(arguments[-len(answer) :], answer, strict=True):
                reference._obj.value = value  # what byref() points at
            return 0

        return call
