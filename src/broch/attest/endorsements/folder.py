"""Endorsements as a plain folder that a person put together.

    FOLDER/
      NAME, NAME.der, NAME.pem, NAME.json, NAME.bin    an item, under the name its verifier reads
      NAME.hex          the same in hexadecimal digits
      collateral.json   SGX, TDX: a QuoteCollateralV3 document, instead of the eight items of DCAP
      cert_table[.bin]  SEV-SNP: the certificate table that the host gave with the report
      ark[.der|.pem]    SEV-SNP: AMD's root; believed because its digest is pinned
      anchors/*         roots that you trust, DER or PEM, one a file
      TEE/              the same for one kind of TEE alone, if the folder is for several
      README*           not read

Roots of Intel, AMD and AWS are pinned and need not be in ``anchors``.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from broch.attest.endorsements import files, roots
from broch.attest.endorsements.items import ITEMS, MAX_ITEM, Form, form, normal
from broch.errors import DecodeError, UsageError
from broch.tee.contract import Endorsements
from broch.wire.x509 import MAX_CERTIFICATE, to_der

ANCHORS: Final = "anchors"
_COLLATERAL: Final = "collateral"
_CERT_TABLE: Final = "cert_table"
_ARK: Final = "ark"
_MAX_FILES: Final = 64
_SUFFIXES: Final = frozenset({"", ".der", ".crt", ".cer", ".pem", ".crl", ".json", ".bin", ".hex"})


def read_folder(folder: Path, tee: str) -> Endorsements:
    """What a plain folder holds for ``tee``.

    Raises:
        UsageError: it cannot be read, a name in it means nothing, or an item is there twice.
        DecodeError: a file is too long or not in its form.
        UntrustedError: a secret key that others may read.
    """
    own = folder / tee
    if own.is_dir():
        folder = own
    items: dict[str, bytes] = {}
    arks: list[bytes] = []
    for path, name in _entries(folder):
        for item, data in _read(path, name, tee):
            if item == _ARK:
                arks.append(data)
            elif item in items:
                raise UsageError(f"{item} is there twice", place=str(path), hint="keep one of them")
            else:
                items[item] = data
    anchors = (
        *roots.built_in(tee),
        *roots.pinned(tee, arks),
        *roots.in_items(tee, items),
        *_anchors(folder / ANCHORS),
    )
    return Endorsements(anchors=tuple(dict.fromkeys(anchors)), items=items)


def _entries(folder: Path) -> Iterator[tuple[Path, str]]:
    """Files of a folder and the names without suffix."""
    for name in files.names(folder, _MAX_FILES):
        path = folder / name
        is_other = path.is_dir() and (name == ANCHORS or name in ITEMS)
        if is_other or name.upper().startswith("README"):
            continue
        if path.suffix not in _SUFFIXES:
            raise UsageError(
                f"{path.suffix!r} is no suffix of an endorsement",
                place=str(path),
                hint=f"known: {', '.join(sorted(_SUFFIXES - {''}))}",
            )
        yield path, path.stem


def _read(path: Path, name: str, tee: str) -> Iterator[tuple[str, bytes]]:
    place = str(path)
    if name == _COLLATERAL and tee in ("sgx", "tdx"):
        from broch.tee.dcap.collateral import items_from_json

        yield from items_from_json(_content(path), place).items()
    elif name == _CERT_TABLE and tee == "snp":
        from broch.tee.snp import cert_table

        try:
            yield from cert_table.items(_content(path)).items()
        except DecodeError as exc:
            raise DecodeError(exc.offset, exc.problem, what=place) from None
    elif name == _ARK and tee == "snp":
        yield _ARK, to_der(_content(path), place)
    else:
        wanted = form(tee, name, place)
        yield name, normal(wanted, _content(path, secret=wanted is Form.SECRET), place)


def _content(path: Path, *, secret: bool = False) -> bytes:
    limit = 2 * MAX_ITEM + 2 if path.suffix == ".hex" else MAX_ITEM
    data = files.read(path, limit, secret=secret)
    if path.suffix != ".hex":
        return data
    try:
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise DecodeError(0, "not hexadecimal digits", what=str(path)) from None


def _anchors(folder: Path) -> Iterator[bytes]:
    if folder.is_dir():
        for name in files.names(folder, _MAX_FILES):
            if not name.upper().startswith("README"):
                path = folder / name
                yield to_der(files.read(path, MAX_CERTIFICATE), str(path))
