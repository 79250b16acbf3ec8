"""Claims that PSA tokens and CCA platform tokens share (RFC 9783, sections 4.3 and 4.4).

A security lifecycle is 16 bits: the upper byte says the state, the lower is the maker's own.

A software component is a map; 2 and 5 are required:

    1  measurement type, text           4  version, text          6  description, text (CCA: the
    2  measurement, 32, 48 or 64 bytes  5  signer id, likewise       hash algorithm)
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from broch.errors import DecodeError
from broch.wire import cose
from broch.wire.cose import Alg

HASH_SIZES: Final = (32, 48, 64)
MAX_COMPONENTS: Final = 64
MAX_TEXT: Final = 1024  # characters


class Lifecycle(IntEnum):
    """The state of a platform; the value is the upper byte (section 4.3.1)."""

    UNKNOWN = 0x00
    ASSEMBLY_AND_TEST = 0x10
    ROT_PROVISIONING = 0x20
    SECURED = 0x30
    NON_ROT_DEBUG = 0x40
    RECOVERABLE_ROT_DEBUG = 0x50
    DECOMMISSIONED = 0x60

    @property
    def debug(self) -> bool:
        """Whether somebody may look inside."""
        return self in (Lifecycle.NON_ROT_DEBUG, Lifecycle.RECOVERABLE_ROT_DEBUG)

    @property
    def attestable(self) -> bool:
        """Whether the attestation key is the platform's own in this state."""
        return self is Lifecycle.SECURED or self.debug


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """A piece of firmware that was measured."""

    type: str
    measurement: bytes
    version: str
    signer_id: bytes
    description: str


def enrolled_key(der: bytes, what: str) -> tuple[ec.EllipticCurvePublicKey, Alg]:
    """A key (SubjectPublicKeyInfo) that the caller wrote down, and the one algorithm it is for.

    Raises:
        DecodeError: not an EC key on P-256, P-384 or P-521.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise DecodeError(0, f"not a public key: {exc}", what=what) from None
    alg = cose.algorithm(key) if isinstance(key, ec.EllipticCurvePublicKey) else None
    if not isinstance(key, ec.EllipticCurvePublicKey) or alg is None:
        raise DecodeError(0, "not an EC key on P-256, P-384 or P-521", what=what)
    return key, alg


def octets(claims: Mapping[Any, Any], label: int, sizes: tuple[int, ...], what: str) -> bytes:
    """A byte string of one of these sizes.

    Raises:
        DecodeError: missing or not that.
    """
    value = claims.get(label)
    if not isinstance(value, bytes) or len(value) not in sizes:
        wanted = " or ".join(map(str, sizes))
        raise DecodeError(0, f"claim {label} is not {wanted} bytes", what=what)
    return value


def text(claims: Mapping[Any, Any], label: int, what: str, default: str | None = None) -> str:
    """Text that is not empty; ``default``, where there is one, if it is absent.

    Raises:
        DecodeError: missing or not that.
    """
    value = claims.get(label, default)
    if not isinstance(value, str) or len(value) > MAX_TEXT or (not value and label in claims):
        raise DecodeError(0, f"claim {label} is missing, too long or no text", what=what)
    return value


def lifecycle(claims: Mapping[Any, Any], label: int, what: str) -> Lifecycle:
    """The state of the platform.

    Raises:
        DecodeError: missing, or a state that is not defined.
    """
    value = claims.get(label)
    if type(value) is not int or not 0 <= value < 1 << 16 or value >> 8 not in tuple(Lifecycle):
        raise DecodeError(0, f"claim {label}: undefined lifecycle {value!r:.40}", what=what)
    return Lifecycle(value >> 8)


def components(claims: Mapping[Any, Any], label: int, what: str) -> tuple[Component, ...]:
    """The firmware, at least one piece of it.

    Raises:
        DecodeError: missing, empty, or a component that is not as specified.
    """
    value = claims.get(label)
    if not isinstance(value, list) or not 0 < len(value) <= MAX_COMPONENTS:
        raise DecodeError(0, f"claim {label} is not 1 to {MAX_COMPONENTS} components", what=what)
    found: list[Component] = []
    for item in value:
        if not isinstance(item, dict) or not item.keys() <= {1, 2, 4, 5, 6}:
            raise DecodeError(0, f"claim {label}: not a software component", what=what)
        found.append(
            Component(
                type=text(item, 1, what, ""),
                measurement=octets(item, 2, HASH_SIZES, what),
                version=text(item, 4, what, ""),
                signer_id=octets(item, 5, HASH_SIZES, what),
                description=text(item, 6, what, ""),
            )
        )
    return tuple(found)
