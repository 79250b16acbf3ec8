"""An image in, the same image out, and nothing else accepted."""

from dataclasses import replace

import pytest

from broch.errors import DecodeError
from broch.image.image import MAX_IMAGE
from broch.tee.sgx import layout, sgxs
from broch.tee.sgx.sgxs import PAGE, Page, Sgxs

IMAGE = b"image" * 2000


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 8184, 8185, 20000])
def test_round_trip_at_page_boundaries(size: int) -> None:
    image = bytes(size)
    assert layout.unpack(Sgxs.from_bytes(layout.pack(image))) == image


def test_packing_is_a_function_of_the_image() -> None:
    assert layout.pack(IMAGE) == layout.pack(bytes(bytearray(IMAGE)))
    assert sgxs.measure(layout.pack(IMAGE)) != sgxs.measure(layout.pack(IMAGE + b"\0"))


def test_the_pages_are_as_documented() -> None:
    stream = Sgxs.from_bytes(layout.pack(IMAGE))
    flags = [page.flags for page in stream.pages]
    assert flags == [0x201] * 3 + [0x100] + [0x203] * 17
    orders = [page.order for page in stream.pages]
    assert orders == [sgxs.ALL_MEASURED] * 4 + [sgxs.NOTHING] * 17
    assert [page.offset for page in stream.pages] == [index * PAGE for index in range(21)]
    assert stream.create == sgxs.Create(ssaframesize=1, size=32 * PAGE)
    assert stream.pages[0].data[:8] == len(IMAGE).to_bytes(8, "little")


def test_every_byte_of_the_image_is_measured() -> None:
    digests = {sgxs.measure(layout.pack(IMAGE))}
    for offset in range(0, len(IMAGE), 997):
        changed = IMAGE[:offset] + b"X" + IMAGE[offset + 1 :]
        digests.add(sgxs.measure(layout.pack(changed)))
    assert len(digests) == 1 + len(range(0, len(IMAGE), 997))


def bent(**changes: object) -> Sgxs:
    stream = Sgxs.from_bytes(layout.pack(IMAGE))
    return replace(stream, **changes)  # type: ignore[arg-type]  # the parametrisation is right


PAGES = Sgxs.from_bytes(layout.pack(IMAGE)).pages


def with_page(index: int, **fields: object) -> tuple[Page, ...]:
    page = PAGES[index]._replace(**fields)  # type: ignore[arg-type]  # as above
    return (*PAGES[:index], page, *PAGES[index + 1 :])


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(bent(pages=()), id="no pages"),
        pytest.param(bent(pages=PAGES[:-1]), id="less heap"),
        pytest.param(bent(pages=(*PAGES, PAGES[-1]._replace(offset=21 * PAGE))), id="more heap"),
        pytest.param(bent(create=sgxs.Create(ssaframesize=2, size=32 * PAGE)), id="SSA frame"),
        pytest.param(bent(create=sgxs.Create(ssaframesize=1, size=64 * PAGE)), id="size"),
        pytest.param(bent(pages=with_page(0, flags=0x203)), id="writable image"),
        pytest.param(bent(pages=with_page(0, order=sgxs.NOTHING)), id="image not measured"),
        pytest.param(bent(pages=with_page(3, data=bytes(PAGE))), id="another TCS"),
        pytest.param(
            bent(pages=with_page(2, data=PAGES[2].data[:-1] + b"\1")), id="padding not zero"
        ),
        pytest.param(
            bent(pages=with_page(0, data=(2**63).to_bytes(8, "little").ljust(PAGE, b"\0"))),
            id="absurd length",
        ),
        pytest.param(
            bent(pages=with_page(0, data=(MAX_IMAGE - 1).to_bytes(8, "little").ljust(PAGE, b"\0"))),
            id="length beyond the pages",
        ),
        pytest.param(
            bent(pages=with_page(0, data=(9999).to_bytes(8, "little") + PAGES[0].data[8:])),
            id="length one short",
        ),
    ],
)
def test_only_what_pack_makes_is_unpacked(stream: Sgxs) -> None:
    with pytest.raises(DecodeError):
        layout.unpack(stream)
