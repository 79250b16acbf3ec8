"""The envelope of quotes, plain (version 3) and wrapped (versions 4 and 5)."""

from dataclasses import replace

import pytest

from broch.errors import DecodeError
from broch.tee.dcap.quote import MAX_QUOTE, Certification, Header, Quote

HEADER = Header(
    version=3,
    att_key_type=2,
    tee_type=0,
    qe_svn=1,
    pce_svn=2,
    qe_vendor_id=b"V" * 16,
    user_data=b"U" * 20,
)
PLAIN = Quote(
    header=HEADER,
    body=b"B" * 384,
    signature=b"S" * 64,
    attestation_key=b"K" * 64,
    certification=Certification(
        qe_report=b"R" * 384,
        qe_report_signature=b"r" * 64,
        qe_auth_data=b"auth",
        cert_type=5,
        cert_data=b"chain",
    ),
    wrapped=False,
)
WRAPPED = replace(PLAIN, body=b"T" * 584, wrapped=True)


def read(quote: Quote, data: bytes) -> Quote:
    return Quote.from_bytes(data, body_size=len(quote.body), wrapped=quote.wrapped)


@pytest.mark.parametrize("quote", [PLAIN, WRAPPED])
def test_round_trip(quote: Quote) -> None:
    assert read(quote, quote.to_bytes()) == quote
    padded = quote.to_bytes() + bytes(7)
    assert read(quote, padded).padding == 7
    assert read(quote, padded).to_bytes() == padded


def test_fields_are_where_intel_puts_them() -> None:
    data = PLAIN.to_bytes()
    assert data[:12].hex() == "030002000000000001000200"
    assert data[12:48] == b"V" * 16 + b"U" * 20
    assert data[48:432] == b"B" * 384
    assert int.from_bytes(data[432:436], "little") == len(data) - 436
    assert data[436:500] == b"S" * 64
    assert data[500:564] == b"K" * 64
    assert data[564:948] == b"R" * 384
    assert data[948:1012] == b"r" * 64
    assert data[1012:1018] == b"\4\0auth"
    assert data[1018:] == b"\5\0\5\0\0\0chain"
    assert PLAIN.signed_bytes() == data[:432]


@pytest.mark.parametrize("quote", [PLAIN, WRAPPED])
def test_every_truncation_is_an_error(quote: Quote) -> None:
    data = quote.to_bytes()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            read(quote, data[:size])


def test_bytes_after_the_quote() -> None:
    for junk in (b"\1", bytes(100) + b"\1", b"\1" + bytes(100)):
        with pytest.raises(DecodeError, match="after the quote"):
            read(PLAIN, PLAIN.to_bytes() + junk)


def test_the_signature_length_is_exact() -> None:
    data = PLAIN.to_bytes() + bytes(4)
    longer = data[:432] + (len(data) - 436).to_bytes(4, "little") + data[436:]
    with pytest.raises(DecodeError, match="4 bytes too many"):
        read(PLAIN, longer)


def test_the_wrapper_is_exact() -> None:
    data = WRAPPED.to_bytes()
    place = 48 + 584 + 4 + 128
    assert data[place : place + 2] == b"\6\0"
    with pytest.raises(DecodeError, match="type 5, expected 6"):
        read(WRAPPED, data[:place] + b"\5" + data[place + 1 :])
    size = int.from_bytes(data[place + 2 : place + 6], "little")
    for wrong in (size - 1, size + 1):
        bent = data[: place + 2] + wrong.to_bytes(4, "little") + data[place + 6 :]
        with pytest.raises(DecodeError, match="certification data of"):
            read(WRAPPED, bent)


def test_lengths_are_bounded_before_use() -> None:
    with pytest.raises(DecodeError, match="longer than"):
        read(PLAIN, PLAIN.to_bytes() + bytes(MAX_QUOTE))
    for place, size in ((432, 4), (1012, 2), (1020, 4)):
        data = bytearray(PLAIN.to_bytes())
        data[place : place + size] = b"\xff" * size
        with pytest.raises(DecodeError):
            read(PLAIN, bytes(data))


def test_headers_have_48_bytes() -> None:
    assert Header.from_bytes(HEADER.to_bytes()) == HEADER
    for size in (0, 47, 49):
        with pytest.raises(DecodeError, match="48"):
            Header.from_bytes(bytes(size))
