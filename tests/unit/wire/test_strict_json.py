"""JSON with one meaning."""

import pytest

from broch.errors import DecodeError
from broch.wire import strict_json


def test_what_is_json() -> None:
    found = strict_json.decode(
        '{"a": [1, 2.5, null, true, "\u00e9"], "b": {"a": 0}}'.encode(), what="x"
    )
    assert found == {"a": [1, 2.5, None, True, "\u00e9"], "b": {"a": 0}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"", "not JSON", id="nothing"),
        pytest.param(b"{} {}", "Extra data", id="two values"),
        pytest.param(b'{"a": 1, "a": 1}', "a key comes twice", id="a key twice"),
        pytest.param(b'[{"b": {"a": 1, "a": 2}}]', "a key comes twice", id="a key twice, inside"),
        pytest.param(b"[NaN]", "NaN is no number", id="not a number"),
        pytest.param(b"-Infinity", "-Infinity is no number", id="infinity"),
        pytest.param(b'"\xff"', "not JSON", id="not UTF-8"),
        pytest.param("\ufeff{}".encode(), "not JSON", id="a byte order mark"),
        pytest.param(b"[" * 100_000, "not JSON", id="too deep"),
        pytest.param(b"9" * 5000, "not JSON", id="too many digits"),
    ],
)
def test_what_is_none(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError, match=message):
        strict_json.decode(data, what="x")
