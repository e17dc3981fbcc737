"""What a failed handshake means for the operator."""

from __future__ import annotations

import ssl

import pytest

from edged.mqtt.tls import explain


def refused(message: str) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "certificate verify failed")
    error.verify_message = message
    return error


@pytest.mark.parametrize(
    ("error", "detail", "cure"),
    [
        (refused("certificate has expired"), "certificate has expired", "renew"),
        (refused("certificate is not yet valid"), "not yet valid", "this machine's clock"),
        (refused("Hostname mismatch, certificate is not valid for 'x'."), "Hostname", "a name that stands in"),
        (refused("IP address mismatch, certificate is not valid for '::1'."), "IP address", "a name that stands in"),
        (refused("self-signed certificate in certificate chain"), "self-signed", "ca_file"),
        (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"), "wrong version number", "speaks TLS"),
        (ssl.SSLEOFError(8, "EOF occurred in violation of protocol"), "eof occurred", "cert_file"),
    ],
)
def test_each_failure_names_the_place_the_reason_and_the_cure(error: ssl.SSLError, detail: str, cure: str) -> None:
    explained = explain(error, "broker.example", 8883)
    assert explained.message.startswith("TLS with broker.example:8883: ")
    assert detail in explained.message
    assert cure in explained.hint
    assert explained.retryable
