"""TLS 1.3 by pyOpenSSL over a socket: the exporter that Python's ``ssl`` lacks.

OpenSSL works on memory and bytes are moved here, so timeouts are the socket's. No session is
resumed, no ticket given, no earlier version spoken, no other protocol (ALPN) answered. OpenSSL
checks that the peer has its certificate's key; what the certificate is worth is not asked here.
"""

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from broch.attest.tls.binding import ALPN, EXPORTER_SIZE, LABEL, MAX_MESSAGE, Role
from broch.attest.tls.credential import Credential
from broch.errors import DecodeError, UndecidedError, UntrustedError, UsageError

if TYPE_CHECKING:
    from OpenSSL import SSL

_T = TypeVar("_T")
RECORD: Final = 16 * 1024  # bytes that a TLS record carries


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

        def read() -> bytes:
            try:
                return self._connection.recv(size)
            except SSL.ZeroReturnError:
                return b""

        return self._do(read)

    def send(self, data: bytes) -> None:
        """All of ``data``."""
        for start in range(0, len(data), RECORD):
            piece = data[start : start + RECORD]
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
                raise LineError("the peer ended the connection in the handshake") from None
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
                data = self._connection.bio_read(RECORD)
            except SSL.WantReadError:
                return
            try:
                self.socket.sendall(data)
            except OSError as exc:
                raise _broken(exc) from None

    def _fill(self) -> None:
        try:
            data = self.socket.recv(RECORD)
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


def open_tls(role: Role, own: Credential | None, *, ask: bool = True) -> "SSL.Connection":
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
