"""TLS and mutual TLS: contexts from files, and errors an operator can act on."""

from __future__ import annotations

import ssl
from pathlib import Path

from edged.errors import LinkError
from edged.mqtt.settings import TlsSettings


def make_context(settings: TlsSettings) -> ssl.SSLContext:
    """A client context: TLS 1.2 or newer, certificate and name checked. Blocks on files: call it off the loop."""
    for path in (settings.ca_file, settings.cert_file, settings.key_file):
        if path is not None:
            _check_readable(path)
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except (ssl.SSLError, OSError) as error:
        raise _unusable("CA file", settings.ca_file, error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if settings.cert_file is not None:
        try:
            context.load_cert_chain(settings.cert_file, settings.key_file)
        except (ssl.SSLError, OSError) as error:
            raise _unusable("client certificate and key", settings.cert_file, error) from None
    return context


def explain(error: ssl.SSLError, host: str, port: int) -> LinkError:
    """What a failed handshake means for the operator."""
    what = f"TLS with {host}:{port}"
    if isinstance(error, ssl.SSLCertVerificationError):
        reason = error.verify_message.rstrip(".")
        return LinkError(f"{what}: the broker's certificate is refused: {reason}", hint=_cure(reason), retryable=True)
    # Errors that do not come from OpenSSL itself have no reason.
    reason = (getattr(error, "reason", None) or str(error)).lower().replace("_", " ")
    hint = "check that the port speaks TLS, and whether the broker asks for a client certificate (cert_file, key_file)"
    return LinkError(f"{what}: handshake failed: {reason}", hint=hint, retryable=True)


def _cure(reason: str) -> str:
    lowered = reason.lower()
    if "expired" in lowered:
        return "renew the broker's certificate, and check this machine's clock"
    if "not yet valid" in lowered:
        return "check this machine's clock"
    if "hostname mismatch" in lowered or "ip address mismatch" in lowered:
        return "connect by a name that stands in the certificate"
    return "set ca_file to the authority that signed the broker's certificate"


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise LinkError(
            f"reading the TLS file {path}: {error.strerror}",
            hint="the file must exist and be readable by the user the daemon runs as",
            retryable=True,
        ) from None


def _unusable(what: str, path: Path | None, error: Exception) -> LinkError:
    return LinkError(
        f"loading the {what} {path}: {getattr(error, 'reason', None) or error}",
        hint="expected is PEM; certificate and key must belong together and the key must not be encrypted",
        retryable=True,
    )
