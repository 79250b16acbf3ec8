"""Measuring a 256 MB stream and converting a 50 MB ELF file, against SHA-256 of as many bytes.

Both are made here: a stream of whole pages of random bytes, and an ELF file with one large segment
besides those that every enclave has. The stream of the conversion goes to a file in memory, as the
bytes of the hash come from memory. The two sides of a ratio are measured in turn, and the fastest
turn of each counts: what else the machine does only ever slows one of them.
"""

import hashlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path

from common import Figure, run

from broch.tee.sgx import block, measuring, sgxs
from broch.tee.sgx.convert import Options, convert
from broch.tee.sgx.sgxs import Create

STREAM = 256_000_000  # bytes
ELF = 50_000_000  # bytes
TURNS = 15
PAGE = 4096
NOTE = b".note.x86_64-fortanix-unknown-sgx"
NAMES = (
    *("HEAP_BASE", "HEAP_SIZE", "RELA", "RELACOUNT", "ENCLAVE_SIZE", "CFGDATA_BASE"),
    *("TEXT_BASE", "TEXT_SIZE", "EH_FRM_HDR_BASE", "EH_FRM_HDR_SIZE", "DEBUG", "sgx_entry"),
)


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def fastest(one: Callable[[], object], other: Callable[[], object]) -> tuple[float, float]:
    """Seconds of the fastest turn of each."""
    turns = [(seconds(one), seconds(other)) for _ in range(TURNS)]
    return min(turn[0] for turn in turns), min(turn[1] for turn in turns)


def make_stream() -> bytes:
    """Whole pages up to 256 MB, and the first record."""
    blocks = STREAM // block.STREAM
    data = os.urandom(block.DATA)
    create = Create(ssaframesize=1, size=1 << (blocks * block.DATA - 1).bit_length())
    pieces = [sgxs.create_record(create)]
    pieces += [block.write(index * block.DATA, 0x203, data) for index in range(blocks)]
    return b"".join(pieces)


def make_elf() -> bytes:
    """Everything that an enclave needs, on three pages, and code up to 50 MB."""
    code = os.urandom(ELF // PAGE * PAGE - 4 * PAGE)
    image = bytearray(2 * PAGE)
    strings = b"\0" + b"".join(name.encode() + b"\0" for name in NAMES)
    symbols = bytearray(24)
    for index, name in enumerate(NAMES):
        size = 1 if name == "DEBUG" else 8
        place = strings.index(b"\0" + name.encode() + b"\0") + 1
        symbols += struct.pack("<IBBHQQ", place, 0x11, 0, 1, 0x200 + 8 * index, size)
    image[0x400 : 0x400 + len(symbols)] = symbols
    image[0x800 : 0x800 + len(strings)] = strings
    note = struct.pack("<III", 18, 4, 1) + b"toolchain-version\0\0\0" + struct.pack("<I", 1)
    image[0xC00 : 0xC00 + len(note)] = note
    sections = {  # name -> type, address, size, link
        b".dynsym": (11, 0x400, len(symbols), 2),
        b".dynstr": (3, 0x800, len(strings), 0),
        NOTE: (7, 0xC00, len(note), 0),
        b".eh_frame": (1, 0x300, 8, 0),
        b".eh_frame_hdr": (1, 0x308, 8, 0),
        b".text": (1, 2 * PAGE, len(code), 0),
    }
    names = b"\0" + b"".join(name + b"\0" for name in sections) + b".shstrtab\0"
    image[0xD00 : 0xD00 + len(names)] = names
    headers = bytearray(64)
    rows = {**sections, b".shstrtab": (3, 0xD00, len(names), 0)}
    for title, (kind, address, size, link) in rows.items():
        at = names.index(b"\0" + title + b"\0") + 1
        headers += struct.pack("<IIQQQQIIQQ", at, kind, 2, address, address, size, link, 0, 1, 0)
    programs = b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, PAGE)
        for kind, flags, offset, size in (
            (1, 4, 0, PAGE),
            (1, 6, PAGE, PAGE),
            (1, 5, 2 * PAGE, len(code)),
            (2, 6, PAGE, 16),
        )
    )
    image[64 : 64 + len(programs)] = programs
    image += code
    image[:64] = struct.pack(
        "<16sHHIQQQIHHHHHH",
        *(b"\x7fELF\x02\x01\x01" + bytes(9), 3, 62, 1, 0, 64, len(image), 0, 64, 56, 4, 64),
        *(len(rows) + 1, len(rows)),
    )
    return bytes(image + headers)


def measure_ratio() -> float:
    """Throughput of measuring over that of hashing."""
    stream = make_stream()
    assert measuring.measure(stream) == hashlib.sha256(stream).digest()
    hashing, measuring_ = fastest(
        lambda: hashlib.sha256(stream).digest(), lambda: measuring.measure(stream)
    )
    return hashing / measuring_


def convert_ratio() -> float:
    """Time to convert over time to hash as many bytes."""
    elf = make_elf()
    options = Options(heap_size=1 << 20, stack_size=1 << 16)
    folder = Path("/dev/shm")  # memory, not a disk
    path = folder if folder.is_dir() else Path.cwd()
    path = path / f"broch-bench-{os.getpid()}.sgxs"

    def write() -> None:
        with path.open("r+b", buffering=0) as file:
            for piece in convert(elf, options):
                file.write(piece)

    path.touch()
    try:
        write()
        hashing, converting = fastest(lambda: hashlib.sha256(elf).digest(), write)
    finally:
        path.unlink()
    return converting / hashing


def figures() -> list[Figure]:
    """Measure."""
    return [
        Figure(name="measure_vs_sha256", value=measure_ratio(), unit="x", bar=">= 0.9"),
        Figure(name="convert_vs_sha256", value=convert_ratio(), unit="x", bar="<= 3"),
    ]


if __name__ == "__main__":
    run(figures)
