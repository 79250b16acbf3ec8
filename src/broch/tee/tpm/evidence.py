"""How a quote travels: TPM2_Quote gives no single structure, so this is one of ours.

A CBOR map (strict, see :mod:`broch.wire.cbor`):

    "attest"       bytes, TPMS_ATTEST
    "signature"    bytes, TPMT_SIGNATURE
    "pcrs"         map: bank (TPM_ALG_ID) -> map: index -> value
    "event_log"    bytes, may be absent: the firmware's log (:mod:`.event_log`)

There is no key in it: a key that comes with the evidence it signs proves nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from broch.errors import DecodeError
from broch.tee.tpm.event_log import MAX_LOG
from broch.tee.tpm.reader import BANKS, DIGEST_SIZES
from broch.wire import cbor

MAX_SIZE: Final = 16 * 1024 + MAX_LOG  # bytes
_W: Final = "TPM evidence"
_FIELDS: Final = {"attest", "signature", "pcrs"}
_LOG: Final = "event_log"


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """A quote with its registers. Nothing in it has been verified."""

    attest: bytes
    signature: bytes
    pcrs: Mapping[int, Mapping[int, bytes]]
    event_log: bytes | None = None

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one.

        Raises:
            DecodeError: not one, or registers that are none.
        """
        fields = cbor.decode(data, what=_W, max_size=MAX_SIZE)
        if not isinstance(fields, dict) or fields.keys() - {_LOG} != _FIELDS:
            raise DecodeError(0, "not a map of attest, signature and pcrs", what=_W)
        for name in fields.keys() & {"attest", "signature", _LOG}:
            if not isinstance(fields[name], bytes):
                raise DecodeError(0, f"{name} is no byte string", what=_W)
        pcrs = fields["pcrs"]
        if not isinstance(pcrs, dict):
            raise DecodeError(0, "pcrs is not a map", what=_W)
        for bank, values in pcrs.items():
            _check_bank(bank, values)
        return cls(**fields)

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes` for fields in this order."""
        pcrs: dict[Any, Any] = {bank: dict(values) for bank, values in self.pcrs.items()}
        fields = {"attest": self.attest, "signature": self.signature, "pcrs": pcrs}
        return cbor.encode(fields if self.event_log is None else {**fields, _LOG: self.event_log})


def _check_bank(bank: Any, values: Any) -> None:
    if type(bank) is not int or bank not in BANKS:
        raise DecodeError(0, f"bank {bank!r:.40} is not known", what=_W)
    if not isinstance(values, dict):
        raise DecodeError(0, f"bank {BANKS[bank]} is not a map", what=_W)
    for index, value in values.items():
        if type(index) is not int or not 0 <= index < 32:
            raise DecodeError(0, f"register {index!r:.40} is not one of 0 to 31", what=_W)
        if not isinstance(value, bytes) or len(value) != DIGEST_SIZES[bank]:
            raise DecodeError(0, f"register {index} of {BANKS[bank]} has another size", what=_W)
