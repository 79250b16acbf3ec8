"""SIGSTRUCTs as ``sgxs-sign`` makes them, from options of the same names, and in two steps.

A value with its mask is written ``A/B`` where B is the *inverse* of the mask: a bit of B is left
open. Without ``/B``, B is A. So ``--xfrm 7/0`` asks for XFRM 7 exactly, ``--xfrm 7`` for XFRM 7 but
enforces only the other bits. Defaults: ATTRIBUTES 4/2 (DEBUG is left open), MISCSELECT 0/0, XFRM
3/3.

In two steps, the key can stay in an HSM: ``Sigstruct.signed_bytes()`` is what it signs
(RSASSA-PKCS1-v1_5 with SHA-256), and :func:`join` puts the result in.

A *dummy* signature is for running an enclave at all, with DEBUG set. Its key is made once per
installation: a key that is in a program's source is everyone's, and so is what its signer seals.
"""

import re
from dataclasses import dataclass, field, replace
from datetime import date as Date  # noqa: N812 (a field is named date)
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    load_pem_private_key,
    load_pem_public_key,
)

from broch.errors import MalformedError, UntrustedError, UsageError
from broch.tee.dcap.report import (
    AEX_NOTIFY,
    DEBUG,
    EINITTOKENKEY,
    INIT,
    KSS,
    MODE64BIT,
    PROVISIONKEY,
)
from broch.tee.sgx import sigstruct
from broch.tee.sgx.build import EXINFO_SIZE, GPR_SIZE, xsave_size
from broch.tee.sgx.sgxs import PAGE
from broch.tee.sgx.sigstruct import ALL_BITS, KEY_BYTES, XFRM_X87_SSE, Sigstruct
from broch.tee.sgx.structures import EXINFO

