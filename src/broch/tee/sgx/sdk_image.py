"""Enclaves signed by Intel's SDK (``sgx_sign``): the stream that their loader makes of them.

Section ``.note.sgxmeta`` of the shared object holds one metadata block for each loader version:

    offset  size  field                      offset  size  field
    0       8     magic                      48      16    attributes
    8       8     version, major << 32       64      1808  SIGSTRUCT
    16      4     size of the block          1872    8     patches: offset, size in the block
    24      4     ssa_frame_size, pages      1880    8     layout: the same
    40      8     enclave_size, bytes        1888    8     ELRANGE: the same, majors 11 and above

    patch, 32 bytes          0 destination in the file u64, 8 source in the block u32, 12 size u32
    layout entry, 32 bytes   0 id u16, 2 attributes u16, 4 pages u32, 8 address u64,
                             16 content size u32, 20 content offset u32, 24 SECINFO.flags u64
    layout group, 32 bytes   0 id | 0x1000 u16, 2 entries u16, 4 times u32, 8 step u64
    ELRANGE, 24 bytes        0 address of the image, 8 start of the range, 16 size of the range

First come the PT_LOAD segments of the patched file, measured, then the layout. A group repeats the
entries before it, each time a step further. Bit 0 of an entry's attributes adds it, bit 1 measures
it. Content at offset 0 with a size is a 32-bit number that fills the pages. The addresses in a TCS
are relative to it.
"""

import hashlib
import itertools
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from broch.errors import DecodeError, MalformedError
from broch.tee.sgx import elf as elf_
from broch.tee.sgx import sgxs
from broch.tee.sgx.convert import MAX_SIZE
from broch.tee.sgx.elf import Elf, Segment
from broch.tee.sgx.sgxs import PAGE, Create, Page
from broch.tee.sgx.sigstruct import SIZE as SIGSTRUCT_SIZE
from broch.tee.sgx.sigstruct import Sigstruct

