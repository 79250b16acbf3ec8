"""From an ELF file to an SGXS stream, byte for byte as ``ftxsgx-elf2sgxs`` does it.

    what                  pages             type, rights   measured  content
    each PT_LOAD          from the file     REG, its own   yes       patched, zeros after the end
    heap                  heap_size         REG rw-        no        zeros
    for each thread:
      guard               64 KiB            none: unmapped
      stack               stack_size        REG rw-        no        zeros
      TLS                 1                 REG rw-        yes       u64 top of stack, u64 secondary
      TCS                 1                 TCS            yes       NSSA 1, OENTRY sgx_entry
      SSA                 ssaframesize      REG rw-        no        zeros

The enclave's size is the next power of two after the last thread; an unsized stream leaves it open,
and says instead where it will have to be written. The layout is told to the enclave by patching
the values of its symbols (HEAP_BASE, HEAP_SIZE, ...), so every option changes the measurement.
"""

import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from broch.errors import MalformedError, UsageError
from broch.tee.sgx import block, elf_rules, sgxs
from broch.tee.sgx import elf as elf_
from broch.tee.sgx.elf import Segment
from broch.tee.sgx.elf_rules import EnclaveElf
from broch.tee.sgx.sgxs import PAGE, Create, Page

GUARD: Final = 0x10000  # bytes, unmapped, below each stack
NSSA: Final = 1
MAX_SIZE: Final = sgxs.MAX_PAGES * PAGE  # bytes of enclave memory
READ_WRITE: Final = sgxs.PT_REG | sgxs.R | sgxs.W
_TLS: Final = struct.Struct("<QQQQ")
_TCS: Final = struct.Struct("<QQQIIQQQQII")
_NOP: Final = b"\x90"

