"""The exchange of evidence in a TLS connection, and what a program gets when it has come off.

Until the peer is believed nothing of the application's is sent or handed out.
"""

import io
import os
import socket
from collections.abc import Callable
from typing import Any, Final, Self

from broch.attest.tls import binding
from broch.attest.tls.binding import NONCE_SIZE, Role
from broch.attest.tls.credential import Credential
from broch.attest.tls.link import RECORD, Link, open_tls
from broch.attest.tls.peer import Expected, Peer, check_certificate, check_channel
from broch.errors import UsageError

TIMEOUT: Final = 10.0  # seconds without a byte, while a connection is set up


class AttestedSocket:
    """A connection to a peer who was believed; has what programs use of a socket.

    Raises, in reading and writing:
        LineError: the line broke.
        UntrustedError: somebody tampered with it.
    """

    def __init__(self, link: Link, peer: Peer | None) -> None:
        self._link = link
        self.peer = peer  # None: a client that was not asked to attest

    def recv(self, size: int, _flags: int = 0) -> bytes:
        """As of a socket: b"" once the peer has ended the connection."""
        return self._link.receive(size)

    def recv_into(self, buffer: Any, size: int = 0) -> int:
        """As of a socket."""
        data = self._link.receive(size or len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def sendall(self, data: bytes, _flags: int = 0) -> None:
        """As of a socket."""
        self._link.send(bytes(data))

    def makefile(self, mode: str = "rb", buffering: int = -1) -> io.BufferedReader:
        """A reader; nothing else is needed of a socket's files.

        Raises:
            UsageError: another mode.
        """
        if mode not in ("rb", "r+b", "br"):
            raise UsageError(f"an attested socket makes files of mode rb, not {mode}")
        return io.BufferedReader(_Reader(self), buffering if buffering > 0 else RECORD)

    def settimeout(self, seconds: float | None) -> None:
        """As of a socket."""
        self._link.socket.settimeout(seconds)

    def setsockopt(self, *arguments: Any) -> None:
        """As of a socket."""
        self._link.socket.setsockopt(*arguments)

    def fileno(self) -> int:
        """As of a socket; what TLS has decrypted and holds does not show there."""
        return self._link.socket.fileno()

    def shutdown(self, _how: int) -> None:
        """End the connection both ways."""
        self._link.close()

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Reader(io.RawIOBase):
    def __init__(self, sock: AttestedSocket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._sock.recv_into(buffer)


def connect(
    sock: socket.socket,
    expected: Expected,
    credential: Credential | None = None,
    *,
    timeout: float | None = TIMEOUT,
) -> AttestedSocket:
    """Attested TLS over a connected socket, as the client.

    Args:
        sock: is used up; closed if this raises.
        expected: who the server must be.
        credential: to attest oneself, should the server ask.
        timeout: seconds without a byte until the connection is there; then the socket's own.

    Raises:
        UntrustedError: the server is not proved to be in a TEE, or TLS fails.
        PolicyError: it is, and not acceptable.
        UndecidedError: the line broke, or an endorsement is missing.
        UsageError: the server asks for evidence and there is no credential; no pyOpenSSL.
    """
    return _set_up(sock, timeout, lambda: _connect(sock, expected, credential))


def _connect(sock: socket.socket, expected: Expected, own: Credential | None) -> AttestedSocket:
    link = Link(sock, open_tls(Role.CLIENT, own))
    link.handshake()
    peer = check_certificate(link.certificate(), expected)
    nonce = os.urandom(NONCE_SIZE)
    link.send_message(binding.challenge_message(nonce))
    proof, challenge = binding.read_answer(link.receive_message())
    exporter = link.exporter()
    peer = check_channel(
        peer, proof, role=Role.SERVER, exporter=exporter, nonce=nonce, expected=expected
    )
    # Only a server that is believed learns what this end is.
    if challenge is not None:
        if own is None:
            raise UsageError("the server asks for evidence of the client", hint="give a credential")
        record = own.prove(Role.CLIENT, exporter, challenge)
        link.send_message(binding.proof_message(record))
    return AttestedSocket(link, peer)


def accept(
    sock: socket.socket,
    credential: Credential,
    expected: Expected | None = None,
    *,
    timeout: float | None = TIMEOUT,
) -> AttestedSocket:
    """Attested TLS over an accepted socket, as the server.

    Args:
        sock: is used up; closed if this raises.
        credential: of this end.
        expected: who the client must be; None: it need not attest.
        timeout: seconds without a byte until the connection is there; then the socket's own.

    Raises:
        UntrustedError: the client is not proved to be in a TEE, or TLS fails.
        PolicyError: it is, and not acceptable.
        UndecidedError: the line broke, or an endorsement is missing.
        UsageError: no pyOpenSSL.
    """
    return _set_up(sock, timeout, lambda: _accept(sock, credential, expected))


def _accept(sock: socket.socket, own: Credential, expected: Expected | None) -> AttestedSocket:
    link = Link(sock, open_tls(Role.SERVER, own, ask=expected is not None))
    link.handshake()
    peer = None if expected is None else check_certificate(link.certificate(), expected)
    nonce = None if expected is None else os.urandom(NONCE_SIZE)
    challenge = binding.read_challenge(link.receive_message())
    exporter = link.exporter()
    record = own.prove(Role.SERVER, exporter, challenge)
    link.send_message(binding.answer_message(record, nonce))
    if peer is not None and expected is not None and nonce is not None:
        proof = binding.read_proof(link.receive_message())
        peer = check_channel(
            peer, proof, role=Role.CLIENT, exporter=exporter, nonce=nonce, expected=expected
        )
    return AttestedSocket(link, peer)


def _set_up(
    sock: socket.socket, timeout: float | None, run: Callable[[], AttestedSocket]
) -> AttestedSocket:
    before = sock.gettimeout()
    try:
        sock.settimeout(timeout)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            # Messages go back and forth; none is to wait until the last one was acknowledged.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made = run()
        sock.settimeout(before)
    except BaseException:
        sock.close()
        raise
    return made
