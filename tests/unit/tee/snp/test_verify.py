"""Verification of SEV-SNP reports: each certificate role, date, list and field broken alone."""

import warnings
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.utils import CryptographyDeprecationWarning
from tests.pki import BEGIN, END, NOW, ec_key, name, rsa_key, usage

from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.contract import Endorsements
from broch.tee.snp import VERIFIER, cert_table, trust
from broch.tee.snp.product import Product
from broch.tee.snp.report import SIGNED_SIZE
from broch.tee.snp.vek import ARC
from broch.tee.verifier import Verifier
from broch.wire.x509 import read_certificate

from .attester import CHIP, REPORT_DATA, ROOT_NAME, TCB, Attester, extensions, integer, text

SECOND: Final = timedelta(seconds=1)


def check(attester: Attester, at: datetime = NOW) -> None:
    VERIFIER.verify(attester.evidence(), attester.endorsements(), at=at)


def test_it_is_a_verifier() -> None:
    verifier: Verifier = VERIFIER
    assert (verifier.name, verifier.title) == ("snp", "AMD SEV-SNP")


@pytest.mark.parametrize("product", list(Product))
@pytest.mark.parametrize("vlek", [False, True])
def test_claims(product: Product, vlek: bool) -> None:
    attester = Attester(product=product, vlek=vlek)
    claims = VERIFIER.verify(attester.evidence(), attester.endorsements(), at=NOW)
    assert claims.tee == "snp"
    assert claims.measurement == b"M" * 48
    assert claims.signer == b"K" * 48
    assert claims.report_data == REPORT_DATA
    assert len(claims.report_data) == VERIFIER.report_data_size
    assert claims.version == 7
    assert not claims.debug
    assert claims.emulated
    assert claims.product is product
    assert claims.details["signing_key"] == ("VLEK" if vlek else "VCEK")
    assert claims.details["csp_id"] == ("CN=cloud.example" if vlek else "")
    assert claims.details["root"] == ROOT_NAME
    assert claims.details["revocation"] == "checked"
    assert claims.reported_tcb.microcode == TCB[product][7]


def test_without_an_id_block_nobody_vouches() -> None:
    attester = Attester().bend(id_key_digest=bytes(48))
    assert VERIFIER.verify(attester.evidence(), attester.endorsements(), at=NOW).signer is None


def test_a_debug_policy_is_a_claim() -> None:
    attester = Attester().bend(policy=0xB001F)
    assert VERIFIER.verify(attester.evidence(), attester.endorsements(), at=NOW).debug


def test_version_2_has_no_cpuid_and_the_certificate_names_the_product() -> None:
    check(Attester().bend(version=2, cpuid_family=0, cpuid_model=0, cpuid_stepping=0))


# Serial number 0


def test_serial_number_0_warns_nobody() -> None:
    """AMD's VCEKs have it; the library warns and will refuse one day. Here it never sees it."""
    der = Attester().tree.der("vek")
    with pytest.warns(CryptographyDeprecationWarning, match="serial number"):
        assert x509.load_der_x509_certificate(der).serial_number == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cert = read_certificate(der, "test")
        check(Attester())
    assert cert.serial == 0
    assert cert.der == der


def test_serial_number_0_is_signed_as_it_is() -> None:
    """A certificate with the serial number 1 is another one: its signature is over the 1."""
    attester = Attester()
    der = attester.tree.der("vek")
    bent = der.replace(bytes.fromhex("a003020102020100"), bytes.fromhex("a003020102020101"), 1)
    items = {**attester.items(), "vek": bent}
    anchors = attester.endorsements().anchors
    with pytest.raises(UntrustedError, match="signature does not hold"):
        VERIFIER.verify(attester.evidence(), Endorsements(anchors=anchors, items=items), at=NOW)


# Certificates: role, signer, name, period, one at a time

