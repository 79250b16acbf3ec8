"""What Python's ssl can do: a certificate whose key is bound, and nothing about the connection."""

import ssl

import pytest

from broch.attest.tls import Level
from broch.attest.tls.stdlib import connect_key_only, server_context
from broch.errors import PolicyError, UndecidedError, UntrustedError

from . import ends
from .ends import credential, expected, sockets, start


def test_a_certificate_with_evidence() -> None:
    context = server_context(credential())
    with sockets() as (near, far):
        server = start(lambda: context.wrap_socket(far, server_side=True))
        end, peer = connect_key_only(near, expected())
        with end, server.join().result as other:
            assert peer.level is Level.KEY
            assert end.version() == "TLSv1.3"
            other.sendall(b"hello")
            assert end.recv(5) == b"hello"


def test_other_code_is_refused() -> None:
    context = server_context(credential("other"))
    with sockets() as (near, far):
        server = start(lambda: context.wrap_socket(far, server_side=True))
        with pytest.raises(PolicyError, match="measurement"):
            connect_key_only(near, expected())
        assert near.fileno() == -1
        server.join().result.close()


def test_a_copied_certificate_is_refused() -> None:
    context = server_context(ends.stranger(evidence_of=credential()))
    with sockets() as (near, far):
        server = start(lambda: context.wrap_socket(far, server_side=True))
        with pytest.raises(UntrustedError, match="something else"):
            connect_key_only(near, expected())
        server.join().result.close()


def test_a_line_that_breaks_or_is_silent_or_talks_nonsense() -> None:
    with sockets() as (near, _), pytest.raises(UndecidedError, match="timed out"):
        connect_key_only(near, expected(), timeout=0.05)
    with sockets() as (near, far):
        far.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(UntrustedError, match="TLS"):
            connect_key_only(near, expected())
    with sockets() as (near, far):
        far.close()
        with pytest.raises((UndecidedError, UntrustedError)):
            connect_key_only(near, expected())


def test_earlier_versions_are_not_spoken() -> None:
    context = server_context(credential())
    assert context.minimum_version is ssl.TLSVersion.TLSv1_3
