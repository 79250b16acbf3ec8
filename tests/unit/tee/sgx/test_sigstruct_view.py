"""A SIGSTRUCT for people and programs, with what holds and what does not."""

import tomllib
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError
from broch.tee.sgx import sigstruct, sigstruct_view
from broch.tee.sgx.sigstruct import Sigstruct


@pytest.fixture(scope="module")
def signed(key: RSAPrivateKey) -> Sigstruct:
    template = sigstruct.template(b"\xab" * 32, isvprodid=7, isvsvn=3, debug=True)
    return sigstruct.sign(replace(template, date=0x20160109), key)


def test_every_field_is_shown(signed: Sigstruct) -> None:
    shown = sigstruct_view.view(signed.to_bytes())
    assert shown.is_valid
    assert shown.fields["mr_enclave"] == "ab" * 32
    assert shown.fields["mr_signer"] == signed.mrsigner().hex()
    assert (shown.fields["isv_prod_id"], shown.fields["isv_svn"]) == (7, 3)
    assert shown.fields["debug_enclave"] is True
    assert shown.fields["date"] == "2016-01-09"
    assert shown.fields["attribute_flags"] == "0x0000000000000006"
    assert len(shown.fields) == len(Sigstruct.__slots__) - 4 + 2, "modulus, signature, q1, q2"


def test_text_and_toml_and_json_agree(signed: Sigstruct) -> None:
    shown = sigstruct_view.view(signed.to_bytes())
    parsed = tomllib.loads(sigstruct_view.as_toml(shown))
    assert parsed == sigstruct_view.as_dict(shown)
    lines = dict(line.split(maxsplit=1) for line in sigstruct_view.as_text(shown).splitlines())
    assert lines["mr_enclave"] == "ab" * 32
    assert lines["q2"] == "holds"


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"isvsvn": 4}, {"signature"}),
        ({"q1": 1}, {"q1"}),
        ({"q2": 1}, {"q2"}),
        ({"signature": 2}, {"signature", "q1", "q2"}),
        ({"signature": 2**3072 - 1, "q1": 0, "q2": 0}, {"signature", "q1", "q2"}),
        ({"modulus": 0}, {"signature", "q1", "q2"}),
        ({"modulus": 1}, {"signature", "q1", "q2"}),
    ],
)
def test_what_does_not_hold_is_named(
    signed: Sigstruct, change: dict[str, int], wrong: set[str]
) -> None:
    values = {name: getattr(signed, name) for name in signed.__slots__}
    bent = Sigstruct(**{**values, **change})
    shown = sigstruct_view.view(bent.to_bytes())
    assert not shown.is_valid
    assert {name for name, holds in shown.checks.items() if not holds} == wrong
    assert sigstruct_view.as_text(shown).count("WRONG") == len(wrong)
    assert tomllib.loads(sigstruct_view.as_toml(shown))["valid"] is False


def test_another_modulus_breaks_the_signature(signed: Sigstruct, other_key: RSAPrivateKey) -> None:
    other = replace(signed, modulus=other_key.public_key().public_numbers().n)
    assert not sigstruct_view.view(other.to_bytes()).checks["signature"]


def test_what_is_no_sigstruct(signed: Sigstruct) -> None:
    data = signed.to_bytes()
    for bad in (b"", data[:-1], data + b"\0", bytes(1808)):
        with pytest.raises(DecodeError):
            sigstruct_view.view(bad)
