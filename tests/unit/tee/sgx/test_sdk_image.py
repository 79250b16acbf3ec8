"""Enclaves of Intel's SDK: the stream that their metadata describes, from files made here."""

import hashlib
import struct
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from broch.errors import DecodeError, MalformedError
from broch.tee.sgx import sdk_image, sgxs, sigstruct
from broch.tee.sgx.sgxs import ALL_MEASURED, PAGE, Page, Sgxs

from .elf_maker import NOTE, Maker

CALM = Maker(relocations=[], dynamic=[], no_sgx=b"", bss=0, without=(".bss",))
ADD, MEASURE = 1, 2
HEAP, TCS, SSA, GUARD = 1, 2, 4, 7
GROUP = 6 | 0x1000
RW, TCS_FLAGS = 0x203, 0x100


def entry(
    kind: int, pages: int, rva: int, *, attributes: int = 3, size: int = 0, at: int = 0, flags: int
) -> bytes:
    return struct.pack("<HHIQIIQ", kind, attributes, pages, rva, size, at, flags)


def group(count: int, times: int, step: int) -> bytes:
    return struct.pack("<HHIQ16x", GROUP, count, times, step)


def patch(to: int, start: int, size: int) -> bytes:
    return struct.pack("<QII16x", to, start, size)


@dataclass
class Metadata:
    layout: list[bytes] = field(default_factory=list)
    patches: list[bytes] = field(default_factory=list)
    content: bytes = b""  # at CONTENT
    version: tuple[int, int] = (2, 4)
    size: int = 0x20000
    elrange: tuple[int, int, int] | None = None
    signature: bytes = b""

    def build(self) -> bytes:
        layout, patches = b"".join(self.layout), b"".join(self.patches)
        body = bytearray(self.content)
        patch_at = CONTENT + len(body)
        layout_at = patch_at + len(patches)
        body += patches + layout
        elrange_at = CONTENT + len(body)
        if self.elrange is not None:
            body += struct.pack("<QQQ", *self.elrange)
        directories = struct.pack(
            "<8I",
            *(patch_at, len(patches), layout_at, len(layout)),
            *(elrange_at if self.elrange else 0, 24 if self.elrange else 0, 0, 0),
        )
        version = self.version[0] << 32 | self.version[1]
        head = struct.pack("<QI4xI12xQ16x", version, CONTENT + len(body), 1, self.size)
        return sdk_image.MAGIC + head + self.signature + directories + bytes(body)


CONTENT = 64 + 1808 + 32


def shared_object(*blocks: bytes, made: Maker = CALM) -> bytes:
    name = b"sgx_metadata\0\0\0\0"
    raw = b"".join(blocks)
    note = struct.pack("<III", 13, len(raw), 1) + name + raw
    data = replace(made, note=note).build()
    return data.replace(
        NOTE.encode() + b"\0", sdk_image.SECTION.encode().ljust(len(NOTE) + 1, b"\0")
    )


@pytest.fixture(scope="module")
def signature(key: RSAPrivateKey) -> bytes:
    return sigstruct.sign(sigstruct.template(bytes(32)), key).to_bytes()


def rebuilt(signature: bytes, **fields: Any) -> Sgxs:
    data = shared_object(Metadata(signature=signature, **fields).build())
    (stream,) = sdk_image.streams(data)
    return Sgxs.from_bytes(b"".join(stream))


def after_the_image(parsed: Sgxs) -> list[Page]:
    return [page for page in parsed.pages if page.offset >= 0x3000]


def test_segments_are_measured(signature: bytes) -> None:
    parsed = rebuilt(signature)
    assert parsed.create == sgxs.Create(ssaframesize=1, size=0x20000)
    assert [(page.offset, page.flags) for page in parsed.pages] == [
        (0, 0x201),
        (0x1000, 0x205),
        (0x2000, 0x203),
    ]
    assert all(page.order == ALL_MEASURED for page in parsed.pages)
    assert parsed.pages[1].data[:2] == b"\xcc\xcc"


def test_patches_come_first(signature: bytes) -> None:
    parsed = rebuilt(signature, patches=[patch(0x1002, CONTENT, 4)], content=b"abcd")
    assert parsed.pages[1].data[:8] == b"\xcc\xccabcd\xcc\xcc"


def test_layout_entries(signature: bytes) -> None:
    tcs = struct.pack("<QQQIIQQQQII", 0, 0, 0x1000, 0, 2, 0x99, 0, 0x3000, 0x3000, 7, 7)
    layout = [
        entry(HEAP, 2, 0x4000, attributes=ADD, flags=RW),
        entry(GUARD, 4, 0x6000, flags=0),
        entry(TCS, 1, 0xA000, size=len(tcs), at=CONTENT, flags=TCS_FLAGS),
        entry(SSA, 1, 0xB000, flags=RW),
        entry(HEAP, 1, 0xC000, size=0xCCCCCCCC, flags=RW),
        entry(HEAP, 1, 0xD000, attributes=0, flags=RW),
        entry(HEAP, 2, 0xE000, size=3, at=CONTENT, flags=RW),
    ]
    found = after_the_image(rebuilt(signature, layout=layout, content=tcs))
    assert [page.offset for page in found] == [
        *(0x4000, 0x5000, 0xA000, 0xB000, 0xC000, 0xE000, 0xF000)
    ]
    assert [page.order for page in found[:2]] == [sgxs.NOTHING] * 2
    assert struct.unpack_from("<QQQIIQQQQ", found[2].data) == (
        *(0, 0, 0xB000, 0, 2, 0x99, 0, 0xD000, 0xD000),
    )
    assert (found[2].flags, found[3].data) == (TCS_FLAGS, sgxs.ZEROS)
    assert found[4].data == b"\xcc" * PAGE
    assert found[5].data == tcs[:3].ljust(PAGE, b"\0")
    assert found[6].data == sgxs.ZEROS