_Content = bytes | bytearray | memoryview


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How to lay an enclave out. Sizes are in bytes, whole pages."""

    heap_size: int
    stack_size: int  # a thread
    threads: int = 1
    ssaframesize: int = 1  # pages
    debug: bool = False
    library: bool = False  # called by its host; no thread is the main one
    sized: bool = True

    def __post_init__(self) -> None:
        """Refuse what cannot be laid out; raises :class:`UsageError`."""
        for what, value in (("heap size", self.heap_size), ("stack size", self.stack_size)):
            if value < 0 or value % PAGE:
                near = -(-max(value, 0) // PAGE) * PAGE
                raise UsageError(
                    f"{what} 0x{value:x} is not a multiple of the page size, 0x1000",
                    hint=f"the next that is: 0x{near:x}",
                )
        for what, value in (("threads", self.threads), ("SSA frame size", self.ssaframesize)):
            if value < 1:
                raise UsageError(f"{what}: {value}; an enclave needs at least 1")
        if self.ssaframesize >= 2**32:
            raise UsageError(f"SSA frame size: {self.ssaframesize} pages; it has 32 bits")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where everything is, in bytes from the enclave's base."""

    heap: int
    threads: int  # the first thread's guard
    thread_size: int
    end: int  # of all that is mapped; configuration data may be appended here

    @property
    def size(self) -> int:
        """Of a sized enclave: the next power of two."""
        return power_of_two(self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Patch:
    """Bytes to be put at an address."""

    name: str
    address: int
    value: bytes
    removable: bool = False  # cut off if it ends its segment

    @property
    def end(self) -> int:
        return self.address + len(self.value)


def power_of_two(size: int) -> int:
    """The least power of two that is not below ``size``."""
    return 1 << max(size - 1, 0).bit_length()


def convert(data: bytes, options: Options) -> Iterator[bytes]:
    """The stream of an ELF file, piece by piece; all checks are made before the first piece.

    Raises:
        DecodeError: not an ELF file, or cut short.
        MalformedError: an ELF file that cannot become an enclave; the hint says what to do.
        UsageError: an enclave larger than Broch handles.
    """
    elf = elf_rules.check(data)
    plan = plan_layout(elf, options)
    contents = _patch(elf, _patches(elf, plan, options))
    return _stream(elf, plan, contents, options)


def plan_layout(elf: EnclaveElf, options: Options) -> Plan:
    """Decide where heap and threads go.

    Raises:
        UsageError: more memory than Broch handles.
    """
    heap = _up(max(segment.end for segment in elf.elf.loads()))
    threads = heap + options.heap_size
    thread_size = GUARD + options.stack_size + (2 + NSSA * options.ssaframesize) * PAGE
    end = threads + options.threads * thread_size
    if end > MAX_SIZE:
        raise UsageError(
            f"the enclave would take 0x{end:x} bytes; the limit is 0x{MAX_SIZE:x}",
            hint="lower the heap size, the stack size or the number of threads",
        )
    return Plan(heap=heap, threads=threads, thread_size=thread_size, end=end)


def _patches(elf: EnclaveElf, plan: Plan, options: Options) -> list[_Patch]:
    values = {
        "HEAP_BASE": plan.heap,
        "HEAP_SIZE": options.heap_size,
        "RELA": elf.rela,
        "RELACOUNT": elf.relacount,
        "CFGDATA_BASE": plan.end,
        "DEBUG": int(options.debug),
        "TEXT_BASE": elf.text.addr,
        "TEXT_SIZE": elf.text.size,
    }
    if all(name in elf.symbols for name in elf_rules.EH_OLD):
        values["EH_FRM_HDR_BASE"] = elf.eh_frame_hdr.addr
        values["EH_FRM_HDR_SIZE"] = elf.eh_frame_hdr.size
    else:
        values["EH_FRM_OFFSET"] = elf.eh_frame.addr
        values["EH_FRM_LEN"] = elf.eh_frame.size
        values["EH_FRM_HDR_OFFSET"] = elf.eh_frame_hdr.addr
        values["EH_FRM_HDR_LEN"] = elf.eh_frame_hdr.size
    if options.sized:
        values["ENCLAVE_SIZE"] = plan.size
    patches = [
        _Patch(
            name=name,
            address=elf.symbols[name].value,
            value=value.to_bytes(elf.symbols[name].size, "little"),
        )
        for name, value in values.items()
    ]
    unwanted = elf.elf.section(".text_no_sgx")
    if unwanted is not None and unwanted.size and unwanted.flags & elf_.SHF_ALLOC:
        size = min(unwanted.size, len(elf.elf.data))
        patches.append(
            _Patch(name=".text_no_sgx", address=unwanted.addr, value=_NOP * size, removable=True)
        )
    return sorted(patches, key=lambda patch: patch.address)


def _patch(elf: EnclaveElf, patches: list[_Patch]) -> list[_Content]:
    """What each PT_LOAD has in the file, with all patches applied."""
    for before, after in itertools.pairwise(patches):
        if before.end > after.address:
            raise MalformedError(
                f"{before.name} and {after.name} overlap at 0x{after.address:x}",
                place="elf",
                hint="give each symbol its own bytes in the start file",
            )
    contents = []
    done = 0
    whole = memoryview(elf.elf.data)
    for segment in elf.elf.loads():
        content: _Content = whole[segment.offset : segment.offset + segment.filesz]
        base = segment.vaddr // PAGE * PAGE
        for patch in patches:
            if base <= patch.address and patch.end <= segment.end:
                content = _apply(content, segment, patch)
                done += 1
        contents.append(content)
    if done != len(patches):
        _refuse_lost(elf, patches)
    return contents


def _apply(content: _Content, segment: Segment, patch: _Patch) -> _Content:
    start, end = patch.address - segment.vaddr, patch.end - segment.vaddr
    if patch.removable and patch.end == segment.end:
        return content[: max(start, 0)]
    if start < 0 or end > len(content):
        where = "before its segment" if start < 0 else "in .bss"
        raise MalformedError(
            f"{patch.name} at 0x{patch.address:x} is {where}, where the file has no bytes",
            place="elf",
            hint="put it into .rodata or .data: into a section that takes room in the file",
        )
    if not isinstance(content, bytearray):  # a copy only of segments that change
        content = bytearray(content)
    content[start:end] = patch.value
    return content


def _refuse_lost(elf: EnclaveElf, patches: list[_Patch]) -> None:
    for patch in patches:
        places = [
            s
            for s in elf.elf.loads()
            if s.vaddr // PAGE * PAGE <= patch.address and patch.end <= s.end
        ]
        if not places:
            raise MalformedError(
                f"{patch.name} at 0x{patch.address:x} is inside no PT_LOAD segment",
                place="elf",
                hint="it would never reach the enclave: put it into a section that is loaded",
            )


def _stream(
    elf: EnclaveElf, plan: Plan, contents: list[_Content], options: Options
) -> Iterator[bytes]:
    size = plan.size if options.sized else elf.symbols["ENCLAVE_SIZE"].value
    create = Create(ssaframesize=options.ssaframesize, size=size, sized=options.sized)
    yield sgxs.create_record(create)
    for segment, content in zip(elf.elf.loads(), contents, strict=True):
        yield from _segment(segment, content)
    yield from untouched_pages(plan.heap, options.heap_size)
    for index in range(options.threads):
        yield from _thread(elf, plan, index, options)


def _segment(segment: Segment, content: _Content) -> Iterator[bytes]:
    flags = sgxs.PT_REG
    for bit, right in ((elf_.PF_R, sgxs.R), (elf_.PF_W, sgxs.W), (elf_.PF_X, sgxs.X)):
        flags |= right if segment.flags & bit else 0
    # Where .text_no_sgx was cut off, so are pages that held nothing else.
    is_cut = len(content) < segment.filesz
    end = segment.vaddr + len(content) if is_cut else segment.end
    base = segment.vaddr // PAGE * PAGE
    if segment.memsz:
        yield from measured_pages(base, _up(end - base), flags, content, segment.vaddr - base)


def measured_pages(
    offset: int, size: int, flags: int, content: _Content, lead: int = 0
) -> Iterator[bytes]:
    """Records of ``size`` bytes of whole pages, all measured.

    They hold ``lead`` zeros (less than a page), the content, and then zeros.
    """
    position = 0
    while position < size:
        here, start = offset + position, position - lead
        end = start + block.DATA
        if here % block.DATA == 0 and start >= 0 and end <= min(size - lead, len(content)):
            yield block.write(here, flags, content, start)
            position += block.DATA
            continue
        page = bytes(max(-start, 0)) + bytes(content[max(start, 0) : start + PAGE])
        yield sgxs.page_records(Page(here, flags, sgxs.ALL_MEASURED, page.ljust(PAGE, b"\0")))
        position += PAGE


def untouched_pages(offset: int, size: int) -> Iterator[bytes]:
    """Records of ``size`` bytes of whole pages, readable, writable, zero and not measured."""
    for start in range(offset, offset + size, block.DATA):
        end = min(start + block.DATA, offset + size)
        yield b"".join(sgxs.add_record(page, READ_WRITE) for page in range(start, end, PAGE))


def _thread(elf: EnclaveElf, plan: Plan, index: int, options: Options) -> Iterator[bytes]:
    stack = plan.threads + index * plan.thread_size + GUARD
    tls = stack + options.stack_size
    tcs = tls + PAGE
    yield from untouched_pages(stack, options.stack_size)
    secondary = index > 0 and not options.library
    yield from measured_pages(tls, PAGE, READ_WRITE, _TLS.pack(tls, secondary, 0, 0))
    entry = elf.symbols["sgx_entry"].value
    page = tcs_page(ossa=tcs + PAGE, nssa=NSSA, oentry=entry, ofsbasgx=tls, ogsbasgx=tls)
    yield from measured_pages(tcs, PAGE, sgxs.PT_TCS, page)
    yield from untouched_pages(tcs + PAGE, NSSA * options.ssaframesize * PAGE)


def tcs_page(*, ossa: int, nssa: int, oentry: int, ofsbasgx: int = 0, ogsbasgx: int = 0) -> bytes:
    """The 72 bytes of a TCS that are not reserved, with limits of one page (SDM 3D 38.8)."""
    return _TCS.pack(0, 0, ossa, 0, nssa, oentry, 0, ofsbasgx, ogsbasgx, 0xFFF, 0xFFF)


def _up(address: int) -> int:
    return -(-address // PAGE) * PAGE
