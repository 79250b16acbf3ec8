"""TPMS_ATTEST: what a TPM signs about its registers or about a key (TPM 2.0, part 2, 10.12).

    magic 4            0xff544347, "TCG" after 0xff
    type 2             0x8018 quote, 0x8017 certify
    qualifiedSigner    TPM2B_NAME, at most 68
    extraData          TPM2B_DATA, at most 66: the caller's qualifying data
    clockInfo          clock 8 (ms), resetCount 4, restartCount 4, safe 1
    firmwareVersion 8
    quote:   TPML_PCR_SELECTION: count 4, each hash 2, size 1 (3 or 4), bitmap; then TPM2B digest
    certify: name TPM2B, qualifiedName TPM2B

A TPM never signs other data that begin with the magic number with a *restricted* key.
"""

from dataclasses import dataclass
from typing import Final, Self

from broch.tee.tpm.reader import BANKS, Reader, sized

MAGIC: Final = 0xFF544347
QUOTE: Final = 0x8018
CERTIFY: Final = 0x8017
MAX_NAME: Final = 68
MAX_DATA: Final = 66
MAX_DIGEST: Final = 64
MAX_BANKS: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Registers of one bank; the width of the bitmap is kept so that it can be encoded again."""

    bank: int  # TPM_ALG_ID
    width: int  # bytes of the bitmap
    indices: tuple[int, ...]  # ascending

    def to_bytes(self) -> bytes:
        """Encode."""
        bits = sum(1 << index for index in self.indices)
        return (
            self.bank.to_bytes(2, "big")
            + bytes((self.width,))
            + bits.to_bytes(self.width, "little")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """What is signed. Nothing in it has been verified."""

    type: int
    qualified_signer: bytes
    extra_data: bytes
    clock: int  # milliseconds
    reset_count: int
    restart_count: int
    safe: bool  # the clock has not gone back
    firmware_version: int
    selections: tuple[Selection, ...] = ()  # quote
    pcr_digest: bytes = b""
    name: bytes = b""  # certify
    qualified_name: bytes = b""

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Decode exactly one quote or certification.

        Raises:
            DecodeError: anything else.
        """
        reader = Reader(data, "TPMS_ATTEST")
        if reader.number(4) != MAGIC:
            raise reader.fail("the magic number is not that of a TPM")
        kind = reader.number(2)
        if kind not in (QUOTE, CERTIFY):
            raise reader.fail(f"type 0x{kind:04x}, expected a quote or a certification")
        signer = reader.sized(MAX_NAME)
        extra = reader.sized(MAX_DATA)
        clock, reset, restart = reader.number(8), reader.number(4), reader.number(4)
        safe = reader.number(1)
        if safe > 1:
            raise reader.fail(f"safe is {safe}")
        firmware = reader.number(8)
        selections: tuple[Selection, ...] = ()
        digest = name = qualified = b""
        if kind == QUOTE:
            selections, digest = _selections(reader), reader.sized(MAX_DIGEST)
        else:
            name, qualified = reader.sized(MAX_NAME), reader.sized(MAX_NAME)
        reader.end()
        return cls(
            type=kind,
            qualified_signer=signer,
            extra_data=extra,
            clock=clock,
            reset_count=reset,
            restart_count=restart,
            safe=bool(safe),
            firmware_version=firmware,
            selections=selections,
            pcr_digest=digest,
            name=name,
            qualified_name=qualified,
        )

    def to_bytes(self) -> bytes:
        """Encode; the inverse of :meth:`from_bytes`."""
        if self.type == QUOTE:
            body = len(self.selections).to_bytes(4, "big")
            body += b"".join(selection.to_bytes() for selection in self.selections)
            body += sized(self.pcr_digest)
        else:
            body = sized(self.name) + sized(self.qualified_name)
        return b"".join(
            (
                MAGIC.to_bytes(4, "big"),
                self.type.to_bytes(2, "big"),
                sized(self.qualified_signer),
                sized(self.extra_data),
                self.clock.to_bytes(8, "big"),
                self.reset_count.to_bytes(4, "big"),
                self.restart_count.to_bytes(4, "big"),
                bytes((self.safe,)),
                self.firmware_version.to_bytes(8, "big"),
                body,
            )
        )


def _selections(reader: Reader) -> tuple[Selection, ...]:
    count = reader.number(4)
    if count > MAX_BANKS:
        raise reader.fail(f"{count} banks, at most {MAX_BANKS} expected")
    found: list[Selection] = []
    for _ in range(count):
        bank, width = reader.number(2), reader.number(1)
        if bank not in BANKS:
            raise reader.fail(f"bank 0x{bank:04x} is not known")
        if width not in (3, 4):
            raise reader.fail(f"a bitmap of {width} bytes, expected 3 or 4")
        if any(selection.bank == bank for selection in found):
            raise reader.fail(f"bank {BANKS[bank]} comes twice")
        bits = int.from_bytes(reader.take(width), "little")
        indices = tuple(index for index in range(8 * width) if bits >> index & 1)
        found.append(Selection(bank=bank, width=width, indices=indices))
    return tuple(found)