CERTIFICATES: Final[list[tuple[str, dict[str, Any], str]]] = [
    ("ark", {"common": "ARK-Milan"}, "neither AMD's nor emulated"),
    ("ark", {"signer": "stranger"}, "certificate 'Broch Emulated SNP Root': the signature"),
    ("ark", {"ca": False}, "may not issue certificates"),
    ("ark", {"key_usage": usage(ca=False)}, "may not issue certificates"),
    ("ark", {"key_usage": None}, "may not issue certificates"),
    ("ark", {"key_usage": usage(ca=True, crl_sign=False)}, "may not sign revocation lists"),
    ("ark", {"path_length": 0}, "allows no such chain"),
    ("ark", {"pss": False}, "expected RSASSA-PSS"),
    ("ark", {"digest": SHA256()}, "the signature does not hold"),
    ("ask", {"common": "SEV-Genoa"}, "is not 'SEV-Milan'"),
    ("ask", {"common": "SEV-VLEK-Milan"}, "is not 'SEV-Milan'"),
    ("ask", {"common": "ARK-Milan"}, "is not 'SEV-Milan'"),
    ("ask", {"signer": "stranger"}, "certificate 'SEV-Milan': the signature"),
    ("ask", {"issuer_name": "Stranger"}, "is not among the anchors"),
    ("ask", {"ca": False, "path_length": None}, "may not issue certificates"),
    ("ask", {"key_usage": usage(ca=False)}, "may not issue certificates"),
    ("ask", {"pss": False}, "expected RSASSA-PSS"),
    ("vek", {"common": "VCEK"}, "neither SEV-VCEK nor SEV-VLEK"),
    ("vek", {"common": "SEV-Milan"}, "neither SEV-VCEK nor SEV-VLEK"),
    ("vek", {"signer": "stranger"}, "certificate 'SEV-VCEK': the signature"),
    ("vek", {"signer": "ark"}, "certificate 'SEV-VCEK': the signature"),
    ("vek", {"issuer_name": "Stranger"}, "was not issued by"),
    ("vek", {"pss": False, "serial": 1}, "expected RSASSA-PSS"),
    ("vek", {"with_constraints": True, "ca": True}, "is a CA"),
]


@pytest.mark.parametrize(("label", "changes", "problem"), CERTIFICATES)
def test_each_role_of_each_certificate(label: str, changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(Attester().change(label, **changes))


@pytest.mark.parametrize("label", ["ark", "ask", "vek"])
def test_each_certificate_has_its_period(label: str) -> None:
    early, late = BEGIN - timedelta(days=9), END + timedelta(days=9)
    begun = Attester().change(label, begin=BEGIN)
    for other in {"ark", "ask", "vek"} - {label}:
        begun = begun.change(other, begin=early, end=late)
    begun.crl_options = {"begin": early, "end": late}
    common = begun.tree.certs[label].common
    check(begun, BEGIN)
    check(begun, END)
    with pytest.raises(UntrustedError, match=f"'{common}' is not valid before"):
        check(begun, BEGIN - SECOND)
    with pytest.raises(UntrustedError, match=f"'{common}' has expired"):
        check(begun, END + SECOND)


def test_the_revocation_list_has_its_period() -> None:
    attester = Attester()
    attester.crl_options = {"begin": NOW, "end": NOW + SECOND}
    check(attester, NOW)
    with pytest.raises(UntrustedError, match="crl is not valid before"):
        check(attester, NOW - SECOND)
    with pytest.raises(UntrustedError, match="crl has expired"):
        check(attester, NOW + SECOND)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"revoked": (0x10001,)}, "'SEV-Milan' .serial 10001. is revoked"),
        ({"revoked": (5, 0x10001, 7)}, "is revoked"),
        ({"signer": "stranger"}, "crl: the signature"),
        ({"signer": "ask"}, "crl: the signature"),
        ({"issuer": name("Stranger")}, "crl is not of"),
        ({"digest": SHA256()}, "crl: the signature"),
        ({"pss": False}, "expected RSASSA-PSS"),
    ],
)
def test_each_rule_of_the_revocation_list(options: dict[str, Any], problem: str) -> None:
    attester = Attester()
    attester.crl_options = options
    with pytest.raises(UntrustedError, match=problem):
        check(attester)


def test_a_list_of_others_revokes_nothing() -> None:
    attester = Attester()
    attester.crl_options = {"revoked": (1, 2, 3)}
    check(attester)


