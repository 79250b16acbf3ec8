"""Reading the TPM's structures: big-endian integers, and byte strings with a size in front."""

from typing import Final

from broch.errors import DecodeError

MAX_SIZE: Final = 4096  # bytes of one structure
SHA256: Final = 0x000B
SHA384: Final = 0x000C
SHA512: Final = 0x000D
# TPM_ALG_ID -> hashlib name. SHA-1 banks are read; no signature or name uses SHA-1.
BANKS: Final = {0x0004: "sha1", SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
HASHES: Final = {SHA256: "sha256", SHA384: "sha384", SHA512: "sha512"}
DIGEST_SIZES: Final = {0x0004: 20, SHA256: 32, SHA384: 48, SHA512: 64}


class Reader:
    """A cursor over one structure that must be read to its end."""

    def __init__(self, data: bytes, what: str) -> None:
        if len(data) > MAX_SIZE:
            raise DecodeError(MAX_SIZE, f"longer than {MAX_SIZE} bytes", what=what)
        self.data = data
        self.what = what
        self.offset = 0

    def fail(self, problem: str) -> DecodeError:
        """An error at this place."""
        return DecodeError(self.offset, problem, what=self.what)

    def take(self, size: int) -> bytes:
        """That many bytes.

        Raises:
            DecodeError: there are fewer.
        """
        end = self.offset + size
        if end > len(self.data):
            raise self.fail(f"{size} bytes expected, {len(self.data) - self.offset} left")
        taken = self.data[self.offset : end]
        self.offset = end
        return taken

    def number(self, size: int) -> int:
        """An unsigned integer of that many bytes.

        Raises:
            DecodeError: the input ends.
        """
        return int.from_bytes(self.take(size), "big")

    def sized(self, limit: int) -> bytes:
        """A TPM2B: size (2 bytes), then at most ``limit`` bytes.

        Raises:
            DecodeError: the input ends, or the size is beyond the limit.
        """
        size = self.number(2)
        if size > limit:
            raise self.fail(f"{size} bytes, at most {limit} expected")
        return self.take(size)

    def end(self) -> None:
        """Nothing is left.

        Raises:
            DecodeError: something is.
        """
        if self.offset != len(self.data):
            raise self.fail("bytes after the end")


def sized(data: bytes) -> bytes:
    """A TPM2B of ``data``."""
    return len(data).to_bytes(2, "big") + data
