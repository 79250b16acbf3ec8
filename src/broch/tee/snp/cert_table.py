"""The certificate table that hosts hand out with a report (GHCB specification, section 4.1.8.1).

    24 bytes an entry: GUID (16, in the order of its text), offset 4, length 4; zeros end the list;
    the certificates follow, DER or PEM, at offsets from the start of the table

Integers are little-endian. The table is the host's word: what is in it is only used after it has
been verified.
"""

import struct
from typing import Final
from uuid import UUID

from broch.errors import DecodeError
from broch.tee.snp import trust
from broch.wire.x509 import to_der

MAX_SIZE: Final = 64 * 1024  # bytes
_ENTRY: Final = struct.Struct("<16sII")
_W: Final = "certificate table"
VCEK: Final = UUID("63da758d-e664-4564-adc5-f4b93be8accd")
VLEK: Final = UUID("a8074bc2-a25a-483e-aae6-39c045a0b8a1")
ASK: Final = UUID("4ab7b379-bbac-4fe4-a02f-05aef327c782")
ARK: Final = UUID("c0b406a4-a803-4952-9743-3fb6014cd0ae")
CRL: Final = UUID("92f81bc3-5811-4d3d-97ff-d19f88dc67ea")


def read(data: bytes) -> dict[UUID, bytes]:
    """Entries of a table. Bytes that no entry covers are ignored, as pages are padded.

    Raises:
        DecodeError: no end of the list, an entry that comes twice, or bytes outside of the table.
    """
    if len(data) > MAX_SIZE:
        raise DecodeError(MAX_SIZE, f"longer than {MAX_SIZE} bytes", what=_W)
    found: dict[UUID, bytes] = {}
    offset = 0
    while True:
        if offset + _ENTRY.size > len(data):
            raise DecodeError(offset, "the list does not end", what=_W)
        raw, start, size = _ENTRY.unpack_from(data, offset)
        offset += _ENTRY.size
        if not any(raw):
            break
        guid = UUID(bytes=raw)
        if guid in found:
            raise DecodeError(offset, f"{guid} comes twice", what=_W)
        found[guid] = data[start : start + size]
        if len(found[guid]) != size:
            raise DecodeError(offset, f"{guid} is outside of the table", what=_W)
    return found


def write(entries: dict[UUID, bytes]) -> bytes:
    """A table of these entries; the inverse of :func:`read`."""
    offset = _ENTRY.size * (len(entries) + 1)
    head = b""
    for guid, data in entries.items():
        head += _ENTRY.pack(guid.bytes, offset, len(data))
        offset += len(data)
    return head + bytes(_ENTRY.size) + b"".join(entries.values())


def items(data: bytes) -> dict[str, bytes]:
    """What of a table belongs into endorsements, as DER. The ARK does not: the caller knows it.

    Raises:
        DecodeError: not a table, it has a VCEK and a VLEK, or PEM that is none.
    """
    found = read(data)
    if VCEK in found and VLEK in found:
        raise DecodeError(0, "a VCEK and a VLEK", what=_W)
    names = {VCEK: trust.VEK, VLEK: trust.VEK, ASK: trust.ASK, CRL: trust.CRL}
    return {name: to_der(found[guid], _W) for guid, name in names.items() if guid in found}
