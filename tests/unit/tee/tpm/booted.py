"""A machine that has booted: the firmware's log, and the registers that it comes to.

Written apart from the reader under test: registers are extended as events are added.
"""

import hashlib
import struct
from dataclasses import dataclass, field, replace
from typing import Final

from broch.tee.tpm.attest import Selection

from .attester import QUOTED, Attester, digest

SHA1, SHA256, SHA384 = 0x0004, 0x000B, 0x000C
NAMES: Final = {SHA1: "sha1", SHA256: "sha256", SHA384: "sha384"}
SIZES: Final = {SHA1: 20, SHA256: 32, SHA384: 48}
NO_ACTION, SEPARATOR, IPL = 3, 4, 0xD
VARIABLE: Final = 0x80000001
GLOBAL: Final = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")


def variable(name: str, value: bytes, guid: bytes = GLOBAL) -> bytes:
    """UEFI_VARIABLE_DATA."""
    return guid + struct.pack("<QQ", len(name), len(value)) + name.encode("utf-16-le") + value


def header(banks: tuple[int, ...]) -> bytes:
    """The first event."""
    spec = b"Spec ID Event03\0" + bytes(4) + b"\x00\x02\x00\x02"
    spec += struct.pack("<I", len(banks))
    spec += b"".join(struct.pack("<HH", bank, SIZES[bank]) for bank in banks) + b"\0"
    return struct.pack("<II20xI", 0, NO_ACTION, len(spec)) + spec


@dataclass
class Machine:
    """Add events; then there is a log, and a TPM that quotes what it comes to."""

    banks: tuple[int, ...] = (SHA1, SHA256)
    events: list[bytes] = field(default_factory=list)
    registers: dict[int, dict[int, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for bank in self.banks:
            self.registers[bank] = {index: bytes(SIZES[bank]) for index in range(24)}

    def event(self, pcr: int, kind: int, data: bytes, hashed: bytes | None = None) -> "Machine":
        """One measurement; of ``hashed``, where that is not the data."""
        digests = b""
        for bank in self.banks:
            made = hashlib.new(NAMES[bank], data if hashed is None else hashed).digest()
            if kind == NO_ACTION:
                made = bytes(SIZES[bank])
            else:
                old = self.registers[bank][pcr]
                self.registers[bank][pcr] = hashlib.new(NAMES[bank], old + made).digest()
            digests += struct.pack("<H", bank) + made
        head = struct.pack("<III", pcr, kind, len(self.banks))
        self.events.append(head + digests + struct.pack("<I", len(data)) + data)
        return self

    def boot(self, secure: bytes = b"\1") -> "Machine":
        """What most firmware measures, in short."""
        self.event(0, 8, "1.2".encode("utf-16-le"))
        self.event(0, 0x80000008, b"where the firmware is", hashed=b"the firmware itself")
        self.event(7, VARIABLE, variable("SecureBoot", secure))
        self.event(7, VARIABLE, variable("PK", b"a certificate"))
        for index in range(8):
            self.event(index, SEPARATOR, bytes(4))
        self.event(4, 0x80000003, b"path of the boot manager", hashed=b"the boot manager")
        return self.event(8, IPL, b"linux /vmlinuz")

    def log(self) -> bytes:
        return header(self.banks) + b"".join(self.events)

    def attester(self, indices: tuple[int, ...] = tuple(range(9)), bank: int = SHA256) -> Attester:
        values = {index: self.registers[bank][index] for index in indices}
        quoted = replace(
            QUOTED,
            selections=(Selection(bank=bank, width=3, indices=indices),),
            pcr_digest=digest(list(values.values())),
        )
        return Attester(attest=quoted, pcrs={bank: values}, event_log=self.log())
