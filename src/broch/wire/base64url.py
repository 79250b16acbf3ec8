"""Base64 in the alphabet of URLs, without padding, in its one encoding (RFC 4648, section 5).

>>> decode(encode(b"broch"), what="key")
b'broch'
"""

import base64
import re
from typing import Final

from broch.errors import DecodeError

_TEXT: Final = re.compile(r"[A-Za-z0-9_-]*", re.ASCII)


def encode(data: bytes) -> str:
    """The text for ``data``."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def decode(text: str, *, what: str) -> bytes:
    """The bytes for ``text``.

    Raises:
        DecodeError: padding, other characters, or bits after the end; ``what`` names the input.
    """
    if not _TEXT.fullmatch(text) or len(text) % 4 == 1:
        raise DecodeError(0, "not base64url without padding", what=what)
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if encode(data) != text:
        raise DecodeError(0, "base64url with bits after its end", what=what)
    return data
