"""Collateral by its names."""

import json

import pytest

from broch.errors import DecodeError, UndecidedError
from broch.tee.dcap.collateral import NAMES, Collateral, items_from_json

ITEMS = {name: name.encode() for name in NAMES}


def test_all_items_are_taken() -> None:
    collateral = Collateral.from_items(ITEMS)
    assert collateral.tcb_info == b"tcb_info"
    assert hash(collateral) == hash(Collateral.from_items(dict(ITEMS)))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_optional(name: str) -> None:
    rest = Collateral.from_items({key: value for key, value in ITEMS.items() if key != name})
    with pytest.raises(UndecidedError, match=f"lack {name}"):
        rest.need(name)
    assert all(rest.need(other) == ITEMS[other] for other in NAMES if other != name)


def document() -> dict[str, object]:
    binary = ("root_ca_crl", "pck_crl", "tcb_info_signature", "qe_identity_signature")
    return {name: "00ff" if name in binary else name for name in NAMES} | {"other": 1}


def test_json_of_pccs_clients() -> None:
    items = items_from_json(json.dumps(document()).encode())
    assert set(items) == set(NAMES)
    assert items["pck_crl"] == b"\x00\xff"
    assert items["tcb_info"] == b"tcb_info"


@pytest.mark.parametrize(
    "change",
    [
        {"pck_crl": "0g"},
        {"pck_crl": "0"},
        {"tcb_info": 1},
        {"tcb_info": None},
        {"tcb_info": "\ud800"},
    ],
)
def test_json_that_is_not(change: dict[str, object]) -> None:
    with pytest.raises(DecodeError):
        items_from_json(json.dumps({**document(), **change}).encode())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_missing_is_left_out(name: str) -> None:
    """It is for the verifier to say that it lacks it: nothing is wrong with what is there."""
    rest = {key: value for key, value in document().items() if key != name}
    items = items_from_json(json.dumps(rest).encode())
    assert set(items) == set(NAMES) - {name}


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"other": 1}'])
def test_no_collateral(data: bytes) -> None:
    with pytest.raises(DecodeError):
        items_from_json(data)
