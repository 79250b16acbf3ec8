"""The few commands that we send to a TPM, marshalled by ourselves (TPM 2.0 Library, part 3).

    command    tag 2, size 4, code 4, handles, [size of authorisation 4, sessions], parameters
    response   tag 2, size 4, code 4, [handle], [size of parameters 4], parameters, [sessions]

Integers are big-endian; the parts in brackets are there with tag 0x8002 (sessions) and for
commands that return a handle. Authorisation is an empty password, or a policy session: we use no
object that has another.
"""

import hashlib
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from broch.errors import BrochError, InternalError, UndecidedError
from broch.tee.kernel import Exchange
from broch.tee.tpm.attest import Selection
from broch.tee.tpm.reader import DIGEST_SIZES, SHA256, Reader, sized

MAX_RESPONSE: Final = 4096  # bytes, as the kernel's driver
OWNER: Final = 0x40000001
NULL: Final = 0x40000007
_PASSWORD: Final = 0x40000009
_NO_SESSIONS, _SESSIONS = 0x8001, 0x8002
_HEADER: Final = struct.Struct(">HII")

CREATE_PRIMARY: Final = 0x131
NV_READ: Final = 0x14E
HMAC: Final = 0x155
QUOTE: Final = 0x158
FLUSH_CONTEXT: Final = 0x165
NV_READ_PUBLIC: Final = 0x169
READ_PUBLIC: Final = 0x173
START_AUTH_SESSION: Final = 0x176
PCR_READ: Final = 0x17E
POLICY_PCR: Final = 0x17F

_BUSY: Final = (0x908, 0x90A, 0x922)  # YIELDED, TESTING, RETRY
_LOCKOUT: Final = 0x921
_FORMAT_1: Final = 0x80  # the code says which handle, parameter or session is meant
_HANDLE: Final = 0x8B  # of format 1, without that: there is no such object
_AUTHORISATION: Final = (0x8E, 0xA2)  # AUTH_FAIL, BAD_AUTH
_NO_SYMMETRIC: Final = 0x0010
_POLICY_SESSION: Final = 0x01
_ATTEMPTS: Final = 7
_PAUSE: Final = 0.02  # seconds before the second attempt, doubled each time
_NV_CHUNK: Final = 512  # bytes; every TPM's NV buffer holds as many


def _error(code: int) -> BrochError:
    """What a response code means (part 2, 6.6)."""
    if code in _BUSY:
        return UndecidedError(f"the TPM is busy (0x{code:x})", hint="try again")
    if code == _LOCKOUT:
        return UndecidedError("the TPM is locked out after failed authorisations")
    plain = code & 0xBF if code & _FORMAT_1 else code
    if plain == _HANDLE:
        return UndecidedError(f"the TPM has no such object (0x{code:x})")
    if plain in _AUTHORISATION:
        return UndecidedError(
            f"the TPM asks for an authorisation that is not empty (0x{code:x})",
            hint="its owner has set a password; an attestation key must be made with it",
        )
    return InternalError(f"the TPM refused with 0x{code:x}")


