"""Attested TLS: a connection whose other end is proved to be in a TEE, and in none but this one.

    certificate   carries evidence that binds its key (TCG DICE conceptual message wrapper)
    channel       fresh evidence, asked for after the handshake, binds the key, this connection's
                  TLS exporter and a nonce; so evidence cannot be relayed, not even by somebody who
                  has the key

:func:`connect` and :func:`accept` do both, :mod:`.http` for HTTP. Python's ``ssl`` has no exporter:
with it there is the certificate alone, in :mod:`.stdlib`. ``docs/attested-tls.md`` says what each
protects against.
"""

from broch.attest.tls.channel import AttestedSocket, accept, connect
from broch.attest.tls.credential import Credential, DeviceAttester, Renewing
from broch.attest.tls.peer import Expected, Level, Peer, check_certificate, judge_by

__all__ = [
    "AttestedSocket",
    "Credential",
    "DeviceAttester",
    "Expected",
    "Level",
    "Peer",
    "Renewing",
    "accept",
    "check_certificate",
    "connect",
    "judge_by",
]
