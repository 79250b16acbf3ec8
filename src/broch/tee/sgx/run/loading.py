"""An enclave in memory: what ECREATE, EADD, EEXTEND and EINIT leave behind.

The device makes the checks and the measurement (:mod:`broch.tee.sgx.build`); here is the memory
that it has measured. A TCS is the CPU's own: no code can read it. Between pages there is nothing.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broch.cpu.x86_64 import EXECUTE, READ, WRITE, Memory, Region
from broch.errors import MalformedError
from broch.tee.sgx import sgxs
from broch.tee.sgx.device import SgxDevice, SgxIdentity
from broch.tee.sgx.sgxs import PAGE, Page, Sgxs
from broch.tee.sgx.structures import Secs

LOWEST_BASE: Final = 1 << 44
# What an image may ask of the system: a thread each, and a mapping each.
MAX_THREADS: Final = 512
MAX_REGIONS: Final = 2048
_TCS: Final = struct.Struct("<8xQQIIQ8xQQ")  # flags, ossa, cssa, nssa, oentry, ofsbase, ogsbase


@dataclass(frozen=True, slots=True, kw_only=True)
class Tcs:
    """One thread's control structure. Offsets are from the enclave's base."""

    offset: int
    flags: int
    ossa: int
    nssa: int
    oentry: int
    ofsbase: int
    ogsbase: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedEnclave:
    """An enclave that EINIT has accepted. ``close`` it when nothing runs in it any more."""

    identity: SgxIdentity
    base: int
    memory: Memory  # from the base to the last page
    regions: tuple[Region, ...]  # rising; pages with the same rights side by side
    threads: tuple[Tcs, ...]  # as in the stream: the first is the main thread's

    @property
    def secs(self) -> Secs:
        """What the CPU keeps of it."""
        return self.identity.secs

    def rights(self, address: int, size: int) -> int:
        """The rights that code has to all of these bytes; 0 if it has none to some of them."""
        found, at = READ | WRITE | EXECUTE, address
        for region in self.regions:
            if region.address <= at < region.address + region.size:
                found &= region.rights
                at = region.address + region.size
                if at >= address + size:
                    return found
        return 0

    def read(self, address: int, size: int) -> bytes:
        """Bytes of the enclave, which must be there."""
        start = address - self.base
        return self.memory.view[start : start + size]

    def write(self, address: int, data: bytes) -> None:
        """Change bytes of the enclave, which must be there."""
        start = address - self.base
        self.memory.view[start : start + len(data)] = data

    def close(self) -> None:
        """Give its memory back."""
        self.memory.close()


def load(stream: bytes, signature: bytes, device: SgxDevice) -> LoadedEnclave:
    """Load an enclave as the hardware would.

    Raises:
        DecodeError: not an SGXS stream with a size, or not a SIGSTRUCT.
        MalformedError: no thread, or more threads or regions than can be run here.
        SgxError: the hardware's refusal.
    """
    parsed = Sgxs.from_bytes(stream)
    identity = device.launch(parsed, signature)
    threads = tuple(_tcs(page) for page in parsed.pages if _is_tcs(page))
    if not threads:
        raise MalformedError(
            "the enclave has no thread (TCS), so nothing in it can run",
            hint="convert it with --threads 1 or more",
        )
    if len(threads) > MAX_THREADS:
        raise MalformedError(
            f"the enclave has {len(threads)} threads (TCS); {MAX_THREADS} can be run",
            hint="convert it with fewer --threads",
        )
    base = max(LOWEST_BASE, identity.secs.size)  # aligned to its size, as ECREATE wants it
    memory = Memory(parsed.pages[-1].offset + PAGE, "broch-enclave")
    for page in parsed.pages:
        if page.data is not sgxs.ZEROS and not _is_tcs(page):
            memory.view[page.offset : page.offset + PAGE] = page.data
    regions = tuple(_regions(parsed.pages, base, memory))
    if len(regions) > MAX_REGIONS:
        memory.close()
        raise MalformedError(
            f"the rights of the enclave's pages change {len(regions)} times from page to page; "
            f"{MAX_REGIONS} times can be run",
            hint="put pages with the same rights side by side",
        )
    return LoadedEnclave(
        identity=identity,
        base=base,
        memory=memory,
        regions=regions,
        threads=threads,
    )


def _is_tcs(page: Page) -> bool:
    return page.flags & sgxs.PT_MASK == sgxs.PT_TCS


def _tcs(page: Page) -> Tcs:
    flags, ossa, _, nssa, oentry, ofsbase, ogsbase = _TCS.unpack_from(page.data)
    return Tcs(
        offset=page.offset,
        flags=flags,
        ossa=ossa,
        nssa=nssa,
        oentry=oentry,
        ofsbase=ofsbase,
        ogsbase=ogsbase,
    )


def _regions(pages: tuple[Page, ...], base: int, memory: Memory) -> Iterator[Region]:
    start = end = rights = 0
    for page in pages:
        if page.offset == end and page.flags & 7 == rights and not _is_tcs(page):
            end += PAGE
            continue
        if rights:
            yield _region(start, end, rights, base, memory)
        start, end = page.offset, page.offset + PAGE
        rights = 0 if _is_tcs(page) else page.flags & 7
    if rights:
        yield _region(start, end, rights, base, memory)


def _region(start: int, end: int, rights: int, base: int, memory: Memory) -> Region:
    # SECINFO and Region number R, W and X alike.
    return Region(
        address=base + start, size=end - start, rights=rights, memory=memory, offset=start
    )
