"""What is fuzzed: one function of bytes for each format, and valid examples to begin with.

A target returns (the bytes were a value) or raises :class:`broch.errors.BrochError`. Anything else
is a defect: another exception, a hang, more memory than :data:`fuzz.driver.MEMORY`, or a value that
does not encode to the bytes that it was decoded from.
"""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from tests.unit.tee.sgx.elf_maker import Maker
from tests.unit.tee.sgx.test_sdk_image import (
    CONTENT,
    HEAP,
    RW,
    Metadata,
    entry,
    group,
    patch,
    shared_object,
)

from broch.errors import BrochError
from broch.tee.sgx import TEE, append, info, measuring, sdk_image, sgxs, signing, sigstruct
from broch.tee.sgx.convert import Options, convert
from broch.tee.sgx.sigstruct import Sigstruct
from broch.tee.sgx.sigstruct_view import as_text, as_toml, view
from fuzz import appraisal, carried, evidence

_ITEMS: Final = 200  # of what an iterator yields: a small file may ask for a large enclave
_PART: Final = append.Part(flags=sgxs.PT_REG | sgxs.R, measured=True, data=b"config" * 99)


@dataclass(frozen=True, slots=True)
class Target:
    """A function to give bytes to, and examples that it takes."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def _take(items: Iterable[object]) -> None:
    for _ in itertools.islice(items, _ITEMS):
        pass


def _sgxs(data: bytes) -> None:
    """Measuring, the shown forms, and a canonical stream's one encoding."""
    measured = _or_error(lambda: measuring.measure(data))
    _or_error(lambda: _take(info.list_all(data)))
    parsed = sgxs.Sgxs.from_bytes(data)
    assert parsed.to_bytes() == data, "accepted, and not canonical"
    assert measured is not None or not parsed.create.sized
    _take(info.summary(data))
    _take(info.list_pages(data))
    _take(info.dump_memory(data))
    if not parsed.create.sized:
        append.append(data, [_PART])


def _elf(data: bytes) -> None:
    """A conversion; what is made is canonical."""
    pieces = list(itertools.islice(convert(data, _SMALL), _ITEMS))
    if len(pieces) < _ITEMS:
        sgxs.Sgxs.from_bytes(b"".join(pieces))


def _sdk_image(data: bytes) -> None:
    for stream in sdk_image.streams(data):
        _take(stream)


def _sigstruct(data: bytes) -> None:
    parsed = Sigstruct.from_bytes(data)
    assert parsed.to_bytes() == data, "accepted, and not canonical"
    shown = view(data)
    as_text(shown)
    as_toml(shown)
    sigstruct.verify(parsed)


def _pem(data: bytes) -> None:
    _or_error(lambda: signing.read_public_key(data, "key.pem"))
    signing.read_private_key(data, "key.pem")


def _or_error(action: Callable[[], object]) -> object | None:
    try:
        return action()
    except BrochError:
        return None


_SMALL: Final = Options(heap_size=0x1000, stack_size=0x1000)


@cache
def _key() -> RSAPrivateKey:
    return TEE.new_signing_key()


def _streams() -> list[bytes]:
    elf = Maker().build()
    unsized = Options(heap_size=0x1000, stack_size=0x1000, sized=False, threads=2)
    streams = [b"".join(convert(elf, options)) for options in (_SMALL, unsized)]
    return [*streams, append.append(streams[1], [_PART])]


def _signatures() -> list[bytes]:
    plain = sigstruct.template(bytes(32))
    options = signing.Options(date=0x20160109, isvextprodid=5, swdefined=1)
    kss, _ = signing.unsigned(bytes(range(32)), options)
    return [sigstruct.sign(one, _key()).to_bytes() for one in (plain, kss)]


def _sdk_images() -> list[bytes]:
    layout = [
        entry(HEAP, 2, 0x4000, flags=RW),
        entry(HEAP, 1, 0x6000, size=8, at=CONTENT, flags=RW),
        group(2, 2, 0x4000),
    ]
    patches = [patch(0x2000, CONTENT, 8)]
    signature = _signatures()[0]
    made = Metadata(signature=signature, layout=layout, patches=patches, content=b"replaced" * 4)
    return [shared_object(made.build()), shared_object(Metadata(signature=signature).build())]


def _pems() -> list[bytes]:
    keys = (
        _key(),
        rsa.generate_private_key(public_exponent=65537, key_size=2048),
        ec.generate_private_key(ec.SECP256R1()),
        ed25519.Ed25519PrivateKey.generate(),
    )
    encryption = (NoEncryption(), BestAvailableEncryption(b"secret"))
    private = [
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)
        for key in keys
        for how in encryption
    ]
    traditional = _key().private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    )
    public = [
        key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        for key in keys
    ]
    return [*private, traditional, *public]


TARGETS: Final = {
    "sgxs": Target(_sgxs, _streams),
    "elf": Target(_elf, lambda: [Maker().build()]),
    "sdk_image": Target(_sdk_image, _sdk_images),
    "sigstruct": Target(_sigstruct, _signatures),
    "pem": Target(_pem, _pems),
    **{name: Target(*pair) for name, pair in evidence.PAIRS.items()},
    **{name: Target(*pair) for name, pair in carried.PAIRS.items()},
    **{name: Target(*pair) for name, pair in appraisal.PAIRS.items()},
}
