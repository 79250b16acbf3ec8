"""The transport behind :func:`broch.attest.tls.http.client`; imported only where httpx is.

HTTP is httpcore's; only where it asks its network stream to start TLS, attested TLS starts.
"""

import select
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import httpx

from broch.attest.tls.channel import TIMEOUT, AttestedSocket, connect
from broch.attest.tls.credential import Credential
from broch.attest.tls.http import KEEP
from broch.attest.tls.link import LineError, LineTimeoutError
from broch.attest.tls.peer import Expected


class AttestedTransport(httpx.BaseTransport):
    """Sends requests to peers that are as expected."""

    def __init__(self, expected: Expected, credential: Credential | None) -> None:
        self._pool = httpcore.ConnectionPool(
            # Never used, since TLS is ours; but the pool would load all public roots for its own.
            ssl_context=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            network_backend=_Backend(expected, credential),
            keepalive_expiry=KEEP,
        )

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """One request.

        Raises:
            httpx.UnsupportedProtocol: not ``https``.
            httpx.TransportError: the line broke.
            BrochError: the peer is not as expected.
        """
        if request.url.scheme != "https":
            raise httpx.UnsupportedProtocol("only https goes over attested TLS", request=request)
        with _translated(request):
            response = self._pool.handle_request(
                httpcore.Request(
                    method=request.method,
                    url=httpcore.URL(
                        scheme=request.url.raw_scheme,
                        host=request.url.raw_host,
                        port=request.url.port,
                        target=request.url.raw_path,
                    ),
                    headers=request.headers.raw,
                    content=request.stream,
                    extensions=request.extensions,
                )
            )
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream, request),
            extensions=response.extensions,
        )

    def close(self) -> None:
        """Close all connections."""
        self._pool.close()


class _Body(httpx.SyncByteStream):
    def __init__(self, stream: Any, request: httpx.Request) -> None:
        self._stream = stream
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        with _translated(self._request):
            yield from self._stream

    def close(self) -> None:
        self._stream.close()


@contextmanager
def _translated(request: httpx.Request) -> Iterator[None]:
    """Errors of httpcore under the names of httpx, which are the same."""
    try:
        yield
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as exc:
        kind = getattr(httpx, type(exc).__name__, httpx.TransportError)
        raise kind(str(exc), request=request) from exc


class _Backend(httpcore.NetworkBackend):
    def __init__(self, expected: Expected, credential: Credential | None) -> None:
        self._expected = expected
        self._credential = credential

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        source = None if local_address is None else (local_address, 0)
        try:
            sock = socket.create_connection((host, port), timeout, source)
        except TimeoutError as exc:
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except OSError as exc:
            raise httpcore.ConnectError(str(exc)) from exc
        for option in socket_options or ():
            sock.setsockopt(*option)
        return _Line(sock, self._expected, self._credential)


class _Line(httpcore.NetworkStream):
    """A connected socket on which nothing is said but attested TLS."""

    def __init__(
        self, sock: socket.socket, expected: Expected, credential: Credential | None
    ) -> None:
        self._sock = sock
        self._expected = expected
        self._credential = credential

    def close(self) -> None:
        self._sock.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        wait = TIMEOUT if timeout is None else timeout
        try:
            return _Stream(connect(self._sock, self._expected, self._credential, timeout=wait))
        except LineTimeoutError as exc:
            raise httpcore.ConnectTimeout(str(exc)) from exc
        except LineError as exc:
            raise httpcore.ConnectError(str(exc)) from exc


class _Stream(httpcore.NetworkStream):
    def __init__(self, end: AttestedSocket) -> None:
        self._end = end

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        self._end.settimeout(timeout)
        try:
            return self._end.recv(max_bytes)
        except LineTimeoutError as exc:
            raise httpcore.ReadTimeout(str(exc)) from exc
        except LineError as exc:
            raise httpcore.ReadError(str(exc)) from exc

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._end.settimeout(timeout)
        try:
            self._end.sendall(buffer)
        except LineTimeoutError as exc:
            raise httpcore.WriteTimeout(str(exc)) from exc
        except LineError as exc:
            raise httpcore.WriteError(str(exc)) from exc

    def close(self) -> None:
        self._end.close()

    def get_extra_info(self, info: str) -> Any:
        if info == "attested_peer":
            return self._end.peer
        if info == "is_readable":  # on an idle connection: the peer has ended it
            return bool(select.select([self._end.fileno()], [], [], 0)[0])
        return None
