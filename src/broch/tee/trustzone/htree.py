"""A secure object as OP-TEE keeps it in a file (core/tee/fs_htree.c, core/tee/tee_ree_fs.c).

The content is cut into blocks of 4096 bytes, each under AES-128-GCM with the file's own key (FEK).
A binary tree of nodes, one a block, holds their tags; hashes join it at the root; the header, under
AES-GCM too, holds the FEK encrypted for one TA, and the length. Everything exists twice, so that an
update is written beside what it replaces and takes effect with the header:

    header, 68 bytes, at 0 and 68                    node, 66 bytes, two of each
    0x00  16  iv                                     0x00  32  hash   SHA-256
    0x10  16  tag                                    0x20  16  iv
    0x20  16  enc_fek  AES-256-ECB(TSK, FEK)         0x30  16  tag
    0x30  16  imeta    encrypted: u64 length,        0x40  2   flags  bit 0: which block counts,
                       u32 max_node_id, u32 zero                      bits 1, 2: which left and
    0x40  4   counter  the larger one counts;                         right child counts
                       even: header 0, odd: header 1

A node's hash covers iv, tag, flags, for the root the length, and the hashes of its children. AAD of
a block: enc_fek || iv; of the header: root hash (first 16 bytes) || counter || enc_fek || iv.
Integers are little-endian. Node n has the children 2n and 2n + 1 and speaks for block n - 1.

The format does not stop someone from putting an old file back. Give ``min_counter`` or
``root_hash`` from a memory that he cannot reach.
"""

import hashlib
import hmac
import os
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from broch.errors import DecodeError, PolicyError, UntrustedError, UsageError

BLOCK: Final = 4096  # bytes
MAX_CONTENT: Final = 4 * 1024 * 1024  # bytes
_KEY: Final = 16  # bytes: FEK, iv, tag
_HEAD: Final = struct.Struct("<16s16s16s16sI")
_NODE: Final = struct.Struct("<32s16s16sH")
_IMETA: Final = struct.Struct("<QII")
_NODES_A_BLOCK: Final = BLOCK // (2 * _NODE.size)  # 31
_BLOCK_FLAG: Final = 1
_WHAT: Final = "secure object"

Random = Callable[[int], bytes]


@dataclass(slots=True)
class _Node:
    hash: bytes = bytes(32)
    iv: bytes = bytes(_KEY)
    tag: bytes = bytes(_KEY)
    flags: int = 0

    def digest(self, length: int | None, children: list[bytes]) -> bytes:
        own = _NODE.pack(b"", self.iv, self.tag, self.flags)[32:]
        meta = b"" if length is None else struct.pack("<Q", length)
        return hashlib.sha256(own + meta + b"".join(children)).digest()


