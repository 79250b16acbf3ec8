"""What an ELF file must have to become a Fortanix EDP enclave, checked in the upstream order.

1. 64-bit x86-64.
2. The note ``toolchain-version``, at most 1.
3. In ``.dynsym``: nothing undefined, and the symbols that the converter fills in.
4. PT_DYNAMIC without a PLT, constructors, destructors, or relocations with implicit addends.
5. Only R_X86_64_RELATIVE relocations, into writable segments, as many as DT_RELACOUNT says.
6. Sections ``.eh_frame``, ``.eh_frame_hdr`` and ``.text``.
7. Segments: at least one, none executable at address 0, no page in two of them.
"""

from dataclasses import dataclass
from typing import Final

from broch.errors import MalformedError
from broch.tee.sgx import elf as elf_
from broch.tee.sgx.elf import Elf, Section, Segment, Symbol

NOTE: Final = ".note.x86_64-fortanix-unknown-sgx"
MAX_TOOLCHAIN: Final = 1
PAGE: Final = 4096
_U64: Final = 8  # bytes

# Symbol -> size in bytes. The entry point's size does not matter.
MANDATORY: Final = {
    "sgx_entry": None,
    **dict.fromkeys(("HEAP_BASE", "HEAP_SIZE", "RELA", "RELACOUNT"), _U64),
    **dict.fromkeys(("ENCLAVE_SIZE", "CFGDATA_BASE"), _U64),
    "DEBUG": 1,
    **dict.fromkeys(("TEXT_BASE", "TEXT_SIZE"), _U64),
}
EH_OLD: Final = ("EH_FRM_HDR_BASE", "EH_FRM_HDR_SIZE")
EH_NEW: Final = ("EH_FRM_OFFSET", "EH_FRM_LEN", "EH_FRM_HDR_OFFSET", "EH_FRM_HDR_LEN")

_DT_RELA: Final = 7
_DT_RELACOUNT: Final = 0x6FFFFFF9
_FORBIDDEN: Final = {
    **dict.fromkeys((2, 20, 23), "a PLT"),
    **dict.fromkeys((12, 25, 27), "constructors (.init, .init_array)"),
    **dict.fromkeys((13, 26, 28), "destructors (.fini, .fini_array)"),
    **dict.fromkeys((17, 18, 19, 0x6FFFFFFA), "relocations with implicit addends (.rel)"),
}
_DYNAMIC_HINTS: Final = {
    "a PLT": "link statically, with -Bstatic and all symbols protected or hidden, so that no "
    "call goes through a PLT",
    "constructors (.init, .init_array)": "nothing runs before sgx_entry: remove functions marked "
    "as constructors, and C++ objects that are global",
    "destructors (.fini, .fini_array)": "nothing runs at exit: remove functions marked as "
    "destructors, and C++ objects that are global",
    "relocations with implicit addends (.rel)": "link with -z rela",
}
_BUILD: Final = "build for the Rust target x86_64-fortanix-unknown-sgx, or link its start file"
_RELATIVE: Final = 8  # R_X86_64_RELATIVE with symbol 0, as one 64-bit number


@dataclass(frozen=True, slots=True, kw_only=True)
class EnclaveElf:
    """An ELF file that obeys every rule."""

    elf: Elf
    symbols: dict[str, Symbol]
    rela: int  # address of the relocations; 0 if there are none
    relacount: int
    eh_frame: Section
    eh_frame_hdr: Section
    text: Section


def check(data: bytes) -> EnclaveElf:
    """Read an ELF file and check every rule.

    Raises:
        DecodeError: not an ELF file, or cut short.
        MalformedError: a rule does not hold; the hint says how to get it right.
    """
    elf = Elf.from_bytes(data)  # (1)
    _check_note(elf)  # (2)
    symbols = _check_symbols(elf)  # (3)
    rela, relacount = _check_dynamic(elf)  # (4)
    _check_relocations(elf, relacount)  # (5)
    sections = [_find_section(elf, name) for name in (".eh_frame", ".eh_frame_hdr", ".text")]  # (6)
    _check_segments(elf)  # (7)
    return EnclaveElf(
        elf=elf,
        symbols=symbols,
        rela=rela,
        relacount=relacount,
        eh_frame=sections[0],
        eh_frame_hdr=sections[1],
        text=sections[2],
    )


