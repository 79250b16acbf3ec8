"""Attested TLS between two ends that are what they should be, and between ends that are not."""

import socket
import ssl
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from broch.attest.tls import (
    Credential,
    Expected,
    Level,
    accept,
    binding,
    check_certificate,
    connect,
    judge_by,
)
from broch.attest.tls.binding import Role
from broch.attest.tls.link import Link, open_tls
from broch.errors import (
    BrochError,
    DecodeError,
    PolicyError,
    UndecidedError,
    UntrustedError,
    UsageError,
)
from broch.wire import cmw

from . import ends
from .ends import NOW, credential, echo, expected, sockets, start


def test_a_connection_to_the_right_code() -> None:
    with sockets() as (near, far):
        server = start(lambda: echo(accept(far, credential())))
        with connect(near, expected()) as client:
            assert client.peer is not None
            assert client.peer.level is Level.CHANNEL
            assert client.peer.claims.emulated
            assert client.peer.claims.measurement == (ends.attester().identity.measurement.value)
            file = client.makefile()
            for size in (1, 1000, 50_000):
                client.sendall(bytes(size))
                assert file.read(size) == bytes(size)
        assert server.join().error is None


def test_both_ends_attest() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential(), expected("client")))
        client = connect(near, expected(), credential("client"))
        peer = server.join().result.peer
        assert peer.level is Level.CHANNEL
        assert peer.claims.measurement == ends.attester("client").identity.measurement.value
        client.close()


def test_a_server_that_is_other_code_is_refused() -> None:
    with sockets() as (near, far):
        start(lambda: accept(far, credential("other")))
        with pytest.raises(PolicyError, match="measurement"):
            connect(near, expected())
        assert near.fileno() == -1, "the socket is closed"


def test_a_client_that_is_other_code_is_refused() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential(), expected("client")))
        start(lambda: connect(near, expected(), credential("other")))
        assert isinstance(server.join().error, PolicyError)


def test_a_client_without_evidence_is_refused() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential(), expected("client")))
        start(lambda: connect(near, expected()))
        error = server.join().error
        assert isinstance(error, UntrustedError)
        assert "certificate" in str(error)


def test_emulated_devices_are_accepted_only_by_name() -> None:
    with sockets() as (near, far):
        start(lambda: accept(far, credential()))
        with pytest.raises(PolicyError, match="emulated"):
            connect(near, expected(emulated=False))


def test_an_expired_certificate_is_refused() -> None:
    later = replace(expected(), now=lambda: NOW + timedelta(hours=25))
    with sockets() as (near, far):
        start(lambda: accept(far, credential()))
        with pytest.raises(UntrustedError, match="expired"):
            connect(near, later)


class Bent(Credential):
    """A server that proves something else than it should."""

    prover: Any = None

    def prove(self, role: Role, exporter: bytes, nonce: bytes) -> Any:
        return type(self).prover(role, exporter, nonce)


def bent(prover: Any) -> Credential:
    own = credential()
    kind = type("Bent", (Bent,), {"prover": staticmethod(prover)})
    made: Credential = kind(attester=own.attester, key=own.key, certificate=own.certificate)
    return made


OWN = credential()


@pytest.mark.parametrize(
    "prover",
    [
        pytest.param(lambda r, e, n: OWN.prove(Role.CLIENT, e, n), id="the client's role"),
        pytest.param(lambda r, e, n: OWN.prove(r, bytes(32), n), id="another connection"),
        pytest.param(lambda r, e, n: OWN.prove(r, e, bytes(32)), id="another challenge"),
        pytest.param(
            lambda r, e, n: credential("other").prove(r, e, n), id="another key and other code"
        ),
        pytest.param(
            lambda r, e, n: Credential.create(ends.attester(), now=NOW).prove(r, e, n),
            id="another key of the same code",
        ),
        pytest.param(
            lambda r, e, n: binding.wrap("sgx", ends.attester().evidence(bytes(64))),
            id="nothing",
        ),
        pytest.param(
            lambda r, e, n: binding.wrap(
                "sgx", ends.attester().evidence(binding.key_data(OWN.spki, 64))
            ),
            id="the certificate's evidence again",
        ),
        pytest.param(lambda r, e, n: binding.wrap("tdx", b""), id="no evidence"),
        pytest.param(lambda r, e, n: binding.wrap("nobody", b""), id="an unknown TEE"),
    ],
)
def test_evidence_that_is_bound_to_something_else(prover: Any) -> None:
    with sockets() as (near, far):
        start(lambda: accept(far, bent(prover)))
        with pytest.raises((UntrustedError, PolicyError, DecodeError, UsageError)):
            connect(near, expected())


