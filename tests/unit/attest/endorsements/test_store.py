"""The store: what gets in, what stays, and what a half-finished write leaves behind."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests import pki
from tests.publishers import pem
from tests.unit.tee.snp import attester as snp
from tests.unit.tee.tdx import attester as tdx

from broch.attest.endorsements import Store, Subject, bundle, load, store, subject, wanted
from broch.attest.endorsements.loading import from_store
from broch.enclave.device_folder import write_private
from broch.errors import BrochError, DecodeError, UndecidedError, UntrustedError, UsageError
from broch.tee.dcap import emulated
from broch.tee.snp import VERIFIER
from broch.tee.snp.product import Product

NOW: Final = pki.NOW
SNP: Final = snp.Attester()
ARK: Final = SNP.tree.der("ark")
CHAIN: Final = {"ask": SNP.tree.der("ask"), "ark": ARK, "crl": SNP.tree.crl("ark")}
MILAN: Final = subject.snp_chain("Milan", "vcek")
VEK: Final = subject.snp_vek("Milan", snp.CHIP, snp.TCB[Product.MILAN])
VEK_ITEMS: Final = {"vek": SNP.tree.der("vek"), "ask": CHAIN["ask"], "ark": ARK}
TDX: Final = emulated.issue(tdx.KEYS, tdx.PLATFORM, NOW)
TCB: Final = subject.dcap_tcb("tdx", tdx.PCK.fmspc)
PUT: Final[dict[str, Any]] = {"source": "test", "fetched": NOW}


def dcap_items() -> dict[str, dict[str, bytes]]:
    """Every DCAP subject of the emulated platform, with its items."""
    certs = TDX.pck_chain.split(b"-----END CERTIFICATE-----\n")
    ca, root = (block + b"-----END CERTIFICATE-----\n" for block in certs[1:3])
    items = TDX.items
    return {
        "dcap.root": {"root_ca_crl": items["root_ca_crl"], "root_ca_crl_issuer_chain": root},
        "dcap.pck.platform": {"pck_crl": items["pck_crl"], "pck_crl_issuer_chain": ca + root},
        TCB.name: {name: data for name, data in items.items() if name.startswith("tcb_info")},
        "dcap.qe.tdx": {name: data for name, data in items.items() if name.startswith("qe_")},
    }


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    return Store.create(tmp_path / "store")


def test_what_is_put_is_there(kept: Store) -> None:
    assert kept.entry(MILAN) is None
    assert kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    entry = kept.entry(MILAN)
    assert entry is not None
    assert kept.items(entry) == CHAIN
    assert (entry.source, entry.fetched) == ("test", NOW)
    assert entry.dates.until == pki.END.replace(microsecond=0)
    assert [item.subject for item in kept.entries()] == [MILAN]


def test_every_kind_of_subject_can_be_kept(kept: Store) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    kept.put(VEK, VEK_ITEMS, anchors=[ARK], **PUT)
    for name, items in dcap_items().items():
        kept.put(Subject.of(name), items, anchors=[TDX.anchor], **PUT)
    assert len(list(kept.entries())) == 6


def test_a_store_gives_what_evidence_needs(kept: Store) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    kept.put(VEK, VEK_ITEMS, anchors=[ARK], **PUT)
    found = load(kept.folder, "snp", SNP.evidence(), anchors=[ARK])
    assert VERIFIER.verify(SNP.evidence(), found, at=NOW).emulated
    # Its root is emulated, so without the caller's word it is no anchor.
    assert load(kept.folder, "snp", SNP.evidence()).anchors == ()


def test_a_report_that_hides_its_product_is_found_by_its_chip(kept: Store) -> None:
    old = snp.Attester().bend(version=2, cpuid_family=0, cpuid_model=0, cpuid_stepping=0)
    with pytest.raises(UndecidedError, match="does not say"):
        from_store(kept, "snp", old.evidence())
    kept.put(VEK, VEK_ITEMS, anchors=[ARK], **PUT)
    assert from_store(kept, "snp", old.evidence()).items.keys() == {"vek", "ask"}


def test_what_is_missing_is_left_to_the_verifier(kept: Store) -> None:
    found = load(kept.folder, "snp", SNP.evidence())
    assert found.items == {}
    with pytest.raises(UndecidedError):
        VERIFIER.verify(SNP.evidence(), found, at=NOW)


def test_older_never_replaces_newer(kept: Store) -> None:
    newer = {**CHAIN, "crl": SNP.tree.crl("ark", begin=pki.BEGIN + timedelta(days=2))}
    kept.put(MILAN, newer, anchors=[ARK], **PUT)
    assert not kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    entry = kept.entry(MILAN)
    assert entry is not None
    assert kept.items(entry) == newer


def bent(name: str, changes: dict[str, Any]) -> dict[str, bytes]:
    return {**dcap_items()[name], **changes}


@pytest.mark.parametrize(
    ("name", "items", "error", "message"),
    [
        pytest.param(MILAN.name, {}, DecodeError, "missing or too many", id="nothing"),
        pytest.param(
            MILAN.name, {**CHAIN, "more": b""}, DecodeError, "missing or too many", id="too much"
        ),
        pytest.param(
            MILAN.name, {**CHAIN, "crl": b"no"}, DecodeError, "cannot be read", id="no CRL"
        ),
        pytest.param(
            MILAN.name,
            {**CHAIN, "crl": SNP.tree.crl("stranger")},
            UntrustedError,
            "crl is not of",
            id="somebody else's CRL",
        ),
        pytest.param(
            "snp.genoa.vcek", CHAIN, UntrustedError, "is not 'SEV-Genoa'", id="another product"
        ),
        pytest.param(
            "snp.milan.vlek", CHAIN, UntrustedError, "is not 'SEV-VLEK-Milan'", id="another role"
        ),
        pytest.param(
            subject.snp_vek("Milan", bytes(64), snp.TCB[Product.MILAN]).name,
            VEK_ITEMS,
            UntrustedError,
            "another chip",
            id="another chip",
        ),
        pytest.param(
            subject.snp_vek("Milan", snp.CHIP, bytes(8)).name,
            VEK_ITEMS,
            UntrustedError,
            "TCB version",
            id="another TCB",
        ),
        pytest.param(
            "dcap.tcb.sgx." + tdx.PCK.fmspc.hex(),
            dcap_items()[TCB.name],
            UntrustedError,
            "TCB info of TDX",
            id="TCB info of another TEE",
        ),
        pytest.param(
            "dcap.tcb.tdx.000000000000",
            dcap_items()[TCB.name],
            UntrustedError,
            "TCB info of TDX",
            id="TCB info of another platform",
        ),
        pytest.param(
            "dcap.qe.sgx",
            dcap_items()["dcap.qe.tdx"],
            UntrustedError,
            "expected 'QE'",
            id="another quoting enclave",
        ),
        pytest.param(
            "dcap.pck.processor",
            dcap_items()["dcap.pck.platform"],
            UntrustedError,
            "is not 'Intel SGX PCK Processor CA'",
            id="another CA",
        ),
        pytest.param(
            TCB.name,
            bent(TCB.name, {"tcb_info": TDX.items["tcb_info"] + b" "}),
            UntrustedError,
            "signature",
            id="TCB info changed",
        ),
        pytest.param(
            TCB.name,
            bent(TCB.name, {"tcb_info_signature": bytes(63)}),
            DecodeError,
            "63 bytes",
            id="signature too short",
        ),
        pytest.param(
            TCB.name,
            bent(
                TCB.name,
                {
                    "tcb_info": TDX.items["qe_identity"],
                    "tcb_info_signature": TDX.items["qe_identity_signature"],
                },
            ),
            DecodeError,
            "version",
            id="another document",
        ),
        pytest.param(
            TCB.name,
            bent(TCB.name, {"tcb_info_issuer_chain": TDX.pck_chain}),
            UntrustedError,
            "3 certificates",
            id="another chain",
        ),
        pytest.param(
            "dcap.root",
            bent("dcap.root", {"root_ca_crl": TDX.items["pck_crl"]}),
            UntrustedError,
            "not of",
            id="the CA's CRL as the root's",
        ),
    ],
)
def test_only_what_its_publisher_signed_gets_in(
    kept: Store, name: str, items: dict[str, bytes], error: type[BrochError], message: str
) -> None:
    with pytest.raises(error, match=message):
        kept.put(Subject.of(name), items, anchors=[ARK, TDX.anchor], **PUT)
    assert list(kept.entries()) == []
    assert list((kept.folder / "objects").iterdir()) == []


@pytest.mark.parametrize("name", [MILAN.name, VEK.name, *dcap_items()])
def test_without_the_callers_word_only_pinned_roots_count(kept: Store, name: str) -> None:
    items = {MILAN.name: CHAIN, VEK.name: VEK_ITEMS, **dcap_items()}[name]
    with pytest.raises(UntrustedError, match="root"):
        kept.put(Subject.of(name), items, **PUT)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "dcap",
        "../x",
        "dcap.root/..",
        "dcap.root\n",
        "dcap.tcb.sgx.FFFFFFFFFFFF",
        "snp.milan.vcek.00.00",
        "x" * 300,
    ],
)
def test_no_other_name_becomes_part_of_a_path(kept: Store, name: str) -> None:
    with pytest.raises(DecodeError):
        Subject.of(name)
    with pytest.raises(DecodeError):
        kept.entry(Subject(name))


def test_a_changed_object_is_noticed(kept: Store) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    entry = kept.entry(MILAN)
    assert entry is not None
    path = kept.folder / "objects" / entry.digests["crl"]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UntrustedError, match="content is not that of its name"):
        kept.items(entry)
    path.unlink()
    with pytest.raises(UsageError, match="cannot be read"):
        kept.items(entry)


@pytest.mark.parametrize("content", [b"", b"{}", b"[", b'{"source": 1}'])
def test_a_damaged_record_is_an_error(kept: Store, content: bytes) -> None:
    (kept.folder / "subjects" / MILAN.name).write_bytes(content)
    with pytest.raises(DecodeError):
        kept.entry(MILAN)


def test_a_digest_that_is_a_path_is_refused(kept: Store) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    entry = kept.entry(MILAN)
    assert entry is not None
    with pytest.raises(DecodeError, match="not a digest"):
        kept.items(replace(entry, digests={"crl": "../" * 21 + "x"}))


def test_everything_is_the_users_alone(kept: Store) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    for path in kept.folder.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_interrupt_leaves_what_was_there(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.put(MILAN, CHAIN, anchors=[ARK], **PUT)
    newer = {**CHAIN, "crl": SNP.tree.crl("ark", begin=pki.BEGIN + timedelta(days=2))}
    for calls in (0, 1):  # interrupted at the object, and at the record
        left = iter(range(calls))

        def interrupted(path: Path, data: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt
            write_private(path, data)

        with monkeypatch.context() as patch:
            patch.setattr(store, "write_private", interrupted)
            with pytest.raises(KeyboardInterrupt):
                kept.put(MILAN, newer, anchors=[ARK], **PUT)
        entry = kept.entry(MILAN)
        assert entry is not None
        assert kept.items(entry) == CHAIN
    assert kept.put(MILAN, newer, anchors=[ARK], **PUT)


def test_readers_see_one_version_or_the_other(kept: Store) -> None:
    versions = [
        {**CHAIN, "crl": SNP.tree.crl("ark", begin=pki.BEGIN, end=pki.END + timedelta(days=day))}
        for day in range(2)
    ]
    kept.put(MILAN, versions[0], anchors=[ARK], **PUT)
    done = threading.Event()

    def write() -> None:
        for turn in range(20):
            kept.put(MILAN, versions[turn % 2], anchors=[ARK], **PUT)
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    reads = 0
    while not done.is_set() or not reads:
        entry = kept.entry(MILAN)
        assert entry is not None
        assert kept.items(entry) in versions
        reads += 1
    writer.join()


def test_another_folder_is_not_taken_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="no store"):
        Store.create(tmp_path)
    (tmp_path / store.MARKER).write_bytes(b"broch endorsements 2\n")
    with pytest.raises(DecodeError, match="expected"):
        store.is_store(tmp_path)


def test_what_evidence_needs() -> None:
    assert wanted("snp", SNP.evidence()) == (MILAN, VEK)
    assert wanted("snp", snp.Attester(vlek=True).evidence()) == (
        subject.snp_chain("Milan", "vlek"),
    )
    turin = snp.Attester(product=Product.TURIN)
    assert wanted("snp", turin.evidence())[1].arguments[1] == snp.CHIP[:8].hex()
    assert wanted("nitro", b"") == ()
    with pytest.raises(UndecidedError, match="hides"):
        wanted("snp", snp.Attester().bend(chip_id=bytes(64), flags=2).evidence())
    with pytest.raises(DecodeError):
        wanted("sgx", b"")


PACKED: Final = [
    bundle.Packed(subject=MILAN, source="https://a", fetched=NOW, items=CHAIN),
    bundle.Packed(subject=VEK, source="https://b", fetched=NOW, items=VEK_ITEMS),
]


def test_a_bundle_holds_what_was_put_in() -> None:
    data = bundle.encode(PACKED)
    assert bundle.decode(data) == tuple(PACKED)
    assert bundle.encode(reversed(PACKED)) == data
    assert data.count(CHAIN["ask"]) == 1, "what two subjects share is there once"
    assert bundle.decode(bundle.encode([])) == ()


def test_a_bundle_has_one_encoding() -> None:
    from broch.wire import cbor

    value = cbor.decode(bundle.encode(PACKED), what="test", max_size=bundle.MAX_BUNDLE)
    head, version, subjects, items = value
    changes: list[Any] = [
        [head, version, subjects[::-1], items],
        [head, version, subjects, items[::-1]],
        [head, version, subjects, [*items, b"more"]],
        [head, version, [*subjects, subjects[0]], items],
        [head, version, subjects[:1], items],
        [head, version, subjects, items[:-1]],
        [head, 2, subjects, items],
        [head, True, subjects, items],
        ["other", version, subjects, items],
        [head, version, [["../x", "", 0, {}]], []],
        [head, version, [[MILAN.name, "", -1, {}]], []],
        [head, version, [[MILAN.name, "", 10**18, {}]], []],
        [head, version, [[MILAN.name, "", 0, {"ask": -1}]], [b""]],
        [head, version, [[MILAN.name, "", 0, {"ask": True}]], [b"", b""]],
        [head, version, [[MILAN.name, "x" * 5000, 0, {}]], []],
        [head, version, subjects],
        {},
    ]
    for changed in changes:
        with pytest.raises(DecodeError):
            bundle.decode(cbor.encode(changed))


def test_genuine_collateral_gets_in_without_anybodys_word(kept: Store, vectors: Path) -> None:
    from broch.tee.dcap.collateral import items_from_json
    from broch.tee.sgx import TEE

    evidence = vectors / "evidence"
    quote = (evidence / "sgx" / "phala_sgx_quote.bin").read_bytes()
    items = items_from_json((evidence / "composite" / "sgx_2025-06_00A067110000.json").read_bytes())
    root = pem((evidence / "sgx" / "intel_sgx_root_ca.der").read_bytes())
    import json

    document = json.loads((evidence / "composite" / "sgx_2025-06_00A067110000.json").read_text())
    at = datetime(2025, 6, 25, tzinfo=UTC)
    for name in wanted("sgx", quote):
        own = {item: items[item] for item in name.kind.items if item in items}
        if name.name == "dcap.root":
            own["root_ca_crl_issuer_chain"] = root
        elif "pck_crl" in own:
            own["pck_crl_issuer_chain"] = document["pck_crl_issuer_chain"].encode()
        assert kept.put(name, own, source="vectors", fetched=at)
    claims = TEE.verify(quote, load(kept.folder, "sgx", quote), at=at)
    assert claims.details["tcb_status"] == "ConfigurationAndSWHardeningNeeded"
