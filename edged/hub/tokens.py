"""Bearer tokens of the gateways that come over HTTP: a file of lines, kept as hashes, read again when it changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from edged.errors import EdgedError
from edged.hub.decisions import Sender, parse_sender

MIN_TOKEN_CHARS = 16  # shorter ones can be tried out
MAX_FILE_BYTES = 10_000_000
_SHA256 = re.compile(r"^sha256:([0-9a-f]{64})$")

Tokens = Mapping[str, Sender]
"""SHA-256 of a token, hex → who holds it. Looking up a hash tells a guesser nothing about the tokens that are there."""


def find(tokens: Tokens, token: str) -> Sender | None:
    """Who holds `token`."""
    return tokens.get(hashlib.sha256(token.encode()).hexdigest())


def parse_tokens(text: str) -> Tokens:
    """Lines of `token site/gateway`; empty lines and lines that begin with # are nothing.

    Raises:
        EdgedError: naming the line, never the token.
    """
    tokens: dict[str, Sender] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        sender = parse_sender(words[1]) if len(words) == 2 else None
        if sender is None:
            raise EdgedError(f"line {number} is not `token site/gateway`", hint="sha256:hex may stand for the token")
        hashed = _SHA256.match(words[0])
        if hashed is None and len(words[0]) < MIN_TOKEN_CHARS:
            raise EdgedError(
                f"line {number}: the token has fewer than {MIN_TOKEN_CHARS} characters", hint="openssl rand -hex 32"
            )
        key = hashed[1] if hashed else hashlib.sha256(words[0].encode()).hexdigest()
        if key in tokens:
            raise EdgedError(f"line {number}: the token stands in another line, too", hint="give each gateway its own")
        tokens[key] = sender
    return tokens


def read_tokens(file: Path) -> Tokens:
    """Blocks. Raises `EdgedError`: the file cannot be read, or a line of it is wrong."""
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise EdgedError(f"{file} has more than {MAX_FILE_BYTES} bytes")
        text = file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise EdgedError(f"reading the tokens {file}: {error}", hint="check that the hub's user may read it") from None
    return parse_tokens(text)
