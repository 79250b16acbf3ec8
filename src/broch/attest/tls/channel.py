"""TLS 1.3 with the exporter that Python's ``ssl`` lacks, and the exchange of evidence in it.

TLS is OpenSSL's, by pyOpenSSL, over memory: bytes are moved here, so timeouts are the socket's. No
session is resumed, no ticket given, no earlier version spoken, no other protocol (ALPN) answered.
OpenSSL checks that the peer has its certificate's key; what the certificate is worth is for
:mod:`.peer` to say, and until then nothing of the application's is sent or handed out.
"""

import io
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

from broch.attest.tls import binding
from broch.attest.tls.binding import ALPN, EXPORTER_SIZE, LABEL, MAX_MESSAGE, NONCE_SIZE, Role
from broch.attest.tls.credential import Credential
from broch.attest.tls.peer import Expected, Peer, check_certificate, check_channel
from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError

if TYPE_CHECKING:
    from OpenSSL import SSL

_T = TypeVar("_T")
_RECORD: Final = 16 * 1024  # bytes that a TLS record carries
TIMEOUT: Final = 10.0  # seconds without a byte, while a connection is set up


class LineError(UndecidedError):
    """The line broke; what has not come may have been on its way."""


class LineTimeoutError(LineError):
    """Nothing came for as long as the socket waits."""


class Link:
    """TLS over a socket, before anybody has been believed."""

    def __init__(self, sock: socket.socket, connection: "SSL.Connection") -> None:
        self.socket = sock
        self._connection = connection

    def handshake(self) -> None:
        """Until keys are agreed on.

        Raises:
            UntrustedError: the peer speaks another protocol, or breaks this one.
            LineError: the line broke.
        """
        self._do(self._connection.do_handshake)
        if self._connection.get_alpn_proto_negotiated() != ALPN:
            raise UntrustedError(
                "the peer does not speak attested TLS", hint="connect to a port that does"
            )

    def certificate(self) -> bytes:
        """The peer's (DER), whose key it has shown to have.

        Raises:
            UntrustedError: there is none.
        """
        from cryptography.hazmat.primitives.serialization import Encoding

        found = self._connection.get_peer_certificate(as_cryptography=True)
        if found is None:
            raise UntrustedError("the peer has no certificate", hint="it has to attest itself")
        return found.public_bytes(Encoding.DER)

    def exporter(self) -> bytes:
        """32 bytes that only the two ends of this very connection have."""
        return self._connection.export_keying_material(LABEL, EXPORTER_SIZE, b"")

    def receive(self, size: int) -> bytes:
        """Between 1 and ``size`` bytes; nothing once the peer has ended the connection.

        Raises:
            LineError: the line broke, so that something may be missing.
        """
        from OpenSSL import SSL

        try:
            return self._do(lambda: self._connection.recv(size))
        except SSL.ZeroReturnError:
            return b""

    def send(self, data: bytes) -> None:
        """All of ``data``."""
        for start in range(0, len(data), _RECORD):
            piece = data[start : start + _RECORD]
            self._do(lambda piece=piece: self._connection.send(piece))  # type: ignore[misc]

    def send_message(self, data: bytes) -> None:
        """A message after its length."""
        self.send(len(data).to_bytes(4, "big") + data)

    def receive_message(self) -> bytes:
        """A message.

        Raises:
            DecodeError: too long.
            LineError: the connection ended before.
        """
        size = int.from_bytes(self._exactly(4), "big")
        if size > MAX_MESSAGE:
            raise DecodeError(
                0, f"{size} bytes, at most {MAX_MESSAGE}", what="attested TLS message"
            )
        return self._exactly(size)

    def close(self) -> None:
        """End the connection; say so to the peer if he still listens."""
        from OpenSSL import SSL

        try:
            self._connection.shutdown()
            self._flush()
        except (SSL.Error, LineError):
            pass  # he does not
        finally:
            self.socket.close()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            piece = self.receive(size - len(data))
            if not piece:
                raise LineError("the peer ended the connection before it had attested")
            data += piece
        return data

    def _do(self, action: Callable[[], _T]) -> _T:
        """What OpenSSL does, moving bytes for it until it is done."""
        from OpenSSL import SSL

        while True:
            try:
                result = action()
            except SSL.WantReadError:
                self._flush()
                self._fill()
            except SSL.ZeroReturnError:
                raise
            except SSL.Error as exc:
                self._flush()  # an alert tells the peer why
                raise UntrustedError(f"TLS: {_reason(exc)}") from None
            else:
                self._flush()
                return result

    def _flush(self) -> None:
        from OpenSSL import SSL

        while True:
            try:
                data = self._connection.bio_read(_RECORD)
            except SSL.WantReadError:
                return
            try:
                self.socket.sendall(data)
            except OSError as exc:
                raise _broken(exc) from None

    def _fill(self) -> None:
        try:
            data = self.socket.recv(_RECORD)
        except OSError as exc:
            raise _broken(exc) from None
        if not data:
            raise LineError("the connection was cut: something may be missing")
        self._connection.bio_write(data)


def _broken(exc: OSError) -> LineError:
    kind = LineTimeoutError if isinstance(exc, TimeoutError) else LineError
    return kind(f"the connection broke: {exc.strerror or exc}")


def _reason(exc: Exception) -> str:
    errors = exc.args[0] if exc.args and isinstance(exc.args[0], list) else []
    return "; ".join(str(error[2]) for error in errors) or type(exc).__name__


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
        return io.BufferedReader(_Reader(self), buffering if buffering > 0 else _RECORD)

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
    link = Link(sock, _connection(Role.CLIENT, own))
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
    link = Link(sock, _connection(Role.SERVER, own, ask=expected is not None))
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


def _connection(role: Role, own: Credential | None, *, ask: bool = True) -> "SSL.Connection":
    """OpenSSL, set up; ``ask``: the peer has to show a certificate."""
    try:
        from OpenSSL import SSL
    except ImportError:
        raise UsageError(
            "attested TLS needs the package pyOpenSSL", hint="pip install 'broch[tls]'"
        ) from None
    from cryptography import x509

    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(SSL.TLS1_3_VERSION)
    context.set_max_proto_version(SSL.TLS1_3_VERSION)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    context.set_options(SSL.OP_NO_TICKET)
    if ask:
        # Whatever it is worth: no certificate is issued by anybody, and peer.py looks at it.
        wanted = SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT
        context.set_verify(wanted, lambda *_: True)
    if own is not None:
        context.use_certificate(x509.load_der_x509_certificate(own.certificate))
        context.use_privatekey(own.key)
    if role is Role.CLIENT:
        context.set_alpn_protos([ALPN])
    else:
        context.set_alpn_select_callback(
            lambda _, offered: ALPN if ALPN in offered else SSL.NO_OVERLAPPING_PROTOCOLS
        )
    connection = SSL.Connection(context, None)
    if role is Role.CLIENT:
        connection.set_connect_state()
    else:
        connection.set_accept_state()
    return connection
