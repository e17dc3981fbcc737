"""The supervisor's socket in the state directory: where it is, and asking it."""

from __future__ import annotations

import asyncio
from pathlib import Path

STATUS_PATH, METRICS_PATH, HEALTH_PATH = "/status", "/metrics", "/healthz"
ANSWER_MAX_BYTES = 16_000_000
TIMEOUT_S = 5.0


def socket_file(state_dir: str) -> Path:
    """A path may have 107 bytes at most: longer state directories are refused when the socket is opened."""
    return Path(state_dir) / "hub.sock"


async def ask(file: Path, page: str) -> bytes:
    """The body of a page. Raises `OSError` when nobody answers, or with anything but 200."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_unix_connection(str(file))
        try:
            writer.write(f"GET {page} HTTP/1.0\r\n\r\n".encode())
            answer = bytearray()
            while piece := await reader.read(65_536):
                answer += piece
                if len(answer) > ANSWER_MAX_BYTES:
                    raise OSError(f"the answer has more than {ANSWER_MAX_BYTES} bytes")
        finally:
            writer.close()
    head, _, body = bytes(answer).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.0 200 "):
        first = head.partition(b"\r\n")[0][:80].decode("utf-8", "replace")
        raise OSError(f"it answers {first or 'nothing'}")
    return body
