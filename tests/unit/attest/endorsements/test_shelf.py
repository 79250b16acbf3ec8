"""What a long-running verifier keeps at hand, and when it looks again."""

import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from tests import pki
from tests.unit.tee.sgx.attester import Attester as SgxAttester
from tests.unit.tee.sgx.support import NOW as SGX_NOW
from tests.unit.tee.snp import attester as snp

from broch.attest.endorsements import Shelf, Store, load, shelf, subject
from broch.errors import DecodeError, UndecidedError, UsageError
from broch.tee.dcap import trust
from broch.tee.sgx import TEE
from broch.tee.snp import VERIFIER
from broch.tee.snp.product import Product

GUEST: Final = snp.Attester()
ARK: Final = GUEST.tree.der("ark")
MILAN: Final = subject.snp_chain("Milan", "vcek")
VEK: Final = subject.snp_vek("Milan", snp.CHIP, snp.TCB[Product.MILAN])


def chain(days: int) -> dict[str, bytes]:
    crl = GUEST.tree.crl("ark", begin=pki.BEGIN + timedelta(days=days))
    return {"ask": GUEST.tree.der("ask"), "ark": ARK, "crl": crl}


def settle(folder: Path) -> None:
    """Make everything in a folder, and it, an hour old."""
    for path in (*folder.rglob("*"), folder):
        then = path.stat().st_mtime_ns - 3600 * 10**9
        os.utime(path, ns=(then, then))


@pytest.fixture
def kept(tmp_path: Path) -> Store:
    store = Store.create(tmp_path / "store")
    put(store, MILAN, chain(0))
    vek = {"vek": GUEST.tree.der("vek"), "ask": GUEST.tree.der("ask"), "ark": ARK}
    put(store, VEK, vek)
    settle(store.folder)
    return store


def put(store: Store, name: subject.Subject, items: dict[str, bytes]) -> None:
    assert store.put(name, items, source="test", fetched=pki.NOW, anchors=[ARK])


def count(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> list[None]:
    """Calls of a function, as they come."""
    calls: list[None] = []
    original: Callable[..., Any] = getattr(module, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        return original(*args, **kwargs)

    monkeypatch.setattr(module, name, counted)
    return calls


def test_a_store_is_read_once(kept: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count(monkeypatch, shelf, "load")
    held = Shelf(kept.folder, anchors=[ARK])
    first = held.get("snp", GUEST.evidence())
    assert held.get("snp", GUEST.evidence()) is first
    assert len(loads) == 1
    assert VERIFIER.verify(GUEST.evidence(), first, at=pki.NOW).emulated
    # Another chip needs other endorsements, and they are not there.
    other = snp.Attester().bend(chip_id=bytes(63) + b"x").evidence()
    found = held.get("snp", other)
    with pytest.raises(UndecidedError):
        VERIFIER.verify(other, found, at=pki.NOW)


def test_a_store_that_has_changed_is_read_again(kept: Store) -> None:
    held = Shelf(kept.folder, anchors=[ARK])
    old = held.get("snp", GUEST.evidence())
    newer = chain(1)
    put(kept, MILAN, newer)
    found = held.get("snp", GUEST.evidence())
    assert old.items["crl"] != newer["crl"] == found.items["crl"]
    assert found.cache is old.cache


def test_what_has_just_changed_is_not_kept(kept: Store) -> None:
    held = Shelf(kept.folder, anchors=[ARK])
    put(kept, MILAN, chain(1))
    first = held.get("snp", GUEST.evidence())
    assert held.get("snp", GUEST.evidence()) is not first, "it may change within the same tick"


def test_chains_and_collateral_are_verified_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = SgxAttester()
    given = platform.endorsements()
    (tmp_path / "anchors").mkdir()
    (tmp_path / "anchors" / "root.der").write_bytes(given.anchors[0])
    for name, data in given.items.items():
        (tmp_path / name).write_bytes(data)
    settle(tmp_path)
    read = count(monkeypatch, trust, "read_certificate")
    held = Shelf(tmp_path)
    evidence = platform.evidence()
    TEE.verify(evidence, held.get("sgx", evidence), at=SGX_NOW)
    once = len(read)
    assert once > 0
    for _ in range(3):
        TEE.verify(evidence, held.get("sgx", evidence), at=SGX_NOW)
    assert len(read) == once
    TEE.verify(evidence, load(tmp_path, "sgx", evidence), at=SGX_NOW)
    assert len(read) == 2 * once, "without the shelf everything is verified anew"


@pytest.mark.parametrize("change", ["replace", "add", "remove"])
def test_a_plain_folder_that_has_changed_is_read_again(tmp_path: Path, change: str) -> None:
    (tmp_path / "vek.der").write_bytes(b"1")
    settle(tmp_path)
    held = Shelf(tmp_path)
    first = held.get("snp", b"")
    assert held.get("snp", b"") is first
    if change == "replace":
        (tmp_path / "vek.der").write_bytes(b"2")
    elif change == "add":
        (tmp_path / "ask.der").write_bytes(b"3")
    else:
        (tmp_path / "vek.der").unlink()
    assert held.get("snp", b"").items != first.items


def test_a_shelf_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "MAX_LOADED", 2)
    held = Shelf(None)
    first = held.get("nitro", b"")
    held.get("snp", b"")
    assert held.get("nitro", b"") is first
    held.get("psa", b"")
    assert held.get("nitro", b"") is not first


def test_what_cannot_be_read_is_an_error(kept: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        Shelf(tmp_path / "none").get("snp", b"")
    with pytest.raises(DecodeError):
        Shelf(kept.folder).get("sgx", b"")
