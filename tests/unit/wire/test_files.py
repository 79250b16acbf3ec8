"""Reading files of others: whole, and no more than was meant."""

import io
from pathlib import Path

import pytest

from broch.errors import MalformedError
from broch.wire.files import read_whole


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_all_of_it(size: int) -> None:
    assert read_whole(io.BytesIO(b"x" * size), 10) == b"x" * size


def test_more_is_refused() -> None:
    with pytest.raises(MalformedError, match="longer than 10 bytes"):
        read_whole(io.BytesIO(b"x" * 11), 10)


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no /dev/zero here")
def test_what_has_no_end_ends() -> None:
    with Path("/dev/zero").open("rb") as file, pytest.raises(MalformedError):
        read_whole(file, 1 << 16)
