"""Keys as lines of text: what is copied wrong is noticed, and secrets are never shown."""

from __future__ import annotations

import base64

import pytest

from edged.sync import keys
from edged.sync.keys import StickRefused

GATEWAY, HUB = keys.new_gateway_secret(), keys.new_hub_secret()


def test_public_keys_are_one_line_that_reads_back() -> None:
    assert keys.read_gateway_key(GATEWAY.public.line) == GATEWAY.public
    assert keys.read_hub_keys(HUB.public.line) == (HUB.public,)
    assert GATEWAY.public.line.startswith("edged-gateway-key ")
    assert HUB.public.line.endswith(f" {HUB.public.fingerprint}\n")


def test_secrets_read_back() -> None:
    assert keys.read_gateway_secret(GATEWAY.line) == GATEWAY
    assert keys.read_hub_secret(HUB.line) == HUB


def test_a_file_of_hubs_may_hold_several_and_remarks_the_first_is_sealed_to() -> None:
    other = keys.new_hub_secret().public
    text = f"# the new hub\n{other.line}\n  \n# the old one, until every stick is home\n{HUB.public.line}"
    assert keys.read_hub_keys(text) == (other, HUB.public)


def test_fingerprints_are_short_and_differ() -> None:
    assert len(HUB.public.fingerprint) == 19
    assert len({keys.new_gateway_secret().public.fingerprint for _ in range(20)}) == 20


def test_a_secret_is_not_shown_by_accident() -> None:
    for secret in (GATEWAY, HUB):
        assert base64.b64encode(secret.sign).decode() not in repr(secret)
        assert repr(secret.sign) not in repr(secret)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        HUB.public.line,
        GATEWAY.line,
        GATEWAY.public.line * 2,
        GATEWAY.public.line.replace("edged-gateway-key", "edged-gateway-key extra"),
        GATEWAY.public.line.rsplit(" ", 1)[0] + " 0000-0000-0000-0000\n",
        "edged-gateway-key AAAA 0000-0000-0000-0000\n",
        "edged-gateway-key not/base64! 0000-0000-0000-0000\n",
    ],
)
def test_what_is_no_gateway_key_is_refused(text: str) -> None:
    with pytest.raises(StickRefused) as caught:
        keys.read_gateway_key(text)
    assert caught.value.reason == "bad_key"


@pytest.mark.parametrize("text", ["", GATEWAY.public.line, HUB.line, HUB.public.line * (keys.KEYS_MAX + 1)])
def test_what_are_no_hub_keys_is_refused(text: str) -> None:
    with pytest.raises(StickRefused, match="bad_key"):
        keys.read_hub_keys(text)


@pytest.mark.parametrize("text", ["", GATEWAY.line * 2, GATEWAY.line[:-5] + "\n"])
def test_a_damaged_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(StickRefused) as caught:
        keys.read_gateway_secret(text)
    assert GATEWAY.line.split()[1][:20] not in str(caught.value)
    with pytest.raises(StickRefused):
        keys.read_hub_secret(text)


def test_a_hub_key_that_everybody_could_open_is_refused() -> None:
    weak = keys.HubKey(HUB.public.verify, bytes(32))
    with pytest.raises(StickRefused, match="bad_key"):
        keys.seal(b"rows", weak)


def test_a_signature_is_of_one_message_by_one_key() -> None:
    signature = keys.sign(b"rows", GATEWAY)
    assert keys.is_signed(b"rows", signature, GATEWAY.public)
    assert not keys.is_signed(b"row", signature, GATEWAY.public)
    assert not keys.is_signed(b"rows", signature, HUB.public)
    assert not keys.is_signed(b"rows", signature[:-1], GATEWAY.public)
