"""Modules on microcontrollers: how the deployer lets them in."""

import hmac
from datetime import datetime
from typing import Any, Final

from broch.app.deployer import Admission
from broch.attest import Verdict, appraise
from broch.enclave.join import Connection
from broch.enclave.keyed_join import KeyedGrants, check_confirmed
from broch.enclave.messages import Kind
from broch.errors import DecodeError, InternalError, UntrustedError, UsageError
from broch.tee.contract import Packed
from broch.tee.hosting import SharedKeyTee

_HINT: Final = "broch down, then broch up, starts the new code"


class KeyedAdmission(Admission):
    """One join with a module that shares its key with the deployer (:mod:`..enclave.keyed_join`).

    Args:
        packed: what is expected to run.
        shared: its TEE.
        everything else: as of :class:`Admission`; the deployer's signature is not needed.
    """

    def __init__(self, *, packed: Packed, shared: SharedKeyTee, **rest: Any) -> None:
        super().__init__(**rest)
        self._packed = packed
        self._shared = shared
        self._grants: KeyedGrants | None = None
        self._awaited = b""

    def appraise(self, message: bytes, *, at: datetime) -> Verdict:
        """Step 3: verify and appraise an EVIDENCE message; raises as :meth:`Admission.appraise`."""
        if message[:1] != bytes([Kind.EVIDENCE]) or len(message) < 2:
            raise DecodeError(0, "not evidence", what=self._module)
        evidence = message[1:]
        claims = self._tee.verify(evidence, self._endorsements, at=at)
        if not hmac.compare_digest(claims.report_data, self._nonce):
            raise UntrustedError(
                "the evidence is not an answer to this challenge: it is old, or another module's",
                place=self._module,
            )
        verdict = appraise(claims, self._accepted(), at=at, nonce=self._nonce, place=self._module)
        key = self._shared.module_key(self._packed, self._endorsements)
        self._grants = KeyedGrants(key, self._shared.module_nonce(evidence))
        self.verdict = verdict
        return verdict

    def grant(self, connections: list[Connection]) -> bytes:
        """Step 4: a GRANT message, each connection sealed for itself."""
        if self._grants is None:
            raise InternalError(f"{self._module} was not admitted")
        numbers = self._shared.numbers(self._packed)
        sealed = [self._grants.grant(each, numbers[each.port]) for each in connections]
        self._awaited = b"".join(confirm for _, confirm in sealed)
        return bytes([Kind.GRANT]) + b"".join(grant for grant, _ in sealed)

    def confirm(self, message: bytes) -> None:
        """Step 5: check a CONFIRM message; raises :class:`UntrustedError`."""
        if not self._awaited or message[:1] != bytes([Kind.CONFIRM]):
            raise UntrustedError("nothing was to be confirmed", place=self._module)
        try:
            check_confirmed(message[1:], self._awaited)
        except UntrustedError as exc:
            raise UntrustedError(exc.message, place=self._module) from None
        self._awaited = b""

    def export_to(self, successor: Admission) -> bytes:
        """A microcontroller hands nothing over; raises :class:`UsageError`."""
        raise cannot_update(self._module)


def cannot_update(module: str) -> UsageError:
    """Why a module on a microcontroller is not updated while the application runs."""
    return UsageError(
        "a module on a microcontroller cannot be updated beside the one that runs",
        place=module,
        hint=_HINT,
    )
