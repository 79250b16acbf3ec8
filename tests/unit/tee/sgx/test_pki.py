"""The chain of trust of a device: made once, kept, remade only for a reason."""

from datetime import timedelta

import cbor2
import pytest

from broch.tee.sgx import pki
from broch.tee.sgx.pki import NAME, Pki, load_or_issue

from .support import NOW, SECRET, Memory, settings


def derive(label: str, size: int) -> bytes:
    return label.encode().ljust(size, b"\0")[:size]


def issue(memory: Memory, **changes: object) -> Pki:
    chosen = settings(memory=memory, **changes)  # type: ignore[arg-type]  # secret or now
    return load_or_issue(chosen, cpusvn=bytes(16), derive=derive)


def test_it_is_issued_once() -> None:
    memory = Memory()
    first = issue(memory)
    assert memory.writes == 1
    assert issue(memory) == first
    assert issue(memory, now=NOW + timedelta(days=1800)) == first
    assert memory.writes == 1


def test_it_round_trips() -> None:
    made = issue(Memory())
    assert Pki.from_bytes(made.to_bytes()) == made


@pytest.mark.parametrize("days", [-1, 1827])
def test_it_is_renewed_when_old_or_ahead_of_the_clock(days: int) -> None:
    memory = Memory()
    first = issue(memory)
    renewed = issue(memory, now=NOW + timedelta(days=days))
    assert renewed.anchor != first.anchor
    assert memory.get(NAME) == renewed.to_bytes()


def test_that_of_another_secret_is_not_used() -> None:
    memory = Memory()
    first = load_or_issue(settings(memory=memory), cpusvn=bytes(16), derive=derive)
    other = load_or_issue(
        settings(memory=memory, secret=bytes(32)),
        cpusvn=bytes(16),
        derive=lambda label, size: derive("other " + label, size),
    )
    assert other.anchor != first.anchor


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\xff",
        cbor2.dumps(1),
        cbor2.dumps({"format": 1}),
        cbor2.dumps({"format": 2}),
        cbor2.dumps([[[[[[[[]]]]]]]]),
    ],
)
def test_what_cannot_be_read_is_made_anew(stored: bytes) -> None:
    memory = Memory()
    memory.put(NAME, stored)
    made = issue(memory)
    assert memory.get(NAME) == made.to_bytes()


def test_trailing_bytes_are_not_accepted() -> None:
    assert Pki.from_bytes(issue(Memory()).to_bytes() + b"\0") is None


def test_keys_are_functions_of_the_secret() -> None:
    numbers = pki.make_pck_key(SECRET).private_numbers()
    assert numbers == pki.make_pck_key(SECRET).private_numbers()
    assert numbers != pki.make_pck_key(bytes(32)).private_numbers()
