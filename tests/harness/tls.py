"""Certificates for the tests of TLS: an authority, and what it signs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)


class Identity(NamedTuple):
    """Two PEM files: a certificate, and its private key in PKCS #8."""

    certificate: Path
    key: Path

    def together(self) -> Path:
        """Both in one file, the key first, as a broker's key store wants them."""
        file = self.key.with_suffix(".both.pem")
        file.write_bytes(self.key.read_bytes() + self.certificate.read_bytes())
        return file


class Authority:
    """An authority whose files lie in a directory of its own."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._authority = trustme.CA()
        self.file = directory / "ca.pem"
        self._authority.cert_pem.write_to_path(str(self.file))

    def issue(
        self, name: str, *hosts: str, common_name: str | None = None, expired: bool = False, key_password: str = ""
    ) -> Identity:
        """A certificate for hosts, for a user by its common name, or for both."""
        not_after = datetime(2020, 1, 1, tzinfo=UTC) if expired else None
        # Without any it has an empty list of names, which Java takes for no certificate.
        names = hosts or (f"{common_name}.example",)
        issued = self._authority.issue_cert(*names, common_name=common_name, not_after=not_after)
        identity = Identity(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        identity.certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
        key = load_pem_private_key(issued.private_key_pem.bytes(), None)
        encryption = BestAvailableEncryption(key_password.encode()) if key_password else NoEncryption()
        identity.key.touch(mode=0o600)  # libpq reads none that others could
        identity.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return identity
