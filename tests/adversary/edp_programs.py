"""The modules in C that adversaries are let at: their calls by number, and how they are built."""

from functools import cache
from pathlib import Path

import pytest

from broch.errors import UsageError
from broch.image import toolchain
from broch.tee.sgx import compiling, convert

HEAP = 0x10000
SECRET = (0x5EC4E7C0FFEE5EC4).to_bytes(8, "little")
(ECHO, OCALL, REPORT, SEAL_KEY, RANDOM, READ, WRITE, HEAP_TEST, FREE_TWICE, SECRETS, SMASH) = range(
    1, 12
)
(PRINTF, NAMES, ILLEGAL, WHERE, CONNECT, TIME, STATE, TARGETINFO, SHORT_REPLY) = range(12, 21)
(FREE_STACK, STACK, OCALL_NUMBER, QUOTE) = range(21, 25)


@cache
def stream(name: str, *, library: bool, debug: bool = True) -> bytes:
    try:
        toolchain.find("x86_64")
    except UsageError as exc:
        pytest.skip(str(exc))
    source = Path(__file__).parent / name
    elf = compiling.compile_and_link([source], library=library)
    options = convert.Options(
        heap_size=HEAP, stack_size=0x8000, threads=2, debug=debug, library=library
    )
    return b"".join(convert.convert(elf, options))
