"""JWS: what RFC 7515 and RFC 8037 print, every algorithm, and everything that is refused."""

import base64
import json
from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from broch.errors import DecodeError, UntrustedError, UsageError
from broch.wire import jws

P256: Final = ec.derive_private_key(11, ec.SECP256R1())
KEYS: Final[dict[str, jws.SigningKey]] = {
    "ES256": P256,
    "ES384": ec.derive_private_key(12, ec.SECP384R1()),
    "ES512": ec.derive_private_key(13, ec.SECP521R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.from_private_bytes(b"k" * 32),
}


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def number(text: str) -> int:
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_each_algorithm(alg: str) -> None:
    key = KEYS[alg]
    token = jws.sign(b"payload", key, typ="JWT")
    assert token == jws.sign(b"payload", key, typ="JWT"), "not deterministic"
    assert jws.algorithm(key) == alg
    header, payload = jws.peek(token)
    assert header == {"alg": alg, "typ": "JWT"}
    assert payload == jws.verify(token, key.public_key(), typ="JWT") == b"payload"


def test_the_example_of_rfc_7515() -> None:
    """Appendix A.3; it has no typ, so only the signature's way of writing is compared."""
    key = ec.EllipticCurvePublicNumbers(
        number("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"),
        number("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"),
        ec.SECP256R1(),
    ).public_key()
    token = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFt"
        "cGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5d"
        "jxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    with pytest.raises(UntrustedError, match="typ None"):
        jws.verify(token, key, typ="JWT")
    header, payload = jws.peek(token)
    assert header == {"alg": "ES256"}
    assert json.loads(payload)["iss"] == "joe"


def forged(header: Any, key: jws.SigningKey = P256, payload: bytes = b"payload") -> str:
    """A token with any header, properly signed."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    signed = f"{b64(text)}.{b64(payload)}"
    return f"{signed}.{b64(jws._signature(key, signed.encode()))}"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ({"alg": "none", "typ": "JWT"}, "alg 'none', expected 'ES256'"),
        ({"alg": "HS256", "typ": "JWT"}, "alg 'HS256'"),
        ({"alg": "ES384", "typ": "JWT"}, "alg 'ES384'"),
        ({"alg": ["ES256"], "typ": "JWT"}, "alg"),
        ({"typ": "JWT"}, "alg None"),
        ({"alg": "ES256", "typ": "other"}, "typ 'other'"),
        ({"alg": "ES256", "typ": "JWT", "crit": ["exp"]}, "'crit' is not understood"),
        ({"alg": "ES256", "typ": "JWT", "jwk": {}}, "'jwk' is not understood"),
        ({"alg": "ES256", "typ": "JWT", "b64": False}, "'b64' is not understood"),
    ],
)
def test_headers_that_are_refused(header: dict[str, Any], message: str) -> None:
    with pytest.raises(UntrustedError, match=message):
        jws.verify(forged(header), P256.public_key(), typ="JWT")


@pytest.mark.parametrize(
    "header", [b'{"alg":"ES256","alg":"ES256"}', b"[]", b"{", b"\xff", b"[" * 100_000]
)
def test_headers_that_are_none(header: bytes) -> None:
    with pytest.raises(DecodeError):
        jws.verify(forged(header), P256.public_key(), typ="JWT")


@pytest.mark.parametrize("alg", sorted(KEYS))
def test_every_part_counts(alg: str) -> None:
    key = KEYS[alg]
    token = jws.sign(b"payload", key, typ="JWT")
    first, payload, signature = token.split(".")
    other = b64(b"Payload")
    for bad in (f"{first}.{other}.{signature}", f"{first}.{payload}.{b64(bytes(64))}"):
        with pytest.raises(UntrustedError, match="does not hold"):
            jws.verify(bad, key.public_key(), typ="JWT")
    stranger = ec.derive_private_key(99, ec.SECP256R1()).public_key()
    with pytest.raises(UntrustedError):
        jws.verify(token, stranger, typ="JWT")


@pytest.mark.parametrize(
    "token", ["", "a", "a.b", "a.b.c.d", "a.b.", "a b.c.d", "YQ.YR.YQ", "YQ==.YQ.YQ", "Y.YQ.YQ"]
)
def test_tokens_that_are_none(token: str) -> None:
    with pytest.raises(DecodeError):
        jws.peek(token)


def test_other_curves() -> None:
    with pytest.raises(UsageError, match="secp256k1") as caught:
        jws.sign(b"", ec.generate_private_key(ec.SECP256K1()), typ="JWT")
    assert "P-256" in str(caught.value.hint)
