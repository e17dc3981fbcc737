"""Tokens are kept as hashes; a wrong line is named without its token."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from edged.errors import EdgedError
from edged.hub.decisions import Sender
from edged.hub.tls import common_name
from edged.hub.tokens import MAX_FILE_BYTES, find, parse_tokens, read_tokens

TOKEN = "0123456789abcdef0123"


def test_a_token_says_who_holds_it() -> None:
    hashed = hashlib.sha256(b"another token of a gateway").hexdigest()
    tokens = parse_tokens(f"# gateways\n\n{TOKEN} lyon/gw-1\nsha256:{hashed} lyon/gw-2\n")
    assert find(tokens, TOKEN) == Sender("lyon", "gw-1")
    assert find(tokens, "another token of a gateway") == Sender("lyon", "gw-2")
    assert find(tokens, "wrong") is None
    assert TOKEN not in str(tokens)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{TOKEN} lyon", "line 1 is not"),
        (f"{TOKEN}", "line 1 is not"),
        ("\nshort lyon/gw-1", "line 2: the token has fewer"),
        (f"{TOKEN} lyon/gw-1\n{TOKEN} lyon/gw-2", "line 2: the token stands in another line"),
    ],
)
def test_a_wrong_line_is_named_without_its_token(text: str, said: str) -> None:
    with pytest.raises(EdgedError, match=said) as caught:
        parse_tokens(text)
    assert TOKEN not in str(caught.value)


def test_a_file_that_cannot_be_used_says_so(tmp_path: Path) -> None:
    with pytest.raises(EdgedError, match="reading the tokens"):
        read_tokens(tmp_path / "none")
    large = tmp_path / "large"
    large.write_bytes(b"#" * (MAX_FILE_BYTES + 1))
    with pytest.raises(EdgedError, match="more than"):
        read_tokens(large)


def test_the_name_in_a_certificate_is_found() -> None:
    certificate = {"subject": ((("organizationName", "plant"),), (("commonName", "lyon/gw-1"),))}
    assert common_name(certificate) == "lyon/gw-1"
    assert common_name({"subject": ()}) == common_name(None) == common_name({}) == ""
