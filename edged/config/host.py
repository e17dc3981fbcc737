"""What the configuration promises about this machine: files that must exist and be readable. Reads, never writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path as FilePath

from edged.config.patterns import Cascade
from edged.config.pipeline import ModelSource, Smaller
from edged.config.problems import Finding
from edged.config.settings import Broker, Config, Upstream

MAX_MANIFEST_BYTES = 1_000_000


def check_secrets(link: Broker | Upstream, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Certificates, key, password and token can be read, and the key belongs to the certificate."""
    faulty = False
    for name in ("ca_file", "cert_file", "key_file", "password_file", "token_file", "hub_keys_file"):
        file = getattr(link, name, None)
        fault = file_fault(file) if file else ""
        if fault:
            faulty = True
            yield Finding(
                (name,), fault, file, allowed="a file that can be read", cure="create it, or check permissions"
            )
    if link.password_credential:
        folder = environ.get("CREDENTIALS_DIRECTORY")
        where = ("password_credential",)
        if folder is None:
            message = "can be checked by the service only"
            cure = f"LoadCredential={link.password_credential}:/path must stand in the unit"
            yield Finding(where, message, cure=cure, note=True)
        elif fault := file_fault(f"{folder}/{link.password_credential}"):
            cure = f"add LoadCredential={link.password_credential}:/path to the unit"
            yield Finding(where, fault, allowed="a credential of the service", cure=cure)
    if link.tls and not faulty:
        yield from _check_certificates(link)


def _check_certificates(link: Broker | Upstream) -> Iterator[Finding]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if link.ca_file:
        try:
            context.load_verify_locations(link.ca_file)
        except ssl.SSLError as error:
            yield Finding(("ca_file",), f"is no certificate: {error.reason or error}", link.ca_file, allowed="PEM")
    if link.cert_file and link.key_file:
        try:
            context.load_cert_chain(link.cert_file, link.key_file, password=_no_password)
        except (ssl.SSLError, ValueError) as error:
            reason = getattr(error, "reason", None) or str(error)
            allowed = "the private key of cert_file, PEM, without a password"
            message = f"does not go with cert_file: {reason}"
            yield Finding(("key_file",), message, link.key_file, allowed=allowed)


def _no_password() -> str:
    """Asked for when a key is encrypted; without this OpenSSL would ask on the terminal."""
    raise ValueError("the key is protected by a password")


def check_models(config: Config) -> Iterator[Finding]:
    """Every model file is there: the path, or the slot's manifest and what it lists."""
    for index, pipeline in enumerate(config.pipeline):
        findings = check_model_files(pipeline.model, config)
        yield from (finding.below("pipeline", index, "model") for finding in findings)
        if pipeline.model.smaller is not None:
            findings = check_model_files(pipeline.model.smaller, config)
            yield from (finding.below("pipeline", index, "model", "smaller") for finding in findings)
        cascade = pipeline.model.cascade
        if cascade is not None and cascade.where == "local":
            findings = check_model_files(cascade, config)
            yield from (finding.below("pipeline", index, "model", "cascade") for finding in findings)


def check_extras(config: Config, installed: Callable[[str], object] = find_spec) -> Iterator[Finding]:
    """A note where a package that only some gateways need is missing."""
    for index, pipeline in enumerate(config.pipeline):
        if pipeline.codec == "image" and not installed("PIL"):
            message = "needs the extra image, which is not installed here: answers have quality 0"
            cure = "install edged with the extra image"
            yield Finding(("pipeline", index, "codec"), message, pipeline.codec, cure=cure, note=True)


def check_model_files(model: ModelSource | Smaller | Cascade, config: Config) -> Iterator[Finding]:
    """The files of one model."""
    if model.path is not None:
        if fault := file_fault(model.path):
            yield Finding(("path",), fault, model.path, allowed="a model file that can be read")
        elif (size := FilePath(model.path).stat().st_size) > config.hardware.limits.model_bytes:
            yield _too_big("path", size, config)
        return
    folder = FilePath(model.slot_dir(config.gateway.state_dir))
    manifest = folder / "manifest.json"
    if fault := file_fault(str(manifest)):
        cure = f"put a model bundle there: {manifest.name} and the files it lists"
        yield Finding(("slot",), f"has no model: {manifest} {fault}", model.slot, cure=cure)
        return
    total = 0
    for name, fault, size in _manifest_files(manifest):
        total += size
        if fault:
            cure = "put the whole bundle there again"
            yield Finding(("slot",), f"is not complete: {folder / name} {fault}", model.slot, cure=cure)
    if total > config.hardware.limits.model_bytes:
        yield _too_big("slot", total, config)


def _too_big(key: str, size: int, config: Config) -> Finding:
    limit = config.hardware.limits.model_bytes
    allowed = f"up to {limit} bytes on hardware class {config.gateway.hardware_class}"
    return Finding((key,), "is a larger model than this hardware takes", size, allowed=allowed, unit="bytes")


def _manifest_files(manifest: FilePath) -> Iterator[tuple[str, str, int]]:
    """(name, fault or "", size) for each file in the manifest; a manifest that says nothing is its own fault."""
    try:
        if manifest.stat().st_size > MAX_MANIFEST_BYTES:
            yield manifest.name, "is too long for a manifest", 0
            return
        files = [(entry["path"], entry.get("size")) for entry in json.loads(manifest.read_bytes())["files"]]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        yield manifest.name, f"is not a manifest: {type(error).__name__} {error}", 0
        return
    if not files:
        yield manifest.name, "lists no files", 0
    for name, size in files:
        if not isinstance(name, str) or FilePath(name).is_absolute() or ".." in FilePath(name).parts:
            yield manifest.name, f"names a file outside the slot: {name!r}", 0
            continue
        fault = file_fault(str(manifest.parent / name))
        found = 0 if fault else (manifest.parent / name).stat().st_size
        if not fault and isinstance(size, int) and size != found:
            fault = f"has {found} bytes instead of {size}"
        yield name, fault, found


def file_fault(file: str) -> str:
    """Why the file cannot be read; "" when it can."""
    try:
        path = FilePath(file)
        if path.is_dir():
            return "is a folder"
        with path.open("rb") as stream:
            stream.read(1)
    except FileNotFoundError:
        return "does not exist"
    except PermissionError:
        return "must not be read by this user"
    except (OSError, ValueError) as error:  # ValueError: a zero character in the name
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    return ""
