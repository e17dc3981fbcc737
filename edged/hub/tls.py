"""TLS on both of the hub's sides: contexts from files, and errors an operator can act on. Blocks on files."""

from __future__ import annotations

import ssl

from edged.errors import EdgedError


def client_context(ca_file: str, cert_file: str, key_file: str) -> ssl.SSLContext:
    """Towards the broker: TLS 1.2 or newer, its certificate and name are checked. Empty names are left out.

    Raises:
        EdgedError: a file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except (ssl.SSLError, OSError) as error:
        raise _unusable("the CA file", ca_file, error) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if cert_file:
        _load_pair(context, cert_file, key_file)
    return context


def server_context(cert_file: str, key_file: str, client_ca_file: str, *, required: bool) -> ssl.SSLContext:
    """Towards gateways: TLS 1.2 or newer; with `client_ca_file` they show a certificate, or may, unless `required`.

    Raises:
        EdgedError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    _load_pair(context, cert_file, key_file)
    if client_ca_file:
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        try:
            context.load_verify_locations(client_ca_file)
        except (ssl.SSLError, OSError) as error:
            raise _unusable("the clients' CA file", client_ca_file, error) from None
    return context


def common_name(certificate: object) -> str:
    """The CN of what `ssl` returns for a peer's checked certificate; "" without one."""
    if isinstance(certificate, dict):
        for part in certificate.get("subject", ()):
            for name, value in part:
                if name == "commonName":
                    return str(value)
    return ""


def _load_pair(context: ssl.SSLContext, cert_file: str, key_file: str) -> None:
    try:
        context.load_cert_chain(cert_file, key_file, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise _unusable("certificate and key", cert_file, error) from None


def _no_password() -> str:
    """Asked for when a key is encrypted; without this OpenSSL would ask on the terminal."""
    raise ValueError("the key is protected by a password")


def _unusable(what: str, file: str, error: Exception) -> EdgedError:
    return EdgedError(
        f"loading {what} {file}: {getattr(error, 'reason', None) or error}",
        hint="expected is PEM; certificate and key must belong together and the key must not be encrypted",
        retryable=True,
    )
