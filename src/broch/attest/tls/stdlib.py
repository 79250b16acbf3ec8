"""What can be had with Python's ``ssl``: a certificate with evidence, and no more.

``ssl`` gives no exporter (CPython issue 82133), so evidence binds the certificate's key and not the
connection: it is no fresher than the certificate, and somebody who gets hold of the key, or of the
evidence of a TEE that attests to his key, passes for the peer. That is :attr:`.Level.KEY`. Where it
matters, use :func:`broch.attest.tls.connect` and :func:`broch.attest.tls.accept`.
"""

import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from broch.attest.tls.channel import TIMEOUT
from broch.attest.tls.credential import Credential
from broch.attest.tls.link import LineError, LineTimeoutError
from broch.attest.tls.peer import Expected, Peer, check_certificate
from broch.errors import UntrustedError


def server_context(credential: Credential) -> ssl.SSLContext:
    """A context for servers (``wrap_socket``, asyncio, uvicorn) that shows the certificate.

    Linux only: the key goes to ``ssl`` through memory that no other user can read.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    certificate = x509.load_der_x509_certificate(credential.certificate)
    secret = credential.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    with _in_memory(certificate.public_bytes(Encoding.PEM) + secret) as path:
        context.load_cert_chain(path)
    return context


def connect_key_only(
    sock: socket.socket,
    expected: Expected,
    *,
    check: Callable[[bytes, Expected], Peer] = check_certificate,
    timeout: float | None = TIMEOUT,
) -> tuple[ssl.SSLSocket, Peer]:
    """TLS over a connected socket, to a server whose certificate's evidence binds its key.

    Args:
        sock: is used up; closed if this raises.
        expected: who the server must be.
        check: what kind of certificate; :func:`.ratls.check_ratls_certificate` for Gramine's.
        timeout: seconds without a byte until the connection is there; then the socket's own.

    Raises:
        UntrustedError: the server is not proved to be in a TEE, or TLS fails.
        PolicyError: it is, and not acceptable.
        UndecidedError: the line broke, or an endorsement is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nobody issues such certificates; what they are worth is decided below, from their evidence.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    before = sock.gettimeout()
    try:
        sock.settimeout(timeout)
        end = context.wrap_socket(sock)
    except TimeoutError as exc:
        sock.close()
        raise LineTimeoutError(f"the connection broke: {exc}") from None
    except ssl.SSLError as exc:
        sock.close()
        raise UntrustedError(f"TLS: {exc.reason or exc}") from None
    except OSError as exc:
        sock.close()
        raise LineError(f"the connection broke: {exc.strerror or exc}") from None
    try:
        der = end.getpeercert(binary_form=True)
        if der is None:
            raise UntrustedError("the peer has no certificate", hint="it has to attest itself")
        peer = check(der, expected)
        end.settimeout(before)
    except BaseException:
        end.close()
        raise
    return end, peer


@contextmanager
def _in_memory(data: bytes) -> Iterator[str]:
    """A path to ``data``, which is in no file system; for what takes nothing but paths."""
    descriptor = os.memfd_create("broch", os.MFD_CLOEXEC)
    try:
        os.fchmod(descriptor, 0o600)
        os.write(descriptor, data)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.ftruncate(descriptor, 0)
        os.close(descriptor)