def _wrong(problem: str, hint: str) -> MalformedError:
    return MalformedError(problem, place="elf", hint=hint)


def _check_note(elf: Elf) -> None:
    section = elf.section(NOTE)
    if section is None:
        raise _wrong(
            f"there is no section {NOTE}",
            f"{_BUILD}; if it was there, it was stripped: llvm-strip -s removes it, GNU strip and "
            "--strip-debug keep it",
        )
    if section.type != elf_.SHT_NOTE:
        raise _wrong(f"section {NOTE} has type {section.type}, not SHT_NOTE (7)", _BUILD)
    name, desc = elf.note(section)
    if name != b"toolchain-version":
        raise _wrong(f"the note in {NOTE} is {elf_.show(name)!r}, not 'toolchain-version'", _BUILD)
    if len(desc) != 4:
        raise _wrong(f"toolchain-version has {len(desc)} bytes, expected 4", _BUILD)
    version = int.from_bytes(desc, "little")
    if version > MAX_TOOLCHAIN:
        raise _wrong(
            f"toolchain-version is {version}; known are those up to {MAX_TOOLCHAIN}",
            "build with an older toolchain, or get a newer Broch",
        )


def _check_symbols(elf: Elf) -> dict[str, Symbol]:
    table = elf.section(".dynsym")
    if table is None:
        raise _wrong(
            "there is no section .dynsym", "link with -pie, and export with a dynamic list"
        )
    if table.type != elf_.SHT_DYNSYM:
        raise _wrong(f".dynsym has type {table.type}, not SHT_DYNSYM (11)", "link anew")
    known = {*MANDATORY, *EH_OLD, *EH_NEW}
    found: dict[str, Symbol] = {}
    for symbol in elf.symbols(table):
        if symbol.shndx == 0:
            raise _wrong(
                f"undefined dynamic symbol {symbol.name}",
                "there is no dynamic linker in an enclave: link the library that has it statically",
            )
        if symbol.name not in known:
            continue
        if symbol.name in found:
            raise _wrong(f"dynamic symbol {symbol.name} is there twice", "link one start file only")
        found[symbol.name] = symbol
    missing = [name for name in MANDATORY if name not in found]
    if missing:
        raise _wrong(
            f"dynamic symbols are missing: {', '.join(missing)}",
            f"{_BUILD}, and export them with --dynamic-list; stripping must keep .dynsym",
        )
    for name, size in MANDATORY.items():
        _check_size(found[name], size)
    if found["ENCLAVE_SIZE"].value % _U64:
        raise _wrong(
            f"ENCLAVE_SIZE is at 0x{found['ENCLAVE_SIZE'].value:x}, not on an 8-byte boundary",
            "align it to 8 in the start file: its value may be filled in later",
        )
    _check_eh_symbols(found)
    return found


def _check_size(symbol: Symbol, size: int | None) -> None:
    if size is not None and symbol.size != size:
        raise _wrong(
            f"dynamic symbol {symbol.name} has {symbol.size} bytes, expected {size}",
            f"declare it with .size {symbol.name}, {size}",
        )


def _check_eh_symbols(found: dict[str, Symbol]) -> None:
    for names in (EH_OLD, EH_NEW):
        if all(name in found for name in names):
            for name in names:
                _check_size(found[name], _U64)
            return
    raise _wrong(
        f"neither {' and '.join(EH_OLD)} nor {', '.join(EH_NEW)} are all there",
        f"{_BUILD}: without them there is no unwinding, and no panic message",
    )


