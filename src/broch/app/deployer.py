"""The trusted logic of an application: who is let in, and who shares keys with whom. Sans-IO.

An :class:`Admission` is one join with one enclave (:mod:`broch.enclave.join`): nonce, evidence,
appraisal, grants. The :class:`Deployer` holds the connections' epochs and makes their keys. What
agents carry is believed only as far as evidence and authenticated encryption say so.
"""

import hmac
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broch.app.descriptor import Operator
from broch.app.operator_ends import OperatorEnds
from broch.app.wiring import Connection as Wire
from broch.app.wiring import ConnectionKind, End, Wiring
from broch.attest import Policy, Verdict, appraise
from broch.crypto.channel import KEY_SIZE
from broch.enclave import join
from broch.enclave.handover import check_imported, export_order, import_order
from broch.enclave.join import Connection, ModuleKeys, Terms
from broch.enclave.messages import Kind
from broch.errors import DecodeError, InternalError, UntrustedError
from broch.tee.contract import Endorsements, Measurement, Tee

#: Messages under one key after which a connection is rekeyed, long before its counter can wrap.
REKEY_AFTER: Final = 2**40
_MAX_GRANT: Final = 500  # connections in one grant, so that it fits one message
_KEY: Final = 32


class Admission:
    """One join with one enclave, as the deployer sees it.

    Args:
        app: the application's name.
        module: the module's name.
        tee: the kind of device that it must run on.
        expected: measurement and signer of the image that was built.
        endorsements: what is believed of the device.
        policy: what is accepted.
        deployer: signs grants.
    """

    def __init__(
        self,
        *,
        app: str,
        module: str,
        tee: Tee,
        expected: Measurement,
        endorsements: Endorsements,
        policy: Policy,
        deployer: Ed25519PrivateKey,
    ) -> None:
        self._app = app
        self._module = module
        self._tee = tee
        self._expected = expected
        self._endorsements = endorsements
        self._policy = policy
        self._deployer = deployer
        self._nonce = os.urandom(join.NONCE_SIZE)
        self._keys: ModuleKeys | None = None
        self._serial = 0
        self._open: Terms | None = None
        self.verdict: Verdict | None = None

    def challenge(self) -> bytes:
        """Step 1: a CHALLENGE message."""
        return bytes([Kind.CHALLENGE]) + self._nonce

    def appraise(self, message: bytes, *, at: datetime) -> Verdict:
        """Step 3: verify and appraise an EVIDENCE message.

        Raises:
            DecodeError: not evidence.
            UntrustedError: not authentic, not for this nonce, or another enclave's keys.
            UndecidedError: an endorsement is missing.
            PolicyError: authentic, and not acceptable.
        """
        if message[:1] != bytes([Kind.EVIDENCE]) or len(message) <= 1 + 2 * _KEY:
            raise DecodeError(0, "not evidence", what=self._module)
        keys = ModuleKeys(message[1 : 1 + _KEY], message[1 + _KEY : 1 + 2 * _KEY])
        evidence = message[1 + 2 * _KEY :]
        claims = self._tee.verify(evidence, self._endorsed(evidence), at=at)
        expected = self._bound(
            join.report_data(self._nonce, keys, self._app, self._module, self._tee.report_data_size)
        )
        if not hmac.compare_digest(claims.report_data, expected):
            raise UntrustedError(
                "the evidence is not an answer to this challenge: it is old, or another module's",
                place=self._module,
            )
        verdict = appraise(claims, self._accepted(), at=at, nonce=expected, place=self._module)
        self._keys, self.verdict = keys, verdict
        return verdict

    # What native devices do otherwise (broch.app.native).

    def _endorsed(self, evidence: bytes) -> Endorsements:
        """What is believed of the device that gave this evidence."""
        return self._endorsements

    def _bound(self, data: bytes) -> bytes:
        """The report data of evidence over ``data``."""
        return data

    def _accepted(self) -> Policy:
        """What is accepted: this image and no other."""
        return self._policy.for_image(self._expected)

    @property
    def keys(self) -> ModuleKeys:
        """The keys that the module proved; raises :class:`InternalError` before that."""
        if self._keys is None:
            raise InternalError(f"{self._module} was not admitted")
        return self._keys

    def grant(self, connections: list[Connection]) -> bytes:
        """Step 4: a GRANT message; only the last one can be confirmed."""
        self._serial += 1
        self._open = Terms(self._serial, os.urandom(32), connections)
        sealed = join.grant(self._open, self._nonce, self.keys, self._deployer)
        return bytes([Kind.GRANT]) + sealed

    def confirm(self, message: bytes) -> None:
        """Step 5: check a CONFIRM message; raises :class:`UntrustedError`."""
        if self._open is None or message[:1] != bytes([Kind.CONFIRM]):
            raise UntrustedError("nothing was to be confirmed", place=self._module)
        try:
            join.check_confirmation(message[1:], self._open, self._nonce, self.keys)
        except UntrustedError as exc:
            raise UntrustedError(exc.message, place=self._module) from None
        self._open = None

    def export_to(self, successor: "Admission") -> bytes:
        """An EXPORT message: hand your state to ``successor``, and stop."""
        order = export_order(self._deployer, self._nonce, self.keys, successor.keys)
        return bytes([Kind.EXPORT]) + order

    def import_from(self, predecessor: "Admission", state: bytes) -> bytes:
        """An IMPORT message: take over ``state``, which ``predecessor`` sealed."""
        order = import_order(self._deployer, self._nonce, self.keys, predecessor.keys, state)
        return bytes([Kind.IMPORT]) + order

    def imported(self, order: bytes, message: bytes) -> None:
        """Check the IMPORTED message that answers the IMPORT message ``order``.

        Raises:
            UntrustedError: the module does not say that it took the state over.
        """
        try:
            check_imported(message[1:], order[1:], self._nonce, self.keys)
        except UntrustedError as exc:
            raise UntrustedError(
                f"did not take the state over: {exc.message}", place=self._module
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rekeying:
    """Fresh keys, to be granted in this order: whoever receives, then whoever sends.

    No message can then be sealed under a key that its receiver has not got yet.
    """

    epochs: dict[int, int]  # connection -> its new epoch
    receivers: dict[str, list[Connection]] = field(repr=False)
    senders: dict[str, list[Connection]] = field(repr=False)
    operator: list[Connection] = field(repr=False)  # outputs of the operator's: to use at the end


class Deployer:
    """Connections, their epochs and keys, and the operator's own ends."""

    def __init__(self, wiring: Wiring) -> None:
        self._wires = {wire.id: wire for wire in wiring.connections}
        self.epochs: dict[int, int] = dict.fromkeys(self._wires, 0)
        self.ends = OperatorEnds()

    @property
    def wires(self) -> Iterable[Wire]:
        """All connections."""
        return self._wires.values()

    def wire(self, connection: int) -> Wire:
        """One connection; raises :class:`KeyError`."""
        return self._wires[connection]

    def connections_of(self, module: str) -> list[int]:
        """The connections with an end in ``module``."""
        return [wire.id for wire in Wiring(tuple(self.wires)).of(module)]

    def rekey(self, connections: Iterable[int]) -> Rekeying:
        """Make fresh keys for these; the operator's receiving ends use them at once."""
        rekeying = Rekeying(epochs={}, receivers={}, senders={}, operator=[])
        for number in connections:
            wire = self._wires[number]
            if self.epochs[number] >= 2**32 - 1:
                raise InternalError(f"connection {wire} is at its last epoch")
            self.epochs[number] += 1
            rekeying.epochs[number] = self.epochs[number]
            self._share(rekeying, wire, os.urandom(KEY_SIZE))
        return rekeying

    def _share(self, rekeying: Rekeying, wire: Wire, key: bytes) -> None:
        asks = wire.kind is ConnectionKind.REQUEST
        ends: tuple[tuple[End | Operator, Literal["output", "input", "request", "handler"]], ...]
        ends = (
            (wire.source, "request" if asks else "output"),
            (wire.target, "handler" if asks else "input"),
        )
        for index, (end, role) in enumerate(ends):
            peer = ends[1 - index][0]
            granted = Connection(
                id=wire.id,
                role=role,
                port=end.port if isinstance(end, End) else "operator",
                peer=str(peer) if isinstance(peer, End) else "operator",
                cipher=wire.cipher,
                key=key,
                epoch=self.epochs[wire.id],
            )
            if isinstance(end, End):
                group = rekeying.senders if index == 0 else rekeying.receivers
                group.setdefault(end.module, []).append(granted)
            elif role == "input":
                self.ends.take(granted)
            else:
                rekeying.operator.append(granted)


def portions(granted: list[Connection]) -> Iterator[list[Connection]]:
    """The connections of several grants, each of a size that fits."""
    for start in range(0, len(granted), _MAX_GRANT):
        yield granted[start : start + _MAX_GRANT]
