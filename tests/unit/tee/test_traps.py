"""Traps: rules that other verifiers get wrong because the documents do not shout them.

Each was met in genuine evidence (``tests/vectors`` has it); here it is made, so that the test is
always there, with a counterpart that must go the other way.
"""

from dataclasses import replace

import pytest
from tests.pki import NOW as PKI_NOW
from tests.unit.tee.nitro.test_nitro import Attester as NitroAttester
from tests.unit.tee.nitro.test_nitro import cabundle
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW as SGX_NOW
from tests.unit.tee.snp.attester import TCB
from tests.unit.tee.snp.attester import Attester as SnpAttester
from tests.unit.tee.tdx.attester import NOW as TDX_NOW
from tests.unit.tee.tdx.attester import REPORT, Attester, identity, isv, level

from broch.errors import DecodeError, UntrustedError
from broch.tee import nitro, snp, tdx
from broch.tee.contract import Endorsements
from broch.tee.dcap.tcb import TcbStatus
from broch.tee.sgx import TEE as SGX
from broch.tee.snp.product import Product
from broch.tee.tdx.verify import TdxClaims


def td(attester: Attester) -> TdxClaims:
    return tdx.VERIFIER.verify(attester.evidence(), attester.endorsements(), at=TDX_NOW)


def svn(*first: int) -> bytes:
    return bytes(first).ljust(16, b"\0")


def test_tdx_components_0_and_1_are_the_modules_and_not_compared_with_the_platforms() -> None:
    """TEE_TCB_SVN[1] > 0: bytes 0 and 1 are rated by the module's own levels."""
    wants_more = [level("UpToDate", tdx=(9, 9, 3)), level("OutOfDate", tdx=(0, 0, 0))]
    modules = [identity("TDX_01", isv(5, "UpToDate"))]
    fresh = td(Attester(levels=wants_more, modules=modules))
    assert fresh.tcb.status is TcbStatus.UP_TO_DATE
    # The same report of a module without a version: all 16 count, and two are too low.
    old = replace(REPORT, tee_tcb_svn=svn(5, 0, 3))
    assert td(Attester(report=old, levels=wants_more)).tcb.status is TcbStatus.OUT_OF_DATE
    # Component 2 counts either way.
    low = replace(REPORT, tee_tcb_svn=svn(5, 1, 2))
    assert td(Attester(report=low, levels=wants_more)).tcb.status is TcbStatus.OUT_OF_DATE


def test_a_platform_out_of_date_under_a_fresh_module_is_out_of_date() -> None:
    """And the other way round: the worse of both counts."""
    for platform, module in (("OutOfDate", "UpToDate"), ("UpToDate", "OutOfDate")):
        found = td(Attester(levels=[level(platform)], modules=[identity("TDX_01", isv(5, module))]))
        assert found.tcb.platform == platform
        assert found.module.status == module
        assert found.tcb.status is TcbStatus.OUT_OF_DATE
        assert found.details["tcb_status"] == "OutOfDate"


@pytest.mark.parametrize("kind", ["sgx", "tdx"])
def test_zeros_may_pad_a_quote_and_nothing_else_may(kind: str) -> None:
    """configfs-tsm and cloud agents pad: 70 and 3065 zeros are in genuine quotes."""
    attester = SgxAttester() if kind == "sgx" else Attester()
    at = SGX_NOW if kind == "sgx" else TDX_NOW
    verifier = SGX if kind == "sgx" else tdx.VERIFIER
    evidence, endorsements = attester.evidence(), attester.endorsements()
    sound = verifier.verify(evidence, endorsements, at=at)
    for count in (1, 70, 3065):
        assert verifier.verify(evidence + bytes(count), endorsements, at=at) == sound
    for tail in (b"\1", bytes(69) + b"\1", b"\1" + bytes(69), b"\n"):
        with pytest.raises(DecodeError, match="not zero"):
            verifier.verify(evidence + tail, endorsements, at=at)


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_nitro_fields_have_up_to_1024_bytes_whatever_is_documented(name: str) -> None:
    """AWS documents 512 for user_data and nonce; its hypervisor gives out 1024 in each."""
    for size in (1, 512, 513, 1024):
        evidence = NitroAttester(fields={name: b"x" * size}).evidence()
        anchors = Endorsements(anchors=tuple(cabundle(evidence)[:1]))
        claims = nitro.VERIFIER.verify(evidence, anchors, at=PKI_NOW)
        assert getattr(claims.document, name) == b"x" * size
    evidence = NitroAttester(fields={name: b"x" * 1025}).evidence()
    anchors = Endorsements(anchors=tuple(cabundle(evidence)[:1]))
    with pytest.raises(DecodeError, match=f"{name} is not"):
        nitro.VERIFIER.verify(evidence, anchors, at=PKI_NOW)


def test_a_vcek_is_of_the_reported_tcb_and_not_of_the_current() -> None:
    """After an update the host may go on reporting the old one, and the old key signs."""
    newer = bytes([9, *TCB[Product.MILAN][1:]])
    attester = SnpAttester().bend(current_tcb=newer, launch_tcb=TCB[Product.MILAN])
    claims = snp.VERIFIER.verify(attester.evidence(), attester.endorsements(), at=PKI_NOW)
    assert claims.reported_tcb.boot_loader == 4
    assert claims.current_tcb.boot_loader == 9
    assert claims.platform.vek.tcb == claims.reported_tcb
    # The key of the current TCB is another key.
    current = SnpAttester().bend(current_tcb=newer, committed_tcb=newer, reported_tcb=newer)
    with pytest.raises(UntrustedError, match="the key is of TCB"):
        snp.VERIFIER.verify(current.evidence(), current.endorsements(), at=PKI_NOW)