def _check_dynamic(elf: Elf) -> tuple[int, int]:
    segment = next((s for s in elf.segments if s.type == elf_.PT_DYNAMIC), None)
    if segment is None:
        raise _wrong("there is no PT_DYNAMIC segment", "link with -pie --no-dynamic-linker")
    values: dict[int, int] = {}
    for tag, value in elf.dynamic(segment):
        if tag in _FORBIDDEN:
            what = _FORBIDDEN[tag]
            raise _wrong(f"dynamic entry {tag} (0x{tag:x}): {what}", _DYNAMIC_HINTS[what])
        if tag in (_DT_RELA, _DT_RELACOUNT):
            if tag in values:
                raise _wrong(f"dynamic entry {tag} (0x{tag:x}) is there twice", "link anew")
            values[tag] = value
    if len(values) == 1:
        raise _wrong(
            "only one of DT_RELA and DT_RELACOUNT is there",
            "link with -z combreloc, which both GNU ld and lld do by default",
        )
    return values.get(_DT_RELA, 0), values.get(_DT_RELACOUNT, 0)


def _check_relocations(elf: Elf, relacount: int) -> None:
    writable = [s for s in elf.loads() if s.flags & elf_.PF_W]
    count = 0
    for section in elf.sections:
        if section.type != elf_.SHT_RELA:
            continue
        content = elf.content(section)
        if len(content) % elf_.RELA.size:
            raise _wrong(
                f"{elf_.show(section.name)} is no whole number of relocations", "link anew"
            )
        count += len(content) // elf_.RELA.size
        if count * elf_.RELA.size > len(elf.data):
            raise _wrong("sections of relocations overlap in the file", "link anew")
        _check_rela(content, writable)
    if count != relacount:
        raise _wrong(
            f"DT_RELACOUNT is {relacount}, and there are {count} relocations",
            "sections of relocations for the linker were left in (--emit-relocs), or a relocation "
            "is not relative: link with -z combreloc and without --emit-relocs",
        )


def _check_rela(content: bytes, writable: list[Segment]) -> None:
    ranges = [(s.vaddr, s.end - 8) for s in writable]
    for offset, info, _ in elf_.RELA.iter_unpack(content):
        if info != _RELATIVE:
            raise _wrong(
                f"relocation at 0x{offset:x} has type {info & 0xFFFFFFFF} and symbol {info >> 32}; "
                "only R_X86_64_RELATIVE (8) without a symbol is applied",
                "link with -pie -Bstatic, so that no symbol is left to be looked up",
            )
        if not any(start <= offset <= last for start, last in ranges):
            raise _wrong(
                f"relocation at 0x{offset:x} is not inside a writable segment",
                "link with -z text -z norelro, and keep pointers out of read-only sections",
            )


def _find_section(elf: Elf, name: str) -> Section:
    section = elf.section(name)
    if section is None:
        hint = {
            ".text": "the code must be in one section named .text",
            ".eh_frame": "compile with -fasynchronous-unwind-tables, and do not strip .eh_frame",
            ".eh_frame_hdr": "link with --eh-frame-hdr",
        }[name]
        raise _wrong(f"there is no section {name}", hint)
    return section


def _check_segments(elf: Elf) -> None:
    loads = elf.loads()
    if not loads:
        raise _wrong("there is no PT_LOAD segment", "link anew: there is nothing to load")
    end = 0
    for segment in loads:
        if segment.vaddr < PAGE and segment.flags & elf_.PF_X:
            raise _wrong(
                "the first page of the enclave is executable (load value injection)",
                "link with -z separate-code, so that the headers get a segment of their own",
            )
        if segment.memsz and segment.vaddr // PAGE * PAGE < end:
            raise _wrong(
                f"the segment at 0x{segment.vaddr:x} begins on a page of the one before it",
                "link with -z separate-code -z max-page-size=4096: a page has one set of rights",
            )
        end = max(end, -(-segment.end // PAGE) * PAGE)
