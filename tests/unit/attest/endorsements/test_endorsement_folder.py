"""A plain folder of endorsements: each rule of its layout, broken alone."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from tests import pki

from broch.attest.endorsements import load, read_folder
from broch.attest.endorsements.items import ITEMS, MAX_ITEM
from broch.errors import DecodeError, UntrustedError, UsageError
from broch.tee.dcap.collateral import NAMES
from broch.tee.nitro.root import ROOT_G1
from broch.tee.snp import cert_table

TREE: Final = pki.Tree(certs={"root": pki.Cert(common="Root", key=pki.ec_key("r"), ca=True)})
ROOT: Final = TREE.der("root")
NOW: Final = datetime(2026, 3, 1, tzinfo=UTC)


def fill(folder: Path, content: Mapping[str, bytes]) -> Path:
    for name, data in content.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pem(der: bytes) -> bytes:
    from cryptography import x509

    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


def test_items_are_called_as_their_verifiers_call_them() -> None:
    assert tuple(ITEMS["sgx"]) == NAMES
    assert ITEMS["tdx"] == ITEMS["sgx"]


def test_every_suffix_names_the_same_item(tmp_path: Path) -> None:
    fill(tmp_path, {"vek.pem": pem(ROOT), "ask.der": ROOT, "crl.hex": ROOT.hex().encode() + b"\n"})
    assert read_folder(tmp_path, "snp").items == {"vek": ROOT, "ask": ROOT, "crl": ROOT}


def test_keys_may_be_pem(tmp_path: Path) -> None:
    key = pki.ec_key("k").public_key()
    fill(
        tmp_path,
        {
            "attestation_key.pem": key.public_bytes(
                Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
            ),
            "implementation_id.hex": b"00" * 32,
        },
    )
    found = read_folder(tmp_path, "psa").items
    assert found["attestation_key"] == key.public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    assert found["implementation_id"] == bytes(32)


def test_one_folder_serves_several_tees(tmp_path: Path) -> None:
    fill(tmp_path, {"snp/vek.der": b"1", "tpm/ak_public.bin": b"2", "README.md": b"hello"})
    assert read_folder(tmp_path, "snp").items == {"vek": b"1"}
    assert read_folder(tmp_path, "tpm").items == {"ak_public": b"2"}
    assert read_folder(tmp_path, "sgx").items == {}


def test_anchors_are_what_the_folder_says_and_what_is_pinned(tmp_path: Path) -> None:
    fill(tmp_path, {"anchors/mine.pem": pem(ROOT), "ark.der": ROOT})
    # The ARK is nobody's whose digest is pinned: naming it so does not make it an anchor.
    assert read_folder(tmp_path, "snp").anchors == (ROOT,)
    (tmp_path / "anchors" / "mine.pem").unlink()
    assert read_folder(tmp_path, "snp").anchors == ()


def test_without_a_folder_there_are_the_roots_in_the_package() -> None:
    assert load(None, "nitro", b"").anchors == (ROOT_G1,)
    assert load(None, "snp", b"").anchors == ()


def test_a_collateral_document_is_taken_apart(tmp_path: Path) -> None:
    document = {name: "00" if name.endswith(("crl", "signature")) else "text" for name in NAMES}
    fill(tmp_path, {"collateral.json": json.dumps(document).encode()})
    found = read_folder(tmp_path, "tdx").items
    assert tuple(found) == NAMES
    assert found["pck_crl"] == b"\0"
    assert found["tcb_info"] == b"text"


def test_a_certificate_table_is_taken_apart(tmp_path: Path) -> None:
    table = cert_table.write({cert_table.VCEK: ROOT, cert_table.ASK: ROOT, cert_table.ARK: ROOT})
    fill(tmp_path, {"cert_table.bin": table})
    found = read_folder(tmp_path, "snp")
    assert found.items == {"vek": ROOT, "ask": ROOT}
    assert found.anchors == ()


@pytest.mark.parametrize(
    ("tee", "name", "data", "error", "message"),
    [
        pytest.param("sgx", "tcb_inof.json", b"", UsageError, "tcb_inof", id="typo"),
        pytest.param("snp", "unsafe_no_crl", b"", UsageError, "unsafe_no_crl", id="relaxation"),
        pytest.param("other", "unsafe_x", b"", UsageError, "unsafe_x", id="relaxation, plug-in"),
        pytest.param("snp", "vek.txt", b"", UsageError, "suffix", id="suffix"),
        pytest.param("snp", "vek.hex", b"0g", DecodeError, "hexadecimal", id="not hex"),
        pytest.param("snp", "vek.pem", b"-----BEGIN", DecodeError, "PEM", id="not PEM"),
        pytest.param("psa", "attestation_key.pem", b"-----B", DecodeError, "PEM", id="not a key"),
        pytest.param("snp", "vek.der", bytes(MAX_ITEM + 1), DecodeError, "longer", id="too long"),
        pytest.param("sgx", "collateral.json", b"{", DecodeError, "collateral", id="not JSON"),
    ],
)
def test_each_rule_is_enforced(
    tmp_path: Path, tee: str, name: str, data: bytes, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        read_folder(fill(tmp_path, {name: data}), tee)


def test_a_typo_is_answered_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read_folder(fill(tmp_path, {"tcb_inof.json": b""}), "sgx")
    assert caught.value.hint == "did you mean 'tcb_info'?"


def test_an_item_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="twice"):
        read_folder(fill(tmp_path, {"vek.der": b"1", "vek.bin": b"2"}), "snp")


def test_a_secret_that_others_may_read_is_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"mac_key.bin": bytes(16)})
    (tmp_path / "mac_key.bin").chmod(0o644)
    with pytest.raises(UntrustedError, match="others may read"):
        read_folder(tmp_path, "psa")
    (tmp_path / "mac_key.bin").chmod(0o600)
    assert read_folder(tmp_path, "psa").items == {"mac_key": bytes(16)}


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vek.der")
    with pytest.raises(UsageError, match="regular"):
        read_folder(tmp_path, "snp")


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none", "snp", b"")


def test_genuine_collateral_brings_the_pinned_root_along(vectors: Path, tmp_path: Path) -> None:
    from broch.tee.sgx import TEE

    evidence = vectors / "evidence"
    quote = (evidence / "sgx" / "phala_sgx_quote.bin").read_bytes()
    collateral = (evidence / "composite" / "sgx_2025-06_00A067110000.json").read_bytes()
    fill(tmp_path, {"collateral.json": collateral})
    found = load(tmp_path, "sgx", quote)
    claims = TEE.verify(quote, found, at=datetime(2025, 6, 25, tzinfo=UTC))
    assert not claims.emulated
    assert claims.details["tcb_status"] == "ConfigurationAndSWHardeningNeeded"
