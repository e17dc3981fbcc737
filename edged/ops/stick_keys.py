"""Where the keys for sticks lie: secrets made on first use and readable by their owner alone, public keys to trust."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from edged.errors import EdgedError
from edged.ops.durable_files import FileTrouble, create_once, is_exposed, make_folder, read_at_most
from edged.sync import keys
from edged.sync.keys import GatewayKey, GatewaySecret, HubKey, HubSecret, StickRefused

K = TypeVar("K")
S = TypeVar("S", GatewaySecret, HubSecret)

SECRET_NAME = "stick.key"  # noqa: S105 - the name of a file


def gateway_secret(state_dir: Path) -> GatewaySecret:
    """The gateway's key, made on first use. Raises `FileTrouble`, `StickRefused` (`bad_key`, `key_exposed`)."""
    return _secret(state_dir / "identity" / SECRET_NAME, keys.new_gateway_secret, keys.read_gateway_secret)


def hub_secret(state_dir: Path) -> HubSecret:
    """The hub's keys, made on first use. Raises as `gateway_secret`."""
    return _secret(state_dir / "identity" / SECRET_NAME, keys.new_hub_secret, keys.read_hub_secret)


def trusted_hubs(file: Path) -> tuple[HubKey, ...]:
    """The hubs whose receipts count, the one to seal to first. Raises `FileTrouble`, `StickRefused` (`bad_key`)."""
    return _read(file, keys.read_hub_keys, hint="`edged-hub keys` on the hub prints what belongs in there")


def gateway_key(keys_dir: Path, site: str, gateway: str) -> GatewayKey:
    """The key of a gateway that may bring sticks.

    Raises `FileTrouble`, `StickRefused` (`foreign_gateway` when there is none, `bad_key`).
    """
    file = keys_dir / site / f"{gateway}.pub"
    if not file.exists():
        raise StickRefused(
            "foreign_gateway",
            f"no key of {site}/{gateway} is known",
            hint=f"`edged store identity` on the gateway prints what belongs into {file}",
        )
    return _read(file, keys.read_gateway_key, hint="`edged store identity` on the gateway prints it")


def _secret(file: Path, new: Callable[[], S], read: Callable[[str], S]) -> S:
    if not file.parent.parent.is_dir():
        raise FileTrouble(
            f"Making {file}: {file.parent.parent} does not exist", hint="name the right folder, or make it"
        )
    try:
        make_folder(file.parent)
        if not file.exists():
            create_once(file, new().line.encode("ascii"))
        if is_exposed(file):
            raise StickRefused(
                "key_exposed",
                f"{file} can be read by others than its owner",
                hint=f"chmod 600 {file}; if somebody may have copied it, remove it and give the new public key away",
            )
    except OSError as error:
        raise _cannot(file, error, "run as the user of the service: sudo -u edged ...") from error
    return _read(file, read, hint="put it back from a copy, or remove it: then a new one is made")


def _read(file: Path, read: Callable[[str], K], *, hint: str) -> K:
    try:
        text = read_at_most(file, keys.KEY_FILE_MAX_BYTES).decode("ascii")
    except OSError as error:
        raise _cannot(file, error, hint) from error
    except UnicodeDecodeError:
        raise StickRefused("bad_key", f"{file} is no text", hint=hint) from None
    try:
        return read(text)
    except StickRefused as refused:
        raise StickRefused(refused.reason, f"{file}: {refused.detail}", hint=hint) from None


def _cannot(file: Path, error: OSError, hint: str) -> EdgedError:
    return FileTrouble(f"Reading {file}: {error.strerror or error}", hint=hint)
