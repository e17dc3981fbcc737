"""Asking the upstream to compute: the port that a split rung and a cascade are written against.

The upstream serves models by the digest of their file. What it is asked for may be a whole model (a cascade that
escalates) or the tail of one (split inference); the port does not care.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from edged.config.settings import Config
    from edged.sync.inference import Packed


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


class PackedUpstream(Upstream, Protocol):
    """One that takes tensors as they shall travel, quantised for example."""

    def ask_packed(self, digest: str, tensors: Sequence[Packed], deadline_s: float) -> Mapping[str, np.ndarray]:
        """As `ask`."""


class UpstreamAddress(NamedTuple):
    """Where and as whom to ask, and how much of the line that may take. Plain values: it travels between processes.

    Empty texts: none. kbit_s: most bandwidth that questions may take.
    """

    host: str
    port: int
    site: str
    gateway: str
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    username: str = ""
    password_file: str = ""
    kbit_s: int = 64

    @property
    def root(self) -> str:
        """Topics of questions and answers begin with it."""
        return f"edged/v1/{self.site}/{self.gateway}/infer"


def upstream_address(config: Config) -> UpstreamAddress | None:
    """Where the `[upstream]` of a configuration can be asked; None without a broker to ask through."""
    upstream = config.upstream
    if upstream is None or not upstream.url or upstream.http:
        return None
    password_file = upstream.password_file or ""
    if upstream.password_credential:
        password_file = os.path.join(  # noqa: PTH118  # a text: the address travels between processes
            os.environ.get("CREDENTIALS_DIRECTORY", "/nonexistent"), upstream.password_credential
        )
    return UpstreamAddress(
        host=upstream.host,
        port=upstream.port,
        site=config.gateway.site,
        gateway=config.gateway.id,
        tls=upstream.tls,
        ca_file=upstream.ca_file or "",
        cert_file=upstream.cert_file or "",
        key_file=upstream.key_file or "",
        username=upstream.username or "",
        password_file=password_file,
        kbit_s=upstream.infer_limit_kbit_s,
    )
