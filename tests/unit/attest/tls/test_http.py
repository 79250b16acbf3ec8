"""HTTP over attested TLS: httpx on one side, the standard library's server on the other."""

import select
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import httpx
import pytest

from broch.attest.tls import Credential, Expected, Level, Renewing
from broch.attest.tls.http import AttestedServer, client, peer_of, transport
from broch.errors import BrochError, InternalError, PolicyError, UntrustedError, UsageError

from . import ends
from .ends import NOW, attester, credential, expected


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        size = int(self.headers["Content-Length"])
        self.answer(self.rfile.read(size))

    def do_GET(self) -> None:
        if self.path == "/cut":
            self.send_response(200)
            self.send_header("Content-Length", "10")
            self.end_headers()
            self.request._link.socket.shutdown(socket.SHUT_RDWR)
            return
        self.close_connection = self.path == "/bye"
        if self.path == "/slow":
            self.server.go.wait()  # type: ignore[attr-defined]
        peer = self.request.peer
        self.answer(b"nobody" if peer is None else peer.claims.measurement.hex().encode())

    def answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base's name)
        pass


@dataclass
class Running:
    url: str
    go: threading.Event
    refused: list[BrochError] = field(default_factory=list)


Serve = Callable[..., Any]


@contextmanager
def serve(
    name: str = "server",
    clients: Expected | None = None,
    own: Callable[[], Credential] | None = None,
) -> Iterator[Running]:
    running = Running("", threading.Event())
    server = AttestedServer(
        ("127.0.0.1", 0), Handler, own or credential(name), clients, refused=running.refused.append
    )
    server.go = running.go  # type: ignore[attr-defined]
    running.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        running.go.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_requests_and_answers() -> None:
    with serve() as running, client(expected()) as http:
        assert http.get(running.url).content == b"nobody"
        body = bytes(range(256)) * 1000
        with http.stream("POST", running.url, content=body) as response:
            peer = peer_of(response)
            assert response.read() == body
        assert peer.level is Level.CHANNEL
        assert peer.claims.measurement == attester().identity.measurement.value
        assert running.refused == []


def test_a_client_that_attests() -> None:
    with (
        serve(clients=expected("client")) as running,
        client(expected(), credential("client")) as http,
    ):
        measurement = attester("client").identity.measurement.value
        assert http.get(running.url).text == measurement.hex()


def test_a_client_that_does_not_attest_is_refused() -> None:
    with (
        serve(clients=expected("client")) as running,
        client(expected()) as http,
        pytest.raises((UntrustedError, httpx.ConnectError)),
    ):
        http.get(running.url)
    assert isinstance(running.refused[0], UntrustedError)


def test_other_code_is_refused() -> None:
    with serve("other") as running, client(expected()) as http:
        with pytest.raises(PolicyError, match="measurement"):
            http.get(running.url)
        with pytest.raises(PolicyError, match="measurement"):  # and again: it is not in the pool
            http.get(running.url)


def test_connections_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[None] = []
    create = socket.create_connection

    def counted(*arguments: Any, **options: Any) -> socket.socket:
        made.append(None)
        return create(*arguments, **options)

    monkeypatch.setattr(socket, "create_connection", counted)
    with serve() as running, client(expected()) as http:
        for _ in range(3):
            assert http.get(running.url).status_code == 200
        assert len(made) == 1


def test_a_connection_that_the_server_has_ended_is_not_used_again() -> None:
    with serve() as running, client(expected()) as http:
        with http.stream("GET", running.url + "/bye") as response:
            stream = response.extensions["network_stream"]
            response.read()
            # Until the end has come; on an idle connection that is all that can.
            if (descriptor := stream._end.fileno()) >= 0:
                select.select([descriptor], [], [], ends.SECONDS)
        assert http.get(running.url).status_code == 200


def test_a_cut_answer_is_an_error() -> None:
    with serve() as running, client(expected()) as http, pytest.raises(httpx.ReadError):
        http.get(running.url + "/cut")


def test_a_slow_answer_is_an_error() -> None:
    with serve() as running, client(expected(), timeout=0.2) as http:
        with pytest.raises(httpx.ReadTimeout):
            http.get(running.url + "/slow")
        running.go.set()


def test_a_certificate_is_made_anew_before_it_expires() -> None:
    at = [NOW]
    own = Renewing(attester(), now=lambda: at[0])
    wanted = replace(expected(), now=lambda: at[0])
    assert own() is own()
    seen: list[bytes] = []
    with serve(own=own) as running:
        for _ in range(3):
            with client(wanted) as http, http.stream("GET", running.url) as response:
                seen.append(peer_of(response).certificate)
                response.read()
            at[0] += timedelta(hours=11)
    assert seen[0] == seen[1] != seen[2]


def test_only_https() -> None:
    with serve() as running, client(expected()) as http, pytest.raises(httpx.UnsupportedProtocol):
        http.get(running.url.replace("https", "http"))


@pytest.mark.parametrize("option", ["verify", "transport", "proxy", "mounts", "cert", "trust_env"])
def test_nothing_goes_round_attestation(option: str) -> None:
    with pytest.raises(UsageError, match=option):
        client(expected(), **{option: None})


def test_an_ordinary_server_is_refused() -> None:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with ends.files(credential()) as (certificate, key):
        context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))
    outcome = ends.start(lambda: context.wrap_socket(listener.accept()[0], server_side=True))
    with client(expected()) as http, pytest.raises(UntrustedError, match="does not speak"):
        http.get(f"https://127.0.0.1:{listener.getsockname()[1]}")
    outcome.join().result.close()
    listener.close()


def test_an_answer_of_another_client_has_no_peer() -> None:
    with pytest.raises(InternalError):
        peer_of(httpx.Response(200))


def test_without_httpx_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(UsageError, match="httpx"):
        transport(expected())
