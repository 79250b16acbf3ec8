"""How an image of Broch becomes an enclave, and how it is read back (this project's own layout).

    offset                 pages  type  perm  measured  content
    0                      n      REG   r--   yes       u64 length, the image's bytes, zeros
    n * 4096               1      TCS   ---   yes       one thread: NSSA 1, OENTRY 0
    (n + 1) * 4096         1      REG   rw-   no        its SSA frame
    (n + 2) * 4096         16     REG   rw-   no        heap

``n`` is the fewest pages that hold the length and the image; the enclave's size is the next power
of two. Everything is a function of the image's bytes, so one image has one stream and MRENCLAVE.
"""

import struct
from typing import Final

from broch.errors import DecodeError
from broch.image.image import MAX_IMAGE
from broch.tee.sgx import sgxs
from broch.tee.sgx.sgxs import PAGE, Create, Page, Sgxs

SSAFRAMESIZE: Final = 1  # pages: enough for x87 and SSE state and the registers
HEAP_PAGES: Final = 16
_LENGTH: Final = struct.Struct("<Q")
_TCS: Final = struct.Struct("<QQQIIQQQQII")  # SDM 38.8: 72 bytes, the rest reserved
_READ_ONLY: Final = sgxs.PT_REG | sgxs.R
_READ_WRITE: Final = sgxs.PT_REG | sgxs.R | sgxs.W


def tcs(offset: int) -> bytes:
    """The TCS page (4096 bytes) of the one thread, whose SSA frame follows at ``offset`` + 1 page.

    STATE, FLAGS, OSSA, CSSA, NSSA, OENTRY, AEP, OFSBASGX, OGSBASGX, FSLIMIT, GSLIMIT.
    """
    return _TCS.pack(0, 0, offset + PAGE, 0, 1, 0, 0, 0, 0, 0xFFF, 0xFFF).ljust(PAGE, b"\0")


def pack(image: bytes) -> bytes:
    """The SGXS stream that loads ``image``."""
    body = _LENGTH.pack(len(image)) + image
    body += bytes(-len(body) % PAGE)
    pages = [
        Page(offset, _READ_ONLY, sgxs.ALL_MEASURED, body[offset : offset + PAGE])
        for offset in range(0, len(body), PAGE)
    ]
    thread = len(body)
    pages.append(Page(thread, sgxs.PT_TCS, sgxs.ALL_MEASURED, tcs(thread)))
    end = thread + (2 + HEAP_PAGES) * PAGE
    pages += [
        Page(offset, _READ_WRITE, sgxs.NOTHING, sgxs.ZEROS)
        for offset in range(thread + PAGE, end, PAGE)
    ]
    create = Create(ssaframesize=SSAFRAMESIZE, size=1 << (end - 1).bit_length())
    return Sgxs(create=create, pages=tuple(pages)).to_bytes()


def unpack(stream: Sgxs) -> bytes:
    """The image's bytes in a stream that :func:`pack` made.

    Raises:
        DecodeError: the enclave is not laid out as :func:`pack` does.
    """
    first = stream.pages[0].data if stream.pages else b""
    if len(first) < _LENGTH.size:
        raise DecodeError(0, "an enclave without pages", what="sgx image")
    (length,) = _LENGTH.unpack_from(first)
    if length > MAX_IMAGE:
        raise DecodeError(0, f"image of {length} bytes; the limit is {MAX_IMAGE}", what="sgx image")
    count = -(-(_LENGTH.size + length) // PAGE)
    body = b"".join(page.data for page in stream.pages[:count])
    image = body[_LENGTH.size : _LENGTH.size + length]
    # One image has one encoding, so the shortest complete check is to encode it again.
    if len(image) != length or pack(image) != stream.to_bytes():
        raise DecodeError(0, "an enclave, but not laid out as an image of Broch", what="sgx image")
    return image