@pytest.mark.parametrize(
    ("changes", "error", "problem"),
    [
        pytest.param({".3.8": None}, DecodeError, "3.8 is missing", id="no microcode"),
        pytest.param({".4": None}, DecodeError, "not those of a SEV-VCEK", id="no hwid"),
        pytest.param({".5": text("CN=x")}, DecodeError, "not those of", id="csp id"),
        pytest.param({".4": CHIP[1:]}, DecodeError, "not 64 bytes", id="short hwid"),
        pytest.param({".4": b"\x04\x3f" + CHIP}, DecodeError, "not 64", id="bad octets"),
        pytest.param({".4": b"\x16\x40" + CHIP}, DecodeError, "not 64", id="text hwid"),
        pytest.param({".4": CHIP[::-1]}, UntrustedError, "another chip", id="other chip"),
        pytest.param({".1": integer(2)}, DecodeError, "structure version", id="version"),
        pytest.param({".2": text("Rome-B0")}, UntrustedError, "not a known", id="product"),
        pytest.param({".2": integer(1)}, DecodeError, "not of its type", id="product type"),
        pytest.param({".2": b"\x16\x05Mil\nn"}, DecodeError, "not printable", id="newline"),
        pytest.param({".2": text("Genoa")}, UntrustedError, "is not 'SEV-Genoa'", id="genoa"),
        pytest.param({".3.1": integer(3)}, UntrustedError, "the key is of TCB", id="lower bl"),
        pytest.param({".3.1": integer(5)}, UntrustedError, "the key is of TCB", id="higher bl"),
        pytest.param({".3.2": integer(0)}, UntrustedError, "the key is of TCB", id="tee"),
        pytest.param({".3.3": integer(23)}, UntrustedError, "the key is of TCB", id="snp"),
        pytest.param({".3.8": integer(220)}, UntrustedError, "the key is of TCB", id="ucode"),
        pytest.param({".3.8": integer(256)}, DecodeError, "one byte", id="256"),
        pytest.param({".3.8": b"\x02\x01\xff"}, DecodeError, "one byte", id="negative"),
        pytest.param({".3.8": b"\x02\x02\0\x05"}, DecodeError, "one byte", id="not minimal"),
        pytest.param({".3.8": b"\x02\x01\x05\0"}, DecodeError, "its type", id="trailing"),
        pytest.param({".3.4": integer(1)}, DecodeError, "reserved TCB", id="reserved"),
        pytest.param({".3.9": integer(0)}, DecodeError, "FMC", id="fmc on Milan"),
        pytest.param({".6": integer(0)}, DecodeError, "unknown extension", id="unknown"),
    ],
)
def test_each_extension(
    changes: dict[str, bytes | None], error: type[BrochError], problem: str
) -> None:
    found: dict[str, bytes] = extensions(Product.MILAN)
    for oid, value in changes.items():
        found.pop(ARC + oid, None)
        if value is not None:
            found[ARC + oid] = value
    with pytest.raises(error, match=problem):
        check(Attester().change("vek", extensions=found))


def test_hwid_as_an_octet_string() -> None:
    found = {**extensions(Product.MILAN), ARC + ".4": b"\x04\x40" + CHIP}
    check(Attester().change("vek", extensions=found))


def test_a_turin_key_needs_its_fmc() -> None:
    found = extensions(Product.TURIN)
    del found[ARC + ".3.9"]
    with pytest.raises(DecodeError, match="FMC"):
        check(Attester(product=Product.TURIN).change("vek", extensions=found))


@pytest.mark.parametrize("key", [rsa_key("vek"), ec_key("vek", ec.SECP256R1)], ids=["RSA", "P-256"])
def test_the_key_is_on_p384(key: Any) -> None:
    attester = Attester()
    evidence = attester.evidence()
    with pytest.raises(DecodeError, match="not on P-384"):
        VERIFIER.verify(evidence, attester.change("vek", key=key).endorsements(), at=NOW)


def test_critical_extensions_that_are_not_understood() -> None:
    with pytest.raises(DecodeError, match=r"critical extension 1\.2\.3"):
        check(Attester().change("ask", critical={"1.2.3": b"\x05\0"}))


# Endorsements


@pytest.mark.parametrize("item", ["vek", "ask", "crl"])
def test_nothing_is_optional(item: str) -> None:
    attester = Attester()
    items = attester.items()
    del items[item]
    anchors = attester.endorsements().anchors
    with pytest.raises(UndecidedError, match=f"lack {item}"):
        VERIFIER.verify(attester.evidence(), Endorsements(anchors=anchors, items=items), at=NOW)


