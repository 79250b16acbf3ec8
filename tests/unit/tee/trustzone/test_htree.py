"""Secure objects: the layout decoded by hand, and one thing altered at a time."""

import hashlib
import struct
from collections.abc import Callable
from typing import Final

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broch.errors import DecodeError, PolicyError, UntrustedError, UsageError
from broch.tee.trustzone.htree import MAX_CONTENT, SecureObject

TSK: Final = bytes(range(32))
PAGE: Final = 4096


def counted() -> Callable[[int], bytes]:
    """Random bytes that are the same in every run, and never the same twice."""
    state = [0]

    def random(size: int) -> bytes:
        state[0] += 1
        return hashlib.sha256(b"%d" % state[0]).digest()[:size]

    return random


def create(content: bytes) -> SecureObject:
    return SecureObject.create(TSK, content, random=counted())


def open_again(made: SecureObject) -> SecureObject:
    return SecureObject.open(TSK, bytes(made.data))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 8192, 40000, 31 * 4096, 70 * 4096 + 5])
def test_round_trip(size: int) -> None:
    content = bytes(index % 251 for index in range(size))
    made = create(content)
    assert open_again(made).read() == made.read() == content


def test_the_layout_by_hand() -> None:
    """Decode a file of two blocks as the format's description says, with no help from the code."""
    data = bytes(create(b"A" * PAGE + b"B" * 10).data)
    even, odd = (struct.unpack_from("<16s16s16s16sI", data, at) for at in (0, 68))
    assert (even[4], odd[4]) == (2, 1), "created as 1, content written as 2"
    iv, tag, enc_fek, imeta, counter = even
    fek = Cipher(algorithms.AES(TSK), modes.ECB()).decryptor().update(enc_fek)

    root = struct.unpack_from("<32s16s16sH", data, PAGE)
    assert root[3] & 1, "the first write of a block goes to its second place"
    assert root[3] & 2, "and so does that of a node: child 2 is the even one, bit 1"
    child = struct.unpack_from("<32s16s16sH", data, PAGE + 2 * 66 + 66)
    length = struct.pack("<Q", PAGE + 10)
    flags = struct.pack("<H", child[3])
    assert child[0] == hashlib.sha256(child[1] + child[2] + flags).digest()
    flags = struct.pack("<H", root[3])
    assert root[0] == hashlib.sha256(root[1] + root[2] + flags + length + child[0]).digest()

    aad = root[0][:16] + struct.pack("<I", counter) + enc_fek + iv
    assert AESGCM(fek).decrypt(iv, imeta + tag, aad) == length + struct.pack("<II", 2, 0)

    first = data[3 * PAGE : 4 * PAGE]
    assert AESGCM(fek).decrypt(root[1], first + root[2], enc_fek + root[1]) == b"A" * PAGE
    second = data[5 * PAGE : 6 * PAGE]
    plain = AESGCM(fek).decrypt(child[1], second + child[2], enc_fek + child[1])
    assert plain == (b"B" * 10).ljust(PAGE, b"\0")


