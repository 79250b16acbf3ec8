"""The statement about a device key."""

from datetime import UTC, datetime, timedelta
from typing import Any, Final

import cbor2
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from broch.errors import DecodeError, UndecidedError, UntrustedError
from broch.tee import roots
from broch.tee.keystone.endorsement import (
    ROOT_NAME,
    Statement,
    check_endorsement,
    endorse,
)

from .conftest import NOW, SECRET

KEY: Final = roots.derive_key(SECRET, "keystone")
ROOT: Final = roots.make(ROOT_NAME, KEY, NOW)
START: Final = int(NOW.timestamp())
STATEMENT: Final = Statement(device="field", key=b"k" * 32, start=START, end=START + 1000)
DATA: Final = endorse(KEY, STATEMENT)


def test_a_statement_holds_under_its_root() -> None:
    endorsed = check_endorsement(DATA, (ROOT,))
    endorsed.check_time(NOW)
    assert endorsed.statement == STATEMENT
    assert endorsed.root == ROOT_NAME == "Broch Emulated Keystone Root"
    assert endorsed.emulated


def test_making_is_deterministic() -> None:
    assert endorse(KEY, STATEMENT) == DATA
    assert roots.make(ROOT_NAME, roots.derive_key(SECRET, "keystone"), NOW) == ROOT


def test_the_root_depends_on_the_secret() -> None:
    assert roots.derive_key(bytes(32), "keystone").private_numbers() != KEY.private_numbers()


def test_a_root_made_on_a_leap_day() -> None:
    leap = datetime(2028, 2, 29, tzinfo=UTC)
    root = x509.load_der_x509_certificate(roots.make(ROOT_NAME, KEY, leap))
    assert root.not_valid_after_utc == datetime(2058, 2, 28, tzinfo=UTC)


def test_the_anchor_that_signed_is_found_among_others() -> None:
    other = roots.make(ROOT_NAME, roots.derive_key(bytes(32), "keystone"), NOW)
    assert check_endorsement(DATA, (other, ROOT)).statement == STATEMENT


def test_another_root_of_the_same_name_is_refused() -> None:
    other = roots.make(ROOT_NAME, roots.derive_key(bytes(32), "keystone"), NOW)
    with pytest.raises(UntrustedError, match="no anchor signed"):
        check_endorsement(DATA, (other,))


def test_without_anchors_there_is_no_decision() -> None:
    with pytest.raises(UndecidedError, match="no anchor"):
        check_endorsement(DATA, ())


@pytest.mark.parametrize("anchor", [b"", b"junk", ROOT[:-1], ROOT + b"\0"])
def test_an_anchor_is_a_certificate(anchor: bytes) -> None:
    with pytest.raises(DecodeError, match="anchor"):
        check_endorsement(DATA, (anchor,))


def certificate(key: Any, name: str) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    built = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW)
        .not_valid_after(NOW + timedelta(days=1))
    )
    is_edwards = isinstance(key, ed25519.Ed25519PrivateKey)
    signed = built.sign(key, None if is_edwards else hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.DER)


def test_a_makers_root_is_not_emulated() -> None:
    maker = certificate(KEY, "Maker Keystone Root")
    assert not check_endorsement(DATA, (maker,)).emulated


@pytest.mark.parametrize("name", ["Broch Emulated Root", "Not Broch Emulated Keystone Root"])
def test_which_names_count_as_emulated(name: str) -> None:
    expected = name.startswith("Broch Emulated ")
    assert check_endorsement(DATA, (certificate(KEY, name),)).emulated is expected


@pytest.mark.parametrize(
    "key",
    [
        ec.derive_private_key(5, ec.SECP384R1()),
        ed25519.Ed25519PrivateKey.from_private_bytes(b"e" * 32),
    ],
    ids=["P-384", "Ed25519"],
)
def test_only_p256_signs_statements(key: Any) -> None:
    with pytest.raises((UntrustedError, DecodeError)):
        check_endorsement(DATA, (certificate(key, ROOT_NAME),))


@pytest.mark.parametrize("seconds", [-1, 1001])
def test_a_statement_has_its_time(seconds: int) -> None:
    with pytest.raises(UntrustedError):
        check_endorsement(DATA, (ROOT,)).check_time(NOW + timedelta(seconds=seconds))


def test_a_root_has_its_time() -> None:
    longer = Statement(device="field", key=b"k" * 32, start=0, end=2**40)
    endorsed = check_endorsement(endorse(KEY, longer), (ROOT,))
    with pytest.raises(UntrustedError, match=r"Keystone Root' has expired"):
        endorsed.check_time(NOW + timedelta(days=31 * 365))
    with pytest.raises(UntrustedError, match=r"Keystone Root' is not valid before"):
        endorsed.check_time(NOW - timedelta(seconds=1))


def spoil(**changes: object) -> bytes:
    """A statement with other fields, properly signed."""
    fields = {**cbor2.loads(STATEMENT.to_payload()), **changes}
    fields = {name: value for name, value in fields.items() if value is not None}
    return sign_payload(cbor2.dumps(fields, canonical=True))


def sign_payload(payload: bytes) -> bytes:
    class Raw(Statement):
        def to_payload(self) -> bytes:
            return payload

    return endorse(KEY, Raw(device="", key=b"", start=0, end=0))


SIGN1 = cbor2.loads(DATA).value


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="empty"),
        pytest.param(cbor2.dumps(SIGN1, canonical=True), id="no tag"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(17, SIGN1), canonical=True), id="Mac0"),
        pytest.param(cbor2.dumps(cbor2.CBORTag(18, SIGN1[:3]), canonical=True), id="three parts"),
        pytest.param(
            cbor2.dumps(cbor2.CBORTag(18, [cbor2.dumps({1: -8}), *SIGN1[1:]]), canonical=True),
            id="another algorithm",
        ),
        pytest.param(
            cbor2.dumps(cbor2.CBORTag(18, [SIGN1[0], {4: b"kid"}, *SIGN1[2:]]), canonical=True),
            id="unprotected header",
        ),
        pytest.param(
            cbor2.dumps(cbor2.CBORTag(18, [*SIGN1[:3], SIGN1[3] + b"\0"]), canonical=True),
            id="long signature",
        ),
        pytest.param(
            cbor2.dumps(cbor2.CBORTag(18, [*SIGN1[:2], "text", SIGN1[3]]), canonical=True),
            id="payload text",
        ),
        pytest.param(DATA + b"\0", id="byte after"),
        pytest.param(DATA + bytes(5000), id="too long"),
        pytest.param(spoil(key=None), id="no key"),
        pytest.param(spoil(key=b"k" * 31), id="short key"),
        pytest.param(spoil(key="k" * 32), id="key text"),
        pytest.param(spoil(device=1), id="device a number"),
        pytest.param(spoil(until=1.5), id="time a float"),
        pytest.param(spoil(until=True), id="time a bool"),
        pytest.param(spoil(extra=1), id="another field"),
        pytest.param(spoil(**{"broch-keystone-endorsement": 2}), id="another format"),
        pytest.param(sign_payload(b"\xff"), id="payload not CBOR"),
        pytest.param(sign_payload(STATEMENT.to_payload() + b"\0"), id="byte after payload"),
        pytest.param(
            sign_payload(cbor2.dumps(cbor2.loads(STATEMENT.to_payload()), canonical=False)[:1]),
            id="payload cut",
        ),
    ],
)
def test_each_rule_of_the_encoding(data: bytes) -> None:
    with pytest.raises(DecodeError):
        check_endorsement(data, (ROOT,))