class SecureObject:
    """One secure object: made by :meth:`create` or :meth:`open`, kept as :attr:`data`."""

    def __init__(self, tsk: bytes, random: Random) -> None:
        self.data = bytearray()
        self.counter = 0
        self._random = random
        self._tsk = tsk
        self._fek = b""
        self._enc_fek = b""
        self._length = 0
        self._nodes: list[_Node] = [_Node()]  # node n is at n - 1

    @classmethod
    def create(cls, tsk: bytes, content: bytes, *, random: Random = os.urandom) -> "SecureObject":
        """Make an object for the TA whose storage key (32 bytes) is given."""
        made = cls(tsk, random)
        made._fek = random(_KEY)
        made._enc_fek = _ecb(tsk).encryptor().update(made._fek)
        made._sync()
        made._store(0, _HEAD.pack(b"", b"", b"", b"", 0))  # header 1 counts from here on
        made.write(content)
        return made

    @classmethod
    def open(
        cls,
        tsk: bytes,
        data: bytes,
        *,
        min_counter: int = 0,
        root_hash: bytes | None = None,
        random: Random = os.urandom,
    ) -> "SecureObject":
        """Open what :meth:`create` made, and check all of the tree.

        Raises:
            DecodeError: the data cannot be such a file.
            UntrustedError: altered, another TA's, or another device's.
            PolicyError: genuine, but older than ``min_counter`` or not of ``root_hash``.
        """
        opened = cls(tsk, random)
        opened.data = bytearray(data)
        opened._open_head(_choose_head(data))
        opened._open_tree()
        if opened.counter < min_counter:
            raise PolicyError(f"secure object of update {opened.counter}, expected {min_counter}")
        if root_hash is not None and not hmac.compare_digest(root_hash, opened.root_hash):
            raise PolicyError("the secure object is not the one that was last written")
        return opened

    @property
    def root_hash(self) -> bytes:
        """SHA-256 that stands for the whole object (32 bytes)."""
        return self._nodes[0].hash

    def read(self) -> bytes:
        """The content.

        Raises:
            UntrustedError: a block was altered.
        """
        blocks = [self._read_block(index) for index in range(-(-self._length // BLOCK))]
        return b"".join(blocks)[: self._length]

    def write(self, content: bytes) -> None:
        """Replace the content. What was committed before stays beside it, as in OP-TEE."""
        if len(content) > MAX_CONTENT:
            raise UsageError(f"secure object of {len(content)} bytes; at most {MAX_CONTENT}")
        blocks = -(-len(content) // BLOCK)
        self._length = len(content)
        del self._nodes[max(blocks, 1) :]
        self._nodes += [_Node() for _ in range(blocks - len(self._nodes))]
        for index in range(blocks):
            self._write_block(index, content[index * BLOCK : (index + 1) * BLOCK])
        self._sync()

    def _write_block(self, index: int, block: bytes) -> None:
        node = self._nodes[index]
        node.flags ^= _BLOCK_FLAG
        node.iv = self._random(_KEY)
        aad = self._enc_fek + node.iv
        sealed = AESGCM(self._fek).encrypt(node.iv, block.ljust(BLOCK, b"\0"), aad)
        node.tag = sealed[BLOCK:]
        self._store(_block_at(index, node.flags & _BLOCK_FLAG), sealed[:BLOCK])

    def _read_block(self, index: int) -> bytes:
        node = self._nodes[index]
        block = self._fetch(_block_at(index, node.flags & _BLOCK_FLAG), BLOCK)
        return self._decrypt(node.iv, block + node.tag, self._enc_fek + node.iv)

    def _sync(self) -> None:
        """Hash the tree from the leaves up, write nodes, then the header that commits them."""
        for number in range(len(self._nodes), 0, -1):
            node = self._nodes[number - 1]
            if number == 1:
                version = ~self.counter & 1
            else:
                parent, flag = self._nodes[(number >> 1) - 1], 2 << (number & 1)
                parent.flags ^= flag
                version = 1 if parent.flags & flag else 0
            node.hash = self._hash_of(number)
            self._store(
                _node_at(number, version), _NODE.pack(node.hash, node.iv, node.tag, node.flags)
            )
        self.counter += 1
        iv = self._random(_KEY)
        imeta = _IMETA.pack(self._length, len(self._nodes) if len(self._nodes) > 1 else 0, 0)
        sealed = AESGCM(self._fek).encrypt(iv, imeta, self._head_aad(iv))
        head = _HEAD.pack(iv, sealed[_KEY:], self._enc_fek, sealed[:_KEY], self.counter)
        self._store(_HEAD.size * (self.counter & 1), head)

    def _open_head(self, version: int) -> None:
        head = self._fetch(_HEAD.size * version, _HEAD.size)
        iv, tag, self._enc_fek, imeta, self.counter = _HEAD.unpack(head)
        self._fek = _ecb(self._tsk).decryptor().update(self._enc_fek)
        self._nodes = [self._fetch_node(1, version)]
        plain = self._decrypt(iv, imeta + tag, self._head_aad(iv))
        self._length, max_node, zero = _IMETA.unpack(plain)
        blocks = -(-self._length // BLOCK)
        # A cut file may keep one node more than it has blocks.
        if zero or self._length > MAX_CONTENT or not blocks <= max(max_node, 1) <= blocks + 1:
            raise DecodeError(_HEAD.size * version, "length and tree do not fit", what=_WHAT)
        for number in range(2, max_node + 1):
            parent = self._nodes[(number >> 1) - 1]
            committed = 1 if parent.flags & 2 << (number & 1) else 0
            self._nodes.append(self._fetch_node(number, committed))

    def _open_tree(self) -> None:
        for number in range(len(self._nodes), 0, -1):
            if not hmac.compare_digest(self._hash_of(number), self._nodes[number - 1].hash):
                raise UntrustedError(f"secure object: node {number} was altered")

    def _hash_of(self, number: int) -> bytes:
        children = self._nodes[2 * number - 1 : 2 * number + 1]
        length = self._length if number == 1 else None
        return self._nodes[number - 1].digest(length, [child.hash for child in children])

    def _head_aad(self, iv: bytes) -> bytes:
        # Only half of the root hash: CFG_REE_FS_HTREE_HASH_SIZE_COMPAT, on by default.
        return self._nodes[0].hash[:_KEY] + struct.pack("<I", self.counter) + self._enc_fek + iv

    def _decrypt(self, iv: bytes, sealed: bytes, aad: bytes) -> bytes:
        try:
            return AESGCM(self._fek).decrypt(iv, sealed, aad)
        except InvalidTag:
            raise UntrustedError(
                "secure object: altered, or sealed for another TA or device"
            ) from None

    def _fetch_node(self, number: int, version: int) -> _Node:
        at = _node_at(number, version)
        node = _Node(*_NODE.unpack(self._fetch(at, _NODE.size)))
        if node.flags & ~7:
            raise DecodeError(at + 64, f"reserved flags set: 0x{node.flags:04x}", what=_WHAT)
        return node

    def _fetch(self, at: int, size: int) -> bytes:
        if len(self.data) < at + size:
            raise DecodeError(len(self.data), f"the file ends before {at + size}", what=_WHAT)
        return bytes(self.data[at : at + size])

    def _store(self, at: int, value: bytes) -> None:
        self.data.extend(bytes(max(0, at + len(value) - len(self.data))))
        self.data[at : at + len(value)] = value


def _choose_head(data: bytes) -> int:
    """Which header counts: as ``get_idx_from_counter``, each counter must suit its place."""
    if len(data) < 2 * _HEAD.size:
        raise DecodeError(len(data), "the file ends before its second header", what=_WHAT)
    even: int = _HEAD.unpack_from(data, 0)[4]
    odd: int = _HEAD.unpack_from(data, _HEAD.size)[4]
    fits = [counter for place, counter in enumerate((even, odd)) if counter & 1 == place]
    if not fits:
        raise DecodeError(0x40, f"counters {even} and {odd} do not suit", what=_WHAT)
    return max(fits) & 1


def _node_at(number: int, version: int) -> int:
    """Where a node is, as upstream computes it (its comment is one page off)."""
    index = number - 1
    page = 1 + index // _NODES_A_BLOCK * _NODES_A_BLOCK * 2
    return page * BLOCK + (2 * (index % _NODES_A_BLOCK) + version) * _NODE.size


def _block_at(index: int, version: int) -> int:
    place = 2 * index + version
    return (2 + place + place // (_NODES_A_BLOCK * 2 - 1)) * BLOCK


def _ecb(key: bytes) -> "Cipher[modes.ECB]":
    # One block of random bytes, as OP-TEE does it: ECB hides it as well as any mode would.
    return Cipher(algorithms.AES(key), modes.ECB())  # noqa: S305
