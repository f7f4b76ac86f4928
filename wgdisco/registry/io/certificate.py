"""The registry's own certificate: made once, kept beside the store, for its owner alone.

It protects nothing: what it carries is WireGuard, sealed between keys both ends know. It is there because what looks
like HTTPS is let out where nothing else is. So nobody checks it, and it need not be anybody's.
"""

import os
import ssl
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from wgdisco.endpoint import parse_address
from wgdisco.errors import LocalError

_VALID_FROM = datetime(2020, 1, 1, tzinfo=UTC)  # whatever the clock says now
_VALID_FOR = timedelta(days=100 * 365)
_NAME_MAX_SIZE = 64  # RFC 5280, ub-common-name


def server_context(path: Path, hosts: Iterable[str]) -> ssl.SSLContext:
    """TLS under the certificate at `path`, made for `hosts` where there is none; LocalError when it cannot be."""
    try:
        if not path.exists():
            _write(path, make_certificate(list(hosts)))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(path)
    except ssl.SSLError as error:
        raise LocalError(f"{path} is damaged: delete it, and another is made") from error
    except OSError as error:
        raise LocalError(f"cannot keep a certificate in {path}: {error.strerror}") from error
    return context


def make_certificate(hosts: list[str]) -> bytes:
    """A new private key and its self-signed certificate for `hosts` (names or addresses), as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:_NAME_MAX_SIZE])])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_VALID_FROM)
        .not_valid_after(_VALID_FROM + _VALID_FOR)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .sign(key, hashes.SHA256())
    )
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ) + certificate.public_bytes(serialization.Encoding.PEM)


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(parse_address(host.strip("[]")))
    except ValueError:
        return x509.DNSName(host)


def _write(path: Path, text: bytes) -> None:
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