@dataclass(frozen=True, slots=True)
class Commands:
    """A TPM that answers."""

    exchange: Exchange = field(repr=False)
    pause: Callable[[float], None] = time.sleep  # between attempts, for so many seconds

    def run(
        self,
        code: int,
        handles: Sequence[int] = (),
        parameters: bytes = b"",
        *,
        sessions: Sequence[int] = (),
        gives_handle: bool = False,
    ) -> tuple[int, Reader]:
        """Send one command; the handle that it returns (0 if none) and its parameters.

        Raises:
            UndecidedError: busy, locked out, no such object, or not authorised.
            InternalError: the TPM refused otherwise.
            DecodeError: the response is none.
            OSError: the device failed.
        """
        body = b"".join(handle.to_bytes(4, "big") for handle in handles)
        if sessions:
            granted = b"".join(_session(handle) for handle in sessions)
            body += len(granted).to_bytes(4, "big") + granted
        body += parameters
        tag = _SESSIONS if sessions else _NO_SESSIONS
        request = _HEADER.pack(tag, _HEADER.size + len(body), code) + body
        return _response(self._send(request), tag, gives_handle=gives_handle)

    def _send(self, request: bytes) -> bytes:
        """The last response; a TPM may put a command off a few times."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.pause(_PAUSE * 2 ** (attempt - 1))
            response = self.exchange(request, MAX_RESPONSE)
            if int.from_bytes(response[6:10], "big") not in _BUSY:
                break
        return response

    def create_primary(self, template: bytes, hierarchy: int = OWNER) -> tuple[int, bytes]:
        """The key of ``template`` (TPMT_PUBLIC), always the same of one TPM: handle, public."""
        no_secret = sized(sized(b"") + sized(b""))
        no_registers = bytes(4)
        parameters = no_secret + sized(template) + sized(b"") + no_registers
        handle, reader = self.run(
            CREATE_PRIMARY, [hierarchy], parameters, sessions=[_PASSWORD], gives_handle=True
        )
        return handle, reader.sized(1024)

    def read_public(self, handle: int) -> bytes:
        """TPMT_PUBLIC of an object."""
        return self.run(READ_PUBLIC, [handle])[1].sized(1024)

    def flush(self, handle: int) -> None:
        """Forget an object or a session."""
        self.run(FLUSH_CONTEXT, parameters=handle.to_bytes(4, "big"))

    def quote(self, key: int, qualifying: bytes, selection: Selection) -> tuple[bytes, bytes]:
        """TPMS_ATTEST and TPMT_SIGNATURE over registers, by the key's own scheme."""
        scheme = _NO_SYMMETRIC.to_bytes(2, "big")  # TPM_ALG_NULL: the key's own
        parameters = sized(qualifying) + scheme + _list(selection)
        _, reader = self.run(QUOTE, [key], parameters, sessions=[_PASSWORD])
        return reader.sized(2048), reader.take(len(reader.data) - reader.offset)

    def registers(self, selection: Selection) -> dict[int, bytes]:
        """The values of these registers now, each read at the same count of updates.

        Raises:
            UndecidedError: they change while they are read, or the bank is not there.
        """
        found: dict[int, bytes] = {}
        updates = None
        while missing := [index for index in selection.indices if index not in found]:
            part = Selection(bank=selection.bank, width=selection.width, indices=tuple(missing))
            _, reader = self.run(PCR_READ, parameters=_list(part))
            count = reader.number(4)
            if updates not in (None, count):
                raise UndecidedError("the TPM's registers change", hint="try again")
            updates = count
            given = _given(reader, part)
            if not given:
                raise UndecidedError(f"the TPM has no registers of bank 0x{selection.bank:04x}")
            found |= given
        return found

    def nv_read(self, index: int) -> bytes:
        """All of an NV index that may be read without a password.

        Raises:
            UndecidedError: there is none, or it asks for one.
        """
        public = Reader(self.run(NV_READ_PUBLIC, [index])[1].sized(256), "TPMS_NV_PUBLIC")
        public.take(4 + 2 + 4)  # index, nameAlg, attributes
        public.sized(64)  # authPolicy
        size = public.number(2)
        data = b""
        while len(data) < size:
            wanted = min(_NV_CHUNK, size - len(data))
            parameters = struct.pack(">HH", wanted, len(data))
            part = self.run(NV_READ, [OWNER, index], parameters, sessions=[_PASSWORD])[1]
            data += _exactly(part.sized(_NV_CHUNK), wanted)
        return data

    def hmac_under_policy(
        self, key: int, selection: Selection, digest: bytes, data: bytes
    ) -> bytes:
        """HMAC-SHA256 by a key whose policy is that these registers have this digest.

        Raises:
            InternalError: among others, that they have not.
        """
        parameters = sized(hashlib.sha256(data).digest()) + sized(b"")
        parameters += struct.pack(">BHH", _POLICY_SESSION, _NO_SYMMETRIC, SHA256)
        session, _ = self.run(START_AUTH_SESSION, [NULL, NULL], parameters, gives_handle=True)
        try:
            self.run(POLICY_PCR, [session], sized(digest) + _list(selection))
            asked = sized(data) + _NO_SYMMETRIC.to_bytes(2, "big")
            return _exactly(self.run(HMAC, [key], asked, sessions=[session])[1].sized(64), 32)
        finally:
            self.flush(session)


def policy_of(selection: Selection, digest: bytes) -> bytes:
    """The authPolicy (SHA-256) of one TPM2_PolicyPCR (part 3, 23.7)."""
    text = bytes(32) + POLICY_PCR.to_bytes(4, "big") + _list(selection) + digest
    return hashlib.sha256(text).digest()


def digest_of(values: Iterable[bytes]) -> bytes:
    """SHA-256 over registers in the order of their indices."""
    return hashlib.sha256(b"".join(values)).digest()


def _session(handle: int) -> bytes:
    """TPMS_AUTH_COMMAND: no nonce, to be continued, no HMAC."""
    return handle.to_bytes(4, "big") + sized(b"") + b"\x01" + sized(b"")


def _list(selection: Selection) -> bytes:
    """TPML_PCR_SELECTION of one bank."""
    return (1).to_bytes(4, "big") + selection.to_bytes()


def _given(reader: Reader, asked: Selection) -> dict[int, bytes]:
    """The registers of a TPM2_PCR_Read: it gives the first few of those asked for."""
    if reader.number(4) != 1 or reader.number(2) != asked.bank:
        raise reader.fail("registers of another bank than asked for")
    bits = int.from_bytes(reader.take(reader.number(1)), "little")
    indices = [index for index in asked.indices if bits >> index & 1]
    if bits != sum(1 << index for index in indices) or reader.number(4) != len(indices):
        raise reader.fail("other registers than asked for")
    return {index: _exactly(reader.sized(64), DIGEST_SIZES[asked.bank]) for index in indices}


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise InternalError(f"the TPM gave {len(data)} bytes, expected {size}")
    return data


def _response(data: bytes, tag: int, *, gives_handle: bool) -> tuple[int, Reader]:
    reader = Reader(data, "TPM response")
    found, size, code = reader.number(2), reader.number(4), reader.number(4)
    if size != len(data):
        raise reader.fail(f"says that it has {size} bytes, has {len(data)}")
    if code:
        raise _error(code)
    if found != tag:
        raise reader.fail(f"tag 0x{found:04x}, expected 0x{tag:04x}")
    handle = reader.number(4) if gives_handle else 0
    if tag != _SESSIONS:
        return handle, reader
    parameters = reader.take(reader.number(4))
    return handle, Reader(parameters, "TPM response")
