"""An enclave out of raw files, as ``sgxs-build`` makes it: ``rw=FILE ... tcs=nssa:N ...``.

Parts follow each other from offset 0, each on its own pages, all measured. A thread is a TCS page
(OENTRY 0, bases 0, limits of one page) and its SSA frames, zeros. The enclave's size is the next
power of two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from broch.errors import UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.convert import (
    MAX_SIZE,
    READ_WRITE,
    measured_pages,
    power_of_two,
    tcs_page,
)
from broch.tee.sgx.sgxs import PAGE, Create

RIGHTS: Final = {
    "r": sgxs.PT_REG | sgxs.R,
    "rw": sgxs.PT_REG | sgxs.R | sgxs.W,
    "rx": sgxs.PT_REG | sgxs.R | sgxs.X,
    "rwx": sgxs.PT_REG | sgxs.R | sgxs.W | sgxs.X,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blob:
    """A file as it is."""

    flags: int  # SECINFO.flags
    data: bytes

    def pages(self, ssaframesize: int) -> int:
        """How many it takes."""
        return -(-len(self.data) // PAGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Thread:
    """A TCS and its SSA frames."""

    nssa: int

    def pages(self, ssaframesize: int) -> int:
        """How many it takes."""
        return 1 + self.nssa * ssaframesize


def build(parts: Sequence[Blob | Thread], *, ssaframesize: int = 1) -> Iterator[bytes]:
    """The stream, piece by piece.

    Raises:
        UsageError: no parts, numbers that do not fit, or an enclave larger than Broch handles.
    """
    size = PAGE * sum(part.pages(ssaframesize) for part in parts)
    if not 1 <= ssaframesize < 2**32:
        raise UsageError(f"ssaframesize={ssaframesize}: an SSA frame has at least one page")
    if any(isinstance(part, Thread) and not 0 <= part.nssa < 2**32 for part in parts):
        raise UsageError("nssa has 32 bits")
    if not 0 < size <= MAX_SIZE:
        raise UsageError(f"the parts take {size} bytes; expected 1 to 0x{MAX_SIZE:x}")
    return _stream(parts, ssaframesize, size)


def _stream(parts: Sequence[Blob | Thread], ssaframesize: int, size: int) -> Iterator[bytes]:
    yield sgxs.create_record(Create(ssaframesize=ssaframesize, size=power_of_two(size)))
    offset = 0
    for part in parts:
        length = part.pages(ssaframesize) * PAGE
        if isinstance(part, Blob):
            yield from measured_pages(offset, length, part.flags, part.data)
        else:
            tcs = tcs_page(ossa=offset + PAGE, nssa=part.nssa, oentry=0)
            yield from measured_pages(offset, PAGE, sgxs.PT_TCS, tcs)
            yield from measured_pages(offset + PAGE, length - PAGE, READ_WRITE, b"")
        offset += length
