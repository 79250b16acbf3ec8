"""Attested TLS with every kind of device that is emulated here, and between two kinds."""

from dataclasses import dataclass
from functools import cache
from typing import Final

import pytest
from tests.emulated import IMAGE, Memory
from tests.pki import NOW

from broch.attest import Policy
from broch.attest.tls import (
    Credential,
    DeviceAttester,
    Expected,
    Level,
    accept,
    connect,
    judge_by,
)
from broch.tee import registry
from broch.tee.contract import DeviceSettings, Endorsements, PackSettings

from .ends import sockets, start

KINDS: Final = ("sgx", "keystone", "trustzone")


@dataclass(frozen=True, kw_only=True)
class End:
    credential: Credential
    expected: Expected


@cache
def end(name: str) -> End:
    """A device that loaded the image, and what others expect of it."""
    tee = registry.find(name)
    settings = DeviceSettings(name="field", secret=bytes(range(32)), nv=Memory(), now=NOW)
    device = tee.device(settings)
    key = tee.new_signing_key() if tee.needs_signing_key else None
    identity = device.load(tee.pack(IMAGE, PackSettings(), key)).identity
    endorsements = device.endorsements()

    def source(kind: str, evidence: bytes) -> Endorsements:
        assert kind == name
        return endorsements

    # Emulated Keystone and OP-TEE devices have no lists; the policy says that it knows.
    policy = Policy(emulated=True, allow_no_revocation=True).for_image(identity.measurement)
    return End(
        credential=Credential.create(DeviceAttester(device, identity), now=NOW),
        expected=Expected(judge=judge_by(policy, source), now=lambda: NOW),
    )


@pytest.mark.parametrize("client", KINDS)
@pytest.mark.parametrize("server", KINDS)
def test_every_kind_attests_to_every_other(server: str, client: str) -> None:
    one, other = end(server), end(client)
    with sockets() as (near, far):
        accepted = start(lambda: accept(far, one.credential, other.expected))
        connected = connect(near, one.expected, other.credential)
        assert connected.peer is not None
        assert (connected.peer.claims.tee, connected.peer.level) == (server, Level.CHANNEL)
        peer = accepted.join().result.peer
        assert (peer.claims.tee, peer.level) == (client, Level.CHANNEL)
        connected.close()
