"""What a panic left behind, in words."""

import pytest

from broch.tee.sgx.run import explain
from broch.tee.sgx.run.leaves import Leaf


@pytest.mark.parametrize(
    ("left", "message", "hint"),
    [
        (b"", "Enclave panicked.", "--debug"),
        (b"why", "Enclave panicked: why", None),
        (b"why\0and not this", "Enclave panicked: why", None),
        ("größe".encode(), "Enclave panicked: größe", None),
        (b"\xff\xfe", r"Enclave panicked: b'\xff\xfe'", None),
        (
            b"memory allocation of 1073741824 bytes failed",
            "Enclave panicked: memory allocation of 1073741824 bytes failed",
            "--heap-size",
        ),
        (b"Out of memory", "Enclave panicked: Out of memory", "--heap-size"),
        (
            b"failed to spawn thread: Os { code: 11, kind: WouldBlock }",
            "Enclave panicked: failed to spawn thread: Os { code: 11, kind: WouldBlock }",
            "--threads",
        ),
    ],
)
def test_panics(left: bytes, message: str, hint: str | None) -> None:
    shown, suggested = explain.panic(left.ljust(1024, b"\0"))
    assert shown == message
    assert (hint is None) == (suggested is None)
    assert (hint or "") in (suggested or "")


def test_a_full_buffer_has_no_end() -> None:
    assert explain.panic(b"x" * 1024)[0] == "Enclave panicked: " + "x" * 1024


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (Leaf.EENTER, "EENTER inside an enclave"),
        (Leaf.ERESUME, "ERESUME inside an enclave"),
        (Leaf.EMODPE, "EMODPE: this CPU does not have it"),
        (77, "leaf 77: this CPU does not have it"),
    ],
)
def test_leaves(number: int, said: str) -> None:
    assert said in str(explain.leaf(number))
