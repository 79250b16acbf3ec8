"""What an emulated platform issues: roles, extensions, dates."""

from datetime import UTC, datetime, timedelta

from broch.tee.dcap import certs, emulated
from broch.tee.dcap.ecdsa import derive_key
from broch.tee.dcap.pckext import OID, PckExtension
from broch.tee.dcap.tcb import QeIdentity, TcbInfo

NOW = datetime(2026, 1, 1, 12, 30, 15, 999, tzinfo=UTC)
PCK = PckExtension(
    ppid=b"P" * 16,
    components=tuple(range(16)),
    pcesvn=5,
    cpusvn=bytes(16),
    pceid=b"\0\1",
    fmspc=b"FMSPC!",
    sgx_type=1,
    platform_instance=b"I" * 16,
    dynamic_platform=False,
    cached_keys=False,
    smt_enabled=False,
)
PLATFORM = emulated.Platform(
    root_name="Broch Emulated TDX Root",
    tee="TDX",
    pck=PCK,
    qe=emulated.QeDescription(
        id="TD_QE", mrsigner=b"Q" * 32, isvprodid=2, isvsvn=4, flags=0x15, xfrm=3, miscselect=1
    ),
    tdx_components=tuple(range(20, 36)),
)
KEYS = emulated.Keys(
    root=derive_key(b"e", "root"),
    pck_ca=derive_key(b"e", "ca"),
    pck=derive_key(b"e", "pck"),
    tcb_signing=derive_key(b"e", "signing"),
)
ISSUED = emulated.issue(KEYS, PLATFORM, NOW)


def test_the_chain_has_intels_roles_under_an_emulated_root() -> None:
    chain = certs.read_chain(ISSUED.pck_chain, "chain")
    assert [cert.name for cert in chain] == [
        "Intel SGX PCK Certificate",
        "Intel SGX PCK Platform CA",
        "Broch Emulated TDX Root",
    ]
    assert [cert.path_length for cert in chain] == [None, 0, 1]
    assert chain[2].der == ISSUED.anchor
    assert PckExtension.from_bytes(chain[0].extensions[OID]) == PCK
    certs.check_issued(chain[0], chain[1])
    certs.check_issued(chain[1], chain[2])


def test_documents_describe_the_platform() -> None:
    info = TcbInfo.from_bytes(ISSUED.items["tcb_info"])
    assert (info.id, info.fmspc, info.pceid) == ("TDX", b"FMSPC!", b"\0\1")
    assert info.levels[0].tdx == tuple(range(20, 36))
    assert info.levels[0].sgx == tuple(range(16))
    identity = QeIdentity.from_bytes(ISSUED.items["qe_identity"])
    assert (identity.id, identity.miscselect, identity.isvprodid) == ("TD_QE", 1, 2)
    assert identity.levels[0].isvsvn == 4


def test_dates_begin_an_hour_early_and_on_a_second() -> None:
    assert ISSUED.begin == datetime(2026, 1, 1, 11, 30, 15, tzinfo=UTC)
    info = TcbInfo.from_bytes(ISSUED.items["tcb_info"])
    assert info.issue_date == ISSUED.begin
    assert info.next_update - info.issue_date == timedelta(days=3650)
    crl = certs.read_crl(ISSUED.items["pck_crl"], "list")
    assert (crl.window.begin, crl.window.end) == (info.issue_date, info.next_update)


def test_serial_numbers_differ_and_are_positive() -> None:
    chain = (
        *certs.read_chain(ISSUED.pck_chain, "chain"),
        certs.read_chain(ISSUED.items["tcb_info_issuer_chain"], "chain")[0],
    )
    serials = {cert.serial for cert in chain}
    assert len(serials) == 4
    assert all(0 < serial < 2**159 for serial in serials)