@pytest.mark.parametrize(
    ("number", "page"), [(1, 1), (31, 1), (32, 63), (62, 63), (63, 125)], ids=str
)
def test_nodes_are_in_pages_of_31_pairs(number: int, page: int) -> None:
    """As upstream computes it; the comment beside its code counts one page more."""
    from broch.tee.trustzone.htree import _block_at, _node_at

    assert _node_at(number, 0) == page * PAGE + 132 * ((number - 1) % 31)
    assert _node_at(number, 1) == _node_at(number, 0) + 66
    taken = {_node_at(index, 0) // PAGE for index in range(1, 100)}
    blocks = [_block_at(index, version) // PAGE for index in range(100) for version in (0, 1)]
    assert len(set(blocks)) == 200
    assert not taken & set(blocks)
    assert min(blocks) == 2


def test_an_update_goes_beside_what_it_replaces() -> None:
    made = create(b"old")
    before = bytes(made.data)
    made.write(b"new")
    after = bytes(made.data)
    assert SecureObject.open(TSK, after).read() == b"new"
    assert after[3 * PAGE : 4 * PAGE] == before[3 * PAGE : 4 * PAGE], "the old block is untouched"
    # Power fails before the header is written: the old state is there, whole.
    torn = before[:68] + before[68:136] + after[136:]
    assert SecureObject.open(TSK, torn).read() == b"old"


def test_many_updates_of_many_sizes() -> None:
    made = create(b"")
    for turn, size in enumerate([10, 5000, 3, 20000, 0, 12289, 4096, 8192]):
        content = bytes([turn + 1]) * size
        made.write(content)
        made = open_again(made)
        assert made.read() == content
        assert made.counter == turn + 3


def test_another_ta_cannot_read_it() -> None:
    with pytest.raises(UntrustedError):
        SecureObject.open(bytes(32), bytes(create(b"secret").data))


def test_nothing_of_the_content_shows() -> None:
    assert b"secret" not in bytes(create(b"secret" * 100).data)


def test_an_old_file_is_refused_by_counter() -> None:
    made = create(b"old")
    old = bytes(made.data)
    made.write(b"new")
    assert SecureObject.open(TSK, bytes(made.data), min_counter=3).read() == b"new"
    with pytest.raises(PolicyError, match="update 2, expected 3"):
        SecureObject.open(TSK, old, min_counter=3)


def test_an_old_file_is_refused_by_root_hash() -> None:
    made = create(b"old")
    old = bytes(made.data)
    made.write(b"new")
    assert SecureObject.open(TSK, bytes(made.data), root_hash=made.root_hash).read() == b"new"
    with pytest.raises(PolicyError, match="last written"):
        SecureObject.open(TSK, old, root_hash=made.root_hash)


def test_content_has_a_bound() -> None:
    with pytest.raises(UsageError):
        create(bytes(MAX_CONTENT + 1))


def altered(at: int, value: bytes) -> bytes:
    data = bytes(create(b"x" * 5000).data)
    return data[:at] + value + data[at + len(value) :]


@pytest.mark.parametrize(
    ("at", "value", "error"),
    [
        pytest.param(0, b"\xee", UntrustedError, id="header iv"),
        pytest.param(16, b"\xee", UntrustedError, id="header tag"),
        pytest.param(32, b"\xee", UntrustedError, id="enc_fek"),
        pytest.param(48, b"\xee", UntrustedError, id="imeta"),
        pytest.param(64, b"\x04", UntrustedError, id="counter raised"),
        pytest.param(PAGE, b"\xee", UntrustedError, id="root hash"),
        pytest.param(PAGE + 32, b"\xee", UntrustedError, id="root iv"),
        pytest.param(PAGE + 64, b"\x0b", DecodeError, id="reserved flag"),
        pytest.param(PAGE + 64, b"\x02", UntrustedError, id="committed block"),
        pytest.param(PAGE + 198, b"\xee", UntrustedError, id="child hash"),
        pytest.param(PAGE + 198 + 48, b"\xee", UntrustedError, id="child tag"),
        pytest.param(3 * PAGE, b"\xee", UntrustedError, id="first block"),
        pytest.param(5 * PAGE, b"\xee", UntrustedError, id="second block"),
    ],
)
def test_alterations(at: int, value: bytes, error: type[Exception]) -> None:
    data = altered(at, value)
    with pytest.raises(error):
        SecureObject.open(TSK, data).read()


def test_a_spoilt_counter_brings_back_the_state_before_unless_the_counter_is_known() -> None:
    """Part of the format: the state before is still there, whole and genuine."""
    data = altered(64, b"\x03")
    assert SecureObject.open(TSK, data).read() == b""
    with pytest.raises(PolicyError, match="update 1, expected 2"):
        SecureObject.open(TSK, data, min_counter=2)


def test_headers_whose_counters_do_not_suit_their_places() -> None:
    data = altered(64, b"\x01")
    with pytest.raises(DecodeError, match="do not suit"):
        SecureObject.open(TSK, data[:132] + b"\x02" + data[133:])


def test_swapped_blocks_are_noticed() -> None:
    data = bytearray(create(b"x" * 8192).data)
    data[3 * PAGE : 4 * PAGE], data[5 * PAGE : 6 * PAGE] = (
        data[5 * PAGE : 6 * PAGE],
        data[3 * PAGE : 4 * PAGE],
    )
    with pytest.raises(UntrustedError):
        SecureObject.open(TSK, bytes(data)).read()
