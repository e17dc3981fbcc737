"""A certificate authority of the test's own, made with the openssl command at test time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Signs certificates into `folder`; `ca_file` is what clients trust."""

    def __init__(self, folder: Path, name: str = "test authority") -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed: apt install openssl")
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.ca_file = folder / "ca.pem"
        self._ca_key = folder / "ca.key"
        subject = ("-subj", f"/CN={name}")
        extensions = (
            "-addext",
            "basicConstraints=critical,CA:TRUE",
            "-addext",
            "keyUsage=critical,keyCertSign,cRLSign",
        )
        files = ("-keyout", str(self._ca_key), "-out", str(self.ca_file))
        _openssl("req", "-x509", *_NEW_KEY, *subject, *extensions, *files, "-days", "30")

    def issue(
        self, name: str, *, names: str = "IP:127.0.0.1,DNS:localhost", days: int = 30, subject: str = ""
    ) -> tuple[Path, Path]:
        """(certificate, key) in files of this name. `names`: subjectAltName; `subject`: another CN; 0 days: expired."""
        common_name = (subject or name).replace("/", "\\/")
        certificate, key, request = (self.folder / f"{name}.{kind}" for kind in ("pem", "key", "csr"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={names}\nauthorityKeyIdentifier=keyid\n")
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={common_name}", "-keyout", str(key), "-out", str(request))
        signing = ("-CA", str(self.ca_file), "-CAkey", str(self._ca_key), "-CAcreateserial")
        files = ("-in", str(request), "-out", str(certificate), "-extfile", str(extensions))
        _openssl("x509", "-req", *files, *signing, "-days", str(days))
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)
