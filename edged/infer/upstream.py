"""Asking the upstream to compute: the port that a split rung and a cascade are written against.

The upstream serves models by the digest of their file. What it is asked for may be a whole model (a cascade that
escalates) or the tail of one (split inference); the port does not care.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np


class Upstream(Protocol):
    """Somebody at the centre who computes. Synchronous, as models are; may be called from several threads."""

    def ask(self, digest: str, tensors: Mapping[str, np.ndarray], deadline_s: float) -> Mapping[str, np.ndarray]:
        """The outputs of the model whose file has the SHA-256 `digest`, for `tensors` by input name.

        Blocks for `deadline_s` at most; the caller keeps back what its own fallback needs.

        Raises:
            InferenceError: `upstream_timeout` no answer in time; `upstream_away` no connection, told at once;
                `upstream_refused` the upstream said no, and why; `upstream_busy` our own bounds of bytes and requests.
        """

    def close(self) -> None:
        """Idempotent, never raises."""
