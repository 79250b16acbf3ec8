"""HTTP over attested TLS: a client for ``httpx``, a server out of the standard library.

The name in a URL says where to connect and nothing else: who the server is, evidence says. So a
client is for servers that run one code (or what its policy accepts), and follows no redirects by
itself. Evidence is as old as the connection that it is bound to; idle connections are closed after
:data:`KEEP` seconds.
"""

import socket
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

from broch.attest.tls.channel import TIMEOUT, AttestedSocket, accept
from broch.attest.tls.credential import Credential
from broch.attest.tls.peer import Expected, Peer
from broch.errors import BrochError, InternalError, UsageError

if TYPE_CHECKING:
    import httpx

KEEP: Final = 30.0  # seconds


def client(
    expected: Expected, credential: Credential | None = None, **options: Any
) -> "httpx.Client":
    """An ``httpx.Client`` that talks to servers that are as expected, and to no others.

    Args:
        expected: who the server must be.
        credential: to attest oneself, should the server ask.
        **options: of ``httpx.Client``, but for what concerns transport and proxies.

    Its requests raise, besides what ``httpx`` raises, the errors of
    :func:`broch.attest.tls.connect` that are not about the line.

    Raises:
        UsageError: httpx is not installed, or an option that would go round attestation.
    """
    refused = options.keys() & {"transport", "mounts", "proxy", "verify", "cert", "trust_env"}
    if refused:
        raise UsageError(f"options that would go round attestation: {', '.join(sorted(refused))}")
    _check_httpx()
    import httpx

    return httpx.Client(transport=transport(expected, credential), trust_env=False, **options)


def transport(expected: Expected, credential: Credential | None = None) -> "httpx.BaseTransport":
    """The transport of :func:`client`; only ``https`` URLs go through it.

    Raises:
        UsageError: httpx is not installed.
    """
    _check_httpx()
    from broch.attest.tls.http_transport import AttestedTransport

    return AttestedTransport(expected, credential)


def peer_of(response: "httpx.Response") -> Peer:
    """Who answered.

    Raises:
        InternalError: not an answer of :func:`client`, or it is closed.
    """
    stream = response.extensions.get("network_stream")
    peer = stream.get_extra_info("attested_peer") if stream is not None else None
    if not isinstance(peer, Peer):
        raise InternalError("this answer did not come over attested TLS")
    return peer


class AttestedServer(ThreadingHTTPServer):
    """An HTTP server whose every connection is attested. Handlers find ``request.peer``.

    Args:
        address: host and port.
        handler: as of any server of ``http.server``.
        credential: of this end, or what gives the one to use now (:class:`.credential.Renewing`).
        expected: who clients must be; None: they need not attest.
        refused: called with the error of a connection that did not come about.
        timeout: seconds that one may take for each step of setting a connection up.
    """

    daemon_threads = True

    def __init__(
        self,
        address: tuple[str, int],
        handler: type[BaseHTTPRequestHandler],
        credential: Credential | Callable[[], Credential],
        expected: Expected | None = None,
        *,
        refused: Callable[[BrochError], None] = lambda _: None,
        timeout: float = TIMEOUT,
    ) -> None:
        super().__init__(address, handler)
        self._credential = credential
        self._expected = expected
        self._refused = refused
        self._set_up = timeout

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection, in its own thread."""
        own = self._credential
        try:
            current = own if isinstance(own, Credential) else own()
            end = accept(request, current, self._expected, timeout=self._set_up)
        except BrochError as exc:
            self._refused(exc)
            return
        with end:
            self._handle(end, client_address)

    def _handle(self, end: AttestedSocket, client_address: Any) -> None:
        try:
            self.RequestHandlerClass(end, client_address, self)  # type: ignore[arg-type]
        except BrochError as exc:  # the line broke in the middle
            self._refused(exc)

    def shutdown_request(self, request: Any) -> None:
        """Close the line; TLS has been ended by then."""
        if isinstance(request, socket.socket):
            request.close()


def _check_httpx() -> None:
    try:
        import httpx  # noqa: F401 (whether it is there)
    except ImportError:
        raise UsageError(
            "the client needs the package httpx", hint="pip install 'broch[server,tls]'"
        ) from None