def test_certificate_and_connection_must_be_of_the_same_code() -> None:
    """A policy that accepts two images does not let one answer for the other."""
    measurements = [ends.attester(name).identity.measurement.value for name in ("server", "other")]
    policy = ends.policy()
    both = replace(policy.references["sgx"], measurements=frozenset(measurements))
    judge = judge_by(replace(policy, references={"sgx": both}), ends.source)
    other = ends.attester("other")

    def prover(role: Role, exporter: bytes, nonce: bytes) -> Any:
        data = binding.channel_data(role, OWN.spki, exporter, nonce, 64)
        return binding.wrap("sgx", other.evidence(data))

    with sockets() as (near, far):
        start(lambda: accept(far, bent(prover)))
        with pytest.raises(UntrustedError, match="different code"):
            connect(near, Expected(judge=judge, now=lambda: NOW))


def test_a_server_that_does_not_speak_it() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with sockets() as (near, far), ends.files(credential()) as (certificate, key):
        context.load_cert_chain(certificate, key)
        server = start(lambda: context.wrap_socket(far, server_side=True))
        with pytest.raises(UntrustedError, match="does not speak attested TLS"):
            connect(near, expected())
        server.join().result.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2])
def test_no_earlier_version_is_spoken(version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = version
    context.set_alpn_protocols([binding.ALPN.decode()])
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        wrapped = context.wrap_socket(near, do_handshake_on_connect=False)
        with wrapped, pytest.raises(ssl.SSLError):
            wrapped.do_handshake()
        assert isinstance(server.join().error, UntrustedError)


@pytest.mark.parametrize(
    "garbage", [b"GET / HTTP/1.1\r\n\r\n", bytes(100), b"\x16\x03\x01\xff\xff"]
)
def test_what_is_no_tls(garbage: bytes) -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        near.sendall(garbage)
        near.shutdown(socket.SHUT_WR)
        assert isinstance(server.join().error, UntrustedError | UndecidedError)


def test_a_line_that_breaks() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        near.close()
        assert isinstance(server.join().error, UndecidedError)


def test_a_silent_peer_is_not_waited_for() -> None:
    with sockets() as (near, _), pytest.raises(UndecidedError, match=r"timed out|broke"):
        connect(near, expected(), timeout=0.05)


def test_an_end_in_the_handshake_is_an_end() -> None:
    close_notify = bytes.fromhex("15030300020100")  # an alert, in the clear
    with sockets() as (near, far):
        far.sendall(close_notify)
        with pytest.raises(UndecidedError, match="ended the connection"):
            connect(near, expected())


def test_a_cut_is_told_from_an_end() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        client = connect(near, expected())
        end = server.join().result
        end.sendall(b"some")
        end._link.socket.shutdown(socket.SHUT_RDWR)  # without a word
        assert client.recv(10) == b"some"
        with pytest.raises(UndecidedError, match="cut"):
            client.recv(10)
        client.close()
        client.close()


def test_tampering_is_noticed() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        client = connect(near, expected())
        end = server.join().result
        end._link.socket.sendall(b"\x17\x03\x03\x00\x20" + bytes(32))
        with pytest.raises(UntrustedError, match="TLS"):
            client.recv(10)
        client.close()


def raw_client(near: socket.socket) -> Link:
    """A client that has shaken hands and may say what it likes."""
    link = Link(near, open_tls(Role.CLIENT, None))
    link.handshake()
    return link


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\x00",
        b"\x81\x01",
        b"\x82\x01\x40",
        b"\x82\x01\x58\x20" + bytes(33),
        b"\x82\x02\x58\x20" + bytes(32),
        b"\xff" * 9,
    ],
)
def test_a_challenge_that_is_none(message: bytes) -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        raw_client(near).send_message(message)
        assert isinstance(server.join().error, DecodeError)


def test_messages_are_bounded() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        raw_client(near).send((1 << 31).to_bytes(4, "big"))
        assert isinstance(server.join().error, DecodeError)


def test_a_client_that_leaves_early() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential()))
        link = raw_client(near)
        link._connection.shutdown()
        link._flush()
        error = server.join().error
        assert isinstance(error, UndecidedError)
        assert "before it had attested" in str(error)


