"""The SEV-SNP guest around us: both ways to a report, and derived keys."""

import errno
from dataclasses import replace
from typing import Any

import pytest
from tests.kernels import Machine, NoKernel, SevGuestKernel, TsmKernel
from tests.pki import NOW

from broch.errors import BrochError, DecodeError, InternalError, PolicyError, UndecidedError
from broch.tee.contract import Endorsements
from broch.tee.guest import NativeSettings
from broch.tee.kernel import Kernel
from broch.tee.snp import VERIFIER, cert_table
from broch.tee.snp.native import FIELDS, SnpGuest

from .attester import Attester

DATA = bytes(range(64))


def attested(report_data: bytes, level: int = 0) -> bytes:
    return Attester().bend(report_data=report_data, vmpl=level).evidence()


def certificates() -> bytes:
    items = Attester().items()
    return cert_table.write({cert_table.VCEK: items["vek"], cert_table.ASK: items["ask"]})


def guest(kernel: Kernel) -> SnpGuest:
    return SnpGuest(NativeSettings(name="cloud", kernel=kernel))


def tsm_kernel(**changes: Any) -> TsmKernel:
    return TsmKernel(**{"provider": "sev_guest", "make": attested, "floor": 0, **changes})


def sev_guest(**changes: Any) -> SevGuestKernel:
    return SevGuestKernel(**{"make": attested, **changes})


@pytest.mark.parametrize("kernel", [tsm_kernel(aux=b""), sev_guest()], ids=["tsm", "ioctl"])
def test_the_report_is_verified_as_any_other(kernel: Kernel) -> None:
    evidence = guest(kernel).evidence(DATA)
    claims = VERIFIER.verify(evidence, Attester().endorsements(), at=NOW)
    assert claims.report_data == DATA
    assert claims.measurement == b"M" * 48


@pytest.mark.parametrize(
    "kernel",
    [tsm_kernel(aux=certificates()), sev_guest(certs=certificates())],
    ids=["tsm", "ioctl"],
)
def test_certificates_of_the_host_fill_endorsements(kernel: Kernel) -> None:
    this = guest(kernel)
    handed = this.endorsements()
    assert set(handed.items) == {"vek", "ask"}
    assert handed.anchors == ()  # a root that came from the host would be the host's word
    whole = Attester().endorsements()
    given = Endorsements(anchors=whole.anchors, items={**handed.items, "crl": whole.items["crl"]})
    assert VERIFIER.verify(this.evidence(DATA), given, at=NOW).report_data == DATA


@pytest.mark.parametrize("kernel", [tsm_kernel(), sev_guest()], ids=["tsm", "ioctl"])
def test_a_host_without_certificates(kernel: Kernel) -> None:
    assert guest(kernel).endorsements() == Endorsements(anchors=())


def test_more_certificates_than_the_driver_takes_are_left() -> None:
    kernel = sev_guest(certs=certificates().ljust(5 * 4096, b"\0"))
    this = guest(kernel)
    assert this.endorsements().items == {}
    assert VERIFIER.verify(this.evidence(DATA), Attester().endorsements(), at=NOW).debug is False


def test_a_kernel_above_vmpl_0() -> None:
    kernel = Machine((tsm_kernel(floor=2), sev_guest(level=2)))
    this = guest(kernel)
    claims = VERIFIER.verify(this.evidence(DATA), Attester().endorsements(), at=NOW)
    assert claims.details["vmpl"] == "2"
    assert len(this.seal_secret()) == 32


@pytest.mark.parametrize(
    ("kernel", "kind", "text"),
    [
        (NoKernel(), UndecidedError, "no AMD SEV-SNP device: /dev/sev-guest is missing"),
        (tsm_kernel(provider="tdx_guest"), UndecidedError, "reports of this machine are of"),
        (sev_guest(trouble=[errno.EACCES]), UndecidedError, "may not be used by this user"),
        (sev_guest(trouble=[errno.ENOTTY]), InternalError, "Inappropriate ioctl"),
        (sev_guest(trouble=[errno.EIO]), InternalError, "Input/output error"),
        (sev_guest(status=0x16), InternalError, "the firmware refused with status 0x16"),
        (sev_guest(make=lambda data: b"short"), DecodeError, "expected 1184 bytes"),
        (tsm_kernel(make=lambda data, level: bytes(4000)), DecodeError, "expected 1184 bytes"),
    ],
)
def test_what_is_no_such_guest(kernel: Kernel, kind: type[BrochError], text: str) -> None:
    with pytest.raises(kind, match=text):
        guest(kernel)


def test_a_certificate_table_that_is_none() -> None:
    this = guest(tsm_kernel(aux=b"\x01" * 30))
    with pytest.raises(DecodeError, match="certificate table"):
        this.endorsements()


def key(**changes: Any) -> bytes:
    return guest(sev_guest(**changes)).seal_secret()


def test_the_derived_key_is_of_this_measurement_policy_and_chip() -> None:
    assert key() == key()
    assert len(key()) == 32
    others = [key(measurement=b"N" * 48), key(policy=0xB0000), key(chip=b"another")]
    assert len({key(), *others}) == 4
    assert FIELDS == 0b001001


def test_without_the_device_there_is_no_key() -> None:
    with pytest.raises(PolicyError, match="come from /dev/sev-guest, which is not here"):
        guest(tsm_kernel()).seal_secret()


def test_a_key_that_the_firmware_refuses_is_no_key() -> None:
    kernel = sev_guest()
    this = guest(kernel)
    kernel.status = 0x16
    with pytest.raises(InternalError, match="status 0x16"):
        this.seal_secret()


def test_a_key_of_zeros_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = sev_guest()
    this = guest(kernel)
    monkeypatch.setattr(kernel, "ioctl", lambda path, request, argument: None)
    with pytest.raises(InternalError, match="key of zeros"):
        this.seal_secret()


def test_there_is_no_register_to_extend() -> None:
    kernel = sev_guest()
    before = replace(kernel)
    guest(kernel).extend(bytes(48))
    assert kernel.measurement == before.measurement
