"""Base64url in its one encoding."""

import pytest

from broch.errors import DecodeError
from broch.wire import base64url


@pytest.mark.parametrize(
    ("data", "text"), [(b"", ""), (b"a", "YQ"), (b"ab", "YWI"), (b"\xfb\xff\xfe", "-__-")]
)
def test_both_ways(data: bytes, text: str) -> None:
    assert base64url.encode(data) == text
    assert base64url.decode(text, what="x") == data


@pytest.mark.parametrize("text", ["YQ==", "Y", "+//+", "YQ\n", " YQ", "Y\u00e9", "\u0661\u0661"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(DecodeError, match="not base64url"):
        base64url.decode(text, what="x")


@pytest.mark.parametrize("text", ["YR", "YWJ"])
def test_bits_after_the_end(text: str) -> None:
    with pytest.raises(DecodeError, match="bits after its end"):
        base64url.decode(text, what="x")
