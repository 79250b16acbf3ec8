"""What is loaded is what was measured, where EADD put it, with the rights that it gave."""

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, MalformedError
from broch.tee.sgx import convert, layout, sgxs
from broch.tee.sgx.device import SgxDevice
from broch.tee.sgx.faults import SgxFaultError, SgxUntrustedError
from broch.tee.sgx.run import loading
from broch.tee.sgx.run.loading import load
from broch.tee.sgx.sgxs import PAGE, Create, Page, Sgxs

from .conftest import sign

RX, RW = sgxs.PT_REG | sgxs.R | sgxs.X, sgxs.PT_REG | sgxs.R | sgxs.W


def _pages() -> list[Page]:
    return [
        Page(0, RX, sgxs.ALL_MEASURED, b"\x90" * PAGE),
        Page(PAGE, RX, sgxs.ALL_MEASURED, b"\xcc" * PAGE),
        Page(2 * PAGE, RW, sgxs.NOTHING, sgxs.ZEROS),
        Page(4 * PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, layout.tcs(4 * PAGE)),
        Page(5 * PAGE, RW, sgxs.NOTHING, sgxs.ZEROS),
    ]


def _stream(pages: list[Page], size: int = 8 * PAGE) -> bytes:
    return Sgxs(create=Create(ssaframesize=1, size=size), pages=tuple(pages)).to_bytes()


def test_memory_and_rights(device: SgxDevice, key: RSAPrivateKey) -> None:
    stream = _stream(_pages())
    enclave = load(stream, sign(stream, key), device)
    base = enclave.base
    assert base % enclave.secs.size == 0
    assert [(r.address - base, r.size, r.rights, r.offset) for r in enclave.regions] == [
        (0, 2 * PAGE, 5, 0),
        (2 * PAGE, PAGE, 3, 2 * PAGE),
        (5 * PAGE, PAGE, 3, 5 * PAGE),
    ]
    assert enclave.read(base, 2 * PAGE) == b"\x90" * PAGE + b"\xcc" * PAGE
    assert enclave.read(base + 4 * PAGE, PAGE) == bytes(PAGE), "the TCS is the CPU's own"
    assert [tcs.offset for tcs in enclave.threads] == [4 * PAGE]
    assert enclave.secs.mrenclave == sgxs.measure(stream)
    for address, size, rights in (
        (0, 1, 5),
        (PAGE, PAGE, 5),
        (PAGE, PAGE + 1, 1),
        (2 * PAGE, PAGE, 3),
        (2 * PAGE, PAGE + 1, 0),
        (3 * PAGE, 1, 0),
        (4 * PAGE, 1, 0),
        (6 * PAGE - 1, 1, 3),
        (6 * PAGE, 1, 0),
        (-1, 1, 0),
    ):
        assert enclave.rights(base + address, size) == rights, (address, size)
    enclave.close()


def test_an_enclave_larger_than_its_base_is_aligned(device: SgxDevice, key: RSAPrivateKey) -> None:
    stream = _stream(_pages(), 1 << 45)
    enclave = load(stream, sign(stream, key), device)
    assert enclave.base == 1 << 45
    enclave.close()


def test_without_a_thread_nothing_can_run(device: SgxDevice, key: RSAPrivateKey) -> None:
    stream = _stream(_pages()[:3])
    with pytest.raises(MalformedError, match="no thread") as caught:
        load(stream, sign(stream, key), device)
    assert "--threads" in (caught.value.hint or "")


def test_more_threads_than_anyone_needs(
    device: SgxDevice, key: RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is a thread of the system's: an image must not ask for any number."""
    more = Page(6 * PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, layout.tcs(6 * PAGE))
    stream = _stream([*_pages(), more])
    load(stream, sign(stream, key), device).close()
    monkeypatch.setattr(loading, "MAX_THREADS", 1)
    with pytest.raises(MalformedError, match="2 threads") as caught:
        load(stream, sign(stream, key), device)
    assert "--threads" in (caught.value.hint or "")


def test_more_changes_of_rights_than_can_be_mapped(
    device: SgxDevice, key: RSAPrivateKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = _stream(_pages())
    monkeypatch.setattr(loading, "MAX_REGIONS", 2)
    with pytest.raises(MalformedError, match="change 3 times"):
        load(stream, sign(stream, key), device)


def test_the_devices_refusals_come_through(device: SgxDevice, key: RSAPrivateKey) -> None:
    stream = _stream(_pages())
    signature = sign(stream, key)
    with pytest.raises(SgxUntrustedError, match="INVALID_MEASUREMENT"):
        load(_stream(_pages()[:4]), signature, device)
    with pytest.raises(SgxUntrustedError, match="INVALID_SIGNATURE"):
        load(stream, signature[:600] + bytes([signature[600] ^ 1]) + signature[601:], device)
    with pytest.raises(DecodeError):
        load(stream, signature[:-1], device)
    unsized = b"UNSIZED\0" + stream[8:]
    with pytest.raises(DecodeError, match="UNSIZED"):
        load(unsized, signature, device)
    reserved = bytearray(layout.tcs(4 * PAGE))
    reserved[100] = 1
    bad = _pages()
    bad[3] = Page(4 * PAGE, sgxs.PT_TCS, sgxs.ALL_MEASURED, bytes(reserved))
    with pytest.raises(SgxFaultError, match="reserved fields of the TCS"):
        load(_stream(bad), sign(_stream(bad), key), device)


def test_what_convert_lays_out_is_loaded(
    device: SgxDevice, key: RSAPrivateKey, scripted: bytes
) -> None:
    enclave = load(scripted, sign(scripted, key), device)
    assert len(enclave.threads) == 4
    for tcs in enclave.threads:
        stack = enclave.base + tcs.ofsbase - 0x10000
        assert enclave.rights(stack, 0x10000 + PAGE) == 3
        assert enclave.rights(stack - convert.GUARD, convert.GUARD) == 0
    enclave.close()
