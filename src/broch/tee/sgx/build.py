"""ECREATE, EADD, EEXTEND, EINIT of an emulated CPU, with the hardware's checks in their order.

Sources: SDM 3D chapter 40 (operations of each leaf), 41.7 (XSAVE area). The measurement is made
here from what was really added, never taken from the stream or from the signature.
"""

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from broch.tee.dcap.report import (
    AEX_NOTIFY,
    DEBUG,
    EINITTOKENKEY,
    INIT,
    KSS,
    MODE64BIT,
    PROVISIONKEY,
)
from broch.tee.sgx import sgxs, sigstruct
from broch.tee.sgx.faults import (
    InvalidSigStructError,
    SgxFaultError,
    SgxNumber,
    SgxRefusedError,
    SgxUntrustedError,
)
from broch.tee.sgx.sgxs import CHUNK, PAGE, Create, Page
from broch.tee.sgx.sigstruct import Sigstruct
from broch.tee.sgx.structures import EXINFO, Secs

GPR_SIZE: Final = 184  # bytes at the end of an SSA frame
EXINFO_SIZE: Final = 16
_FLAGS_SUPPORTED: Final = DEBUG | MODE64BIT | PROVISIONKEY | EINITTOKENKEY | KSS | AEX_NOTIFY
_SECINFO_KNOWN: Final = 0xFF07  # R, W, X and the page type: all that EADD accepts
_PERMISSIONS: Final = sgxs.R | sgxs.W | sgxs.X
_TCS_FLAGS_RESERVED: Final = 2**64 - 1 - 0x3  # bit 0 DBGOPTIN, bit 1 AEXNOTIFY
_TCS_RESERVED_FROM: Final = 72  # bytes

