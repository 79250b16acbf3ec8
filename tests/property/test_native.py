"""Hardware that answers anything: getters give evidence or one of our errors, and nothing else."""

import contextlib
import ctypes
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels import NoKernel, NsmKernel, error

from broch.errors import BrochError
from broch.tee import tsm
from broch.tee.guest import NativeSettings
from broch.tee.nitro import native as nitro
from broch.tee.sgx.native import Gramine
from broch.tee.snp.native import SnpGuest
from broch.tee.tdx.native import TdxGuest, td_report

CODES = st.integers(1, 133)
BLOBS = st.binary(max_size=200)


class AnyFiles(NoKernel):
    """Every file is there, with anything in it, or an error."""

    def __init__(self, draw: Any) -> None:
        self._draw = draw

    def exists(self, path: str) -> bool:
        return bool(self._draw(st.booleans()))

    def read(self, path: str, limit: int) -> bytes:
        if self._draw(st.integers(0, 9)) == 0:
            raise error(self._draw(CODES))
        likely = {"provider": b"sev_guest\n", "generation": b"7\n", "privlevel_floor": b"0\n"}
        if path.rpartition("/")[2] in likely and self._draw(st.booleans()):
            return likely[path.rpartition("/")[2]]
        return bytes(self._draw(BLOBS))[:limit]

    def write(self, path: str, data: bytes) -> None:
        if self._draw(st.integers(0, 9)) == 0:
            raise error(self._draw(CODES))

    def mkdir(self, path: str) -> None:
        if self._draw(st.integers(0, 9)) == 0:
            raise error(self._draw(CODES))

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        if self._draw(st.integers(0, 3)) == 0:
            raise error(self._draw(CODES))


@settings(max_examples=100)
@given(st.data())
def test_any_files(data: st.DataObject) -> None:
    kernel = AnyFiles(data.draw)
    with contextlib.suppress(BrochError):
        tsm.get(
            kernel,
            "broch.a",
            provider="sev_guest",
            what="AMD SEV-SNP",
            inblob=bytes(64),
            pause=lambda seconds: None,
        )
    with contextlib.suppress(BrochError):
        td_report(kernel, bytes(64))
    with contextlib.suppress(BrochError):
        gramine = Gramine(NativeSettings(name="a", kernel=kernel))
        gramine.evidence(bytes(64))
        gramine.seal_secret()
    with contextlib.suppress(BrochError):
        guest = SnpGuest.__new__(SnpGuest)  # as if it had been opened well
        guest._kernel, guest._name = kernel, "broch.a"
        guest.seal_secret()
    with contextlib.suppress(BrochError):
        domain = TdxGuest.__new__(TdxGuest)
        domain._kernel, domain._name = kernel, "broch.a"
        domain.extend(bytes(48))


class AnyResponse(NoKernel):
    """/dev/sev-guest with anything in its responses."""

    def __init__(self, response: bytes, errors: tuple[int, int]) -> None:
        self._response, self._errors = response, errors

    def exists(self, path: str) -> bool:
        return path == "/dev/sev-guest"

    def ioctl(self, path: str, request: int, argument: ctypes.Structure) -> None:
        given = (ctypes.c_uint8 * 32).from_address(ctypes.addressof(argument))
        (address,) = struct.unpack_from("<Q", given, 16)
        size = 64 if request == 0xC0205301 else 4000
        ctypes.memmove(address, self._response[:size], min(size, len(self._response)))
        code, vmm = self._errors
        struct.pack_into("<II", given, 24, 0, vmm)
        if code:
            raise error(code)


@settings(max_examples=100)
@given(
    st.one_of(
        BLOBS,
        st.tuples(st.integers(0, 2), st.integers(0, 2**32 - 1), BLOBS).map(
            lambda parts: struct.pack("<II24x", *parts[:2]) + parts[2]
        ),
        st.just(struct.pack("<II24x", 0, 1184) + b"R" * 1184),
    ),
    st.tuples(st.one_of(st.just(0), CODES), st.integers(0, 3)),
)
def test_any_response_of_the_firmware(response: bytes, errors: tuple[int, int]) -> None:
    with contextlib.suppress(BrochError):
        guest = SnpGuest(NativeSettings(name="a", kernel=AnyResponse(response, errors)))
        assert len(guest.evidence(bytes(64))) == 1184
        assert len(guest.seal_secret()) == 32


@settings(max_examples=200)
@given(st.one_of(BLOBS, st.binary(max_size=40).map(lambda data: b"\xa1\x6bDescribeNSM" + data)))
def test_any_response_of_the_secure_module(answer: bytes) -> None:
    kernel = NsmKernel(answer=answer)
    with contextlib.suppress(BrochError):
        nitro.NitroEnclave(NativeSettings(name="a", kernel=kernel)).extend(bytes(48))
    with contextlib.suppress(BrochError):
        assert isinstance(nitro.attestation(kernel, b""), bytes)