SECTION: Final = ".note.sgxmeta"
MAGIC: Final = struct.pack("<Q", 0x86A80294635D0E4C)
MAX_BLOCKS: Final = 16
MAX_BLOCK: Final = 1 << 20  # bytes; the largest known has 20480
_HEAD: Final = struct.Struct("<8sQI4xI12xQ16x")
_SIGSTRUCT_AT: Final = 64
_DIRECTORY_AT: Final = _SIGSTRUCT_AT + SIGSTRUCT_SIZE
_DIRECTORY: Final = struct.Struct("<IIII")
_ELRANGE_ENTRY: Final = struct.Struct("<QQQ")
_PATCH: Final = struct.Struct("<QII16x")
_ENTRY: Final = struct.Struct("<HHIQIIQ")
_GROUP: Final = struct.Struct("<HHIQ16x")
_GROUP_FLAG: Final = 0x1000
_EADD: Final = 1
_EEXTEND: Final = 2
_VERSION_1_3: Final = 1 << 32 | 3
_ELRANGE_MAJOR: Final = 11
_DT_TEXTREL: Final = 22
_TCS_BASES: Final = (16, 48, 56)  # OSSA, OFSBASGX, OGSBASGX


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One metadata block."""

    version: str  # "2.4"
    sigstruct: Sigstruct
    mrenclave: bytes  # 32, of the stream that was rebuilt

    @property
    def matches(self) -> bool:
        """Whether what was rebuilt is what was signed."""
        return self.sigstruct.enclavehash == self.mrenclave


class _Metadata(NamedTuple):
    version: int
    ssaframesize: int
    size: int
    shift: int  # of the image in ELRANGE, bytes
    raw: bytes

    def part(self, offset: int, size: int, what: str) -> bytes:
        if offset + size > len(self.raw):
            raise DecodeError(
                min(offset, len(self.raw)), f"{what} reaches beyond the metadata", what="sgxmeta"
            )
        return self.raw[offset : offset + size]


def is_elf(data: bytes) -> bool:
    """Whether this is an ELF file at all."""
    return data[:4] == b"\x7fELF"


def read(data: bytes) -> list[Block]:
    """Rebuild and measure the enclave for every metadata block.

    Raises:
        DecodeError: not an ELF file, or metadata that cannot be read.
        MalformedError: it was not signed by Intel's SDK, or needs text relocations.
    """
    return [
        Block(
            version=f"{found.version >> 32}.{found.version & 0xFFFFFFFF}",
            sigstruct=Sigstruct.from_bytes(found.part(_SIGSTRUCT_AT, SIGSTRUCT_SIZE, "SIGSTRUCT")),
            mrenclave=_measure(data, found),
        )
        for found in _find(data)
    ]


def streams(data: bytes) -> list[Iterator[bytes]]:
    """The SGXS stream of every metadata block, piece by piece.

    Raises:
        DecodeError: not an ELF file, or metadata that cannot be read.
        MalformedError: it was not signed by Intel's SDK, or needs text relocations.
    """
    return [_stream(data, found) for found in _find(data)]


def _measure(data: bytes, metadata: _Metadata) -> bytes:
    digest = hashlib.sha256()
    for piece in _stream(data, metadata):
        digest.update(piece)
    return digest.digest()


def _find(data: bytes) -> list[_Metadata]:
    elf = Elf.from_bytes(data)
    section = elf.section(SECTION)
    if section is None:
        raise MalformedError(
            f"there is no section {SECTION}: not an enclave signed by Intel's SDK",
            place="elf",
            hint="sign it with sgx_sign; a Fortanix enclave becomes a stream by broch sgx convert",
        )
    content = elf.content(section)
    blocks: list[_Metadata] = []
    position = content.find(MAGIC)
    while 0 <= position < len(content) and content[position : position + 8] == MAGIC:
        if len(blocks) == MAX_BLOCKS:
            raise DecodeError(position, f"more than {MAX_BLOCKS} metadata blocks", what="sgxmeta")
        blocks.append(_read_metadata(content, position))
        position += len(blocks[-1].raw)
    if not blocks:
        raise DecodeError(0, "no metadata: its magic number is not there", what="sgxmeta")
    return blocks


def _read_metadata(content: bytes, position: int) -> _Metadata:
    if position + _HEAD.size > len(content):
        raise DecodeError(position, "metadata is cut short", what="sgxmeta")
    _, version, length, ssaframesize, size = _HEAD.unpack_from(content, position)
    least = _DIRECTORY_AT + _DIRECTORY.size
    if not least <= length <= min(MAX_BLOCK, len(content) - position):
        raise DecodeError(position + 16, f"a metadata block of {length} bytes", what="sgxmeta")
    raw = content[position : position + length]
    shift = 0
    if version >> 32 >= _ELRANGE_MAJOR:
        size, shift = _read_elrange(raw)
    return _Metadata(version, ssaframesize, size, shift, raw)


def _read_elrange(raw: bytes) -> tuple[int, int]:
    """(Size of the enclave, where in it the image begins)."""
    at = _DIRECTORY_AT + _DIRECTORY.size
    offset = int.from_bytes(raw[at : at + 4], "little")
    if offset + _ELRANGE_ENTRY.size > len(raw):
        raise DecodeError(at, "ELRANGE reaches beyond the metadata", what="sgxmeta")
    image, start, size = _ELRANGE_ENTRY.unpack_from(raw, offset)
    if image < start:
        raise DecodeError(offset, "the image begins before ELRANGE", what="sgxmeta")
    return size, image - start


def _stream(data: bytes, metadata: _Metadata) -> Iterator[bytes]:
    elf = Elf.from_bytes(data)
    _refuse_text_relocations(elf)
    create = Create(ssaframesize=metadata.ssaframesize, size=metadata.size)
    yield sgxs.create_record(create)
    patch_at, patch_size, layout_at, layout_size = _DIRECTORY.unpack_from(
        metadata.raw, _DIRECTORY_AT
    )
    patched = _apply_patches(data, metadata, metadata.part(patch_at, patch_size, "patches"))
    layout = metadata.part(layout_at, layout_size, "layout")
    pages = itertools.chain(_segments(elf, patched, metadata), _layout(layout, metadata))
    for count, page in enumerate(pages):
        if count >= sgxs.MAX_PAGES:
            raise DecodeError(layout_at, f"more than {sgxs.MAX_PAGES} pages", what="sgxmeta")
        yield sgxs.page_records(page._replace(offset=page.offset + metadata.shift))


def _refuse_text_relocations(elf: Elf) -> None:
    for segment in elf.segments:
        tags = elf.dynamic(segment) if segment.type == elf_.PT_DYNAMIC else []
        if any(tag == _DT_TEXTREL for tag, _ in tags):
            raise MalformedError(
                "the enclave has text relocations, which make pages of code writable",
                place="elf",
                hint="compile everything with -fPIC, link with -z text, and sign it again",
            )


def _apply_patches(data: bytes, metadata: _Metadata, patches: bytes) -> bytes:
    if len(patches) % _PATCH.size:
        raise DecodeError(_DIRECTORY_AT, "patches are cut short", what="sgxmeta")
    patched = bytearray(data)
    for target, source, size in _PATCH.iter_unpack(patches):
        if target + size > len(patched):
            raise DecodeError(source, "a patch reaches beyond the file", what="sgxmeta")
        patched[target : target + size] = metadata.part(source, size, "a patch")
    return bytes(patched)


def _segments(elf: Elf, patched: bytes, metadata: _Metadata) -> Iterator[Page]:
    loads = elf.loads()
    for index, segment in enumerate(loads):
        flags = sgxs.PT_REG
        for bit, right in ((elf_.PF_R, sgxs.R), (elf_.PF_W, sgxs.W), (elf_.PF_X, sgxs.X)):
            flags |= right if segment.flags & bit else 0
        content = patched[segment.offset : segment.offset + segment.filesz]
        yield from _region(segment.vaddr, segment.memsz, flags, content)
        following = loads[index + 1] if index + 1 < len(loads) else None
        if metadata.version == _VERSION_1_3 and _has_extra_page(segment, following):
            yield _page(_up(segment.end), flags, sgxs.ZEROS, measured=True)


def _has_extra_page(segment: Segment, following: Segment | None) -> bool:
    """A quirk of the first loader: it rounds the size up before it adds the address."""
    if _up(segment.end) >= _up(_up(segment.memsz) + segment.vaddr):
        return False
    return following is None or _up(segment.end) < following.vaddr // PAGE * PAGE


def _region(address: int, size: int, flags: int, content: bytes) -> Iterator[Page]:
    """Measured pages from the one that ``address`` is in; zeros after the content."""
    begin = address // PAGE * PAGE
    lead = address - begin
    if size > MAX_SIZE:
        raise DecodeError(0, f"a region of 0x{size:x} bytes", what="sgxmeta")
    for offset in range(begin, _up(address + size), PAGE):
        here = offset - begin
        data = bytes(lead) + content[: PAGE - lead] if here == 0 else b""
        data = data or content[here - lead : here - lead + PAGE]
        yield _page(offset, flags, data.ljust(PAGE, b"\0"), measured=True)


def _layout(layout: bytes, metadata: _Metadata) -> Iterator[Page]:
    if len(layout) % _ENTRY.size:
        raise DecodeError(_DIRECTORY_AT + 8, "the layout is cut short", what="sgxmeta")
    entries = [layout[at : at + _ENTRY.size] for at in range(0, len(layout), _ENTRY.size)]
    budget = [sgxs.MAX_PAGES]  # steps, so that empty groups end as well
    for index, raw in enumerate(entries):
        identity, count, times, step = _GROUP.unpack(raw)
        if not identity & _GROUP_FLAG:
            yield from _entry(raw, 0, metadata, budget)
            continue
        group = entries[max(index - count, 0) : index]
        if len(group) != count or any(_is_group(entry) for entry in group):
            raise DecodeError(
                index * _ENTRY.size, f"a group of {count} entries", what="sgxmeta layout"
            )
        for repeat in range(1, times + 1):
            _spend(budget, 1)
            for entry in group:
                yield from _entry(entry, repeat * step, metadata, budget)


def _is_group(entry: bytes) -> bool:
    return bool(int.from_bytes(entry[:2], "little") & _GROUP_FLAG)


def _spend(budget: list[int], steps: int) -> None:
    budget[0] -= steps
    if budget[0] < 0:
        raise DecodeError(0, f"a layout of more than {sgxs.MAX_PAGES} pages", what="sgxmeta")


def _entry(raw: bytes, delta: int, metadata: _Metadata, budget: list[int]) -> Iterator[Page]:
    _, attributes, pages, address, size, offset, flags = _ENTRY.unpack(raw)
    _spend(budget, 1)
    if not flags or not attributes & _EADD:
        return
    _spend(budget, pages)
    address += delta
    if address % PAGE or address + pages * PAGE >= 1 << 63:
        raise DecodeError(8, f"a layout entry at 0x{address:x}", what="sgxmeta")
    if not offset:
        data = struct.pack("<I", size) * (PAGE // 4)
    elif flags & sgxs.PT_MASK == sgxs.PT_TCS:
        data = _tcs(metadata.part(offset, min(size, PAGE), "a TCS"), address)
    else:
        content = metadata.part(offset, size, "the content of an entry")
        yield from _region(address, pages * PAGE, flags, content)
        return
    measured = bool(attributes & _EEXTEND)
    for index in range(pages):
        yield _page(address + index * PAGE, flags, data, measured=measured)


def _tcs(content: bytes, address: int) -> bytes:
    page = bytearray(content.ljust(PAGE, b"\0"))
    for at in _TCS_BASES:
        value = int.from_bytes(page[at : at + 8], "little") + address
        page[at : at + 8] = (value % 2**64).to_bytes(8, "little")
    return bytes(page)


def _page(offset: int, flags: int, data: bytes, *, measured: bool) -> Page:
    return Page(offset, flags, sgxs.ALL_MEASURED if measured else sgxs.NOTHING, data)


def _up(address: int) -> int:
    return -(-address // PAGE) * PAGE