# XSAVE components: bit of XFRM -> (offset, size) in the standard format (SDM 1, 13.5).
_XSAVE: Final = {
    2: (576, 256),  # AVX
    3: (960, 64),  # MPX bounds
    4: (1024, 64),  # MPX configuration
    5: (1088, 64),  # AVX-512 masks
    6: (1152, 512),  # upper halves of ZMM0-15
    7: (1664, 1024),  # ZMM16-31
    9: (2688, 8),  # PKRU
    17: (2752, 64),  # AMX tile configuration
    18: (2816, 8192),  # AMX tiles
}
_XSAVE_LEGACY: Final = 512 + 64
_TOGETHER: Final = (0x18, 0xE0, 0x60000)  # MPX, AVX-512, AMX: all bits of a group or none
_XFRM_SUPPORTED: Final = 0x3 | sum(1 << bit for bit in _XSAVE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """What this CPU supports and whom it lets launch."""

    flags: int = _FLAGS_SUPPORTED
    xfrm: int = _XFRM_SUPPORTED
    miscselect: int = EXINFO
    max_size: int = 1 << 46  # bytes of an enclave, exclusive
    # IA32_SGXLEPUBKEYHASH. None: flexible launch control, the driver writes each signer's hash.
    lepubkeyhash: bytes | None = None


DEFAULT_MODEL: Final = Model()


class Building:
    """An enclave between ECREATE and EINIT."""

    def __init__(self, secs: Secs, model: Model = DEFAULT_MODEL) -> None:
        """ECREATE.

        Raises:
            SgxFaultError: #GP, see :func:`_check_ecreate`.
        """
        _check_ecreate(secs, model)
        self._model = model
        self._secs = secs
        self._pages: set[int] = set()
        self._hash = hashlib.sha256()
        create = Create(ssaframesize=secs.ssaframesize, size=secs.size)
        self._hash.update(sgxs.create_record(create))

    @property
    def secs(self) -> Secs:
        """The SECS as it is now."""
        return self._secs

    def eadd(self, offset: int, flags: int, data: bytes) -> None:
        """Add one page (4096 bytes) and measure its place and its rights, not its content.

        Raises:
            SgxFaultError: #GP, or #PF where a page is already.
        """
        self._expect_uninitialized("EADD")
        if offset % PAGE:
            raise SgxFaultError("EADD", f"address 0x{offset:x} is not on a page boundary")
        kind = flags & sgxs.PT_MASK
        if flags & ~_SECINFO_KNOWN or kind not in (sgxs.PT_TCS, sgxs.PT_REG):
            raise SgxFaultError(
                "EADD", f"SECINFO.FLAGS 0x{flags:x}: neither a TCS nor a regular page"
            )
        if len(data) != PAGE:
            raise SgxFaultError("EADD", f"a page of {len(data)} bytes")
        if offset in self._pages:
            raise SgxFaultError("EADD", f"there is a page at 0x{offset:x} already", name="#PF")
        if kind == sgxs.PT_TCS:
            _check_tcs(data, self._secs)
            flags &= ~_PERMISSIONS  # forced by the CPU, and measured as forced
        elif flags & sgxs.W and not flags & sgxs.R:
            raise SgxFaultError("EADD", "a page that can be written but not read")
        if not 0 <= offset < self._secs.size:
            raise SgxFaultError("EADD", f"0x{offset:x} is outside the enclave")
        self._pages.add(offset)
        self._hash.update(sgxs.add_record(offset, flags))

    def eextend(self, offset: int, chunk: bytes) -> None:
        """Measure 256 bytes of a page that was added.

        Raises:
            SgxFaultError: #GP, or #PF where there is no page.
        """
        self._expect_uninitialized("EEXTEND")
        if offset % CHUNK:
            raise SgxFaultError("EEXTEND", f"address 0x{offset:x} is not on a 256-byte boundary")
        if len(chunk) != CHUNK:
            raise SgxFaultError("EEXTEND", f"a chunk of {len(chunk)} bytes")
        if offset - offset % PAGE not in self._pages:
            raise SgxFaultError("EEXTEND", f"no page at 0x{offset:x}", name="#PF")
        self._hash.update(sgxs.extend_record(offset))
        self._hash.update(chunk)

    def add(self, page: Page) -> None:
        """EADD and the EEXTENDs of one page of a stream.

        Raises:
            SgxFaultError: #GP or #PF.
        """
        self.eadd(page.offset, page.flags, page.data)
        if page.order == sgxs.ALL_MEASURED:
            self._hash.update(sgxs.chunk_records(page))  # 16 EEXTENDs whose checks cannot fail
            return
        for offset, chunk, measured in page.chunks():
            if measured:
                self.eextend(offset, chunk)

    def einit(self, data: bytes) -> Secs:
        """Check the SIGSTRUCT (1808 bytes) and make the enclave ready to run.

        Raises:
            SgxError: the hardware's error number, with the first check that fails.
        """
        self._expect_uninitialized("EINIT")
        # (1) Header, vendor, exponent, reserved bytes: else INVALID_SIG_STRUCT.
        signed = Sigstruct.from_bytes(data)
        # (2) Signature by q1 and q2: else INVALID_SIGNATURE.
        sigstruct.verify(signed)
        # (3) Family and extended product ids belong to KSS: else INVALID_SIG_STRUCT.
        self._check_kss(signed)
        # (4) The measurement: else INVALID_MEASUREMENT.
        mrenclave = self._hash.digest()
        if signed.enclavehash != mrenclave:
            raise SgxUntrustedError(
                SgxNumber.INVALID_MEASUREMENT,
                f"measured {mrenclave.hex()}, signed is {signed.enclavehash.hex()}",
            )
        # (5)-(7) Attributes and MISCSELECT: else INVALID_ATTRIBUTE.
        mrsigner = signed.mrsigner()
        self._check_attributes(signed, mrsigner)
        # (8) No launch token is ever given, so the signer must be the launch authority.
        launch = self._model.lepubkeyhash
        if launch is not None and launch != mrsigner:
            raise SgxRefusedError(
                SgxNumber.INVALID_EINITTOKEN,
                f"launch control: signer {mrsigner.hex()} is not IA32_SGXLEPUBKEYHASH",
            )
        self._secs = replace(
            self._secs,
            flags=self._secs.flags | INIT,
            mrenclave=mrenclave,
            mrsigner=mrsigner,
            isvprodid=signed.isvprodid,
            isvsvn=signed.isvsvn,
            isvfamilyid=signed.isvfamilyid,
            isvextprodid=signed.isvextprodid,
        )
        return self._secs

    def _expect_uninitialized(self, instruction: str) -> None:
        if self._secs.initialized:
            raise SgxFaultError(instruction, "the enclave is initialised already")

    def _check_kss(self, signed: Sigstruct) -> None:
        if not self._secs.flags & KSS and any(signed.isvfamilyid + signed.isvextprodid):
            raise InvalidSigStructError(
                912, "ISVFAMILYID or ISVEXTPRODID without ATTRIBUTES.KSS", what="sigstruct"
            )

    def _check_attributes(self, signed: Sigstruct, mrsigner: bytes) -> None:
        secs = self._secs
        if secs.flags & EINITTOKENKEY and mrsigner != self._model.lepubkeyhash:
            raise SgxRefusedError(
                SgxNumber.INVALID_ATTRIBUTE, "EINITTOKENKEY is for the launch authority alone"
            )
        for what, own, wanted, mask in (
            ("ATTRIBUTES", secs.flags, signed.flags, signed.flags_mask),
            ("XFRM", secs.xfrm, signed.xfrm, signed.xfrm_mask),
            ("MISCSELECT", secs.miscselect, signed.miscselect, signed.miscmask),
        ):
            if own & mask != wanted & mask:
                raise SgxRefusedError(
                    SgxNumber.INVALID_ATTRIBUTE,
                    f"{what} 0x{own:x} differs from the signed 0x{wanted:x} under mask 0x{mask:x}",
                )


def _check_ecreate(secs: Secs, model: Model) -> None:
    """The rules of ECREATE, in the order of the SDM.

    Raises:
        SgxFaultError: #GP.
    """
    if secs.xfrm & 3 != 3:
        raise SgxFaultError("ECREATE", "XFRM without x87 and SSE")
    if not _is_legal_xfrm(secs.xfrm, model.xfrm):
        raise SgxFaultError("ECREATE", f"XFRM 0x{secs.xfrm:x} is illegal on this CPU")
    if secs.miscselect & ~model.miscselect:
        raise SgxFaultError("ECREATE", f"MISCSELECT 0x{secs.miscselect:x} is not supported")
    needed = xsave_size(secs.xfrm) + GPR_SIZE + (EXINFO_SIZE if secs.miscselect & EXINFO else 0)
    if secs.ssaframesize * PAGE < needed:
        raise SgxFaultError(
            "ECREATE", f"SSAFRAMESIZE {secs.ssaframesize}: a frame needs {needed} bytes"
        )
    if not secs.flags & MODE64BIT and (secs.base >> 32 or secs.size >> 32):
        raise SgxFaultError("ECREATE", "a 32-bit enclave beyond 4 GiB")
    if secs.size >= model.max_size:
        raise SgxFaultError("ECREATE", f"SIZE 0x{secs.size:x} is beyond this CPU")
    if secs.size < 2 * PAGE or secs.size & (secs.size - 1):
        raise SgxFaultError(
            "ECREATE", f"SIZE 0x{secs.size:x} is not a power of two of at least 8192"
        )
    if secs.base & (secs.size - 1):
        raise SgxFaultError("ECREATE", "BASEADDR is not aligned to SIZE")
    if secs.flags & ~model.flags:
        raise SgxFaultError("ECREATE", f"ATTRIBUTES 0x{secs.flags:x} are not supported")
    if not secs.flags & KSS and (any(secs.configid) or secs.configsvn):
        raise SgxFaultError("ECREATE", "CONFIGID or CONFIGSVN without ATTRIBUTES.KSS")


def _is_legal_xfrm(xfrm: int, supported: int) -> bool:
    halves = any(xfrm & group not in (0, group) for group in _TOGETHER)
    avx512_without_avx = bool(xfrm & 0xE0) and not xfrm & 0x4
    return not (xfrm & ~supported or halves or avx512_without_avx)


def xsave_size(xfrm: int) -> int:
    """Bytes of the XSAVE area that ``xfrm`` needs."""
    ends = [offset + size for bit, (offset, size) in _XSAVE.items() if xfrm >> bit & 1]
    return max([_XSAVE_LEGACY, *ends])


def _check_tcs(data: bytes, secs: Secs) -> None:
    flags = int.from_bytes(data[8:16], "little")
    if flags & _TCS_FLAGS_RESERVED or any(data[_TCS_RESERVED_FROM:]):
        raise SgxFaultError("EADD", "reserved fields of the TCS are not zero")
    limits = (int.from_bytes(data[64:68], "little"), int.from_bytes(data[68:72], "little"))
    if not secs.flags & MODE64BIT and any(limit & 0xFFF != 0xFFF for limit in limits):
        raise SgxFaultError("EADD", "FSLIMIT or GSLIMIT of a 32-bit TCS does not end a page")