def test_a_client_with_a_certificate_still_has_to_prove_the_channel() -> None:
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential(), expected("client")))
        link = Link(near, open_tls(Role.CLIENT, credential("client")))
        link.handshake()
        link.send_message(binding.challenge_message(bytes(32)))
        proof, challenge = binding.read_answer(link.receive_message())
        assert challenge is not None
        # The server's own evidence comes back: bound to the other role, and of other code.
        link.send_message(binding.proof_message(binding.wrap(*proof)))
        assert isinstance(server.join().error, BrochError)


def certificate(**changes: Any) -> bytes:
    """One's own certificate with something changed, signed by its key again."""
    own = x509.load_der_x509_certificate(credential().certificate)
    key = changes.get("key", credential().key)
    name = x509.Name([])
    builder = x509.CertificateBuilder(
        issuer_name=changes.get("issuer", name),
        subject_name=name,
        public_key=key.public_key(),
        serial_number=1,
        not_valid_before=NOW - timedelta(days=1),
        not_valid_after=NOW + timedelta(days=1),
    )
    for extension in own.extensions:
        value: Any = changes.get(extension.oid.dotted_string, extension.value)
        if value is not None:
            builder = builder.add_extension(value, critical=extension.critical)
    signer = changes.get("signer", key)
    return builder.sign(signer, SHA256()).public_bytes(Encoding.DER)


STRANGER = ec.derive_private_key(7, ec.SECP256R1())
DICE = cmw.DICE_OID


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        pytest.param({DICE: None}, UntrustedError, "carries no evidence", id="no evidence"),
        pytest.param({"signer": STRANGER}, UntrustedError, "does not hold", id="not self-signed"),
        pytest.param({"key": STRANGER}, UntrustedError, "something else", id="another key"),
        pytest.param(
            {"issuer": x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])},
            UntrustedError,
            "made it itself",
            id="an issuer",
        ),
        pytest.param(
            {"2.5.29.19": x509.BasicConstraints(ca=True, path_length=None)},
            UntrustedError,
            "made it itself",
            id="a CA",
        ),
        pytest.param({"2.5.29.15": None}, UntrustedError, "made it itself", id="no key usage"),
        pytest.param(
            {"key": ec.derive_private_key(7, ec.SECP384R1())},
            UntrustedError,
            "not on P-256",
            id="another curve",
        ),
        pytest.param(
            {DICE: x509.UnrecognizedExtension(x509.ObjectIdentifier(DICE), b"\x80")},
            DecodeError,
            "CMW",
            id="no CMW",
        ),
        pytest.param(
            {
                DICE: x509.UnrecognizedExtension(
                    x509.ObjectIdentifier(DICE),
                    cmw.Record(type="application/eat+cwt", value=b"").to_cbor(),
                )
            },
            DecodeError,
            "not evidence that is known",
            id="another type",
        ),
    ],
)
def test_each_rule_of_certificates(
    changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    assert check_certificate(certificate(), expected()).level is Level.KEY
    with pytest.raises(error, match=message):
        check_certificate(certificate(**changes), expected())


def test_every_byte_of_a_certificate_counts() -> None:
    der = credential().certificate
    for place in range(0, len(der), 7):
        broken = der[:place] + bytes((der[place] ^ 1,)) + der[place + 1 :]
        with pytest.raises(BrochError):
            check_certificate(broken, expected())


def test_evidence_of_a_whole_system_binds_the_image() -> None:
    from broch.tee.guest import bind

    image = bytes(range(32))

    class Guest:
        tee = "sgx"

        def evidence(self, report_data: bytes) -> bytes:
            return ends.attester().evidence(bind(image, report_data, 64))

    own = Credential.create(Guest(), now=NOW)
    for given, fails in ((image, False), (None, True), (bytes(32), True)):
        with sockets() as (near, far):
            start(partial(accept, far, own))
            wanted = replace(expected(), image=given)
            if fails:
                with pytest.raises(UntrustedError, match="something else"):
                    connect(near, wanted)
            else:
                connect(near, wanted).close()


def test_without_pyopenssl_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "OpenSSL", None)
    with sockets() as (near, _), pytest.raises(UsageError) as caught:
        connect(near, expected())
    assert caught.value.hint == "pip install 'broch[tls]'"


def test_no_secret_is_shown() -> None:
    shown = repr(credential())
    assert "key" not in shown
    assert "PrivateKey" not in shown


def test_files_are_for_reading() -> None:
    with sockets() as (near, far):
        start(lambda: accept(far, credential()))
        with connect(near, expected()) as client, pytest.raises(UsageError):
            client.makefile("wb")
