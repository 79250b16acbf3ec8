"""Somebody sits between a client and a genuine enclave and relays the enclave's evidence.

The attacker terminates TLS on both sides. He can talk to the enclave as any client may, so he can
have fresh evidence from it at any time; in the last tests he has the enclave's TLS key as well. The
client wants the enclave, and must not get him. (CVE-2026-33697 and its siblings: evidence that
binds the key alone is relayed by whoever has the key, or finds an enclave that attests to his.)
"""

import socket
from dataclasses import replace
from typing import Any

import pytest
from tests.unit.attest.tls import ends
from tests.unit.attest.tls.ends import Outcome, credential, expected, sockets, start

from broch.attest.tls import (
    AttestedSocket,
    Credential,
    Level,
    accept,
    binding,
    check_certificate,
    connect,
)
from broch.attest.tls.binding import Role
from broch.attest.tls.link import Link, open_tls
from broch.errors import PolicyError, UndecidedError, UntrustedError
from broch.wire import cmw


class Relay(Credential):
    """Attests by asking the genuine enclave, over a connection of the attacker's own."""

    victim: Any = None  # -> a socket to the enclave

    def prove(self, role: Role, exporter: bytes, nonce: bytes) -> cmw.Record:
        link = Link(type(self).victim(), open_tls(Role.CLIENT, None))
        link.handshake()
        link.send_message(binding.challenge_message(nonce))  # the client's own, so it is fresh
        proof, _ = binding.read_answer(link.receive_message())
        link.close()
        return binding.wrap(*proof)


class Enclave:
    """The genuine one: attests to whoever connects."""

    def __init__(self) -> None:
        self.served: list[Outcome] = []
        self.lines: list[socket.socket] = []

    def line(self) -> socket.socket:
        near, far = socket.socketpair()
        for end in (near, far):
            end.settimeout(ends.SECONDS)
        self.lines += [near, far]
        self.served.append(start(lambda: accept(far, credential())))
        return near

    def close(self) -> None:
        for line in self.lines:
            line.close()


@pytest.fixture
def enclave() -> Any:
    enclave = Enclave()
    yield enclave
    enclave.close()


def relay(enclave: Enclave, own: Credential) -> Credential:
    """The attacker's end, with this key and certificate."""
    kind = type("Relay", (Relay,), {"victim": staticmethod(enclave.line)})
    made: Credential = kind(attester=own.attester, key=own.key, certificate=own.certificate)
    return made


def attack(attacker: Credential) -> AttestedSocket:
    """What the client gets to."""
    with sockets() as (near, far):
        start(lambda: accept(far, attacker))
        return connect(near, expected())


def test_without_an_attacker_it_works(enclave: Enclave) -> None:
    with connect(enclave.line(), expected()) as client:
        assert client.peer is not None
        assert client.peer.level is Level.CHANNEL


def test_an_attacker_with_a_certificate_of_his_own(enclave: Enclave) -> None:
    """His key, and the enclave's evidence copied into his certificate."""
    own = ends.stranger(evidence_of=credential())
    with pytest.raises(UntrustedError, match="something else"):
        attack(relay(enclave, own))
    assert enclave.served == [], "refused before anything is relayed"


def test_an_attacker_with_code_of_his_own_in_a_genuine_tee(enclave: Enclave) -> None:
    with pytest.raises(PolicyError, match="measurement"):
        attack(relay(enclave, credential("attacker")))


def test_an_attacker_with_the_enclaves_certificate_and_not_its_key(enclave: Enclave) -> None:
    """OpenSSL on the client's side asks for a signature by the key in the certificate."""
    own = replace(ends.stranger(evidence_of=credential()), certificate=credential().certificate)
    with sockets() as (near, far):
        start(lambda: accept(far, relay(enclave, own)))
        # The attacker's own library would not even load the pair, so the line just ends.
        with pytest.raises((UndecidedError, UntrustedError), match=r"cut|broke|TLS"):
            connect(near, expected())


def stolen() -> Credential:
    """The enclave's key and certificate in the attacker's hands."""
    own = credential()
    return Credential(attester=own.attester, key=own.key, certificate=own.certificate)


def test_an_attacker_with_the_enclaves_key_relays_fresh_evidence(enclave: Enclave) -> None:
    """The evidence is genuine, fresh, answers the client's nonce, binds the right key: and is
    bound to the attacker's connection with the enclave, not to the client's with him."""
    with pytest.raises(UntrustedError, match="another key, claims, connection or challenge"):
        attack(relay(enclave, stolen()))
    assert len(enclave.served) == 1, "the enclave was asked, and answered"
    assert enclave.served[0].join().error is None


def test_the_certificate_alone_would_not_have_noticed(enclave: Enclave) -> None:
    """Why the exporter is bound: by its key alone the relay passes for the enclave."""
    peer = check_certificate(relay(enclave, stolen()).certificate, expected())
    assert peer.level is Level.KEY


def test_recorded_evidence_is_of_no_use(enclave: Enclave) -> None:
    """The enclave's evidence for this very client, from an earlier connection."""
    recorded: list[cmw.Record] = []

    class Recorder(Credential):
        def prove(self, role: Role, exporter: bytes, nonce: bytes) -> cmw.Record:
            if not recorded:
                recorded.append(Credential.prove(stolen(), role, exporter, nonce))
            return recorded[0]

    own = stolen()
    attacker = Recorder(attester=own.attester, key=own.key, certificate=own.certificate)
    attack(attacker).close()  # with key *and* attester he is the enclave
    with pytest.raises(UntrustedError, match="something else"):
        attack(attacker)


def test_a_client_cannot_be_relayed_either(enclave: Enclave) -> None:
    """The same the other way round: a server that asks its clients for evidence."""

    def victim() -> socket.socket:
        near, far = socket.socketpair()
        for end in (near, far):
            end.settimeout(ends.SECONDS)
        enclave.lines += [near, far]
        # The genuine client connects to the attacker, who lets it believe what it likes.
        start(lambda: connect(far, expected("attacker"), credential("client")))
        return near

    own = credential("client")

    class Relayed(Credential):
        def prove(self, role: Role, exporter: bytes, nonce: bytes) -> cmw.Record:
            link = Link(victim(), open_tls(Role.SERVER, credential("attacker"), ask=True))
            link.handshake()
            challenge = binding.read_challenge(link.receive_message())
            record = credential("attacker").prove(Role.SERVER, link.exporter(), challenge)
            link.send_message(binding.answer_message(record, nonce))
            proof = binding.read_proof(link.receive_message())
            return binding.wrap(*proof)

    stolen_client = Relayed(attester=own.attester, key=own.key, certificate=own.certificate)
    with sockets() as (near, far):
        server = start(lambda: accept(far, credential(), expected("client")))
        attempt = start(lambda: connect(near, expected(), stolen_client))
        error = server.join().error
        assert isinstance(error, UntrustedError), attempt.join().error
        assert "something else" in str(error)
