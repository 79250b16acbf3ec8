"""The Nitro enclave that we run in: requests to the Nitro Secure Module by /dev/nsm.

    struct nsm_raw     request {addr 8, len 8}, response {addr 8, len 8}   (uapi/linux/nsm.h)

Requests (at most 4 KiB) and responses (12 KiB) are CBOR: a request with fields is a map of its name
to its fields, one without is its name alone; a response likewise, or {"Error": name}. A response
that does not fit is cut off by the driver. Source: nsm-api of aws-nitro-enclaves-nsm-api.

A document lists the registers that are locked. So each image gets one of its own of registers 16 to
31, which is extended by the image's digest and locked, before the image runs: then every document
names all images that ran since the enclave started. Nitro has no sealing keys.
"""

import ctypes
import hashlib
from collections.abc import Mapping
from typing import Any, Final, NoReturn

from broch.errors import DecodeError, InternalError, PolicyError, UndecidedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.guest import GuestTee, NativeSettings
from broch.tee.kernel import Kernel, iowr, problem
from broch.tee.nitro import VERIFIER
from broch.tee.nitro.document import MAX_FIELD, PCR_SIZE, PCRS
from broch.wire import cbor

DEVICE: Final = "/dev/nsm"
MAX_REQUEST: Final = 0x1000
MAX_RESPONSE: Final = 0x3000
FIRST_FREE: Final = 16  # of the registers that the hypervisor leaves to the enclave
_W: Final = "NSM response"


class Iovec(ctypes.Structure):
    """``struct nsm_iovec``."""

    _fields_ = (("addr", ctypes.c_uint64), ("len", ctypes.c_uint64))


class Raw(ctypes.Structure):
    """``struct nsm_raw``."""

    _fields_ = (("request", Iovec), ("response", Iovec))


IOCTL_RAW: Final = iowr(0x0A, 0, Raw)


def ask(kernel: Kernel, name: str, **fields: Any) -> Mapping[str, Any]:
    """The fields of the response to the request ``name``.

    Raises:
        UsageError: the request is too long.
        UndecidedError: this is no Nitro enclave, or the device may not be used or is busy.
        InternalError: the module refused.
        DecodeError: its response is none.
    """
    request = cbor.encode({name: fields} if fields else name)
    if len(request) > MAX_REQUEST:
        raise UsageError(f"a request of {len(request)} bytes, at most {MAX_REQUEST}")
    question = ctypes.create_string_buffer(request, len(request))
    answer = ctypes.create_string_buffer(MAX_RESPONSE)
    call = Raw(
        request=Iovec(ctypes.addressof(question), len(request)),
        response=Iovec(ctypes.addressof(answer), MAX_RESPONSE),
    )
    try:
        kernel.ioctl(DEVICE, IOCTL_RAW, call)
    except OSError as exc:
        raise problem(exc, DEVICE, VERIFIER.title) from None
    response = cbor.decode(answer.raw[: min(call.response.len, MAX_RESPONSE)], what=_W)
    if isinstance(response, dict) and "Error" in response:
        raise InternalError(f"the Nitro Secure Module refused {name}: {response['Error']!s:.40}")
    if response == name:
        return {}
    if not isinstance(response, dict) or response.keys() != {name}:
        raise DecodeError(0, f"not the response to {name}", what=_W)
    found = response[name]
    if not isinstance(found, dict):
        raise DecodeError(0, f"the response to {name} is not a map", what=_W)
    return found


def attestation(
    kernel: Kernel,
    user_data: bytes | None,
    *,
    nonce: bytes | None = None,
    public_key: bytes | None = None,
) -> bytes:
    """A signed attestation document; each field has at most 1024 bytes, or is left out.

    Raises:
        UsageError: a field is longer.
        UndecidedError, InternalError, DecodeError: as :func:`ask`.
    """
    if max(map(len, (user_data or b"", nonce or b"", public_key or b""))) > MAX_FIELD:
        raise UsageError(f"a field is longer than {MAX_FIELD} bytes")
    response = ask(kernel, "Attestation", user_data=user_data, nonce=nonce, public_key=public_key)
    return _bytes(response, "document")


def _bytes(response: Mapping[str, Any], name: str) -> bytes:
    value = response.get(name)
    if not isinstance(value, bytes):
        raise DecodeError(0, f"{name} is no byte string", what=_W)
    return value


class NitroEnclave:
    """The enclave around us (:class:`broch.tee.guest.Hardware`).

    Raises:
        UndecidedError: there is none, or its device may not be used.
    """

    def __init__(self, settings: NativeSettings) -> None:
        self._kernel = settings.kernel
        ask(self._kernel, "DescribeNSM")  # whether all of this works

    def evidence(self, report_data: bytes) -> bytes:
        """An attestation document with ``report_data`` as user_data."""
        return attestation(self._kernel, report_data)

    def extend(self, digest: bytes) -> None:
        """Put ``digest`` (48 bytes) into a register of its own, and lock that.

        Raises:
            UndecidedError: all of registers 16 to 31 are in use.
        """
        wanted = hashlib.sha384(bytes(PCR_SIZE) + digest).digest()
        free = None
        for index in range(FIRST_FREE, PCRS):
            found = ask(self._kernel, "DescribePCR", index=index)
            is_locked, value = found.get("lock"), _bytes(found, "data")
            if is_locked and value == wanted:
                return  # the same image ran before
            if free is None and not is_locked and not any(value):
                free = index
        if free is None:
            raise UndecidedError(
                f"{PCRS - FIRST_FREE} images ran in this enclave, and each has a register",
                hint="start the enclave anew: its registers are then empty",
            )
        value = _bytes(ask(self._kernel, "ExtendPCR", index=free, data=digest), "data")
        if value != wanted:
            raise InternalError(f"register {free} has another value than it was extended to")
        ask(self._kernel, "LockPCR", index=free)

    def seal_secret(self) -> NoReturn:
        """Sealing keys.

        Raises:
            PolicyError: always: the Nitro Secure Module has none.
        """
        raise PolicyError(
            f"{VERIFIER.title} have no sealing keys: an enclave keeps no secret over a restart",
            hint="let the deployer hand out what must last, or use a TEE with sealing keys",
        )

    def endorsements(self) -> Endorsements:
        """The machine hands out none; certificates are in the document, and the root is pinned."""
        return Endorsements(anchors=())


TEE: Final = GuestTee(VERIFIER, NitroEnclave, ())
