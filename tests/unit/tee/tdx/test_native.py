"""The trust domain around us: quotes, TDREPORTs, RTMR 3, and that it has no keys."""

import errno
import hashlib
from dataclasses import replace
from typing import Any

import pytest
from tests.kernels import Machine, NoKernel, TdxGuestKernel, TsmKernel, td_report

from broch.errors import BrochError, InternalError, PolicyError, UndecidedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.guest import NativeSettings
from broch.tee.kernel import Kernel
from broch.tee.tdx import VERIFIER, native
from broch.tee.tdx.native import TdxGuest

from .attester import NOW, REPORT, Attester

DATA = bytes(range(64))
ATTESTER = Attester(padding=40)  # hosts pad quotes with zeros


def quote(report_data: bytes, level: int) -> bytes:
    ATTESTER.report = replace(REPORT, report_data=report_data)
    return ATTESTER.evidence()


def tsm_kernel(**changes: Any) -> TsmKernel:
    return TsmKernel(**{"provider": "tdx_guest", "make": quote, **changes})


def domain(kernel: Kernel) -> TdxGuest:
    return TdxGuest(NativeSettings(name="cloud", kernel=kernel))


def test_the_quote_is_verified_as_any_other() -> None:
    evidence = domain(tsm_kernel()).evidence(DATA)
    claims = VERIFIER.verify(evidence, ATTESTER.endorsements(), at=NOW)
    assert claims.report_data == DATA
    assert claims.measurement == b"T" * 48


@pytest.mark.parametrize(
    ("kernel", "kind", "text"),
    [
        (NoKernel(), UndecidedError, "no Intel TDX device"),
        (TdxGuestKernel(), UndecidedError, "this kernel gives no quotes: .*report is missing"),
        (tsm_kernel(provider="sev_guest"), UndecidedError, "are of 'sev_guest', expected 'tdx_gu"),
        (tsm_kernel(trouble=[errno.EIO]), InternalError, "Input/output error"),
    ],
)
def test_what_is_no_such_domain(kernel: Kernel, kind: type[BrochError], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        domain(kernel)
    assert caught.value.hint or kind is InternalError


def test_a_tdreport_holds_the_report_data() -> None:
    assert native.td_report(TdxGuestKernel(), DATA) == td_report(DATA)


def test_a_tdreport_that_is_refused() -> None:
    with pytest.raises(InternalError, match="/dev/tdx_guest failed"):
        native.td_report(TdxGuestKernel(trouble=[errno.EIO]), DATA)
    with pytest.raises(UndecidedError, match="is missing"):
        native.td_report(NoKernel(), DATA)
    with pytest.raises(UsageError, match="report data has 63 bytes"):
        native.td_report(TdxGuestKernel(), DATA[1:])


def test_rtmr_3_is_extended() -> None:
    guest = TdxGuestKernel()
    domain(Machine((tsm_kernel(), guest))).extend(b"D" * 48)
    assert guest.rtmr3 == hashlib.sha384(bytes(48) + b"D" * 48).digest()


def test_an_older_kernel_extends_nothing() -> None:
    guest = TdxGuestKernel(with_registers=False)
    domain(Machine((tsm_kernel(), guest))).extend(b"D" * 48)
    assert guest.rtmr3 == bytes(48)


def test_a_register_that_does_not_change_is_an_error() -> None:
    with pytest.raises(InternalError, match="did not change"):
        domain(Machine((tsm_kernel(), TdxGuestKernel(frozen=True)))).extend(b"D" * 48)


def test_tdx_keeps_no_secrets() -> None:
    assert native.TEE.seal_bindings == ()
    with pytest.raises(PolicyError, match="Intel TDX has no sealing keys") as caught:
        domain(tsm_kernel()).seal_secret()
    assert caught.value.hint


def test_the_machine_hands_out_nothing() -> None:
    assert domain(tsm_kernel()).endorsements() == Endorsements(anchors=())