def test_without_an_anchor() -> None:
    attester = Attester()
    made = Endorsements(anchors=(), items=attester.items())
    with pytest.raises(UndecidedError, match="no root to trust"):
        VERIFIER.verify(attester.evidence(), made, at=NOW)


def test_going_without_a_revocation_list_is_asked_for_by_name_and_said() -> None:
    attester = Attester()
    items = {**attester.items(), "unsafe_no_crl": b""}
    anchors = attester.endorsements().anchors
    # A list that is there is used nevertheless.
    made = Endorsements(anchors=anchors, items=items)
    assert VERIFIER.verify(attester.evidence(), made, at=NOW).platform.revocation_checked
    del items["crl"]
    made = Endorsements(anchors=anchors, items=items)
    claims = VERIFIER.verify(attester.evidence(), made, at=NOW)
    assert not claims.platform.revocation_checked
    assert claims.details["revocation"] == "not checked"


def test_a_time_without_zone() -> None:
    with pytest.raises(UsageError, match="no time zone"):
        check(Attester(), NOW.replace(tzinfo=None))


@pytest.mark.parametrize("item", ["vek", "ask", "crl"])
def test_items_that_cannot_be_read(item: str) -> None:
    attester = Attester()
    for junk in (b"", b"\x30\x00", attester.items()[item] + b"\0", b"\x30" * 20000):
        items = {**attester.items(), item: junk}
        anchors = attester.endorsements().anchors
        with pytest.raises(DecodeError):
            VERIFIER.verify(attester.evidence(), Endorsements(anchors=anchors, items=items), at=NOW)


# Section 2.9: where other verifiers failed


def test_a_forged_root_with_amds_name_is_refused_even_as_an_anchor() -> None:
    """go-sev-guest 185, 190: forged ARK accepted; microsoft 140: the caller's ARK as anchor."""
    attester = Attester().change("ark", common="ARK-Milan")
    with pytest.raises(UntrustedError, match="neither AMD's nor emulated"):
        check(attester)


def test_a_root_that_is_emulated_must_still_be_an_anchor() -> None:
    attester = Attester()
    other = Attester().change("ark", common="Broch Emulated Other Root")
    with pytest.raises(UntrustedError, match="not among the anchors"):
        VERIFIER.verify(
            attester.evidence(),
            Endorsements(anchors=other.endorsements().anchors, items=attester.items()),
            at=NOW,
        )


@pytest.mark.parametrize("vlek", [False, True])
def test_signing_key_must_agree_with_the_certificate(vlek: bool) -> None:
    """microsoft 142: SIGNING_KEY not enforced, a VLEK taken as a VCEK."""
    attester = Attester(vlek=vlek).bend(flags=0 if vlek else 4)
    with pytest.raises(UntrustedError, match=r"by a V.EK, the certificate is of a V.EK"):
        check(attester)
    with pytest.raises(UntrustedError, match="is signed by a NONE"):
        check(Attester(vlek=vlek).bend(flags=7 << 2))


def test_an_asvk_issues_no_vcek() -> None:
    attester = Attester(vlek=True).change(
        "vek", common="SEV-VCEK", extensions=extensions(Product.MILAN)
    )
    with pytest.raises(UntrustedError, match="'SEV-VLEK-Milan' is not 'SEV-Milan'"):
        check(attester)


def test_the_chip_is_checked_under_the_real_common_name() -> None:
    """trustee: the name was compared with "VCEK", so that the chip was never checked."""
    with pytest.raises(UntrustedError, match="another chip"):
        check(Attester().bend(chip_id=CHIP[::-1]))
    with pytest.raises(UntrustedError, match="another chip"):
        check(Attester().bend(chip_id=bytes(64)))


def test_all_64_bytes_of_a_turin_chip_count() -> None:
    attester = Attester(product=Product.TURIN)
    chip = bytearray(attester.report.chip_id)
    chip[8] = 1
    with pytest.raises(UntrustedError, match="another chip"):
        check(attester.bend(chip_id=bytes(chip)))


def test_a_masked_chip() -> None:
    check(Attester().bend(flags=2, chip_id=bytes(64)))
    with pytest.raises(UntrustedError, match="masked and its identity is there"):
        check(Attester().bend(flags=2))


