"""What is in a stream, in the words of ``sgxs-info``: summary, list-pages, list-all, dump-mem.

``list_all`` reads records one by one and so also shows streams that are not canonical; the others
read canonical streams only.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from broch.errors import DecodeError, UsageError
from broch.tee.sgx import sgxs
from broch.tee.sgx.convert import MAX_SIZE, power_of_two
from broch.tee.sgx.sgxs import ALL_MEASURED, CHUNK, CHUNKS, PAGE, RECORD, Page, Sgxs

_RECORD: Final = struct.Struct("<8sQQ40x")
_CREATE: Final = struct.Struct("<8sIQ44x")
_TCS: Final = struct.Struct("<16xQ4xIQ")  # ossa, nssa, oentry
_TYPES: Final = {0: "Secs", 1: "Tcs", 2: "Reg", 3: "Va", 4: "Trim"}
_FLAGS: Final = {1: "R", 2: "W", 4: "X", 8: "PENDING", 16: "MODIFIED", 32: "PR"}
_UNSIZED_WIDTH: Final = 8  # digits
_FILL: Final = 1 << 20  # bytes of zeros at once


class Run(NamedTuple):
    """Pages that follow each other and look alike; ``kind`` is None where nothing is mapped."""

    first: int  # offset of the first page
    last: int  # offset of the last byte
    kind: str | None = None  # Reg, Tcs, ...
    rights: str = ""  # rwx
    data: str = ""  # (empty), (data) or [0xcc]*
    measured: str = ""  # all, partial or none
    tcs: tuple[int, int, int] | None = None  # oentry, ossa, nssa

    def __str__(self) -> str:
        if self.kind is None:
            return "(unmapped)"
        thread = ""
        if self.tcs is not None:
            thread = " [oentry=0x{:x}, ossa=0x{:x}, nssa={}]".format(*self.tcs)
        return f"{self.kind:<4} {self.rights} {self.data:>7} meas={self.measured}{thread}"


def summary(stream: bytes) -> Iterator[str]:
    """Runs of pages, one a line.

    Raises:
        DecodeError: not a canonical stream.
    """
    parsed = Sgxs.from_bytes(stream)
    width = _UNSIZED_WIDTH
    if parsed.create.sized:
        width = len(f"{max(parsed.create.size - 1, 0):x}")
    else:
        yield "(unsized)"
    for run in runs(parsed):
        yield f"{run.first:{width}x}-{run.last:{width}x} {run}"


def list_pages(stream: bytes) -> Iterator[str]:
    """Every page, one a line.

    Raises:
        DecodeError: not a canonical stream.
    """
    parsed = Sgxs.from_bytes(stream)
    yield _show_create(parsed.create.sized, parsed.create.size, parsed.create.ssaframesize)
    for page in parsed.pages:
        yield (
            f"EADD offset=0x{page.offset:8x} pagetype={_type(page.flags):<4} "
            f"flags={_flags(page.flags):<9} data={_classify(page.data):>7} "
            f"measured={_measured(page)}"
        )


def list_all(stream: bytes) -> Iterator[str]:
    """Every record, one a line, in whatever order they are.

    Raises:
        DecodeError: something that is no record.
    """
    for found in records(stream):
        match found["record"]:
            case "ECREATE" | "UNSIZED" as tag:
                yield _show_create(tag == "ECREATE", found["size"], found["ssaframesize"])
            case "EADD":
                yield (
                    f"EADD offset=0x{found['offset']:8x} pagetype={_type(found['flags'])} "
                    f"flags={_flags(found['flags'])}"
                )
            case tag:
                yield f"{tag} offset=0x{found['offset']:8x} data={found['data']}"


def records(stream: bytes) -> Iterator[dict[str, Any]]:
    """Every record with its fields, in whatever order they are.

    Raises:
        DecodeError: something that is no record.
    """
    position = 0
    while position < len(stream):
        header = stream[position : position + RECORD]
        if len(header) < RECORD:
            raise DecodeError(len(stream), "ends inside a record", what="sgxs")
        tag, offset, flags = _RECORD.unpack(header)
        name = tag.rstrip(b"\0").decode("ascii", "backslashreplace")
        position += RECORD
        if tag in (b"ECREATE\0", b"UNSIZED\0"):
            _, ssaframesize, size = _CREATE.unpack(header)
            yield {"record": name, "size": size, "ssaframesize": ssaframesize}
        elif tag == sgxs.EADD:
            yield {"record": name, "offset": offset, "flags": flags}
        elif tag in (sgxs.EEXTEND, sgxs.UNMEASRD):
            data = stream[position : position + CHUNK]
            if len(data) < CHUNK:
                raise DecodeError(len(stream), "ends inside a record", what="sgxs")
            position += CHUNK
            yield {"record": name, "offset": offset, "data": _classify(data)}
        else:
            raise DecodeError(position - RECORD, f"unknown record {tag!r}", what="sgxs")


def pages(stream: bytes) -> Iterator[dict[str, Any]]:
    """Every page with what :func:`summary` says of it.

    Raises:
        DecodeError: not a canonical stream.
    """
    for page in Sgxs.from_bytes(stream).pages:
        yield _region(_run(page))


def dump_memory(stream: bytes) -> Iterator[bytes]:
    """Memory from the base to the end of the last page; zeros where nothing is mapped.

    Raises:
        DecodeError: not a canonical stream.
        UsageError: more than Broch handles.
    """
    parsed = Sgxs.from_bytes(stream)
    if parsed.pages and parsed.pages[-1].offset >= MAX_SIZE:
        raise UsageError(
            f"the last page is at 0x{parsed.pages[-1].offset:x}; "
            f"memory is shown up to 0x{MAX_SIZE:x}"
        )
    return _dump(parsed)


def _dump(parsed: Sgxs) -> Iterator[bytes]:
    end = 0
    for page in parsed.pages:
        while end < page.offset:
            size = min(_FILL, page.offset - end)
            yield bytes(size)
            end += size
        yield page.data
        end += PAGE


def as_json(stream: bytes) -> dict[str, Any]:
    """The summary for programs, with the measurement of a sized stream.

    Raises:
        DecodeError: not a canonical stream.
    """
    parsed = Sgxs.from_bytes(stream)
    create = parsed.create
    return {
        "sized": create.sized,
        "size": create.size if create.sized else None,
        "size_offset": None if create.sized else create.size,
        "ssaframesize": create.ssaframesize,
        "mrenclave": sgxs.measure(stream).hex() if create.sized else None,
        "pages": len(parsed.pages),
        "threads": sum(page.flags & sgxs.PT_MASK == sgxs.PT_TCS for page in parsed.pages),
        "regions": [_region(run) for run in runs(parsed) if run.kind is not None],
    }


def _region(run: Run) -> dict[str, Any]:
    region: dict[str, Any] = {
        "first": run.first,
        "last": run.last,
        "type": run.kind,
        "rights": run.rights,
        "data": run.data,
        "measured": run.measured,
    }
    if run.tcs is not None:
        region |= dict(zip(("oentry", "ossa", "nssa"), run.tcs, strict=True))
    return region


def runs(parsed: Sgxs) -> Iterator[Run]:
    """Pages that look alike together, with the gaps between them."""
    current: Run | None = None
    end = 0
    for page in parsed.pages:
        if page.offset > end:
            if current is not None:
                yield current
                current = None
            yield Run(end, page.offset - 1)
        end = page.offset + PAGE
        run = _run(page)
        if current is not None and current[2:] == run[2:]:
            current = current._replace(last=run.last)
        else:
            if current is not None:
                yield current
            current = run
    if current is not None:
        yield current
    size = parsed.create.size if parsed.create.sized else power_of_two(end)
    if end < size:
        yield Run(end, size - 1)


def _run(page: Page) -> Run:
    tcs = None
    if page.flags & sgxs.PT_MASK == sgxs.PT_TCS:
        ossa, nssa, oentry = _TCS.unpack_from(page.data)
        tcs = (oentry, ossa, nssa)
    number = _type(page.flags)
    rights = "".join(
        letter if page.flags & bit else "-"
        for letter, bit in (("r", sgxs.R), ("w", sgxs.W), ("x", sgxs.X))
    )
    return Run(
        first=page.offset,
        last=page.offset + PAGE - 1,
        kind=_TYPES.get(number, str(number)),
        rights=rights,
        data=_classify(page.data),
        measured=_measured(page),
        tcs=tcs,
    )


def _show_create(sized: bool, size: int, ssaframesize: int) -> str:
    what = "ECREATE size" if sized else "UNSIZED offset"
    return f"{what}=0x{size:x} ssaframesize={ssaframesize}"


def _type(flags: int) -> int:
    return flags >> 8 & 0xFF


def _flags(flags: int) -> str:
    flags &= ~sgxs.PT_MASK
    names = [name for bit, name in _FLAGS.items() if flags & bit]
    unknown = flags & ~sum(_FLAGS)
    if unknown:
        names.append(f"0x{unknown:x}")
    return " | ".join(names) or "(empty)"


def _classify(data: bytes) -> str:
    if data.count(data[:1]) != len(data):
        return "(data)"
    return f"[0x{data[0]:02x}]*" if data[0] else "(empty)"


def _measured(page: Page) -> str:
    if page.order == ALL_MEASURED:
        return "all"
    measured = sum(code < sgxs.UNMEASURED for code in page.order)
    return {0: "none", CHUNKS: "all"}.get(measured, "partial")