KEY_HINT: Final = "make one with: openssl genrsa -3 -out key.pem 3072"
_CET: Final = 0x40
_KNOWN_FLAGS: Final = (
    INIT | DEBUG | MODE64BIT | PROVISIONKEY | EINITTOKENKEY | _CET | KSS | AEX_NOTIFY
)
_ALL_MISC: Final = 2**32 - 1
_XFRM_GROUPS: Final = (0x4, 0x18, 0xE0, 0x200, 0x60000)  # AVX, MPX, AVX-512, PKRU, AMX
_NUMBER: Final = re.compile(r"[0-9]+|0x[0-9A-Fa-f]+")
_DATE: Final = re.compile(r"[0-9]{8}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """A value, and the bits of it that are left open."""

    value: int
    open: int

    @classmethod
    def parse(cls, text: str) -> "Masked":
        """Read ``A`` or ``A/B``, decimal or 0x.

        Raises:
            UsageError: something else.
        """
        value, slash, inverse = text.partition("/")
        return cls(value=number(value), open=number(inverse if slash else value))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What goes into a SIGSTRUCT. ``date`` is BCD, 0x20160109."""

    date: int
    swdefined: int = 0
    miscselect: Masked = field(default_factory=lambda: Masked(value=0, open=0))
    attributes: Masked = field(default_factory=lambda: Masked(value=MODE64BIT, open=DEBUG))
    xfrm: Masked = field(default_factory=lambda: Masked(value=XFRM_X87_SSE, open=XFRM_X87_SSE))
    mode32: bool = False
    debug: bool = False
    isvprodid: int = 0
    isvsvn: int = 0
    isvextprodid: int | None = None  # asks for KSS, and enforces it

    def __post_init__(self) -> None:
        """Refuse numbers that do not fit; raises :class:`UsageError`."""
        for name, value, bits in (
            ("swdefined", self.swdefined, 32),
            ("miscselect", self.miscselect.value | self.miscselect.open, 32),
            ("attributes", self.attributes.value | self.attributes.open, 64),
            ("xfrm", self.xfrm.value | self.xfrm.open, 64),
            ("isvprodid", self.isvprodid, 16),
            ("isvsvn", self.isvsvn, 16),
            ("isvextprodid", self.isvextprodid or 0, 128),
        ):
            if not 0 <= value < 1 << bits:
                raise UsageError(f"{name} 0x{value:x} does not fit its {bits} bits")


def number(text: str) -> int:
    """A number as upstream writes it: decimal, or 0x and hexadecimal digits.

    Raises:
        UsageError: something else.
    """
    if not _NUMBER.fullmatch(text) or len(text) > 40:
        raise UsageError(f"{text!r:.60} is not a number: decimal, or 0x and hexadecimal digits")
    return int(text, 16) if text.startswith("0x") else int(text)


def parse_date(text: str) -> int:
    """``YYYYMMDD`` as BCD; ``00000000`` where it must not matter.

    Raises:
        UsageError: not a date.
    """
    try:
        if not _DATE.fullmatch(text):
            raise ValueError(text)
        if int(text):
            Date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise UsageError(
            f"{text!r:.40} is not a date", hint="write YYYYMMDD, as in 20260131"
        ) from None
    return int(text, 16)


def unsigned(enclavehash: bytes, options: Options) -> tuple[Sigstruct, list[str]]:
    """The SIGSTRUCT before it is signed, and warnings about bits that were dropped."""
    warnings = []
    flags, flags_mask = options.attributes.value, ALL_BITS & ~options.attributes.open
    if options.mode32:
        flags &= ~MODE64BIT
        flags_mask |= MODE64BIT
    if options.debug:
        flags |= DEBUG
        flags_mask &= ~DEBUG
    if options.isvextprodid is not None:
        flags |= KSS
        flags_mask |= KSS
    if flags & ~_KNOWN_FLAGS:
        warnings.append(f"unknown ATTRIBUTES 0x{flags & ~_KNOWN_FLAGS:x} are dropped")
    miscselect = options.miscselect.value
    if miscselect & ~EXINFO:
        warnings.append(f"unknown MISCSELECT 0x{miscselect & ~EXINFO:x} is dropped")
    made = replace(
        sigstruct.template(enclavehash, isvprodid=options.isvprodid, isvsvn=options.isvsvn),
        date=options.date,
        swdefined=options.swdefined,
        miscselect=miscselect & EXINFO,
        miscmask=_ALL_MISC & ~options.miscselect.open,
        flags=flags & _KNOWN_FLAGS,
        flags_mask=flags_mask,
        xfrm=options.xfrm.value,
        xfrm_mask=ALL_BITS & ~options.xfrm.open,
        isvextprodid=(options.isvextprodid or 0).to_bytes(16, "little"),
    )
    return made, warnings


def join(unsigned: Sigstruct, signature: bytes, key: RSAPublicKey) -> Sigstruct:
    """Put in a signature (384 bytes, big-endian) that was made elsewhere.

    Raises:
        MalformedError: not 384 bytes.
        UntrustedError: it is not this key's signature of these bytes.
    """
    if len(signature) != KEY_BYTES:
        raise MalformedError(
            f"the signature has {len(signature)} bytes, expected {KEY_BYTES}",
            hint="make it with: openssl dgst -sha256 -sign key.pem -out FILE.sig FILE.tbs",
        )
    modulus = key.public_numbers().n
    value = int.from_bytes(signature, "big")
    q1, q2 = sigstruct.quotients(value, modulus)
    if q1.bit_length() > 8 * KEY_BYTES or q2.bit_length() > 8 * KEY_BYTES:
        raise _not_of_these_bytes()
    made = replace(unsigned, modulus=modulus, signature=value, q1=q1, q2=q2)
    try:
        sigstruct.verify(made)
    except UntrustedError:
        raise _not_of_these_bytes() from None
    return made


def _not_of_these_bytes() -> UntrustedError:
    return UntrustedError(
        "the signature is not one of these bytes by this key",
        hint="give the same input and options as with --tbs, and its --date: the day is signed too",
    )


def dummy(
    enclavehash: bytes, ssaframesize: int, date: int, *, xcr0: int = XFRM_X87_SSE
) -> Sigstruct:
    """The unsigned SIGSTRUCT of a debug enclave: all of ATTRIBUTES enforced, ids and version 0.

    Args:
        enclavehash: the measurement.
        ssaframesize: pages; what of ``xcr0`` does not fit a frame is left out.
        date: BCD.
        xcr0: state components that the CPU saves.
    """
    return replace(
        sigstruct.template(enclavehash, debug=True),
        date=date,
        xfrm=fitting_xfrm(ssaframesize, xcr0),
    )


def fitting_xfrm(ssaframesize: int, xcr0: int) -> int:
    """The state components of ``xcr0`` that fit an SSA frame of so many pages (EXINFO included)."""
    room = ssaframesize * PAGE - GPR_SIZE - EXINFO_SIZE
    xfrm = XFRM_X87_SSE
    for group in _XFRM_GROUPS:
        needs_avx = group == 0xE0 and not xfrm & 0x4
        if xcr0 & group == group and not needs_avx and xsave_size(xfrm | group) <= room:
            xfrm |= group
    return xfrm


def read_private_key(pem: bytes, place: str) -> RSAPrivateKey:
    """A signing key.

    Raises:
        MalformedError: not a PEM file with an unencrypted key.
        UsageError: not RSA-3072 with exponent 3.
    """
    try:
        key = load_pem_private_key(pem, None)
    except TypeError:
        raise MalformedError(
            "the key is encrypted",
            place=place,
            hint="decrypt it with: openssl rsa -in key.pem -out plain.pem; or sign in two steps, "
            "with --tbs",
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise MalformedError("not a private key in PEM form", place=place, hint=KEY_HINT) from None
    if not isinstance(key, RSAPrivateKey):
        raise UsageError("not an RSA key", place=place, hint=KEY_HINT)
    _check_numbers(key.key_size, key.public_key().public_numbers().e, place)
    return key


def read_public_key(pem: bytes, place: str) -> RSAPublicKey:
    """The public half of a signing key; a private key will do too.

    Raises:
        MalformedError: not a PEM file with a key.
        UsageError: not RSA-3072 with exponent 3.
    """
    if b"PRIVATE KEY" in pem:
        return read_private_key(pem, place).public_key()
    try:
        key = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise MalformedError(
            "not a public key in PEM form",
            place=place,
            hint="get it with: openssl rsa -in key.pem -pubout -out public.pem",
        ) from None
    if not isinstance(key, RSAPublicKey):
        raise UsageError("not an RSA key", place=place, hint=KEY_HINT)
    _check_numbers(key.key_size, key.public_numbers().e, place)
    return key


def _check_numbers(bits: int, exponent: int, place: str) -> None:
    if bits != 8 * KEY_BYTES or exponent != 3:
        raise UsageError(
            f"the key is RSA-{bits} with exponent {exponent}; SGX needs RSA-3072 with exponent 3",
            place=place,
            hint=KEY_HINT,
        )


def verify_existing(data: bytes, enclavehash: bytes, key: RSAPublicKey, place: str) -> None:
    """Check that a SIGSTRUCT is the key's, and for the same enclave, before it is replaced.

    Raises:
        DecodeError: not a SIGSTRUCT.
        UntrustedError: of another key, of another enclave, or not signed.
    """
    old = Sigstruct.from_bytes(data)
    if old.modulus != key.public_numbers().n:
        raise UntrustedError("signed by another key", place=place)
    sigstruct.verify(old)
    if old.enclavehash != enclavehash:
        raise UntrustedError(
            f"signed for another enclave: {old.enclavehash.hex()}, not {enclavehash.hex()}",
            place=place,
        )
