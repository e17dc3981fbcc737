"""The keys that a stick is sealed and signed with. Pure: bytes in, bytes out; libsodium through PyNaCl.

A gateway has one Ed25519 key; a hub has one as well, and an X25519 key that batches are sealed to. Public keys are one
line of text each, with their kind in front and their fingerprint at the end.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.signing import SigningKey, VerifyKey
from nacl.utils import random as random_bytes

from edged.errors import EdgedError, ExitCode

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SEAL_OVERHEAD_BYTES = 48  # crypto_box_SEALBYTES: the fresh public key and the authenticator
KEY_FILE_MAX_BYTES = 65_536
KEYS_MAX = 16  # hubs that one gateway trusts

_GATEWAY, _HUB = "edged-gateway-key", "edged-hub-key"
_GATEWAY_SECRET, _HUB_SECRET = "edged-gateway-secret", "edged-hub-secret"


class StickRefused(EdgedError):
    """Raised when a stick, a receipt or a key is refused; `reason` is the stable code of docs/reference/reasons.md."""

    exit_code = ExitCode.REFUSED

    def __init__(self, reason: str, detail: str, *, hint: str = "") -> None:
        super().__init__(f"{reason}: {detail}", hint=hint)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class GatewayKey:
    """Public half: checks what the gateway signed. verify: Ed25519, 32 bytes."""

    verify: bytes

    @property
    def fingerprint(self) -> str:
        return _fingerprint(_GATEWAY, self.verify)

    @property
    def line(self) -> str:
        return f"{_GATEWAY} {_text(self.verify)} {self.fingerprint}\n"


@dataclass(frozen=True, slots=True)
class HubKey:
    """Public half: checks what the hub signed (Ed25519) and seals what only the hub may read (X25519)."""

    verify: bytes
    seal: bytes

    @property
    def fingerprint(self) -> str:
        return _fingerprint(_HUB, self.verify, self.seal)

    @property
    def line(self) -> str:
        return f"{_HUB} {_text(self.verify)} {_text(self.seal)} {self.fingerprint}\n"


@dataclass(frozen=True, slots=True, repr=False)
class GatewaySecret:
    """The gateway's own key; never leaves it. sign: Ed25519 seed."""

    sign: bytes

    @property
    def public(self) -> GatewayKey:
        return GatewayKey(bytes(SigningKey(self.sign).verify_key))

    @property
    def line(self) -> str:
        return f"{_GATEWAY_SECRET} {_text(self.sign)}\n"


@dataclass(frozen=True, slots=True, repr=False)
class HubSecret:
    """The hub's own keys. sign: Ed25519 seed. open: X25519 private key."""

    sign: bytes
    open: bytes

    @property
    def public(self) -> HubKey:
        return HubKey(bytes(SigningKey(self.sign).verify_key), bytes(PrivateKey(self.open).public_key))

    @property
    def line(self) -> str:
        return f"{_HUB_SECRET} {_text(self.sign)} {_text(self.open)}\n"


def new_gateway_secret() -> GatewaySecret:
    return GatewaySecret(random_bytes(KEY_BYTES))


def new_hub_secret() -> HubSecret:
    return HubSecret(random_bytes(KEY_BYTES), random_bytes(KEY_BYTES))


def read_gateway_key(text: str) -> GatewayKey:
    """The one public key in a gateway's `.pub` file. Raises `StickRefused` (`bad_key`)."""
    keys = [GatewayKey(*parts) for parts in _lines(text, _GATEWAY, 1, with_fingerprint=True)]
    if len(keys) != 1:
        raise _bad_key(f"expected one line `{_GATEWAY} …`, got {len(keys)}")
    return keys[0]


def read_hub_keys(text: str) -> tuple[HubKey, ...]:
    """The public keys in a file of trusted hubs, the one to seal to first. Raises `StickRefused` (`bad_key`)."""
    keys = tuple(HubKey(*parts) for parts in _lines(text, _HUB, 2, with_fingerprint=True))
    if not 1 <= len(keys) <= KEYS_MAX:
        raise _bad_key(f"expected 1 to {KEYS_MAX} lines `{_HUB} …`, got {len(keys)}")
    return keys


def read_gateway_secret(text: str) -> GatewaySecret:
    """Raises `StickRefused` (`bad_key`); the text is never repeated in the message."""
    secrets = [GatewaySecret(*parts) for parts in _lines(text, _GATEWAY_SECRET, 1)]
    if len(secrets) != 1:
        raise _bad_key("expected one line with a gateway's secret key")
    return secrets[0]


def read_hub_secret(text: str) -> HubSecret:
    """Raises `StickRefused` (`bad_key`); the text is never repeated in the message."""
    secrets = [HubSecret(*parts) for parts in _lines(text, _HUB_SECRET, 2)]
    if len(secrets) != 1:
        raise _bad_key("expected one line with a hub's secret keys")
    return secrets[0]


def sign(message: bytes, secret: GatewaySecret | HubSecret) -> bytes:
    """Detached Ed25519 signature."""
    return SigningKey(secret.sign).sign(message).signature


def is_signed(message: bytes, signature: bytes, key: GatewayKey | HubKey) -> bool:
    """Whether the owner of `key` signed exactly this message."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        VerifyKey(key.verify).verify(message, signature)
    except CryptoError:
        return False
    return True


def seal(plain: bytes, key: HubKey) -> bytes:
    """Bytes that only the hub can open (libsodium's sealed box: a fresh X25519 key each, XSalsa20-Poly1305)."""
    try:
        return SealedBox(PublicKey(key.seal)).encrypt(plain)
    except CryptoError:  # libsodium refuses keys of low order: everybody could open what is sealed to them
        raise _bad_key("libsodium refuses this key of the hub") from None


def unseal(sealed: bytes, secret: HubSecret) -> bytes:
    """What was sealed to us. Raises `StickRefused` (`bad_seal`)."""
    try:
        return SealedBox(PrivateKey(secret.open)).decrypt(sealed)
    except CryptoError:  # also when it is shorter than any sealed box
        raise StickRefused("bad_seal", "the file cannot be opened with our key") from None


def _lines(text: str, kind: str, parts: int, *, with_fingerprint: bool = False) -> list[tuple[bytes, ...]]:
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] != kind or len(words) != 1 + parts + with_fingerprint:
            raise _bad_key(f"line {number} is no `{kind}` with {parts + with_fingerprint} words behind it")
        material = tuple(_material(word, number) for word in words[1 : 1 + parts])
        if with_fingerprint and words[-1] != _fingerprint(kind, *material):
            raise _bad_key(f"line {number}: the fingerprint does not fit the key; a character was changed")
        found.append(material)
    return found


def _material(word: str, number: int) -> bytes:
    try:
        material = base64.b64decode(word, validate=True)
    except (binascii.Error, ValueError):
        material = b""
    if len(material) != KEY_BYTES:
        raise _bad_key(f"line {number}: expected {KEY_BYTES} bytes in base64")
    return material


def _bad_key(detail: str) -> StickRefused:
    return StickRefused("bad_key", detail, hint="copy the line as `edged store identity` or `edged-hub keys` prints it")


def _fingerprint(kind: str, *material: bytes) -> str:
    """16 hex digits in groups of four: for people to compare, and to name a key."""
    digest = hashlib.sha256(b"\0".join((kind.encode(), *material))).hexdigest()
    return "-".join(digest[at : at + 4] for at in range(0, 16, 4))


def _text(material: bytes) -> str:
    return base64.b64encode(material).decode("ascii")
