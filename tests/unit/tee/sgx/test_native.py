"""SGX under Gramine: quotes, local reports, and the sealing key of this MRENCLAVE."""

import errno
from typing import Any

import pytest
from tests.kernels import GramineKernel, NoKernel

from broch.errors import BrochError, DecodeError, InternalError, PolicyError, UndecidedError
from broch.errors import UsageError as Usage
from broch.tee.contract import Endorsements
from broch.tee.guest import NativeSettings
from broch.tee.sgx import TEE as EMULATED
from broch.tee.sgx import native
from broch.tee.sgx.native import Gramine

from .attester import Attester
from .support import NOW

DATA = bytes(range(64))


def gramine(kernel: Any) -> Gramine:
    return Gramine(NativeSettings(name="cloud", kernel=kernel))


def test_the_quote_is_verified_as_any_other() -> None:
    attester = Attester()

    def quote(report_data: bytes) -> bytes:
        attester.body_fields = {"reportdata": report_data}
        return attester.evidence()

    evidence = gramine(GramineKernel(make=quote)).evidence(DATA)
    claims = EMULATED.verify(evidence, attester.endorsements(), at=NOW)
    assert claims.report_data == DATA
    assert claims.measurement == b"E" * 32


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_is_neither_filled_up_nor_cut_off(size: int) -> None:
    kernel = GramineKernel()
    with pytest.raises(Usage, match=f"user_report_data has {size} bytes, expected 64"):
        gramine(kernel).evidence(bytes(size))
    assert kernel.report_data == bytes(64)


@pytest.mark.parametrize(
    ("kernel", "kind", "text"),
    [
        (NoKernel(), UndecidedError, "no SGX .Gramine. device: /dev/attestation/attestation_type"),
        (GramineKernel(kind=b"none"), UndecidedError, "of type 'none', expected 'dcap'"),
        (GramineKernel(kind=b"epid"), UndecidedError, "of type 'epid', expected 'dcap'"),
        (GramineKernel(trouble=[errno.EIO]), InternalError, "failed: Input/output error"),
        (GramineKernel(trouble=[errno.EACCES]), UndecidedError, "may not be used"),
    ],
)
def test_what_is_no_gramine(kernel: Any, kind: type[BrochError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        gramine(kernel)
    assert caught.value.hint or kind is InternalError


def test_local_attestation() -> None:
    kernel = GramineKernel()
    target = native.target_info(kernel)
    assert target == b"T" * 512
    report = native.local_report(kernel, target, DATA)
    assert len(report) == 432
    assert report[:1] == b"T"
    assert report[320:384] == DATA


def test_sizes_of_local_attestation(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = GramineKernel()
    with pytest.raises(Usage, match="target_info has 511 bytes"):
        native.local_report(kernel, bytes(511), DATA)
    monkeypatch.setattr(kernel, "read", lambda path, limit: b"short")
    with pytest.raises(DecodeError, match="expected 512 bytes"):
        native.target_info(kernel)


def test_the_sealing_key_is_that_of_the_enclave() -> None:
    assert gramine(GramineKernel()).seal_secret() == bytes(range(16))


@pytest.mark.parametrize("key", [None, b"", bytes(15), bytes(16)])
def test_without_a_key_nothing_is_sealed(key: bytes | None) -> None:
    with pytest.raises(PolicyError, match="Gramine gives no sealing key"):
        gramine(GramineKernel(key=key)).seal_secret()


def test_gramine_hands_out_nothing_and_extends_nothing() -> None:
    this = gramine(GramineKernel())
    this.extend(bytes(48))
    assert this.endorsements() == Endorsements(anchors=())
