"""EGETKEY: every dependency of every key, every refusal. EREPORT: who can check what."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.cmac import CMAC

from broch.errors import PolicyError
from broch.tee.dcap.report import DEBUG, EINITTOKENKEY, INIT, KSS, MODE64BIT, PROVISIONKEY
from broch.tee.sgx import sigstruct
from broch.tee.sgx.faults import SgxFaultError, SgxRefusedError
from broch.tee.sgx.keys import Fuses, check_report, egetkey, ereport
from broch.tee.sgx.structures import KeyName, KeyRequest, Report, Secs, TargetInfo

from .support import FUSES, REPORT_DATA

RIGHTS = INIT | MODE64BIT | PROVISIONKEY | EINITTOKENKEY | KSS
SECS = Secs(
    size=8192,
    ssaframesize=1,
    flags=RIGHTS,
    xfrm=7,
    miscselect=1,
    mrenclave=b"E" * 32,
    mrsigner=b"S" * 32,
    configid=b"C" * 64,
    isvprodid=4,
    isvsvn=5,
    configsvn=6,
    isvfamilyid=b"F" * 16,
    isvextprodid=b"X" * 16,
)
# Everything that a request can ask to be bound to.
REQUEST = KeyRequest(
    keyname=KeyName.SEAL,
    keypolicy=0x3B,
    isvsvn=4,
    cpusvn=b"\x04" * 16,
    flags_mask=2**64 - 1,
    xfrm_mask=2**64 - 1,
    keyid=b"K" * 32,
    miscmask=2**32 - 1,
    configsvn=5,
)
OTHER_SECS = {
    "flags": replace(SECS, flags=RIGHTS & ~MODE64BIT),
    "debug": replace(SECS, flags=RIGHTS | DEBUG),
    "xfrm": replace(SECS, xfrm=3),
    "miscselect": replace(SECS, miscselect=0),
    "mrenclave": replace(SECS, mrenclave=b"e" * 32),
    "mrsigner": replace(SECS, mrsigner=b"s" * 32),
    "configid": replace(SECS, configid=b"c" * 64),
    "isvprodid": replace(SECS, isvprodid=9),
    "own isvsvn": replace(SECS, isvsvn=9),
    "own configsvn": replace(SECS, configsvn=9),
    "isvfamilyid": replace(SECS, isvfamilyid=b"f" * 16),
    "isvextprodid": replace(SECS, isvextprodid=b"x" * 16),
}
OTHER_REQUESTS = {
    "request isvsvn": replace(REQUEST, isvsvn=3),
    "request cpusvn": replace(REQUEST, cpusvn=b"\x03" * 16),
    "request flags_mask": replace(REQUEST, flags_mask=2**64 - 1 - 2**40),
    "request xfrm_mask": replace(REQUEST, xfrm_mask=2**64 - 1 - 2**40),
    "request miscmask": replace(REQUEST, miscmask=2**32 - 1 - 2**20),
    "request keyid": replace(REQUEST, keyid=b"k" * 32),
    "request configsvn": replace(REQUEST, configsvn=4),
    "request keypolicy": replace(REQUEST, keypolicy=0x3B - 0x08),
}
OTHER_FUSES = {
    "device_key": replace(FUSES, device_key=b"d" * 16),
    "seal_fuses": replace(FUSES, seal_fuses=b"s" * 16),
    "owner_epoch": replace(FUSES, owner_epoch=b"o" * 16),
    "own cpusvn": replace(FUSES, cpusvn=b"\x06" * 16),
    "report_keyid": replace(FUSES, report_keyid=b"r" * 32),
}
ALL = {*OTHER_SECS, *OTHER_REQUESTS, *OTHER_FUSES}
# SDM 3D, table 40-64: what each key depends on. The rest it must not depend on.
TABLE = {
    KeyName.SEAL: ALL - {"own isvsvn", "own configsvn", "own cpusvn", "report_keyid"},
    KeyName.REPORT: {
        *("flags", "debug", "xfrm", "miscselect", "mrenclave", "configid", "own configsvn"),
        *("request keyid", "device_key", "seal_fuses", "owner_epoch", "own cpusvn"),
    },
    KeyName.EINITTOKEN: {
        *("flags", "debug", "xfrm", "miscselect", "mrsigner", "isvprodid"),
        *("request isvsvn", "request cpusvn", "request keyid"),
        *("device_key", "seal_fuses", "owner_epoch"),
    },
    KeyName.PROVISION: {
        *("flags", "debug", "xfrm", "miscselect", "mrsigner", "isvprodid"),
        *("request isvsvn", "request cpusvn"),
        *("request flags_mask", "request xfrm_mask", "request miscmask", "device_key"),
    },
    KeyName.PROVISION_SEAL: {
        *("flags", "debug", "xfrm", "miscselect", "mrsigner", "isvprodid"),
        *("isvfamilyid", "isvextprodid", "configid", "request configsvn"),
        *("request isvsvn", "request cpusvn", "request keypolicy"),
        *("request flags_mask", "request xfrm_mask", "request miscmask"),
        *("device_key", "seal_fuses"),
    },
}


def key_with(name: KeyName, change: str | None) -> bytes:
    secs = OTHER_SECS.get(change or "", SECS)
    request = OTHER_REQUESTS.get(change or "", REQUEST)
    return egetkey(OTHER_FUSES.get(change or "", FUSES), secs, replace(request, keyname=name))


@pytest.mark.parametrize("change", sorted(ALL))
@pytest.mark.parametrize("name", list(KeyName))
def test_table_of_dependencies(name: KeyName, change: str) -> None:
    depends = key_with(name, change) != key_with(name, None)
    assert depends == (change in TABLE[name])


def test_the_five_keys_differ() -> None:
    assert len({key_with(name, None) for name in KeyName}) == 5


@pytest.mark.parametrize(
    ("bit", "field"),
    [
        (0x01, "mrenclave"),
        (0x02, "mrsigner"),
        (0x08, "configid"),
        (0x10, "isvfamilyid"),
        (0x20, "isvextprodid"),
    ],
)
def test_each_policy_bit_binds_one_field(bit: int, field: str) -> None:
    for policy, bound in ((bit, True), (0x3B & ~bit, False)):
        request = replace(REQUEST, keypolicy=policy)
        keys = {egetkey(FUSES, secs, request) for secs in (SECS, OTHER_SECS[field])}
        assert (len(keys) == 2) == bound


def test_noisvprodid_frees_the_product() -> None:
    free = replace(REQUEST, keypolicy=0x04)
    assert len({egetkey(FUSES, s, free) for s in (SECS, OTHER_SECS["isvprodid"])}) == 1


def test_policy_zero_binds_neither_code_nor_signer() -> None:
    request = replace(REQUEST, keypolicy=0, configsvn=0)
    others = (SECS, OTHER_SECS["mrenclave"], OTHER_SECS["mrsigner"])
    assert len({egetkey(FUSES, secs, request) for secs in others}) == 1


def test_attributemask_zero_still_binds_debug_and_init() -> None:
    request = replace(REQUEST, flags_mask=0, xfrm_mask=0)
    plain = egetkey(FUSES, SECS, request)
    assert egetkey(FUSES, OTHER_SECS["flags"], request) == plain
    assert egetkey(FUSES, OTHER_SECS["xfrm"], request) == plain
    assert egetkey(FUSES, OTHER_SECS["debug"], request) != plain


def test_an_older_key_is_the_same_for_a_newer_enclave() -> None:
    newer = replace(SECS, isvsvn=9)
    assert egetkey(FUSES, newer, REQUEST) == egetkey(FUSES, SECS, REQUEST)


# Refusals


def refused(secs: Secs, request: KeyRequest, fuses: Fuses = FUSES) -> int:
    with pytest.raises(SgxRefusedError) as caught:
        egetkey(fuses, secs, request)
    assert isinstance(caught.value, PolicyError)
    return int(caught.value.number)


@pytest.mark.parametrize(
    ("name", "right"),
    [
        (KeyName.EINITTOKEN, EINITTOKENKEY),
        (KeyName.PROVISION, PROVISIONKEY),
        (KeyName.PROVISION_SEAL, PROVISIONKEY),
    ],
)
def test_invalid_attribute_2(name: KeyName, right: int) -> None:
    request = replace(REQUEST, keyname=name)
    assert refused(replace(SECS, flags=RIGHTS & ~right), request) == 2
    egetkey(FUSES, replace(SECS, flags=INIT | KSS | right), request)


VERSIONED = [name for name in KeyName if name is not KeyName.REPORT]


@pytest.mark.parametrize("name", VERSIONED)
def test_invalid_cpusvn_32(name: KeyName) -> None:
    for place in (0, 15):
        cpusvn = bytearray(FUSES.cpusvn)
        cpusvn[place] += 1
        request = replace(REQUEST, keyname=name, cpusvn=bytes(cpusvn))
        assert refused(SECS, request) == 32
    egetkey(FUSES, SECS, replace(REQUEST, keyname=name, cpusvn=FUSES.cpusvn))


@pytest.mark.parametrize("name", VERSIONED)
def test_invalid_isvsvn_64(name: KeyName) -> None:
    assert refused(SECS, replace(REQUEST, keyname=name, isvsvn=SECS.isvsvn + 1)) == 64
    egetkey(FUSES, SECS, replace(REQUEST, keyname=name, isvsvn=SECS.isvsvn))


def test_invalid_isvsvn_64_for_configsvn() -> None:
    assert refused(SECS, replace(REQUEST, configsvn=SECS.configsvn + 1)) == 64
    egetkey(FUSES, SECS, replace(REQUEST, configsvn=SECS.configsvn))


@pytest.mark.parametrize("name", [5, 6, 0xFFFF])
def test_invalid_keyname_256(name: int) -> None:
    assert refused(SECS, replace(REQUEST, keyname=name)) == 256


def test_a_report_key_ignores_versions() -> None:
    high = replace(REQUEST, keyname=KeyName.REPORT, isvsvn=0xFFFF, cpusvn=b"\xff" * 16)
    assert egetkey(FUSES, SECS, high) == key_with(KeyName.REPORT, None)


@pytest.mark.parametrize(
    ("secs", "request_"),
    [
        pytest.param(replace(SECS, flags=RIGHTS & ~INIT), REQUEST, id="not initialised"),
        pytest.param(SECS, replace(REQUEST, reserved1=1), id="reserved, 2 bytes"),
        pytest.param(SECS, replace(REQUEST, reserved2=bytes(433) + b"\1"), id="reserved, 434"),
        pytest.param(SECS, replace(REQUEST, keypolicy=0x40), id="reserved policy bit"),
        pytest.param(SECS, replace(REQUEST, keypolicy=0x8000), id="highest policy bit"),
        *(
            pytest.param(
                replace(SECS, flags=RIGHTS & ~KSS),
                replace(REQUEST, keypolicy=bit, configsvn=0),
                id=f"policy 0x{bit:x} without KSS",
            )
            for bit in (0x04, 0x08, 0x10, 0x20)
        ),
        pytest.param(
            replace(SECS, flags=RIGHTS & ~KSS),
            replace(REQUEST, keypolicy=1, configsvn=1),
            id="CONFIGSVN without KSS",
        ),
    ],
)
def test_general_protection(secs: Secs, request_: KeyRequest) -> None:
    with pytest.raises(SgxFaultError) as caught:
        egetkey(FUSES, secs, request_)
    assert caught.value.name == "#GP"


# EREPORT


def test_only_the_target_can_check_a_report() -> None:
    target = replace(SECS, mrenclave=b"T" * 32)
    report = ereport(FUSES, SECS, TargetInfo.of(target), REPORT_DATA)
    assert check_report(FUSES, target, report)
    assert not check_report(FUSES, SECS, report)
    for change in ("flags", "debug", "xfrm", "miscselect", "configid", "own configsvn"):
        other = replace(OTHER_SECS[change], mrenclave=b"T" * 32)
        assert not check_report(FUSES, other, report), change
    for change in ("mrsigner", "isvprodid", "own isvsvn", "isvfamilyid", "isvextprodid"):
        other = replace(OTHER_SECS[change], mrenclave=b"T" * 32)
        assert check_report(FUSES, other, report), change


@pytest.mark.parametrize("change", sorted(set(OTHER_FUSES) - {"report_keyid"}))
def test_no_other_cpu_can_make_or_check_a_report(change: str) -> None:
    report = ereport(OTHER_FUSES[change], SECS, TargetInfo.of(SECS), REPORT_DATA)
    assert not check_report(FUSES, SECS, report)


def test_the_mac_is_cmac_over_384_bytes_with_the_report_key() -> None:
    report = ereport(FUSES, SECS, TargetInfo.of(SECS), REPORT_DATA)
    request = KeyRequest(keyname=KeyName.REPORT, keyid=report.keyid)
    mac = CMAC(AES(egetkey(FUSES, SECS, request)))
    mac.update(report.to_bytes()[:384])
    assert report.mac == mac.finalize()


def test_every_bit_of_a_report_is_protected() -> None:
    data = ereport(FUSES, SECS, TargetInfo.of(SECS), REPORT_DATA).to_bytes()
    for offset in (0, 16, 32, 48, 64, 128, 192, 256, 258, 260, 304, 320, 383, 384, 415, 416, 431):
        bent = bytearray(data)
        bent[offset] ^= 0x80
        assert not check_report(FUSES, SECS, Report.from_bytes(bytes(bent))), offset


@pytest.mark.parametrize("size", [0, 63, 65])
def test_report_data_has_64_bytes(size: int) -> None:
    with pytest.raises(SgxFaultError, match="expected 64"):
        ereport(FUSES, SECS, TargetInfo.of(SECS), bytes(size))


def test_no_report_before_einit() -> None:
    with pytest.raises(SgxFaultError, match="initialised"):
        ereport(FUSES, replace(SECS, flags=MODE64BIT), TargetInfo.of(SECS), REPORT_DATA)


def test_secrets_do_not_show() -> None:
    assert "DDDD" not in repr(FUSES)
    assert "SSSS" not in repr(FUSES)
    assert "OOOO" not in repr(FUSES)


def test_the_hardcoded_padding_is_that_of_the_manual() -> None:
    """HARDCODED_PKCS1_5_PADDING: 352 bytes, little-endian in the manual, so reversed here."""
    assert len(sigstruct.PADDING) == 352
    assert sigstruct.PADDING[:332] == b"\x00\x01" + b"\xff" * 330
    assert sigstruct.PADDING[332:].hex() == "003031300d060960864801650304020105000420"