def test_a_group_repeats_what_is_before_it(signature: bytes) -> None:
    layout = [
        entry(HEAP, 1, 0x4000, flags=RW),
        entry(SSA, 1, 0x5000, flags=RW),
        entry(SSA, 1, 0x6000, flags=RW),
        group(2, 3, 0x2000),
    ]
    found = after_the_image(rebuilt(signature, layout=layout))
    assert [page.offset for page in found] == list(range(0x4000, 0xD000, 0x1000))


def test_elrange_moves_the_image(signature: bytes) -> None:
    fields = {"elrange": (0x30000, 0x10000, 0x100000), "version": (12, 4)}
    parsed = rebuilt(signature, **fields)
    assert parsed.create.size == 0x100000
    assert [page.offset for page in parsed.pages] == [0x20000, 0x21000, 0x22000]


def test_the_first_loader_adds_a_page(signature: bytes) -> None:
    made = replace(
        CALM,
        segments=[(0, 0, 0x1000, 0x1000, 4), (0x1000, 0x1800, 0x40, 0x40, 5)],
        has_dynamic=False,
    )
    for version, expected in (((1, 3), [0, 0x1000, 0x2000]), ((1, 4), [0, 0x1000])):
        data = shared_object(Metadata(signature=signature, version=version).build(), made=made)
        parsed = Sgxs.from_bytes(b"".join(sdk_image.streams(data)[0]))
        assert [page.offset for page in parsed.pages] == expected


def test_what_was_signed_is_compared(key: RSAPrivateKey, signature: bytes) -> None:
    first = Metadata(signature=signature).build()
    second = Metadata(signature=signature, version=(1, 4))
    # The signature is in no page that is loaded, so putting it in changes no measurement.
    streams = sdk_image.streams(shared_object(first, second.build()))
    mrenclave = hashlib.sha256(b"".join(streams[1])).digest()
    second.signature = sigstruct.sign(sigstruct.template(mrenclave), key).to_bytes()
    blocks = sdk_image.read(shared_object(first, second.build()))
    assert [(block.version, block.matches) for block in blocks] == [("2.4", False), ("1.4", True)]
    assert all(block.mrenclave == mrenclave for block in blocks)


# What is refused


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"patches": [patch(0, CONTENT, 1 << 20)]}, "a patch reaches beyond the file"),
        ({"patches": [patch(0, CONTENT + 4000, 64)]}, "a patch reaches beyond the metadata"),
        ({"patches": [b"x"]}, "patches are cut short"),
        ({"layout": [b"x"]}, "the layout is cut short"),
        ({"layout": [entry(HEAP, 1, 0x4001, flags=RW)]}, "entry at 0x4001"),
        ({"layout": [entry(HEAP, 1, 2**63, flags=RW)]}, "entry at 0x8000000000000000"),
        ({"layout": [entry(HEAP, 2**32 - 1, 0, attributes=1, flags=RW)]}, "more than"),
        (
            {"layout": [entry(HEAP, 1, 0x4000, size=9, at=9999, flags=RW)]},
            "content of an entry reaches",
        ),
        ({"layout": [entry(TCS, 1, 0x4000, size=9, at=9999, flags=TCS_FLAGS)]}, "a TCS reaches"),
        ({"layout": [group(1, 1, 0)]}, "a group of 1 entries"),
        (
            {"layout": [entry(HEAP, 1, 0x4000, flags=RW), group(1, 1, 4096), group(1, 1, 1)]},
            "a group of 1 entries",
        ),
        ({"layout": [group(0, 2**32 - 1, 0)]}, "a layout of more than"),
        ({"elrange": (1, 2, 3), "version": (12, 4)}, "before ELRANGE"),
    ],
)
def test_metadata_that_is_refused(signature: bytes, fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(DecodeError, match=problem):
        rebuilt(signature, **fields)


def test_text_relocations_are_refused(signature: bytes) -> None:
    made = replace(CALM, dynamic=[(22, 0)])
    data = shared_object(Metadata(signature=signature).build(), made=made)
    with pytest.raises(MalformedError, match="text relocations"):
        sdk_image.read(data)


def test_a_file_without_metadata(signature: bytes) -> None:
    with pytest.raises(MalformedError, match="not an enclave signed by Intel's SDK") as caught:
        sdk_image.read(Maker().build())
    assert "broch sgx convert" in (caught.value.hint or "")
    with pytest.raises(DecodeError, match="magic number is not there"):
        sdk_image.read(shared_object(b"x" * 64))
    one = Metadata(signature=signature).build()
    with pytest.raises(DecodeError, match="more than 16 metadata blocks"):
        sdk_image.read(shared_object(*[one] * 17))


def test_truncations_end_in_our_errors(signature: bytes) -> None:
    layout = [entry(HEAP, 1, 0x4000, flags=RW), group(1, 1, 0x1000)]
    one = Metadata(signature=signature, layout=layout, content=bytes(64)).build()
    for size in range(0, len(one), 61):
        with pytest.raises(MalformedError):
            sdk_image.read(shared_object(one[:size]))


def test_is_elf() -> None:
    assert sdk_image.is_elf(Maker().build())
    assert not sdk_image.is_elf(b"ECREATE\0")