def test_the_key_is_bound_to_the_reported_tcb_not_to_the_current() -> None:
    newer = bytes((4, 1, 0, 0, 0, 0, 24, 220))
    attester = Attester().bend(current_tcb=newer)
    claims = VERIFIER.verify(attester.evidence(), attester.endorsements(), at=NOW)
    assert claims.reported_tcb.microcode == 219
    assert claims.current_tcb.microcode == 220
    found = {**extensions(Product.MILAN), ARC + ".3.8": integer(220)}
    with pytest.raises(UntrustedError, match="the key is of TCB"):
        check(Attester().bend(current_tcb=newer).change("vek", extensions=found))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"current_tcb": bytes((4, 1, 0, 0, 0, 0, 24, 218))}, "committed TCB is above"),
        ({"committed_tcb": bytes((4, 1, 0, 0, 0, 0, 24, 218))}, "reported TCB is above"),
        ({"launch_tcb": bytes((4, 1, 0, 0, 0, 0, 25, 219))}, "launch TCB is above"),
        ({"committed_version": bytes((0, 56, 1))}, "committed firmware is newer"),
        ({"committed_version": bytes((30, 55, 1))}, "committed firmware is newer"),
    ],
)
def test_a_report_that_contradicts_itself(changes: dict[str, bytes], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(Attester().bend(**changes))


def test_reserved_bytes_of_a_tcb() -> None:
    for field in ("current_tcb", "committed_tcb", "launch_tcb", "reported_tcb"):
        with pytest.raises(DecodeError, match=field):
            check(Attester().bend(**{field: bytes((0, 0, 1, 0, 0, 0, 0, 0))}))


@pytest.mark.parametrize(
    ("cpuid", "problem"),
    [
        ((0x19, 0x11), "the report is of Genoa, the key of Milan"),
        ((0x1A, 0x02), "the report is of Turin, the key of Milan"),
        ((0x17, 0x31), "of no known product"),
        ((0x19, 0x21), "of no known product"),
    ],
)
def test_the_processor_is_of_the_products_line(cpuid: tuple[int, int], problem: str) -> None:
    with pytest.raises(UntrustedError, match=problem):
        check(Attester().bend(cpuid_family=cpuid[0], cpuid_model=cpuid[1]))


# The signature


def test_every_signed_byte() -> None:
    attester = Attester()
    evidence, made = attester.evidence(), attester.endorsements()
    for offset in range(SIGNED_SIZE):
        bent = bytearray(evidence)
        bent[offset] ^= 1
        with pytest.raises((DecodeError, UntrustedError)):
            VERIFIER.verify(bytes(bent), made, at=NOW)


@pytest.mark.parametrize("offset", [672, 719, 720, 743, 744, 791, 792, 815])
def test_the_signature_itself(offset: int) -> None:
    attester = Attester()
    bent = bytearray(attester.evidence())
    bent[offset] ^= 1
    with pytest.raises(UntrustedError, match="signature does not hold"):
        VERIFIER.verify(bytes(bent), attester.endorsements(), at=NOW)


def test_a_signature_of_zeros() -> None:
    """What firmware that has no key to sign with leaves there."""
    attester = Attester()
    zeros = replace(attester.report, signature_r=bytes(72), signature_s=bytes(72)).to_bytes()
    with pytest.raises(UntrustedError, match="signature does not hold"):
        VERIFIER.verify(zeros, attester.endorsements(), at=NOW)


# The certificate table


def test_items_of_a_certificate_table() -> None:
    attester = Attester()
    items = attester.items()
    table = cert_table.write(
        {
            cert_table.ARK: attester.tree.der("ark"),
            cert_table.ASK: items["ask"],
            cert_table.VCEK: items["vek"],
            cert_table.CRL: items["crl"],
        }
    )
    found = cert_table.items(table + bytes(4096))
    assert found == items
    assert found.keys() == {trust.VEK, trust.ASK, trust.CRL}, "the host's ARK is not an anchor"


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (b"", "does not end"),
        (cert_table.write({cert_table.ASK: b""})[:24], "does not end"),
        (cert_table.write({cert_table.ASK: b"abc"})[:-1], "outside of the table"),
        (cert_table.write({cert_table.ASK: b""})[:24] * 2 + bytes(24), "comes twice"),
        (bytes(65537), "longer than"),
        (cert_table.write({cert_table.VCEK: b"a", cert_table.VLEK: b"b"}), "a VCEK and a VLEK"),
    ],
)
def test_bad_tables(table: bytes, problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        cert_table.items(table)
